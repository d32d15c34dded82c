//! From nodes to values: each function takes what is there, and adds a mistake for what is not as it should be.

use std::collections::BTreeMap;
use std::collections::btree_map;

use super::mistake::{Mistakes, Place, Placed, list, quote};
use super::node::{Kind, Node};
use super::words::Word;
use crate::id::NAME_LIMIT;
use crate::time::Span;

/// What [`text`] expects where any text is right.
pub(super) const TEXT: &str = "text";
/// What [`text`] expects where a name is.
pub(super) const NAME: &str = "a name";

/// The value of a key.
#[derive(Debug, Clone)]
pub(super) enum Field<T> {
    /// The key is not there.
    Absent,
    /// It is there, with a mistake that has been reported: nothing more is said about it.
    Bad,
    /// It is there.
    Given(Placed<T>),
}

impl<T> Field<T> {
    /// The value, if there is a good one.
    pub(super) fn given(&self) -> Option<&Placed<T>> {
        match self {
            Self::Given(placed) => Some(placed),
            Self::Absent | Self::Bad => None,
        }
    }

    /// True if the key is there, whatever its value.
    pub(super) fn is_present(&self) -> bool {
        !matches!(self, Self::Absent)
    }

    /// The value, or the default for a key that is not there.
    pub(super) fn or(self, default: T) -> Option<T> {
        match self {
            Self::Absent => Some(default),
            Self::Bad => None,
            Self::Given(placed) => Some(placed.value),
        }
    }

    /// The value; a mistake if the key is not there.
    pub(super) fn required(self, key: &str, within: &Place, mistakes: &mut Mistakes) -> Option<Placed<T>> {
        match self {
            Self::Given(placed) => Some(placed),
            Self::Bad => None,
            Self::Absent => {
                mistakes.add(within, format_args!("the key {key} is missing"));
                None
            }
        }
    }

    /// The value made into another; a message makes it a mistake.
    pub(super) fn then<U>(self, mistakes: &mut Mistakes, make: impl FnOnce(T) -> Result<U, String>) -> Field<U> {
        match self {
            Self::Absent => Field::Absent,
            Self::Bad => Field::Bad,
            Self::Given(Placed { value, at }) => match make(value) {
                Ok(value) => Field::Given(Placed { value, at }),
                Err(message) => {
                    mistakes.add(&at, message);
                    Field::Bad
                }
            },
        }
    }
}

/// A mapping whose keys are known.
pub(super) struct Fields<'n> {
    /// Where it stands.
    pub(super) at: Place,
    /// True if there was a key that is not known.
    pub(super) strange: bool,
    values: BTreeMap<&'n str, Value<'n>>,
}

/// A node with its place.
#[derive(Debug, Clone)]
pub(super) struct Value<'n> {
    pub(super) node: &'n Node,
    pub(super) at: Place,
}

impl<'n> Value<'n> {
    /// The whole document.
    pub(super) fn root(node: &'n Node) -> Self {
        Self { node, at: Place::whole(node.mark) }
    }
}

impl<'n> Fields<'n> {
    /// Opens a mapping; keys beside the known ones are mistakes.
    pub(super) fn open(value: &Value<'n>, known: &[&str], mistakes: &mut Mistakes) -> Option<Self> {
        let at = value.at.clone();
        let mut fields = Self { at, strange: false, values: BTreeMap::new() };
        for (key, place, value) in entries(value, mistakes)? {
            if known.contains(&key) {
                fields.values.insert(key, value);
                continue;
            }
            fields.strange = true;
            let meant = match mistakes.nearest(key, known.iter().copied()) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("known here: {}", list(known.iter().copied())),
            };
            mistakes.add(&place, format_args!("unknown key {}; {meant}", quote(key)));
        }
        Some(fields)
    }

    /// The value of a key, if it is there.
    pub(super) fn value(&self, key: &str) -> Option<Value<'n>> {
        self.values.get(key).cloned()
    }

    /// The value of a key; a mistake if it is not there.
    pub(super) fn required(&self, key: &str, mistakes: &mut Mistakes) -> Option<Value<'n>> {
        let value = self.value(key);
        if value.is_none() {
            mistakes.add(&self.at, format_args!("the key {key} is missing"));
        }
        value
    }

    /// Text.
    pub(super) fn text(&self, key: &str, mistakes: &mut Mistakes) -> Field<String> {
        self.value(key).map_or(Field::Absent, |value| text(&value, TEXT, mistakes))
    }

    /// A length of time.
    pub(super) fn span(&self, key: &str, mistakes: &mut Mistakes) -> Field<Span> {
        self.value(key).map_or(Field::Absent, |value| span(&value, mistakes))
    }

    /// One of a closed set of words.
    pub(super) fn word<W: Word>(&self, key: &str, mistakes: &mut Mistakes) -> Field<W> {
        let Some(value) = self.value(key) else { return Field::Absent };
        let words = || W::WORDS.iter().map(|word| word.word());
        let expected = format!("one of {}", list(words()));
        let given = text(&value, &expected, mistakes);
        let near = given.given().and_then(|given| mistakes.nearest(&given.value, words()));
        given.then(mistakes, |text| {
            let found = W::WORDS.iter().copied().find(|word| word.word() == text);
            found.ok_or_else(|| match near {
                Some(near) => format!("{} is not {expected}; did you mean {near}?", quote(&text)),
                None => format!("{} is not {expected}", quote(&text)),
            })
        })
    }

    /// `true` or `false`.
    pub(super) fn truth(&self, key: &str, mistakes: &mut Mistakes) -> Field<bool> {
        let Some(Value { node, at }) = self.value(key) else { return Field::Absent };
        let truth = match &node.kind {
            Kind::Truth(text) => match text.as_str() {
                "true" => Some(true),
                "false" => Some(false),
                _ => None,
            },
            _ => None,
        };
        if let Some(value) = truth {
            return Field::Given(Placed { value, at });
        }
        mistakes.add(&at, format_args!("expected true or false, found {}", found(node)));
        Field::Bad
    }

    /// A whole number within bounds.
    pub(super) fn number(&self, key: &str, least: u32, most: u32, mistakes: &mut Mistakes) -> Field<u32> {
        let Some(Value { node, at }) = self.value(key) else { return Field::Absent };
        let number = match &node.kind {
            Kind::Integer(text) => text.parse().ok().filter(|number| (least..=most).contains(number)),
            _ => None,
        };
        if let Some(value) = number {
            return Field::Given(Placed { value, at });
        }
        mistakes.add(&at, format_args!("expected a whole number from {least} to {most}, found {}", found(node)));
        Field::Bad
    }
}

