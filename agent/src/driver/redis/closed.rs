//! How the next start comes up, in the server's configuration file: closed, by `min-replicas-to-write` with a number
//! that no one has; and as a replica where it is one. Which of the two holds is the file's alone to say: nothing else
//! is there when a machine boots.
//!
//! A primary that comes up hands out no full copy either (`repl-diskless-sync-delay`), until the agent has looked at what
//! it has loaded and opened it. Its replicas come back by themselves, and a copy of less than they have would take the
//! place of theirs. What needs no copy goes on at once. A replica hands on what its upstream has, and is not held.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use super::CLOSED;
use crate::driver::process::disk::{Durability, replace};
use crate::secret::Secret;

const NOTE: &str = "# regent: closed at rest. The agent opens the database at run time; nothing here does.";
const PREFIX: &str = "# regent sets this at run time: ";
const BEGIN: &str = "# regent: a replica from here, until it is promoted";
const END: &str = "# regent: to here";
const HOLD: &str = "# regent: no full copy is handed out before the agent has opened the database";

/// Seconds for which a full copy waits: for good.
pub(super) const HELD: &str = "2147483647";
/// What the server does where nothing is configured.
const DELAY: &str = "5";

const DISKLESS: &str = "repl-diskless-sync";
pub(super) const SYNC_DELAY: &str = "repl-diskless-sync-delay";
const EARLY: &str = "repl-diskless-sync-max-replicas";
/// A rewrite would make the append-only file shorter before the agent has compared it.
const REWRITE: &str = "auto-aof-rewrite-percentage";
/// What the server does where nothing is configured.
const GROWTH: &str = "100";

/// What holds copies back, and how.
pub(super) const HOLDING: [&str; 4] = [SYNC_DELAY, DISKLESS, EARLY, REWRITE];

/// A setting and its value.
pub(super) type Setting = (&'static str, String);

/// Whom the next start follows, and as whom.
#[derive(Clone)]
pub(super) struct Following {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) user: Option<String>,
    pub(super) password: Option<Secret>,
}

/// Whether the file has all that a replica needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    /// It has; and whether it had to be written.
    Whole { changed: bool },
    /// Everybody may read the file, so the password is not in it.
    WithoutPassword,
}

/// The file with what closes it at its end, where it wins over everything before. With `alone`, lines that would make
/// the next start follow an upstream of long ago, and take over its data, become comments.
/// What an open server runs with, and no line of the file says, is noted there.
fn closed_as(text: &str, alone: bool, running: &[Setting]) -> String {
    let own = if alone { without_block(text, BEGIN, false) } else { text.to_owned() };
    let mut text: String = own
        .split_inclusive('\n')
        .map(|line| if alone && follows(line) { format!("{PREFIX}{line}") } else { line.to_owned() })
        .collect();
    if !refuses(&text) {
        let lag_is_off = lag_is_off(&text);
        text = whole_line(without_line(&text, NOTE));
        text += &format!("{NOTE}\nmin-replicas-to-write {CLOSED}\n");
        if lag_is_off {
            text += "min-replicas-max-lag 10\n";
        }
    }
    if text.lines().any(follows) { text } else { held(text, running) }
}

/// The file with what keeps full copies back.
fn held(text: String, running: &[Setting]) -> String {
    // By an include or the command line, too.
    let by_file = last(&text, &[EARLY]);
    let by_server = running.iter().find(|(key, _)| *key == EARLY).map(|(_, number)| number.clone());
    let early = by_file.or(by_server).filter(|number| number != "0");
    let waits = last(&text, &[SYNC_DELAY]).as_deref() == Some(HELD);
    let still = last(&text, &[REWRITE]).as_deref() == Some("0");
    if waits && still && last(&text, &[DISKLESS]).as_deref() == Some("yes") && early.is_none() {
        return text;
    }
    // What a `CONFIG REWRITE` has put between the marks is the operator's now; what was written here is not.
    let hold = format!("{SYNC_DELAY} {HELD}");
    let holds = |text: &str| text.lines().filter(|line| *line == hold).count();
    let rewritten = holds(&text) == holds(&without_block(&text, HOLD, false));
    let mut text = whole_line(without_block(&text, HOLD, rewritten));
    for (key, value) in running {
        if last(&text, &[*key]).is_some() {
            continue;
        }
        let noted = format!("{PREFIX}{key} ");
        text = text.split_inclusive('\n').filter(|line| !line.starts_with(&noted)).collect();
        text += &format!("{noted}{value}\n");
    }
    text += &format!("{HOLD}\n{DISKLESS} yes\n{SYNC_DELAY} {HELD}\n{REWRITE} 0\n");
    // Older servers do not know it, and would not start.
    if early.is_some() {
        text += &format!("{EARLY} 0\n");
    }
    text + END + "\n"
}

