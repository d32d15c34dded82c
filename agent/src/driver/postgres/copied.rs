//! How many rows a dump hands over, table by table, counted while its text goes by; nothing of it is kept.
//!
//! ```text
//!  COPY shop.orders (id, at) FROM stdin;      a table begins
//!  1  2026-01-01                              a row: a line break within a value is written as \n
//!  \.                                         the table ends
//! ```
//!
//! What a dump writes by `INSERT` is not counted.

use std::collections::BTreeMap;

/// Schema and name, as the catalogue has them.
pub(super) type Name = (String, String);

/// Looked at of a line; no statement that copies is longer.
const LINE_LIMIT: usize = 256 * 1024;

/// What ends the rows of a table.
const END: &[u8] = b"\\.";

/// Counts.
#[derive(Debug, Default)]
pub(super) struct Counter {
    line: Vec<u8>,
    cut: bool,
    at: At,
    counts: BTreeMap<Name, u64>,
    unnamed: usize,
}

/// Where the text is.
#[derive(Debug, Default)]
enum At {
    #[default]
    Statements,
    /// In the rows of a table; none: one that the statement does not name with its schema.
    Rows(Option<Name>),
}

/// What a dump hands over.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Copied {
    /// Rows by table.
    pub(super) counts: BTreeMap<Name, u64>,
    /// Tables that it does not name with their schema.
    pub(super) unnamed: usize,
}

impl Counter {
    /// The next part of the text, wherever it was cut.
    pub(super) fn take_in(&mut self, text: &[u8]) {
        for part in text.split_inclusive(|byte| *byte == b'\n') {
            let (part, ends) = part.strip_suffix(b"\n").map_or((part, false), |whole| (whole, true));
            let kept = part.len().min(LINE_LIMIT.saturating_sub(self.line.len()));
            self.line.extend_from_slice(&part[..kept]);
            self.cut |= kept < part.len();
            if ends {
                self.end_line();
            }
        }
    }

    /// What was counted.
    pub(super) fn copied(self) -> Copied {
        Copied { counts: self.counts, unnamed: self.unnamed }
    }

    fn end_line(&mut self) {
        let line = self.line.strip_suffix(b"\r").unwrap_or(&self.line);
        match &self.at {
            At::Rows(_) if line == END && !self.cut => self.at = At::Statements,
            At::Rows(Some(name)) => {
                if let Some(count) = self.counts.get_mut(name) {
                    *count += 1;
                }
            }
            At::Rows(None) => {}
            At::Statements => {
                if let Some(table) = std::str::from_utf8(line).ok().filter(|_| !self.cut).and_then(copies) {
                    let name = identified(table);
                    if let Some(name) = &name {
                        self.counts.entry(name.clone()).or_insert(0);
                    } else {
                        self.unnamed += 1;
                    }
                    self.at = At::Rows(name);
                }
            }
        }
        self.line.clear();
        self.cut = false;
    }
}

/// Into what a statement copies rows that follow, columns and all; none if it is another statement.
fn copies(line: &str) -> Option<&str> {
    line.strip_prefix("COPY ")?.strip_suffix(" FROM stdin;")
}

/// The name, if it is said with the schema.
fn identified(table: &str) -> Option<Name> {
    let (schema, rest) = identifier(table)?;
    let (table, _) = identifier(rest.strip_prefix('.')?)?;
    Some((schema, table))
}

/// An identifier at the beginning, without its quotes, and what follows.
fn identifier(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let is_part = |letter: char| letter.is_alphanumeric() || matches!(letter, '_' | '$');
        let end = text.find(|letter| !is_part(letter)).unwrap_or(text.len());
        let (name, rest) = text.split_at(end);
        return (!name.is_empty()).then(|| (name.to_owned(), rest));
    };
    let mut name = String::new();
    let mut rest = quoted;
    loop {
        let (part, after) = rest.split_once('"')?;
        name.push_str(part);
        match after.strip_prefix('"') {
            Some(more) => {
                name.push('"');
                rest = more;
            }
            None => return Some((name, after)),
        }
    }
}

