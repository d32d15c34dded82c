//! The roles that a plain dump gives things to. It makes none of them, and psql ends at the first that is not there.
//!
//! The statements are read as PostgreSQL reads them, as far as that needs: strings, quoted names, bodies between dollars,
//! comments and rows of `COPY` say nothing.

use std::collections::BTreeSet;
use std::io::BufRead;
use std::path::Path;

use super::files;
use super::lab::LONG;
use crate::driver::DriverError;

/// How statements begin that may name a role, and those that hand rows over.
const WANTED: [&str; 6] = ["alter", "copy", "create", "grant", "revoke", "set"];

/// What stands for a role and is none that could be made.
const NO_ROLES: [&str; 6] = ["public", "current_user", "current_role", "session_user", "default", "none"];

/// How names begin that PostgreSQL keeps for itself.
const RESERVED: &str = "pg_";

/// The roles that a plain dump gives things to.
pub(super) async fn roles(path: &Path) -> Result<Vec<String>, DriverError> {
    let path = path.to_owned();
    files::blocking(LONG, "reading the roles of a plain dump", move || {
        let mut file = std::io::BufReader::new(std::fs::File::open(path)?);
        let (mut reader, mut line) = (Reader::default(), Vec::new());
        while file.read_until(b'\n', &mut line)? > 0 {
            reader.read(&String::from_utf8_lossy(&line));
            line.clear();
        }
        Ok(reader.roles.into_iter().collect())
    })
    .await
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    /// Without quotes, in small letters.
    Word(String),
    /// A quoted name.
    Name(String),
    /// A string.
    Text(String),
    Sign(char),
}

impl Token {
    fn is(&self, word: &str) -> bool {
        matches!(self, Self::Word(found) if found == word)
    }
}

/// What the end of a line is within.
#[derive(Debug, Default)]
enum Within {
    #[default]
    Nothing,
    Name,
    Text {
        /// A backslash takes the letter behind it.
        escapes: bool,
    },
    /// With what ends it.
    Dollars(String),
    Comment,
    /// Rows of a `COPY`.
    Rows,
}

#[derive(Debug, Default)]
struct Reader {
    roles: BTreeSet<String>,
    within: Within,
    /// The beginning of a name or a string.
    half: String,
    /// Of the statement, if it is wanted.
    statement: Vec<Token>,
    /// The statement has begun, and is not wanted.
    passed: bool,
}

impl Reader {
    fn read(&mut self, line: &str) {
        let command = line.starts_with('\\') && self.statement.is_empty() && !self.passed;
        match &self.within {
            Within::Rows => {
                if line.trim_end() == "\\." {
                    self.within = Within::Nothing;
                }
                return;
            }
            // One of psql's own.
            Within::Nothing if command => return,
            Within::Nothing | Within::Name | Within::Text { .. } | Within::Dollars(_) | Within::Comment => {}
        }
        let mut rest = line;
        while !rest.is_empty() {
            rest = self.step(rest);
        }
    }