/// What the operator's lines say of how full copies begin and when the append-only file is rewritten, by setting; else
/// what the server ran with while it was open.
pub(super) fn copying(text: &str) -> Vec<Setting> {
    let own = without_block(text, HOLD, false);
    let last = |text: &str, keys: &[&str]| last(text, keys).or_else(|| noted(text, keys));
    let delay = last(&own, &[SYNC_DELAY]);
    // The server rewrote its file while it was held: nobody knows any more what was there before.
    let rewritten = delay.as_deref() == Some(HELD);
    let growth = last(&own, &[REWRITE]).filter(|growth| !rewritten || growth != "0");
    let delay = delay.filter(|_| !rewritten).unwrap_or_else(|| DELAY.to_owned());
    let mut settings = vec![(SYNC_DELAY, delay)];
    settings.extend(last(&own, &[DISKLESS]).map(|diskless| (DISKLESS, diskless)));
    settings.extend(last(&own, &[EARLY]).map(|early| (EARLY, early)));
    settings.push((REWRITE, growth.unwrap_or_else(|| GROWTH.to_owned())));
    settings
}

fn whole_line(mut text: String) -> String {
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// What was noted of a setting while the server was open.
fn noted(text: &str, keys: &[&str]) -> Option<String> {
    let lines: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix(PREFIX)).collect();
    last(&lines.join("\n"), keys)
}

/// What a file was before it was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Before {
    /// Nothing had to be written.
    Closed,
    /// The next start would have refused writes, but handed out full copies or followed another.
    Unheld,
    /// The next start would have accepted writes.
    Open,
}

/// Closes the file of a server that runs with these, if it is known.
pub(super) fn close(file: &Path, alone: bool, running: &[Setting]) -> std::io::Result<Before> {
    let before = std::fs::read_to_string(file)?;
    let after = closed_as(&before, alone, running);
    if after == before {
        return Ok(Before::Closed);
    }
    replace(file, after.as_bytes(), Durability::Synced)?;
    Ok(if refuses(&before) { Before::Unheld } else { Before::Open })
}

/// A start with it refuses writes.
fn refuses(text: &str) -> bool {
    let number = last(text, &["min-replicas-to-write", "min-slaves-to-write"]);
    number.as_deref() == Some(CLOSED) && !lag_is_off(text)
}

/// A lag of 0 switches the whole check off.
fn lag_is_off(text: &str) -> bool {
    last(text, &["min-replicas-max-lag", "min-slaves-max-lag"]).as_deref() == Some("0")
}

/// Lets the next start follow this upstream. The file keeps a password from others: where they may read it, that right
/// is taken from them if the server owns the file; else the password is left out.
pub(super) fn follow(file: &Path, upstream: &Following, server: Option<u32>) -> std::io::Result<Kept> {
    let before = std::fs::read_to_string(file)?;
    let metadata = std::fs::metadata(file)?;
    let secret = upstream.password.is_some();
    let open = metadata.mode() & 0o007 != 0;
    let close = secret && open && server == Some(metadata.uid());
    if close {
        std::fs::set_permissions(file, Permissions::from_mode(metadata.mode() & 0o7770))?;
    }
    let hidden = secret && open && !close;
    let upstream = if hidden { &Following { password: None, ..upstream.clone() } } else { upstream };
    let after = following(&before, upstream);
    if after != before {
        replace(file, after.as_bytes(), Durability::Synced)?;
    }
    Ok(if hidden { Kept::WithoutPassword } else { Kept::Whole { changed: after != before } })
}

/// The file with what makes the next start a closed replica of this upstream, and of no other.
fn following(text: &str, upstream: &Following) -> String {
    let mut text = whole_line(without_block(&closed_as(text, true, &[]), HOLD, false));
    text += &format!("{BEGIN}\nreplicaof {} {}\n", quoted(&upstream.host), upstream.port);
    if let Some(user) = &upstream.user {
        text += &format!("masteruser {}\n", quoted(user));
    }
    if let Some(password) = &upstream.password {
        text += &format!("masterauth {}\n", quoted(password.expose()));
    }
    text + END + "\n"
}

/// Without what stands from this mark to the end mark; with `inner`, without the marks alone.
fn without_block(text: &str, begin: &str, inner: bool) -> String {
    let mut within = false;
    let mut kept = String::new();
    for line in text.split_inclusive('\n') {
        let begins = line.trim_end() == begin;
        let ends = within && line.trim_end() == END;
        within |= begins;
        if !within || (inner && !begins && !ends) {
            kept += line;
        }
        within &= !ends;
    }
    kept
}

