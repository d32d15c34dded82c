//! The guard record: whose a name is, and by which epoch it was last written.
//!
//! It stands beside the name, as TXT at `_regent.NAME`. A writer reads it, refuses if it is newer than itself, and makes
//! its update depend on the very record that it read. So a writer that was delayed between the two finds its update
//! rejected by the server: a stale epoch never overwrites a newer one (incident `stale_dns_writer`).

use hickory_proto::rr::rdata::TXT;

/// The format of the record's text.
const FORMAT: u64 = 1;

/// What a guard record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Guard {
    /// The application that owns the name.
    pub(super) application: String,
    /// Its epoch at the last write.
    pub(super) epoch: u64,
}

impl Guard {
    /// The record's text.
    pub(super) fn to_text(&self) -> String {
        format!("regent={FORMAT} application={} epoch={}", self.application, self.epoch)
    }

    /// Reads a record; none if Regent did not write it in a format that is known here.
    pub(super) fn read(record: &TXT) -> Option<Self> {
        let text = record.txt_data.iter().map(|part| std::str::from_utf8(part)).collect::<Result<String, _>>().ok()?;
        let mut words = text.split(' ');
        let mut value = |key: &str| words.next()?.strip_prefix(key)?.strip_prefix('=');
        if value("regent")?.parse::<u64>().ok()? != FORMAT {
            return None;
        }
        let application = value("application")?.to_owned();
        let epoch = value("epoch")?.parse().ok()?;
        words.next().is_none().then_some(Self { application, epoch })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guard_reads_back() {
        let guard = Guard { application: "shop".to_owned(), epoch: 7 };
        assert_eq!(guard.to_text(), "regent=1 application=shop epoch=7");
        assert_eq!(Guard::read(&TXT::new(vec![guard.to_text()])), Some(guard));
    }

    #[test]
    fn nothing_else_is_a_guard() {
        for text in [
            "",
            "v=spf1 -all",
            "regent=2 application=shop epoch=7",
            "regent=1 application=shop epoch=",
            "regent=1 application=shop epoch=7 more",
            "regent=1 epoch=7 application=shop",
        ] {
            assert_eq!(Guard::read(&TXT::new(vec![text.to_owned()])), None, "{text}");
        }
    }
}
