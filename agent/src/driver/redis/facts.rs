//! What changes seldom in this server, and whether the others answer as a rejoin would need.

use std::collections::BTreeMap;
use std::time::Duration;

use regent_core::facts::{Findings, RedisFacts};

use super::permission::{Lacking, lacking_there};
use super::session::{Failure, Login, ask, command};
use super::{COMMAND_LIMIT, Redis};
use crate::driver::Found;
use crate::driver::reached::{Reached, gather};

/// What both sides should share.
const SHARED: [&str; 5] = ["maxmemory", "maxmemory-policy", "appendonly", "databases", "repl-backlog-size"];
/// One look at another cluster.
const REACH_LIMIT: Duration = Duration::from_secs(5);

impl Redis {
    pub(super) async fn look_around(&self) -> Found {
        let backup = match &self.options.backups {
            Some(options) => Some(self.backups.facts(options, self.judge()).await),
            None => None,
        };
        let looks =
            self.options.upstreams.iter().map(|(cluster, upstream)| async move {
                (cluster.clone(), reach(cluster, &Login::to(upstream)).await)
            });
        let (found, managed, looks) = tokio::join!(self.lacking(), self.managers(), futures::future::join_all(looks));
        let Lacking { mut lacks, rights_unknown } = found;
        let reaches = gather(looks, &mut lacks);
        let looked = self.look_at_settings().await;
        let problem = looked.as_ref().err().map(ToString::to_string).unwrap_or_default();
        let findings = Findings { lacks, managed, rights_unknown, ..Findings::default() };
        Found { postgres: None, redis: looked.ok(), backup, reaches, problem, findings }
    }

    async fn look_at_settings(&self) -> Result<RedisFacts, Failure> {
        let mut connection = self.probing.login.connect(COMMAND_LIMIT).await?;
        let info: String = ask(&mut connection, &command(&["INFO", "server"]), COMMAND_LIMIT).await?;
        let version = super::session::Info::parse(&info).text("redis_version").to_owned();
        let mut settings = BTreeMap::new();
        for name in SHARED {
            let answer: Vec<String> = ask(&mut connection, &command(&["CONFIG", "GET", name]), COMMAND_LIMIT).await?;
            settings.extend(answer.into_iter().nth(1).map(|value| (name.to_owned(), value)));
        }
        Ok(RedisFacts { version, settings })
    }
}

async fn reach(cluster: &str, login: &Login) -> Reached {
    match lacking_for(login).await {
        Ok(grants) => {
            let grants = grants.join(" ");
            let lacks = (!grants.is_empty())
                .then(|| format!("the login upstreams.{cluster} lacks {grants} there; ACL SETUSER it so on that side"));
            Reached { answer: Ok(()), lacks }
        }
        Err(failure) => Reached { answer: Err(failure.to_string()), lacks: None },
    }
}

/// What it may not there, if it answers.
async fn lacking_for(login: &Login) -> Result<Vec<&'static str>, Failure> {
    let mut connection = login.connect(REACH_LIMIT).await?;
    ask::<String>(&mut connection, &command(&["PING"]), REACH_LIMIT).await?;
    Ok(lacking_there(&mut connection).await)
}