/// The entries of a mapping, with the places of their keys; a key that comes again is a mistake.
pub(super) fn entries<'n>(value: &Value<'n>, mistakes: &mut Mistakes) -> Option<Vec<(&'n str, Place, Value<'n>)>> {
    let Kind::Mapping(entries) = &value.node.kind else {
        mistakes.add(&value.at, format_args!("expected a mapping, found {}", found(value.node)));
        return None;
    };
    let mut lines = BTreeMap::new();
    let mut read = Vec::new();
    for entry in entries {
        let key = entry.key.as_str();
        let place = value.at.key(key, entry.mark);
        match lines.entry(key) {
            btree_map::Entry::Occupied(first) => {
                let line: u64 = *first.get();
                mistakes.add(&place, format_args!("the key {} stands here twice, first in line {line}", quote(key)));
            }
            btree_map::Entry::Vacant(free) => {
                free.insert(entry.mark.line);
                let at = value.at.key(key, entry.value.mark);
                read.push((key, place, Value { node: &entry.value, at }));
            }
        }
    }
    Some(read)
}

/// The items of a list.
pub(super) fn items<'n>(value: &Value<'n>, expected: &str, mistakes: &mut Mistakes) -> Option<Vec<Value<'n>>> {
    let Kind::Sequence(nodes) = &value.node.kind else {
        mistakes.add(&value.at, format_args!("expected {expected}, found {}", found(value.node)));
        return None;
    };
    let place = |(index, node): (usize, &'n Node)| Value { node, at: value.at.item(index, node.mark) };
    Some(nodes.iter().enumerate().map(place).collect())
}

/// A list of names; those items that are text.
pub(super) fn names(value: &Value<'_>, mistakes: &mut Mistakes) -> Option<Vec<Placed<String>>> {
    let mut names = Vec::new();
    for item in items(value, "a list of names, e.g. [orders-db]", mistakes)? {
        if let Field::Given(name) = text(&item, NAME, mistakes) {
            names.push(name);
        }
    }
    Some(names)
}

/// Text.
pub(super) fn text(value: &Value<'_>, expected: &str, mistakes: &mut Mistakes) -> Field<String> {
    let Value { node, at } = value;
    match &node.kind {
        Kind::Text(text) => return Field::Given(Placed { value: text.clone(), at: at.clone() }),
        Kind::Integer(given) | Kind::Number(given) | Kind::Truth(given) => {
            // Only what can be any text may have been meant: no word of a closed set looks like a number.
            let hint = if matches!(expected, TEXT | NAME) {
                format!("; if meant, write {}", quote(given))
            } else {
                String::new()
            };
            mistakes.add(at, format_args!("expected {expected}, found {}{hint}", found(node)));
        }
        _ => mistakes.add(at, format_args!("expected {expected}, found {}", found(node))),
    }
    Field::Bad
}

/// A length of time.
pub(super) fn span(value: &Value<'_>, mistakes: &mut Mistakes) -> Field<Span> {
    let Value { node, at } = value;
    let read = match &node.kind {
        Kind::Text(text) => Span::parse(text).ok(),
        _ => None,
    };
    if let Some(span) = read {
        return Field::Given(Placed { value: span, at: at.clone() });
    }
    let message = format!("expected a length of time such as 500ms, 30s, 5m, 1h or 1m30s, found {}", found(node));
    mistakes.add(at, message);
    Field::Bad
}

/// A name, as [`crate::id`] defines it.
pub(super) fn name<N>(
    given: &Placed<String>,
    make: impl FnOnce(&str) -> Option<N>,
    mistakes: &mut Mistakes,
) -> Option<N> {
    let name = make(&given.value);
    if name.is_none() {
        let rule = format!("use 1 to {NAME_LIMIT} of a-z, 0-9 and '-', with a letter or digit at both ends");
        mistakes.add(&given.at, format_args!("{} is not a name: {rule}", quote(&given.value)));
    }
    name
}

/// What a node is, in the words of a message.
fn found(node: &Node) -> String {
    match &node.kind {
        Kind::Null => "nothing".to_owned(),
        Kind::Text(text) => format!("the text {}", quote(text)),
        Kind::Integer(text) | Kind::Number(text) => format!("the number {}", shown(text)),
        Kind::Truth(text) => format!("the truth value {text}"),
        Kind::Sequence(_) => "a list".to_owned(),
        Kind::Mapping(_) => "a mapping".to_owned(),
        Kind::Alias => "an alias (write the value itself)".to_owned(),
        Kind::Tagged => "a value with a tag (write it without one)".to_owned(),
    }
}

/// A number as it was written, which may be of any length.
fn shown(number: &str) -> String {
    let quoted = quote(number);
    if quoted.ends_with('"') { number.to_owned() } else { quoted }
}