fn without_line(text: &str, unwanted: &str) -> String {
    text.split_inclusive('\n').filter(|line| line.trim_end() != unwanted).collect()
}

/// As the server reads a word in double quotes.
fn quoted(word: &str) -> String {
    let mut text = String::from("\"");
    for byte in word.bytes() {
        match byte {
            b'"' | b'\\' => text.extend(['\\', char::from(byte)]),
            b' '..=b'~' => text.push(char::from(byte)),
            _ => text += &format!("\\x{byte:02x}"),
        }
    }
    text + "\""
}

fn follows(line: &str) -> bool {
    let mut words = line.split_ascii_whitespace();
    let key = words.next().unwrap_or_default().to_ascii_lowercase();
    matches!(key.as_str(), "replicaof" | "slaveof")
}

/// The value of the last line with one of these keys. An `include` may say anything: after it nothing is known.
fn last(text: &str, keys: &[&str]) -> Option<String> {
    let mut found = None;
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let key = words.next().unwrap_or_default().to_ascii_lowercase();
        if keys.contains(&key.as_str()) {
            found = words.next().map(|value| value.trim_matches('"').to_owned());
        } else if key == "include" {
            found = None;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closed(text: &str, alone: bool) -> String {
        closed_as(text, alone, &[])
    }

    #[test]
    fn is_closed_once_and_last() {
        let once = closed("port 1\nmin-slaves-to-write 65535\nmin-replicas-to-write 1", false);
        assert!(once.contains("to-write 1\n# regent: closed at rest"), "{once}");
        assert_eq!(last(&once, &["min-replicas-to-write"]).as_deref(), Some(CLOSED));
        assert_eq!(closed(&once, false), once);
        assert_ne!(closed(&format!("{once}include other.conf\n"), false), format!("{once}include other.conf\n"));
    }

    #[test]
    fn a_lag_of_zero_would_switch_it_off() {
        let once = closed("min-replicas-max-lag 0\nmin-replicas-to-write 65535\n", false);
        assert_eq!(last(&once, &["min-replicas-max-lag"]).as_deref(), Some("10"));
    }

    #[test]
    fn a_primary_does_not_start_as_a_replica() {
        let once = closed("ReplicaOf 10.0.0.1 6379\n", true);
        assert!(once.starts_with("# regent sets this at run time: ReplicaOf 10.0.0.1 6379\n"), "{once}");
        assert_eq!(closed(&once, true), once);
        assert!(closed("replicaof a 1\n", false).starts_with("replicaof a 1\n"));
    }

    fn upstream(port: u16) -> Following {
        let password = Some(Secret::new("a \"b\" \\ ü"));
        Following { host: "10.0.0.1".to_owned(), port, user: Some("replicator".to_owned()), password }
    }

    #[test]
    fn a_replica_starts_as_one_until_it_is_promoted() {
        let operators = "port 1\nreplicaof old 1\nmin-replicas-to-write 65535\n";
        let alone = closed(operators, true);
        let once = following(operators, &upstream(1));
        assert_eq!(following(&once, &upstream(1)), once);
        let block = "replicaof \"10.0.0.1\" 1\nmasteruser \"replicator\"\nmasterauth \"a \\\"b\\\" \\\\ \\xc3\\xbc\"\n";
        let unheld = without_block(&alone, HOLD, false);
        assert_ne!(unheld, alone, "a primary hands out no copy before it is opened");
        assert_eq!(once, format!("{unheld}{BEGIN}\n{block}{END}\n"));
        assert_eq!(closed(&once, false), once, "guarded as the replica that it is");
        assert_eq!(following(&once, &upstream(2)), once.replace("\" 1\n", "\" 2\n"), "only the newest counts");
        assert_eq!(closed(&once, true), alone, "a primary follows nobody");
    }

    #[test]
    fn a_primary_is_held_until_it_is_opened_and_gets_back_what_was_configured() {
        let once = closed("repl-diskless-sync no\nrepl-diskless-sync-delay 1\n", true);
        assert_eq!(closed(&once, true), once);
        assert_eq!(closed(&once, false), once);
        let sync = |text: &str| [DISKLESS, SYNC_DELAY].map(|key| last(text, &[key]).unwrap_or_default());
        assert_eq!(sync(&once), ["yes", HELD]);
        assert_eq!(last(&once, &[REWRITE]).as_deref(), Some("0"));
        let growth = |percent: &str| (REWRITE, percent.to_owned());
        assert_eq!(copying(&once), [(SYNC_DELAY, "1".to_owned()), (DISKLESS, "no".to_owned()), growth("100")]);
        assert_eq!(copying(&closed("auto-aof-rewrite-percentage 0\n", true))[1], growth("0"));
        assert_eq!(copying(&closed("auto-aof-rewrite-percentage 50\n", true))[1], growth("50"));
        // The server rewrote its file while it was open.
        let rewritten = once.replace(HELD, "20").replace("sync-delay 1\n", "sync-delay 20\n");
        let again = closed(&rewritten, false);
        assert_eq!(sync(&again), ["yes", HELD]);
        assert_eq!(again.matches(HOLD).count(), 1, "{again}");
        assert_eq!(again.matches(END).count(), 1, "{again}");
        assert_eq!(copying(&again)[0], (SYNC_DELAY, "20".to_owned()));
        // And while it was closed: nobody knows any more what was there before.
        assert_eq!(copying(&format!("{SYNC_DELAY} {HELD}\n")), [(SYNC_DELAY, DELAY.to_owned()), growth("100")]);
        assert_eq!(copying(&format!("{SYNC_DELAY} {HELD}\n{REWRITE} 0\n"))[1], growth("100"));
        // As soon as so many wait, it would begin.
        let early = closed("repl-diskless-sync-max-replicas 1\n", false);
        assert_eq!(last(&early, &[EARLY]).as_deref(), Some("0"));
        assert_eq!(closed(&early, false), early);
        assert_eq!(copying(&early)[1], (EARLY, "1".to_owned()));
    }

    #[test]
    fn what_an_include_or_the_command_line_says_is_held_and_given_back() {
        let running = [(SYNC_DELAY, "7"), (DISKLESS, "no"), (EARLY, "2"), (REWRITE, "60")];
        let running = running.map(|(key, value)| (key, value.to_owned()));
        let once =
            closed_as("repl-diskless-sync yes\nrepl-diskless-sync-delay 1\ninclude other.conf\n", true, &running);
        assert_eq!(last(&once, &[EARLY]).as_deref(), Some("0"), "{once}");
        assert_eq!(copying(&once), running);
        assert_eq!(closed_as(&once, false, &running), once);
        assert_eq!(closed(&once, false), once, "it does not run");
        // It is kept while it is a replica.
        assert_eq!(copying(&following(&once, &upstream(1))), running);
        // A line of its own counts.
        let once = closed_as("repl-diskless-sync-delay 1\n", true, &running);
        assert_eq!(copying(&once)[0], (SYNC_DELAY, "1".to_owned()));
    }

    #[test]
    fn a_block_of_an_older_agent_is_no_word_of_the_operators() {
        let operators = "repl-diskless-sync no\nrepl-diskless-sync-delay 20\nmin-replicas-to-write 65535\n";
        let old = format!("{operators}{HOLD}\n{DISKLESS} yes\n{SYNC_DELAY} {HELD}\n{END}\n");
        let new = closed(&old, false);
        assert_eq!(new, closed(operators, false));
        assert_eq!(last(&new, &[REWRITE]).as_deref(), Some("0"));
        let given = [(SYNC_DELAY, "20"), (DISKLESS, "no"), (REWRITE, GROWTH)];
        assert_eq!(copying(&new), given.map(|(key, value)| (key, value.to_owned())));
    }

    #[test]
    fn a_missing_hold_alone_opens_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("redis.conf");
        for (text, before) in [
            ("port 1\n", Before::Open),
            ("min-replicas-to-write 65535\nmin-replicas-max-lag 0\n", Before::Open),
            ("min-replicas-to-write 65535\n", Before::Unheld),
        ] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(close(&file, false, &[]).unwrap(), before, "{text}");
            assert_eq!(close(&file, false, &[]).unwrap(), Before::Closed, "{text}");
        }
    }

    #[test]
    fn the_password_is_kept_from_others() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("redis.conf");
        let mode = || std::fs::metadata(&file).unwrap().mode() & 0o777;
        let has = || std::fs::read_to_string(&file).unwrap().contains("masterauth");
        let write = |mode| {
            std::fs::write(&file, "port 1\n").unwrap();
            std::fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        };
        let owner = std::fs::metadata(folder.path()).unwrap().uid();
        write(0o644);
        assert_eq!(follow(&file, &upstream(1), Some(owner + 1)).unwrap(), Kept::WithoutPassword);
        assert_eq!((mode(), has()), (0o644, false), "the server may need the right of everybody");
        assert_eq!(follow(&file, &upstream(1), Some(owner)).unwrap(), Kept::Whole { changed: true });
        assert_eq!((mode(), has()), (0o640, true));
        assert_eq!(follow(&file, &upstream(1), None).unwrap(), Kept::Whole { changed: false });
        write(0o640);
        assert_eq!(follow(&file, &upstream(1), None).unwrap(), Kept::Whole { changed: true });
        assert_eq!((mode(), has()), (0o640, true));
    }
}
