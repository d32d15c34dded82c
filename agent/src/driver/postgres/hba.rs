//! The fence as a managed block at the top of `pg_hba.conf`.
//!
//! The first line that fits decides, so nothing below can undo it. `all` does not match physical replication: those
//! lines below go on working. It is written by nobody's session, leaves no WAL, and no session can lift it.

use std::io;
use std::path::Path;

use super::files::{Durability, replace};

const BEGIN: &str = "# regent: fence begins. Managed by regent-agent, which removes it when it opens the database.";
const END: &str = "# regent: fence ends.";

/// The text with the block at its top.
pub(super) fn fenced(text: &str, user: &str) -> String {
    let user = user.replace('"', "\"\"");
    let rest = open(text);
    format!("{BEGIN}\nlocal all \"{user}\" scram-sha-256\nlocal all all reject\nhost all all all reject\n{END}\n{rest}")
}

/// The text without any block.
pub(super) fn open(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut inside = false;
    for line in text.split_inclusive('\n') {
        match line.trim_end() {
            BEGIN => inside = true,
            END if inside => inside = false,
            _ if inside => {}
            _ => kept.push_str(line),
        }
    }
    kept
}

/// Whether the text has the block.
pub(super) fn has_fence(text: &str) -> bool {
    text.lines().any(|line| line.trim_end() == BEGIN)
}

/// Whether the file has the block.
pub(super) fn is_fenced(path: &Path) -> io::Result<bool> {
    Ok(has_fence(&std::fs::read_to_string(path)?))
}

/// Puts the block in; false if it already was there, just so.
pub(super) fn put(path: &Path, user: &str, durability: Durability) -> io::Result<bool> {
    let before = std::fs::read_to_string(path)?;
    let after = fenced(&before, user);
    if after == before {
        return Ok(false);
    }
    replace(path, after.as_bytes(), durability)?;
    Ok(true)
}

/// Takes the block out; false if there was none.
pub(super) fn take(path: &Path, durability: Durability) -> io::Result<bool> {
    let before = std::fs::read_to_string(path)?;
    let after = open(&before);
    if after == before {
        return Ok(false);
    }
    replace(path, after.as_bytes(), durability)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn put_twice_and_taken_leaves_the_text_as_it_was() {
        let text = "# own\nhost all all 10.0.0.0/8 scram-sha-256\nhost replication all all scram-sha-256";
        let once = fenced(text, "regent");
        assert!(has_fence(&once) && !has_fence(text));
        assert_eq!(fenced(&once, "regent"), once);
        assert_eq!(open(&once), text);
    }

    #[test]
    fn a_name_with_quotes_stays_one_name() {
        assert!(fenced("", "a\"b").contains("local all \"a\"\"b\" scram-sha-256"));
    }
}
