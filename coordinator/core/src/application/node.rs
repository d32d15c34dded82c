//! YAML text as a tree of nodes with their marks.
//!
//! Only what a document needs: one document, no aliases, no tags. What goes beyond is kept as a node of its own kind,
//! so that its mistake gets a path. Size and depth are bounded before anything is built: the text comes from clients.

use granit_parser::{ErrorKind, Event, Marker, Options, Parser, ScalarStyle, ScanError};

use super::mistake::{Mark, Mistakes, Place};

/// Largest accepted document, in bytes.
pub const DOCUMENT_LIMIT: usize = 256 * 1024;
/// Deepest accepted nesting; a valid document needs eight.
const DEPTH_LIMIT: usize = 32;

/// A value with the place where it begins. For a value in block style or an empty one that is the place of its key.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) mark: Mark,
    pub(super) kind: Kind,
}

/// What a node is.
#[derive(Debug)]
pub(super) enum Kind {
    /// Nothing, or `null`.
    Null,
    /// Text: quoted, or plain and neither a number nor a truth value.
    Text(String),
    /// A plain whole number, as written.
    Integer(String),
    /// A plain number of another form, as written.
    Number(String),
    /// A plain `true` or `false`, as written.
    Truth(String),
    /// A list.
    Sequence(Vec<Node>),
    /// A mapping; keys in order, repeated ones too.
    Mapping(Vec<Entry>),
    /// `*name`.
    Alias,
    /// A value with an explicit tag.
    Tagged,
}

/// A key and its value.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) mark: Mark,
    pub(super) value: Node,
}

/// Reads a text that must hold one document. A text that is no YAML is one mistake.
pub(super) fn read(text: &str, mistakes: &mut Mistakes) -> Option<Node> {
    if text.len() > DOCUMENT_LIMIT {
        let message = format!("the document has {} bytes; at most {DOCUMENT_LIMIT} are accepted", text.len());
        mistakes.add(&Place::root(), message);
        return None;
    }
    match document(text) {
        Ok(node) => Some(node),
        Err((mark, message)) => {
            mistakes.add(&Place::whole(mark), message);
            None
        }
    }
}

type Failure = (Mark, String);

fn document(text: &str) -> Result<Node, Failure> {
    let mut options = granit_parser::options! {
        flow_nesting_limit: DEPTH_LIMIT,
        block_nesting_limit: DEPTH_LIMIT,
        emit_unresolved_aliases: true,
    };
    Options::set_emit_comments(&mut options, false);
    let mut builder = Builder { open: Vec::new(), root: None, documents: 0 };
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, span) = event.map_err(|error| failure(&error))?;
        builder.take(event, mark(span.start))?;
    }
    builder.root.ok_or_else(|| (Mark::START, "the document is empty; it begins with apiVersion: regent/v1".to_owned()))
}

fn failure(error: &ScanError) -> Failure {
    let message = match error.kind() {
        ErrorKind::RecursionLimitExceeded => too_deep(),
        _ => format!("this is not YAML: {}", error.info()),
    };
    (mark(*error.marker()), message)
}

fn too_deep() -> String {
    format!("nested deeper than {DEPTH_LIMIT} levels")
}

fn mark(marker: Marker) -> Mark {
    let number = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    Mark { line: number(marker.line()).max(1), column: number(marker.col()).saturating_add(1) }
}

/// A list or mapping whose end has not come yet.
struct Open {
    node: Node,
    /// Of a mapping: the key whose value comes next.
    key: Option<(String, Mark)>,
}

struct Builder {
    open: Vec<Open>,
    root: Option<Node>,
    documents: usize,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, mark: Mark) -> Result<(), Failure> {
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err((mark, "a second document begins here; apply each application on its own".to_owned()));
                }
                Ok(())
            }
            Event::Scalar(text, style, _, tag) => {
                let kind = if tag.is_some() { Kind::Tagged } else { scalar(text.into_owned(), style) };
                self.put(Node { mark, kind })
            }
            Event::Alias(_) | Event::UnresolvedAlias(_) => self.put(Node { mark, kind: Kind::Alias }),
            Event::SequenceStart(_, _, tag) => self.push(mark, Kind::Sequence(Vec::new()), tag.is_some()),
            Event::MappingStart(_, _, tag) => self.push(mark, Kind::Mapping(Vec::new()), tag.is_some()),
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(open) => self.put(open.node),
                None => Ok(()),
            },
            // Stream and document ends and comments hold nothing.
            _ => Ok(()),
        }
    }

    fn push(&mut self, mark: Mark, kind: Kind, tagged: bool) -> Result<(), Failure> {
        if self.open.len() >= DEPTH_LIMIT {
            return Err((mark, too_deep()));
        }
        if tagged {
            return Err((mark, "tags are not accepted; write the value without one".to_owned()));
        }
        if let Some(Open { node: Node { kind: Kind::Mapping(_), .. }, key: None }) = self.open.last() {
            return Err((mark, "a key must be text".to_owned()));
        }
        self.open.push(Open { node: Node { mark, kind }, key: None });
        Ok(())
    }

    fn put(&mut self, mut node: Node) -> Result<(), Failure> {
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut open.node.kind {
            Kind::Mapping(entries) => match open.key.take() {
                None => open.key = Some((key(node.kind).map_err(|message| (node.mark, message))?, node.mark)),
                Some((key, mark)) => {
                    // The mark of a block value is somewhere below its key, that of an empty one behind it.
                    let below = node.mark.line > mark.line;
                    if below || matches!(node.kind, Kind::Null) {
                        node.mark = mark;
                    }
                    entries.push(Entry { key, mark, value: node });
                }
            },
            Kind::Sequence(items) => items.push(node),
            // Only lists and mappings are opened.
            _ => {}
        }
        Ok(())
    }
}

