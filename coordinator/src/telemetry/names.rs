//! The names of all metrics. A name that is published stays: dashboards and alerts are built on it.

/// A metric: its name as it is scraped, and what it means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name {
    /// As it is scraped.
    pub name: &'static str,
    /// For humans; ends without a full stop, which the encoder adds.
    pub help: &'static str,
}

macro_rules! names {
    ($($constant:ident = $name:literal, $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $constant: Name = Name { name: $name, help: $help };
        )*

        /// Every metric.
        pub const ALL: &[Name] = &[$($constant),*];
    };
}

names! {
    BUILD_INFO = "regent_build_info", "Release of this coordinator, always 1";
    APPLIED_INDEX = "regent_applied_index", "Index of the last applied entry";
    RAFT_TERM = "regent_raft_term", "Raft term";
    RAFT_IS_LEADER = "regent_raft_is_leader", "1 if this coordinator leads";
    QUORUM = "regent_quorum", "1 if a leader is known and a majority was in contact just now";
    VIEW_AGE_SECONDS = "regent_view_age_seconds", "Time since a majority was last known to be in contact; absent if never";
    PEER_ROUND_TRIP_SECONDS = "regent_peer_round_trip_seconds", "How long calls to another coordinator and back take, but for the slowest in a hundred; absent if not known";
    DNS_SERIAL = "regent_dns_serial", "Serial of the DNS zone";
    PAUSED = "regent_paused", "1 if everything is paused";
    FROZEN = "regent_frozen", "1 if the breaker is open: too many clusters look lost at once";
    CONTACT_AGE_SECONDS = "regent_contact_age_seconds", "Time since this coordinator last heard the cluster's agent both ways; absent if never";
    VOTES_STANDING = "regent_votes_standing", "Votes that stand on the cluster";
    APPLICATION_EPOCH = "regent_application_epoch", "Epoch of the application; 0 until adopted";
    APPLICATION_PRIMARY = "regent_application_primary", "1 for the cluster that is primary, 0 for the others";
    APPLICATION_PAUSED = "regent_application_paused", "1 if the application itself is paused";
    APPLICATION_REFUSED = "regent_application_refused", "1 while an automatic action is refused";
    APPLICATION_STUCK = "regent_application_stuck", "Resources left half-changed";
    APPLICATION_COOL_DOWN_SECONDS = "regent_application_cool_down_seconds", "How long the cool-down still lasts; 0 if there is none";
    APPLICATION_ASKS = "regent_application_asks", "1 while a failover waits for a human's yes";
    APPLICATION_HELD = "regent_application_held", "1 while planned moves of the application are held";
    APPLICATION_PROTECTED = "regent_application_protected", "1 if another cluster could take over within the limits; absent until adopted";
    APPLICATION_COMMIT_WINDOW_SECONDS = "regent_application_commit_window_seconds", "How long the last switchover can still be rolled back; 0 if it cannot";
    READINESS_NOTES = "regent_readiness_notes", "Notes of the application's readiness, by severity: blocker, warning or info";
    LEASE_HELD = "regent_lease_held", "1 if the agent's lease is known to run";
    LEASE_LEFT_SECONDS = "regent_lease_left_seconds", "How long the lease still runs; absent unless it is known to";
    GUARD_ALIVE = "regent_guard_alive", "1 if the agent's guard process is known to answer";
    RESOURCE_HEALTH = "regent_resource_health", "1 for the health that the resource has: healthy, failed or unknown";
    REPLICA_LAG_BYTES = "regent_replica_lag_bytes", "Bytes that a standby is behind; absent if unknown";
    REPLICA_LAG_SECONDS = "regent_replica_lag_seconds", "Time that a standby is behind; absent if unknown";
    RUNS_TOTAL = "regent_runs_total", "Runs that have ended, by outcome";
    RUN_ACTIVE = "regent_run_active", "1 while a run of the application is under way";
    RUN_STUCK = "regent_run_stuck", "1 while a run of the application waits for an operator";
    RUN_SECONDS = "regent_run_seconds", "Duration of the newest run of the application";
    RUN_RECOVERY_SECONDS = "regent_run_recovery_seconds", "How long service was away in the newest run of the application that moves its primary";
    RUN_LOSS_BYTES = "regent_run_loss_bytes", "Bytes known to be missing after the newest run of the application that moves its primary; absent if unknown";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_ours() {
        let unique: BTreeSet<_> = ALL.iter().map(|metric| metric.name).collect();
        assert_eq!(unique.len(), ALL.len());
        for metric in ALL {
            let plain = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
            assert!(metric.name.starts_with("regent_") && metric.name.bytes().all(plain), "{}", metric.name);
            assert!(!metric.help.is_empty() && !metric.help.ends_with('.'), "{}", metric.name);
        }
    }
}
