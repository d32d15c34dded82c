//! Whether Redis Sentinel looks after this server, too: it promotes by its own rules, without an epoch and a lease.
//!
//! A Sentinel names the connections that it keeps to every server that it watches, `sentinel-<id>-cmd` and `-pubsub`.

use std::collections::BTreeSet;

use super::session::{Failure, ask, command};
use super::{COMMAND_LIMIT, Redis};

impl Redis {
    /// The Sentinels that are found, with what gives them away.
    pub(super) async fn managers(&self) -> Vec<String> {
        // What cannot be asked is not known.
        self.clients().await.map(|list| told(&list)).unwrap_or_default()
    }

    async fn clients(&self) -> Result<String, Failure> {
        let mut connection = self.probing.login.connect(COMMAND_LIMIT).await?;
        ask(&mut connection, &command(&["CLIENT", "LIST"]), COMMAND_LIMIT).await
    }
}

/// From the answer to CLIENT LIST: a client a line, its fields behind their names.
fn told(list: &str) -> Vec<String> {
    let names = list.lines().flat_map(|line| line.split(' ')).filter_map(|field| field.strip_prefix("name="));
    let names: BTreeSet<&str> = names.filter(|name| is_sentinel(name)).collect();
    if names.is_empty() {
        return Vec::new();
    }
    let names: Vec<&str> = names.into_iter().collect();
    vec![format!("Redis Sentinel (its connections: {})", names.join(", "))]
}

fn is_sentinel(name: &str) -> bool {
    let parts = name.strip_prefix("sentinel-").and_then(|rest| rest.split_once('-'));
    parts.is_some_and(|(id, kind)| {
        !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_hexdigit()) && ["cmd", "pubsub"].contains(&kind)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentinels_are_known_by_the_names_of_their_connections() {
        let line =
            |name: &str| format!("id=3 addr=127.0.0.1:39068 fd=7 name={name} age=3 flags=N cmd=ping user=default\n");
        let of = |names: &[&str]| told(&names.iter().map(|name| line(name)).collect::<String>());
        for name in ["", "sentinel", "sentinel-", "sentinel-cmd", "sentinel-watch-cmd", "my-sentinel-0a1b2c3d-cmd"] {
            assert_eq!(of(&[name]), Vec::<String>::new(), "{name:?}");
        }
        let one = ["sentinel-278c6c8c-pubsub", "", "sentinel-278c6c8c-cmd", "sentinel-278c6c8c-cmd"];
        let wanted = "Redis Sentinel (its connections: sentinel-278c6c8c-cmd, sentinel-278c6c8c-pubsub)";
        assert_eq!(of(&one), [wanted]);
        assert_eq!(told(""), Vec::<String>::new());
    }
}