fn key(kind: Kind) -> Result<String, String> {
    match kind {
        Kind::Text(text) | Kind::Integer(text) | Kind::Number(text) | Kind::Truth(text) => Ok(text),
        Kind::Null => Err("a key is missing before the colon".to_owned()),
        Kind::Alias | Kind::Tagged | Kind::Sequence(_) | Kind::Mapping(_) => Err("a key must be text".to_owned()),
    }
}

/// Resolves a scalar by the core schema of YAML 1.2: `no` and `on` are text.
fn scalar(text: String, style: ScalarStyle) -> Kind {
    if style != ScalarStyle::Plain {
        return Kind::Text(text);
    }
    match text.as_str() {
        "" | "~" | "null" | "Null" | "NULL" => Kind::Null,
        "true" | "True" | "TRUE" | "false" | "False" | "FALSE" => Kind::Truth(text),
        _ if is_integer(&text) => Kind::Integer(text),
        _ if is_number(&text) => Kind::Number(text),
        _ => Kind::Text(text),
    }
}

fn is_integer(text: &str) -> bool {
    let digits = |text: &str, radix| !text.is_empty() && text.chars().all(|letter| letter.is_digit(radix));
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    digits(unsigned, 10)
        || text.strip_prefix("0o").is_some_and(|rest| digits(rest, 8))
        || text.strip_prefix("0x").is_some_and(|rest| digits(rest, 16))
}

fn is_number(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let named = matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN");
    // Rust's own reader knows words too (`inf`, `nan`), which are text in YAML.
    named
        || (unsigned.starts_with(|letter: char| letter.is_ascii_digit() || letter == '.')
            && text.parse::<f64>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> String {
        let mut mistakes = Mistakes::default();
        let node = read(text, &mut mistakes);
        format!("{:?} {:?}", node.map(|node| node.kind), mistakes.into_sorted())
    }

    #[test]
    fn scalars_follow_the_core_schema() {
        for (text, kind) in [
            ("no", "Text"),
            ("1.5.2", "Text"),
            ("inf", "Text"),
            ("0b1", "Text"),
            ("30s", "Text"),
            ("'30'", "Text"),
            ("30", "Integer"),
            ("-3", "Integer"),
            ("0x1F", "Integer"),
            ("1e5", "Number"),
            (".inf", "Number"),
            ("True", "Truth"),
            ("~", "Null"),
            ("!!str 3", "Tagged"),
            ("*a", "Alias"),
        ] {
            assert!(kinds(text).starts_with(&format!("Some({kind}")), "{text}: {}", kinds(text));
        }
    }

    #[test]
    fn values_below_their_key_stand_at_the_key() {
        let mut mistakes = Mistakes::default();
        let node = read("a:\n  b: 1\nc: { d: 2 }\ne:\n", &mut mistakes);
        let Some(Node { kind: Kind::Mapping(entries), .. }) = node else { panic!("no mapping") };
        let marks: Vec<_> = entries.iter().map(|entry| (entry.value.mark.line, entry.value.mark.column)).collect();
        assert_eq!(marks, [(1, 1), (3, 4), (4, 1)]);
    }

    #[test]
    fn what_is_no_single_small_document_is_one_mistake_with_its_line() {
        let deep = format!("a: {}", "[".repeat(100));
        let bomb = format!("a: &a [{}]\n", "*a, ".repeat(10));
        for (text, line, message) in [
            ("", 1, "empty"),
            ("# nothing\n", 1, "empty"),
            ("a: [1,\nb: 2", 1, "not YAML: unclosed bracket"),
            ("a: 1\n b: 2\n", 2, "not YAML"),
            ("a: \"x\n", 2, "not YAML"),
            ("a: 1\n---\nb: 2\n", 2, "second document"),
            ("? [a]\n: b\n", 1, "key must be text"),
            ("? *a\n: b\n", 1, "key must be text"),
            ("a: !x [1]\n", 1, "tags"),
            (&deep, 1, "deeper than 32"),
            (&"x".repeat(DOCUMENT_LIMIT + 1), 1, "bytes"),
        ] {
            let mut mistakes = Mistakes::default();
            let node = read(text, &mut mistakes);
            let all = mistakes.into_sorted();
            assert!(node.is_none() && all.len() == 1, "{text:.40}: {node:?} {all:?}");
            assert_eq!((all[0].path.as_str(), all[0].line), ("document", line), "{text:.40}: {all:?}");
            assert!(all[0].message.contains(message), "{text:.40}: {all:?}");
        }
        assert!(kinds(&bomb).contains("Alias"), "an alias is kept as one node, never copied");
    }
}
