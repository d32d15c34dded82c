//! Whether another manager looks after this server, too: one that promotes by its own rules, without an epoch and a lease.
//!
//! It is told by the sessions that it keeps here, which name themselves or have a role of their own. Settings say less: what
//! `primary_conninfo` or `synchronous_standby_names` have of a manager stays when it has gone. A manager that is stopped,
//! keeps no session or names it otherwise is not found.

use std::collections::{BTreeMap, BTreeSet};

use super::session::{SqlError, connect, login, run, text};
use super::{Postgres, STATEMENT_LIMIT};

/// Those that may be one, few among many; [`manager`] judges them.
const SESSIONS: &str = "
SELECT DISTINCT application_name AS name, usename AS role FROM pg_stat_activity
WHERE application_name ~* '^(patroni|pgautofailover|repmgr|cnpg)' OR usename ~ '^pgautofailover_'";

impl Postgres {
    /// Each other manager that is found, with what gives it away.
    pub(super) async fn managers(&self) -> Vec<String> {
        // What cannot be asked is not known.
        let sessions = tokio::time::timeout(STATEMENT_LIMIT, self.sessions_of_managers()).await;
        told(sessions.ok().and_then(Result::ok).unwrap_or_default())
    }

    async fn sessions_of_managers(&self) -> Result<Vec<(String, String)>, SqlError> {
        let client = connect(&login(&self.options)).await?;
        let rows = run(&client, SESSIONS).await?;
        let word = |row, column| text(row, column).unwrap_or_default().to_owned();
        Ok(rows.iter().map(|row| (word(row, "name"), word(row, "role"))).collect())
    }
}

/// From the names and roles of sessions.
fn told(sessions: Vec<(String, String)>) -> Vec<String> {
    let mut found: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (name, role) in sessions {
        if let Some(manager) = manager(&name, &role) {
            let sign = if name.is_empty() { format!("as {role}") } else { format!("{name:?}") };
            found.entry(manager).or_default().insert(sign);
        }
    }
    let each = found.into_iter().map(|(manager, signs)| {
        let signs: Vec<String> = signs.into_iter().collect();
        format!("{manager} (its sessions: {})", signs.join(", "))
    });
    each.collect()
}

fn manager(name: &str, role: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase();
    // The one word, or with the name of a connection behind it.
    if name == "patroni" || name.starts_with("patroni ") {
        return Some("Patroni");
    }
    if name.starts_with("pgautofailover_standby_") || role.starts_with("pgautofailover_") {
        return Some("pg_auto_failover");
    }
    if name == "repmgr" || name == "repmgrd" {
        return Some("repmgr");
    }
    (name == "cnpg_metrics_exporter" || name == "cnpg-instance-manager").then_some("CloudNativePG")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(sessions: &[(&str, &str)]) -> Vec<String> {
        told(sessions.iter().map(|(name, role)| ((*name).to_owned(), (*role).to_owned())).collect())
    }

    #[test]
    fn managers_are_known_by_their_sessions() {
        let cases = [
            ("Patroni", "postgres", Some("Patroni")),
            ("Patroni heartbeat", "postgres", Some("Patroni")),
            ("Patroni restapi", "postgres", Some("Patroni")),
            ("pgautofailover_standby_2", "pgautofailover_replicator", Some("pg_auto_failover")),
            ("", "pgautofailover_monitor", Some("pg_auto_failover")),
            ("repmgrd", "repmgr", Some("repmgr")),
            ("repmgr", "postgres", Some("repmgr")),
            ("cnpg_metrics_exporter", "postgres", Some("CloudNativePG")),
            // Named alike, and no manager.
            ("patronise", "app", None),
            ("repmgr-exporter", "app", None),
            ("regent-agent", "regent", None),
            ("", "app", None),
        ];
        for (name, role, wanted) in cases {
            assert_eq!(manager(name, role), wanted, "{name:?} as {role}");
        }
    }

    #[test]
    fn each_manager_is_told_of_once_with_all_its_signs() {
        let sessions =
            [("Patroni restapi", "a"), ("Patroni heartbeat", "a"), ("", "pgautofailover_monitor"), ("x", "y")];
        let wanted = [
            r#"Patroni (its sessions: "Patroni heartbeat", "Patroni restapi")"#,
            "pg_auto_failover (its sessions: as pgautofailover_monitor)",
        ];
        assert_eq!(of(&sessions), wanted);
        assert_eq!(of(&[]), Vec::<String>::new());
    }
}