    /// Reads something off, and gives what is left.
    fn step<'line>(&mut self, rest: &'line str) -> &'line str {
        match std::mem::take(&mut self.within) {
            Within::Nothing => self.plain(rest),
            Within::Name => self.name(rest),
            Within::Text { escapes } => self.text(rest, escapes),
            Within::Dollars(end) => match rest.split_once(end.as_str()) {
                Some((_, after)) => after,
                None => self.go_on(Within::Dollars(end)),
            },
            Within::Comment => match rest.split_once("*/") {
                Some((_, after)) => after,
                None => self.go_on(Within::Comment),
            },
            // They begin with a line of their own.
            Within::Rows => self.go_on(Within::Rows),
        }
    }

    /// The line ends within it.
    fn go_on(&mut self, within: Within) -> &'static str {
        self.within = within;
        ""
    }

    fn plain<'line>(&mut self, rest: &'line str) -> &'line str {
        let mut letters = rest.chars();
        let Some(letter) = letters.next() else { return "" };
        let after = letters.as_str();
        match letter {
            '"' => self.within = Within::Name,
            '\'' => self.within = Within::Text { escapes: false },
            ';' => self.end(),
            '-' if after.starts_with('-') => return "",
            '/' if after.starts_with('*') => self.within = Within::Comment,
            '$' => {
                if let Some((tag, body)) = after.split_once('$')
                    && tag.chars().all(is_of_word)
                    && !tag.starts_with(|letter: char| letter.is_ascii_digit())
                {
                    self.within = Within::Dollars(format!("${tag}$"));
                    return body;
                }
                self.take(Token::Sign(letter));
            }
            _ if letter.is_whitespace() => {}
            _ if is_of_word(letter) => {
                let end = rest.find(|letter: char| !is_of_word(letter) && letter != '$').unwrap_or(rest.len());
                let (word, after) = rest.split_at(end);
                if let (true, Some(text)) = (word.eq_ignore_ascii_case("e"), after.strip_prefix('\'')) {
                    self.within = Within::Text { escapes: true };
                    return text;
                }
                self.take(Token::Word(word.to_lowercase()));
                return after;
            }
            _ => self.take(Token::Sign(letter)),
        }
        after
    }

    fn name<'line>(&mut self, rest: &'line str) -> &'line str {
        let Some((part, after)) = rest.split_once('"') else {
            self.half.push_str(rest);
            return self.go_on(Within::Name);
        };
        self.half.push_str(part);
        if let Some(more) = after.strip_prefix('"') {
            self.half.push('"');
            self.within = Within::Name;
            return more;
        }
        let name = std::mem::take(&mut self.half);
        self.take(Token::Name(name));
        after
    }

    fn text<'line>(&mut self, rest: &'line str, escapes: bool) -> &'line str {
        let end = rest.find(|letter: char| letter == '\'' || (escapes && letter == '\\'));
        let Some((part, after)) = end.and_then(|end| rest.split_at_checked(end)) else {
            self.keep(rest);
            return self.go_on(Within::Text { escapes });
        };
        self.keep(part);
        if let Some(escaped) = after.strip_prefix('\\') {
            let mut letters = escaped.chars();
            letters.next();
            self.within = Within::Text { escapes };
            return letters.as_str();
        }
        let after = after.strip_prefix('\'').unwrap_or_default();
        if let Some(more) = after.strip_prefix('\'') {
            self.keep("'");
            self.within = Within::Text { escapes };
            return more;
        }
        let text = std::mem::take(&mut self.half);
        self.take(Token::Text(text));
        after
    }

    /// Strings of statements that are not wanted may be as large as any value.
    fn keep(&mut self, text: &str) {
        if !self.passed {
            self.half.push_str(text);
        }
    }

    fn take(&mut self, token: Token) {
        if self.statement.is_empty() {
            self.passed |= !WANTED.iter().any(|word| token.is(word));
        }
        if !self.passed {
            self.statement.push(token);
        }
    }

    fn end(&mut self) {
        self.passed = false;
        let statement = std::mem::take(&mut self.statement);
        if statement.first().is_some_and(|first| first.is("copy")) {
            if behind(&statement, &["from", "stdin"]).is_some() {
                self.within = Within::Rows;
            }
            return;
        }
        self.roles.extend(named(&statement));
    }
}

fn is_of_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

/// What stands behind the first place of these words.
fn behind<'tokens>(tokens: &'tokens [Token], words: &[&str]) -> Option<&'tokens [Token]> {
    let stands = |part: &[Token]| part.iter().zip(words).all(|(token, word)| token.is(word));
    let at = tokens.windows(words.len()).position(stands)?;
    tokens.get(at + words.len()..)
}

/// The roles that a statement names.
fn named(statement: &[Token]) -> Vec<String> {
    let Some(first) = statement.first() else { return Vec::new() };
    let starts = |words: &[&str]| statement.iter().zip(words).all(|(token, word)| token.is(word));
    // Behind that, a policy has expressions.
    let end = statement.iter().position(|token| token.is("using") || token.is("with"));
    let statement = match end.filter(|_| starts(&["create", "policy"])) {
        Some(end) => statement.get(..end).unwrap_or(statement),
        None => statement,
    };
    // Reserved words, so that nothing else is called so without quotes.
    let places: &[&[&str]] = match first {
        Token::Word(word) => match word.as_str() {
            "alter" if starts(&["alter", "default", "privileges"]) => {
                &[&["for", "role"], &["for", "user"], &["to"], &["from"]]
            }
            "alter" => &[&["owner", "to"]],
            "grant" => &[&["to"], &["granted", "by"]],
            "revoke" => &[&["from"], &["granted", "by"]],
            "create" if starts(&["create", "policy"]) => &[&["to"]],
            "create" if starts(&["create", "schema"]) => &[&["authorization"]],
            "create" if starts(&["create", "user", "mapping"]) => &[&["for"]],
            "set" if starts(&["set", "session", "authorization"]) => &[&["authorization"]],
            _ => &[],
        },
        Token::Name(_) | Token::Text(_) | Token::Sign(_) => &[],
    };
    places.iter().filter_map(|words| behind(statement, words)).flat_map(list).collect()
}

