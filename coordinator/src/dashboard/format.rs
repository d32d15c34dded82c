//! Numbers as people read them at night.

/// `340 ms`, `1.24 s`, `12.3 s`, `2 min 05 s`, `1 h 03 min`, `3 d 4 h`.
pub(super) fn duration(ms: u64) -> String {
    let seconds = ms / 1000;
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..10_000 => format!("{seconds}.{:02} s", ms % 1000 / 10),
        10_000..60_000 => format!("{seconds}.{} s", ms % 1000 / 100),
        60_000..3_600_000 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        3_600_000..86_400_000 => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// A setting, without needless digits: `60 s` reads better than `1 min 00 s`.
pub(super) fn setting(ms: u64) -> String {
    regent_core::time::Span::from_millis(ms).to_string()
}

/// An age, in whole steps, so that a page does not flicker: `now`, `4 s`, `2 min`.
pub(super) fn age(ms: u64) -> String {
    match ms {
        0..1_000 => "now".to_owned(),
        1_000..60_000 => format!("{} s", ms / 1000),
        60_000..3_600_000 => format!("{} min", ms / 60_000),
        3_600_000..86_400_000 => format!("{} h", ms / 3_600_000),
        _ => format!("{} d", ms / 86_400_000),
    }
}

/// `0 B`, `1.8 KiB`, `3.2 MiB`.
pub(super) fn bytes(bytes: u64) -> String {
    let mut unit = 1u64;
    for name in ["B", "KiB", "MiB", "GiB", "TiB"] {
        if bytes < unit.saturating_mul(1024) || name == "TiB" {
            if name == "B" {
                return format!("{bytes} B");
            }
            return format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit);
        }
        unit = unit.saturating_mul(1024);
    }
    format!("{bytes} B")
}

/// Time of day of an RFC 3339 stamp: `14:13:20.042`.
pub(super) fn clock(stamp: &str) -> &str {
    stamp.split_once('T').map_or(stamp, |(_, time)| time.trim_end_matches('Z'))
}

/// Day of an RFC 3339 stamp.
pub(super) fn day(stamp: &str) -> &str {
    stamp.split_once('T').map_or(stamp, |(day, _)| day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let all = [0, 340, 1_249, 12_340, 125_000, 3_780_000, 273_600_000].map(duration);
        assert_eq!(all, ["0 ms", "340 ms", "1.24 s", "12.3 s", "2 min 05 s", "1 h 03 min", "3 d 4 h"]);
    }

    #[test]
    fn sizes() {
        assert_eq!([0, 1_023, 1_840, 3_407_872].map(bytes), ["0 B", "1023 B", "1.7 KiB", "3.2 MiB"]);
        assert!(bytes(u64::MAX).ends_with(" TiB"));
    }

    #[test]
    fn clocks() {
        assert_eq!(clock("2026-09-21T14:13:20.042Z"), "14:13:20.042");
        assert_eq!(day("2026-09-21T14:13:20.042Z"), "2026-09-21");
        assert_eq!(clock(""), "");
    }
}
