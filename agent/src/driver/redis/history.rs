//! Where a side's history parts from another's, and how much of it lies beyond.
//!
//! ```text
//!  H ──────────┬── own       written behind the fork; its offset goes on under H
//!              └── theirs    began a history of its own there: its replid2 is H, up to second_repl_offset
//! ```
//!
//! A server names the history that it is in, and the one before. One that has loaded a snapshot names the snapshot's
//! as the one before; one that has loaded an append-only file names none. Then what was seen of it while it was open is
//! all that is left, and what cannot be told by that is unknown, which is not nothing.

use super::memory::Open;
use super::session::Info;

/// A history that both know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parted {
    /// Up to this offset both have the same.
    pub(super) fork: u64,
    /// So much of its own lies behind, in bytes of the replication stream.
    pub(super) beyond: u64,
    /// Up to this offset the other side has that history.
    pub(super) end: u64,
}

/// How a history parts from that of a primary; none: they name none that both know.
pub(super) fn parted(theirs: &Info, own: &Info) -> Option<Parted> {
    let position = own.position()?;
    if let Some(end) = end_of(theirs, own.text("master_replid")) {
        let fork = end.min(position);
        return Some(Parted { fork, beyond: position - fork, end });
    }
    let end = end_of(theirs, own.text("master_replid2"))?;
    let before = own.number("second_repl_offset")?.checked_sub(1)?;
    let fork = end.min(before);
    // What a snapshot held and had expired by then is taken out as it is loaded, which is no write.
    let last = if is_unchanged(own) { before } else { position.max(before) };
    Some(Parted { fork, beyond: last - fork, end })
}

/// Up to where a primary has this history.
fn end_of(theirs: &Info, history: &str) -> Option<u64> {
    if !is_name(history) {
        return None;
    }
    if theirs.is("master_replid", history) {
        return theirs.number("master_repl_offset");
    }
    theirs.number("second_repl_offset").filter(|_| theirs.is("master_replid2", history))?.checked_sub(1)
}

/// A history that there is not has zeros for a name.
fn is_name(history: &str) -> bool {
    history.bytes().any(|letter| letter != b'0')
}

/// This process has executed no write, and loaded no append-only file.
fn is_unchanged(own: &Info) -> bool {
    !own.is_replica() && own.is("rdb_changes_since_last_save", "0") && own.is("rdb_saves", "0")
}

/// Whether a primary has all that this side has, which was closed since a switchover fenced it at this offset: why that
/// is so, else why it is not known to be.
pub(super) fn has_all(theirs: &Info, own: &Info, fenced_at: u64, last: Option<&Open>) -> Result<String, String> {
    if theirs.is_empty() {
        return Err("that side has no keys itself".to_owned());
    }
    let (here, end) = match (parted(theirs, own), last) {
        (Some(parted), _) if parted.beyond > 0 => return Err(parted.told()),
        (Some(parted), _) => (format!("it has nothing beyond offset {}", parted.fork), parted.end),
        (None, None) => return Err("it names no history that both know, and none was seen open here".to_owned()),
        (None, Some(last)) => match end_of(theirs, &last.history) {
            None => return Err("that side does not name the history that was last seen open here".to_owned()),
            Some(end) if last.offset > end => {
                let seen = last.offset;
                return Err(format!("it was seen open at offset {seen}, and that side has its history up to {end}"));
            }
            Some(_) if own.is("run_id", &last.run_id) => {
                return Err("it began a history of its own without a restart".to_owned());
            }
            // A snapshot names the history that it was saved in: of an earlier restart, which may have been written to.
            Some(_) if is_name(own.text("master_replid2")) => {
                return Err(
                    "it has loaded a snapshot of a history that neither that side nor this agent knows".to_owned()
                );
            }
            Some(end) => (format!("it was fenced at offset {fenced_at} and restarted since"), end),
        },
    };
    if end < fenced_at {
        return Err(format!("it was fenced at offset {fenced_at}, and that side has its history up to {end}"));
    }
    Ok(format!("{here}, and that side has its history up to {end}"))
}

impl Parted {
    /// For humans.
    pub(super) fn told(&self) -> String {
        let Self { fork, beyond, end } = self;
        if *beyond == 0 {
            return format!("nothing of it lies beyond offset {fork}, and that side has its history up to {end}");
        }
        format!("its history parts at offset {fork}: beyond it lie {beyond} bytes and an unknown number of keys")
    }
}

