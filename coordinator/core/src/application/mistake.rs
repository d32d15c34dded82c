//! Mistakes in a document: where they stand, and the list in which they are collected.

use std::fmt::{self, Write as _};

/// More mistakes than this are counted, not listed: past it a document is not a draft but another file.
const LIMIT: usize = 200;
/// Longest piece of a document that a message or a path repeats.
const QUOTE_LIMIT: usize = 80;
/// Most words that are compared for a suggestion.
const COMPARED: usize = 100;

/// A mistake in a document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message} (line {line}, column {column})")]
pub struct Mistake {
    /// Where, e.g. `spec.runbooks.failover[0].promote[1]`; `document` for the whole.
    pub path: String,
    /// From 1.
    pub line: u64,
    /// From 1.
    pub column: u64,
    /// What is wrong, and what would be right.
    pub message: String,
}

/// A position in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mark {
    pub(super) line: u64,
    pub(super) column: u64,
}

impl Mark {
    /// The beginning of the text.
    pub(super) const START: Self = Self { line: 1, column: 1 };
}

/// A place in the document: by path for readers of the message, by mark for editors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    path: String,
    mark: Mark,
}

impl Place {
    /// The whole document.
    pub(super) fn root() -> Self {
        Self { path: String::new(), mark: Mark::START }
    }

    /// The whole document, with the mark of what makes it unreadable.
    pub(super) fn whole(mark: Mark) -> Self {
        Self { path: String::new(), mark }
    }

    /// From 1.
    pub(super) const fn line(&self) -> u64 {
        self.mark.line
    }

    /// True if both are items of the same list.
    pub(super) fn is_sibling(&self, other: &Self) -> bool {
        let list = |place: &Self| place.path.rsplit_once('[').map(|(list, _)| list.to_owned());
        list(self) == list(other)
    }

    /// The value under a key of this mapping.
    pub(super) fn key(&self, key: &str, mark: Mark) -> Self {
        let simple = !key.is_empty()
            && key.len() <= QUOTE_LIMIT
            && key.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '-' || letter == '_');
        let key = if simple { key.to_owned() } else { quote(key) };
        let path = if self.path.is_empty() { key } else { format!("{}.{key}", self.path) };
        Self { path, mark }
    }

    /// An item of this list.
    pub(super) fn item(&self, index: usize, mark: Mark) -> Self {
        let mut path = self.path.clone();
        // Writing to a string cannot fail.
        let _ = write!(path, "[{index}]");
        Self { path, mark }
    }
}

/// A value with the place where it was written.
#[derive(Debug, Clone)]
pub(super) struct Placed<T> {
    pub(super) value: T,
    pub(super) at: Place,
}

/// Collects the mistakes of one document.
#[derive(Debug, Default)]
pub(super) struct Mistakes {
    all: Vec<Mistake>,
    more: usize,
    last: Option<Mark>,
}

impl Mistakes {
    /// Adds one.
    pub(super) fn add(&mut self, at: &Place, message: impl fmt::Display) {
        if self.is_full() {
            self.more += 1;
            self.last = Some(at.mark);
            return;
        }
        let path = if at.path.is_empty() { "document".to_owned() } else { at.path.clone() };
        let Mark { line, column } = at.mark;
        self.all.push(Mistake { path, line, column, message: message.to_string() });
    }

    /// True if further mistakes are only counted: then nothing costly is done for their wording.
    pub(super) fn is_full(&self) -> bool {
        self.all.len() >= LIMIT
    }

    /// True if there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The closest of some words, if this looks like a slip of it.
    pub(super) fn nearest<'w>(&self, word: &str, words: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
        if self.is_full() { None } else { nearest(word, words) }
    }

    /// In order of their place.
    pub(super) fn into_sorted(mut self) -> Vec<Mistake> {
        self.all.sort_by_key(|mistake| (mistake.line, mistake.column));
        if let Some(Mark { line, column }) = self.last {
            let message = format!("{} more mistakes are not listed", self.more);
            self.all.push(Mistake { path: "document".to_owned(), line, column, message });
        }
        self.all
    }
}

/// A piece of the document as a message repeats it: escaped, and no longer than a line.
pub(super) fn quote(text: &str) -> String {
    match text.char_indices().nth(QUOTE_LIMIT) {
        Some((end, _)) => format!("{:?}…", text.get(..end).unwrap_or_default()),
        None => format!("{text:?}"),
    }
}

/// Words as a message lists them, the first few if there are many.
pub(super) fn list<'w>(words: impl IntoIterator<Item = &'w str>) -> String {
    let mut words = words.into_iter();
    let mut text = words.by_ref().take(20).collect::<Vec<_>>().join(", ");
    if words.next().is_some() {
        text.push_str(", …");
    }
    if text.is_empty() { "none".to_owned() } else { text }
}

/// The closest word within a third of the length; case does not count, since `catchup` is a slip of `catchUp`.
fn nearest<'w>(word: &str, words: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    if word.chars().count() > QUOTE_LIMIT {
        return None;
    }
    let lower = word.to_lowercase();
    let limit = (lower.chars().count() / 3).max(1);
    words
        .into_iter()
        .take(COMPARED)
        .map(|candidate| (distance(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edits from one word to the other: letters put in, left out, replaced, and neighbours swapped.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    let mut last = None;
    for (index, letter) in one.chars().enumerate() {
        let mut next = vec![index + 1];
        for (column, against) in other.iter().enumerate() {
            let at = |row: &[usize], column: usize| row.get(column).copied().unwrap_or(usize::MAX - 1);
            let replaced = at(&row, column) + usize::from(letter != *against);
            let mut best = replaced.min(at(&row, column + 1) + 1).min(at(&next, column) + 1);
            let previous = column.checked_sub(1).and_then(|column| other.get(column));
            if last == Some(*against) && previous == Some(&letter) {
                best = best.min(at(&before, column - 1) + 1);
            }
            next.push(best);
        }
        before = std::mem::replace(&mut row, next);
        last = Some(letter);
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_find_their_word_and_strangers_do_not() {
        let words = ["promote", "catchUp", "redirect", "failover", "switchover", "ttl"];
        for (slip, word) in [
            ("promot", Some("promote")),
            ("catchup", Some("catchUp")),
            ("rediretc", Some("redirect")),
            ("failvoer", Some("failover")),
            ("tll", Some("ttl")),
            ("banana", None),
            ("", None),
            (&"x".repeat(10_000), None),
        ] {
            assert_eq!(nearest(slip, words), word, "{slip}");
        }
    }

    #[test]
    fn the_list_is_bounded_and_says_so() {
        let mut mistakes = Mistakes::default();
        for line in 1..=1000 {
            mistakes.add(&Place::root().key("a", Mark { line, column: 1 }), "bad");
        }
        let all = mistakes.into_sorted();
        assert_eq!(all.len(), LIMIT + 1);
        let last = all.last().map(|mistake| (mistake.line, mistake.message.clone()));
        assert_eq!(last, Some((1000, "800 more mistakes are not listed".to_owned())));
    }

    #[test]
    fn paths_quote_what_would_be_misread() {
        let place = Place::root().key("spec", Mark::START).key("a.b", Mark::START).item(3, Mark::START);
        assert_eq!(place.path, "spec.\"a.b\"[3]");
        assert_eq!(quote(&"ä".repeat(100)), format!("\"{}\"…", "ä".repeat(80)));
    }
}