/// The comparison of what a dump hands over with what is there.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Comparison {
    /// Tables whose rows are as many.
    pub(super) equal: usize,
    /// Their rows.
    pub(super) rows: u64,
    /// Tables that could not be compared.
    pub(super) left_out: usize,
    /// One sentence for each table that differs.
    pub(super) differ: Vec<String>,
}

/// `found` has every table that is there; those without a number were not counted, or have rows of other origin, too.
pub(super) fn compare(copied: &Copied, found: &BTreeMap<Name, Option<u64>>) -> Comparison {
    let mut comparison = Comparison { left_out: copied.unnamed, ..Comparison::default() };
    for (name, dumped) in &copied.counts {
        let (schema, table) = name;
        // What belongs to the server itself is not looked for.
        let own = schema.starts_with("pg_") || schema == "information_schema";
        match found.get(name) {
            Some(Some(rows)) if rows == dumped => {
                comparison.equal += 1;
                comparison.rows += rows;
            }
            Some(Some(rows)) => {
                comparison.differ.push(format!("{schema}.{table} has {rows} rows, the dump has {dumped}"));
            }
            None if !own => {
                comparison.differ.push(format!("{schema}.{table} is not there, the dump has {dumped} rows"))
            }
            Some(None) | None => comparison.left_out += 1,
        }
    }
    comparison
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUMP: &str = "--\n-- PostgreSQL database dump\n--\nCREATE TABLE public.rows (n bigint);\n\
        COPY public.rows (n, said) FROM stdin;\n1\tCOPY public.other (n) FROM stdin;\n2\t\\\\.\n3\t\\N\n\\.\n\n\
        COPY \"My \"\"own\"\".schema\".\"T\" (\"FROM stdin;\") FROM stdin;\n\\.\n\
        COPY public.none  FROM stdin;\n\n\\.\n\
        COPY unnamed (n) FROM stdin;\n1\n\\.\nINSERT INTO public.by_insert VALUES (1);\n";

    fn name(schema: &str, table: &str) -> Name {
        (schema.to_owned(), table.to_owned())
    }

    fn counted(text: &[u8], size: usize) -> Copied {
        let mut counter = Counter::default();
        text.chunks(size).for_each(|part| counter.take_in(part));
        counter.copied()
    }

    #[test]
    fn rows_are_counted_however_the_text_is_cut() {
        let counts = BTreeMap::from([
            (name("My \"own\".schema", "T"), 0),
            (name("public", "none"), 1),
            (name("public", "rows"), 3),
        ]);
        let wanted = Copied { counts, unnamed: 1 };
        for size in [1, 2, 3, 7, 64, DUMP.len()] {
            assert_eq!(counted(DUMP.as_bytes(), size), wanted, "in parts of {size}");
        }
        let windows = DUMP.replace('\n', "\r\n");
        assert_eq!(counted(windows.as_bytes(), 50), wanted);
    }

    #[test]
    fn a_long_row_is_one_row_and_a_long_line_no_statement() {
        let long = "x".repeat(LINE_LIMIT * 2);
        let text = format!("COPY public.rows (n) FROM stdin;\n{long}\n\\.\nCOPY {long} FROM stdin;\n1\n");
        let counted = counted(text.as_bytes(), 4096);
        assert_eq!(counted, Copied { counts: BTreeMap::from([(name("public", "rows"), 1)]), unnamed: 0 });
    }

    #[test]
    fn what_differs_is_named_and_what_cannot_be_compared_is_counted() {
        let counts = [("rows", 3), ("parent", 5), ("lost", 2), ("same", 4)];
        let mut counts: BTreeMap<Name, u64> =
            counts.into_iter().map(|(table, rows)| (name("public", table), rows)).collect();
        counts.insert(name("pg_catalog", "pg_thing"), 1);
        let found = [("rows", Some(2)), ("parent", None), ("same", Some(4)), ("by_insert", Some(9))];
        let found = found.into_iter().map(|(table, rows)| (name("public", table), rows)).collect();
        let comparison = compare(&Copied { counts, unnamed: 1 }, &found);
        assert_eq!((comparison.equal, comparison.rows, comparison.left_out), (1, 4, 3));
        assert_eq!(
            comparison.differ,
            ["public.lost is not there, the dump has 2 rows", "public.rows has 2 rows, the dump has 3"]
        );
    }
}