/// What lies beyond a primary's history, for humans, by whatever tells it.
pub(super) fn measured(cluster: &str, theirs: &Info, own: &Info, last: Option<&Open>) -> String {
    let unknown = "an unknown number of bytes and keys";
    match parted(theirs, own) {
        Some(Parted { fork, beyond: 0, .. }) => {
            return format!("nothing lies beyond the history of {cluster}, which has all of it, up to offset {fork}");
        }
        Some(Parted { fork, beyond, .. }) => {
            return format!("parted from {cluster} at offset {fork}: {beyond} bytes, an unknown number of keys");
        }
        None => {}
    }
    let Some(last) = last else {
        return format!("where it parted from {cluster} is not known: {unknown} lie beyond");
    };
    let seen = last.offset;
    match end_of(theirs, &last.history) {
        Some(end) if seen > end => format!(
            "parted from {cluster} at offset {end}: {} bytes or more when it was last seen open, an unknown number of \
             keys; it was restarted since, and what it has of them is not known",
            seen - end
        ),
        Some(end) => format!(
            "what it took after it was last seen open, at offset {seen}, is not known: {unknown} lie beyond offset {end}, \
             where it parted from {cluster}"
        ),
        None => format!(
            "where it parted from {cluster} is not known: that side does not name the history that was last seen open \
             here, at offset {seen}; {unknown} lie beyond"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A primary that took over H at 100 and is at 120.
    fn theirs() -> Info {
        Info::parse(
            "role:master\nmaster_replid:b\nmaster_replid2:h\nmaster_repl_offset:120\nsecond_repl_offset:101\n\
             db0:keys=3,expires=0\n",
        )
    }

    fn own(run: &str, replid: &str, offset: u64, more: &str) -> Info {
        Info::parse(&format!(
            "role:master\nrun_id:{run}\nmaster_replid:{replid}\nmaster_repl_offset:{offset}\ndb0:keys=3,expires=0\n{more}"
        ))
    }

    /// It has loaded a snapshot of H up to 90.
    const LOADED: &str = "master_replid2:h\nsecond_repl_offset:91\n";

    fn open(run: &str, history: &str, offset: u64) -> Open {
        Open { run_id: run.into(), history: history.into(), offset }
    }

    #[test]
    fn what_lies_beyond_the_fork_is_counted_by_offsets() {
        let parted = |own: &Info| parted(&theirs(), own).map(|parted| (parted.fork, parted.beyond, parted.end));
        assert_eq!(parted(&own("r", "h", 100, "")), Some((100, 0, 100)));
        assert_eq!(parted(&own("r", "h", 131, "")), Some((100, 31, 100)));
        assert_eq!(parted(&own("r", "h", 60, "")), Some((60, 0, 100)));
        assert_eq!(parted(&own("r", "b", 120, "")), Some((120, 0, 120)));
        assert_eq!(parted(&own("r", "c", 7, "")), None);
        let zeros = "0".repeat(40);
        let none = Info::parse(&format!("master_replid2:{zeros}\nsecond_repl_offset:-1\n"));
        assert_eq!(super::parted(&none, &own("r", &zeros, 7, "")), None, "zeros are no name");
    }

    #[test]
    fn what_was_written_after_a_snapshot_was_loaded_lies_beyond() {
        let parted = |offset: u64, more: &str| {
            let own = own("r2", "new", offset, &format!("{LOADED}{more}"));
            parted(&theirs(), &own).map(|parted| (parted.fork, parted.beyond))
        };
        let unchanged = "rdb_changes_since_last_save:0\nrdb_saves:0\n";
        assert_eq!(parted(90, unchanged), Some((90, 0)));
        assert_eq!(parted(133, unchanged), Some((90, 0)), "it only dropped what had expired");
        assert_eq!(parted(133, "rdb_changes_since_last_save:1\nrdb_saves:0\n"), Some((90, 43)));
        assert_eq!(
            parted(133, "rdb_changes_since_last_save:0\nrdb_saves:1\n"),
            Some((90, 43)),
            "it may have been saved"
        );
        assert_eq!(parted(133, ""), Some((90, 43)), "an old server does not say it");
        let beyond = "master_replid2:h\nsecond_repl_offset:141\n";
        let own = own("r2", "new", 140, &format!("{beyond}{unchanged}"));
        assert_eq!(super::parted(&theirs(), &own).map(|parted| (parted.fork, parted.beyond)), Some((100, 40)));
    }

    #[test]
    fn that_nothing_would_be_lost_is_shown_and_never_assumed() {
        let shown = |own: &Info, fenced_at: u64, last: Option<&Open>| has_all(&theirs(), own, fenced_at, last).is_ok();
        assert!(shown(&own("r", "h", 100, ""), 100, None));
        assert!(!shown(&own("r", "h", 101, ""), 100, None), "one byte too many");
        assert!(!shown(&own("r", "h", 100, ""), 101, None), "it took over before");
        // An append-only file was loaded, which names no history.
        let restarted = own("r2", "new", 0, "");
        let seen = open("r1", "h", 95);
        assert!(shown(&restarted, 100, Some(&seen)));
        assert!(!shown(&restarted, 101, Some(&seen)));
        assert!(!shown(&restarted, 100, None), "nothing is known of it");
        assert!(!shown(&restarted, 100, Some(&open("r1", "h", 101))), "it was seen open beyond the fork");
        assert!(!shown(&restarted, 100, Some(&open("r1", "other", 95))), "that side has lost its history's name, too");
        assert!(!shown(&restarted, 100, Some(&open("r2", "h", 95))), "it was seen open since it was restarted");
        let twice = own("r3", "newer", 130, "master_replid2:new\nsecond_repl_offset:131\n");
        assert!(!shown(&twice, 100, Some(&seen)), "it was restarted twice, and may have been written to in between");
        let empty = Info::parse("role:master\nmaster_replid:b\nmaster_replid2:h\nsecond_repl_offset:101\n");
        assert!(has_all(&empty, &own("r", "h", 100, ""), 100, None).is_err(), "there is nothing to be copied");
    }

    #[test]
    fn what_cannot_be_told_is_unknown_and_not_nothing() {
        let told = |own: &Info, last: Option<&Open>| measured("b-1", &theirs(), own, last);
        assert!(told(&own("r", "h", 131, ""), None).starts_with("parted from b-1 at offset 100: 31 bytes,"));
        assert!(told(&own("r", "h", 100, ""), None).starts_with("nothing lies beyond the history of b-1"));
        let restarted = own("r2", "new", 0, "");
        let more = told(&restarted, Some(&open("r1", "h", 140)));
        assert!(more.contains("at offset 100: 40 bytes or more"), "{more}");
        for last in [None, Some(open("r1", "h", 95)), Some(open("r1", "other", 95))] {
            let told = told(&restarted, last.as_ref());
            assert!(told.contains("an unknown number of bytes and keys") && !told.contains("nothing"), "{told}");
        }
    }
}
