//! Whether what fences, promotions and rejoins need is allowed and there. Asked beforehand, which changes nothing.

use redis::aio::MultiplexedConnection;

use super::session::{Failure, ask, command};
use super::{CLOSED, COMMAND_LIMIT, Redis};
use crate::driver::Driver;
use crate::driver::elsewhere::FenceAt;
use crate::driver::process::there::obstacle;

/// What the driver runs here, each with what grants it.
const COMMANDS: [(&str, &[&str]); 14] = [
    ("+info", &["INFO"]),
    ("+config|get", &["CONFIG", "GET", "min-replicas-to-write"]),
    ("+config|set", &["CONFIG", "SET", "min-replicas-to-write", CLOSED]),
    ("+replicaof", &["REPLICAOF", "NO", "ONE"]),
    ("+acl|list", &["ACL", "LIST"]),
    ("+acl|setuser", &["ACL", "SETUSER", "default", "off"]),
    ("+client|kill", &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]),
    // For the look at who else manages it.
    ("+client|list", &["CLIENT", "LIST"]),
    ("+client|pause", &["CLIENT", "PAUSE", "1", "WRITE"]),
    ("+client|unpause", &["CLIENT", "UNPAUSE"]),
    ("+set ~regent:*", &["SET", "regent:check", "a"]),
    ("+del ~regent:*", &["DEL", "regent:fence-check"]),
    ("+bgsave", &["BGSAVE"]),
    ("+ping", &["PING"]),
];

/// What a replica's login needs there and can be tried; PSYNC cannot, it would begin to copy.
const THERE: [(&str, &[&str]); 2] = [("+info", &["INFO", "replication"]), ("+replconf", &["REPLCONF", "capa", "eof"])];

/// What was found out here, whatever the other clusters say.
pub(super) struct Lacking {
    /// What is lacking, each with what to do.
    pub(super) lacks: Vec<String>,
    /// Why the rights of the agent's user are not known; empty if they are, or the server does not answer at all.
    pub(super) rights_unknown: String,
}

/// What the server says of the rights of the agent's user.
enum Rights {
    /// Nothing is lacking.
    All,
    /// What is, with what to do.
    Lack(String),
    /// Why it cannot say.
    Unknown(String),
}

impl Redis {
    /// What is lacking here, whatever the other clusters say.
    pub(super) async fn lacking(&self) -> Lacking {
        let (mut lacks, mut rights_unknown) = (Vec::new(), String::new());
        match self.rights().await {
            Ok(Rights::Lack(lack)) => lacks.push(lack),
            Ok(Rights::Unknown(why)) => rights_unknown = why,
            // That it does not answer is told with its settings.
            Ok(Rights::All) | Err(_) => {}
        }
        if let Err(error) = self.can_end().await {
            lacks.push(format!("the hard fence: {}", error.message));
        }
        lacks.extend(obstacle("start", &self.options.start, None).await);
        lacks.extend(obstacle("stop", &self.options.stop, None).await);
        if self.options.fence == FenceAt::Remote {
            lacks.extend(obstacle("hardFence", &self.options.hard_fence, None).await);
        }
        Lacking { lacks, rights_unknown }
    }

    /// By the server's own dry run, which is there from Redis 7 on.
    async fn rights(&self) -> Result<Rights, Failure> {
        let user = self.options.user.as_str();
        let mut connection = self.probing.login.connect(COMMAND_LIMIT).await?;
        let mut grants = Vec::new();
        for (grant, words) in COMMANDS {
            let dry = [&["ACL", "DRYRUN", user][..], words].concat();
            match ask::<String>(&mut connection, &command(&dry), COMMAND_LIMIT).await {
                Ok(answer) if answer == "OK" => {}
                Ok(_) => grants.push(grant),
                // Then all of it is unknown, and its fence will meet the same.
                Err(failure) if failure.code() == "NOPERM" => {
                    grants = vec!["+acl"];
                    break;
                }
                Err(Failure::Server { code, .. }) => {
                    return Ok(Rights::Unknown(format!(
                        "whether the ACL user {user} may do what steps need is not known: the server answers ACL DRYRUN, which \
                         came with Redis 7, with {code}"
                    )));
                }
                Err(failure) => return Err(failure),
            }
        }
        if grants.is_empty() {
            return Ok(Rights::All);
        }
        let grants = grants.join(" ");
        let lack =
            format!("the ACL user {user} lacks {grants}; ACL SETUSER {user} {grants}, and where its rules are kept");
        Ok(Rights::Lack(lack))
    }
}

/// What the login of another cluster may not there.
pub(super) async fn lacking_there(connection: &mut MultiplexedConnection) -> Vec<&'static str> {
    let mut grants = Vec::new();
    for (grant, words) in THERE {
        let answer = ask::<redis::Value>(connection, &command(words), COMMAND_LIMIT).await;
        if answer.is_err_and(|failure| failure.code() == "NOPERM") {
            grants.push(grant);
        }
    }
    grants
}