/// Names with commas between them.
fn list(tokens: &[Token]) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = tokens;
    loop {
        if let [Token::Word(group), more @ ..] = rest
            && group == "group"
        {
            rest = more;
        }
        let Some((token, after)) = rest.split_first() else { break };
        match token {
            Token::Word(name) if NO_ROLES.contains(&name.as_str()) => {}
            Token::Word(name) | Token::Name(name) | Token::Text(name) => found.push(name.clone()),
            Token::Sign(_) => break,
        }
        match after {
            [Token::Sign(','), more @ ..] => rest = more,
            _ => break,
        }
    }
    found.retain(|name| !name.starts_with(RESERVED));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(dump: &str) -> Vec<String> {
        let mut reader = Reader::default();
        dump.split_inclusive('\n').for_each(|line| reader.read(line));
        reader.roles.into_iter().collect()
    }

    #[test]
    fn every_statement_that_names_a_role_is_read() {
        let cases: &[(&str, &[&str])] = &[
            ("ALTER TABLE public.rows OWNER TO app;", &["app"]),
            ("ALTER FUNCTION public.f(a integer, \"to\" text) OWNER TO \"Odd \"\"name\";", &["Odd \"name"]),
            ("GRANT SELECT ON TABLE public.rows TO reader WITH GRANT OPTION;", &["reader"]),
            ("GRANT ALL ON SCHEMA public TO PUBLIC;", &[]),
            ("GRANT SELECT(n),UPDATE(n) ON TABLE public.rows TO one, \"the other\";", &["one", "the other"]),
            ("GRANT SELECT ON TABLE public.rows TO a GRANTED BY b;", &["a", "b"]),
            ("GRANT SELECT ON TABLE public.rows TO GROUP a;", &["a"]),
            ("GRANT SELECT ON TABLE public.rows TO pg_monitor;", &[]),
            ("REVOKE ALL ON TABLE public.rows FROM miser;", &["miser"]),
            ("REVOKE GRANT OPTION FOR SELECT ON TABLE public.\"from\" FROM x CASCADE;", &["x"]),
            ("CREATE POLICY seen ON public.rows FOR SELECT TO watcher, \"a b\" USING (true);", &["a b", "watcher"]),
            ("CREATE POLICY seen ON public.rows AS RESTRICTIVE\n    USING ((said = 'TO nobody'::text));", &[]),
            (
                "ALTER DEFAULT PRIVILEGES FOR ROLE maker IN SCHEMA public GRANT SELECT ON TABLES  TO heir;",
                &["heir", "maker"],
            ),
            ("ALTER DEFAULT PRIVILEGES FOR ROLE maker REVOKE ALL ON TABLES  FROM maker;", &["maker"]),
            ("CREATE POLICY seen ON public.rows USING ((a > (b)::interval year to month));", &[]),
            ("CREATE SCHEMA s AUTHORIZATION keeper;", &["keeper"]),
            ("CREATE USER MAPPING FOR far SERVER s OPTIONS (\n    \"user\" 'x'\n);", &["far"]),
            ("SET SESSION AUTHORIZATION 'sess';", &["sess"]),
            ("SET SESSION AUTHORIZATION DEFAULT;", &[]),
            ("SET check_function_bodies = false;", &[]),
            ("CREATE TABLE public.\"to\" (owner integer DEFAULT 1);", &[]),
        ];
        for (statement, roles) in cases {
            assert_eq!(read(&format!("{statement}\n")), *roles, "{statement}");
        }
    }

    #[test]
    fn what_only_looks_like_a_statement_is_none() {
        let dump = "\\restrict abc\n-- GRANT ALL ON x TO comment;\n/* GRANT ALL ON x TO comment;\n */\n\
                    CREATE FUNCTION public.f() RETURNS void LANGUAGE plpgsql AS $_$\nBEGIN\nGRANT ALL ON x TO body;\n\
                    PERFORM '$$';\nEND $_$;\n\
                    COPY public.rows (n, said) FROM stdin;\n1\tit's\nGRANT ALL ON x TO row;\n2\t\"\n\\.\n\n\
                    INSERT INTO public.rows VALUES (1, 'a;\nGRANT ALL ON x TO text;\n');\n\
                    COMMENT ON TABLE public.rows IS E'it\\'s\nGRANT ALL ON x TO escaped;\n';\n\
                    CREATE VIEW public.v AS SELECT $1::text AS \"x;\nGRANT ALL ON x TO quoted;\n\";\n\
                    GRANT ALL ON TABLE public.rows TO real;\n\\unrestrict abc\n";
        assert_eq!(read(dump), ["real"]);
    }
}
