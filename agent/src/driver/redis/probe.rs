//! Looking: `INFO` over the kept session.

use std::path::PathBuf;
use std::time::Duration;

use super::files::Places;
use super::rejoin::follows;
use super::session::{Failure, Info, Session, command};
use super::{CLOSED, Redis};
use crate::driver::elsewhere::FenceAt;
use crate::driver::process::table::Process;
use crate::driver::{Health, Probe, Role, Upstream};

/// Everything a probe may take.
const PROBE_LIMIT: Duration = Duration::from_secs(1);

impl Redis {
    /// One look by an action.
    pub(super) async fn info(&self) -> Result<Info, Failure> {
        self.info_by(&self.acting, super::COMMAND_LIMIT).await
    }

    pub(super) async fn info_by(&self, session: &Session, limit: Duration) -> Result<Info, Failure> {
        let info: String = session.ask(&command(&["INFO"]), limit).await?;
        let info = Info::parse(&info);
        let mut known = self.known();
        let pid = info.text("process_id").parse().ok();
        if pid != known.process.as_ref().map(|process| process.pid)
            || !known.process.as_ref().is_some_and(Process::still_lives)
        {
            // In a container of its own the number means nothing here: then the name does not fit.
            known.process = pid.and_then(Process::read).filter(|process| {
                process.lives() && (process.name.starts_with("redis") || process.name.starts_with("valkey"))
            });
        }
        if !info.text("config_file").is_empty() {
            known.config_file = Some(info.text("config_file").into());
        }
        drop(known);
        Ok(info)
    }

    /// Where the files of this process are; none if they are not on this machine, or it does not say. Asked once.
    pub(super) async fn places(&self, session: &Session, info: &Info) -> Option<Places> {
        if self.options.fence == FenceAt::Remote {
            return None;
        }
        let process = info.text("run_id");
        let known = self.known().places.clone().filter(|(of, _)| of == process);
        if let Some((_, places)) = known {
            return Some(places);
        }
        let mut found = Vec::new();
        for name in ["dir", "dbfilename", "appenddirname", "appendfilename"] {
            let answer: Vec<String> =
                session.ask(&command(&["CONFIG", "GET", name]), super::COMMAND_LIMIT).await.ok()?;
            // Older servers have no folder for it.
            found.push(answer.into_iter().nth(1).unwrap_or_default());
        }
        let [folder, snapshot, appended, name] = found.as_slice() else { return None };
        let folder = PathBuf::from(folder);
        let manifest = folder.join(appended).join(format!("{name}.manifest"));
        let places = Places { manifest, snapshot: folder.join(snapshot) };
        self.known().places = Some((process.to_owned(), places.clone()));
        Some(places)
    }

    /// The cluster whose primary this replica is configured to follow.
    fn followed(&self, info: &Info) -> Option<String> {
        self.options.upstreams.iter().find(|(_, upstream)| follows(info, upstream)).map(|(cluster, _)| cluster.clone())
    }

    /// The probe.
    pub(super) async fn look(&self) -> Probe {
        match tokio::time::timeout(PROBE_LIMIT, self.look_within()).await {
            Ok(Ok(probe)) => probe,
            Ok(Err(failure)) => without_answer(&failure),
            Err(_) => Probe::without_answer(Health::Unknown, format!("no answer within {PROBE_LIMIT:?}")),
        }
    }

    async fn look_within(&self) -> Result<Probe, Failure> {
        let info = self.info_by(&self.probing, PROBE_LIMIT).await?;
        if info.is("loading", "1") {
            return Ok(Probe::without_answer(Health::Unknown, "loads its data"));
        }
        let limit: Vec<String> =
            self.probing.ask(&command(&["CONFIG", "GET", "min-replicas-to-write"]), PROBE_LIMIT).await?;
        let limit = limit.get(1).map(String::as_str).unwrap_or_default();
        let wanted: u64 = limit.parse().unwrap_or_default();
        let good = info.number("min_slaves_good_slaves").unwrap_or_default();
        let replica = info.is_replica();
        let position = info.position();
        let writable = !replica && (wanted == 0 || good >= wanted);
        if !replica {
            let places = self.places(&self.probing, &info).await;
            if writable {
                self.memory.saw(&info, places);
            } else {
                match self.memory.lacking(&info, places).await {
                    Ok(None) => {}
                    // It is as good as dead: what it says of its history and its offset is nobody's measure.
                    Ok(Some(lacks)) => return Ok(Probe::without_answer(Health::Failed, lacks)),
                    Err(error) => return Ok(Probe::without_answer(Health::Unknown, error.message)),
                }
            }
        }
        Ok(Probe {
            health: Health::Healthy,
            role: if replica { Role::Standby } else { Role::Primary },
            writable,
            system_id: info.text("master_replid").to_owned(),
            timeline: 0,
            position,
            position_text: position.map(|position| position.to_string()).unwrap_or_default(),
            previous: previous(&info),
            upstream: replica.then(|| Upstream { cluster: self.followed(&info), ..upstream(&info) }),
            detail: detail(&info, limit),
        })
    }
}

fn upstream(info: &Info) -> Upstream {
    let connected = info.is("master_link_status", "up");
    // A primary sends everything at once: what exists there and is known here is what was read.
    let lag_bytes = info
        .number("slave_read_repl_offset")
        .zip(info.number("slave_repl_offset"))
        .filter(|_| connected)
        .map(|(read, applied)| read.saturating_sub(applied));
    Upstream {
        connected,
        last_heard: info.number("master_last_io_seconds_ago").map(Duration::from_secs),
        lag_bytes,
        lag: (lag_bytes == Some(0)).then_some(Duration::ZERO),
        cluster: None,
    }
}

/// The history that this one went on from, and its last position in it.
fn previous(info: &Info) -> Option<(String, u64)> {
    let id = info.text("master_replid2");
    let first_beyond: u64 = info.number("second_repl_offset")?;
    let named = !id.is_empty() && id.bytes().any(|digit| digit != b'0');
    named.then(|| (id.to_owned(), first_beyond.saturating_sub(1)))
}

fn detail(info: &Info, limit: &str) -> String {
    let mut parts = Vec::new();
    if info.is_replica() {
        let (host, port) = (info.text("master_host"), info.text("master_port"));
        parts.push(format!("replica of {host}:{port}, link {}", info.text("master_link_status")));
        if info.is("master_sync_in_progress", "1") {
            parts.push("takes a full copy".to_owned());
        }
    } else {
        parts.push("primary".to_owned());
        if limit == CLOSED {
            parts.push("closed".to_owned());
        }
    }
    if info.is("rdb_last_bgsave_status", "err") {
        parts.push("the last save failed".to_owned());
    }
    parts.join(", ")
}

fn without_answer(failure: &Failure) -> Probe {
    let health = match failure {
        Failure::Refused => Health::Failed,
        Failure::Server { .. } | Failure::TimedOut(_) | Failure::Broken(_) => Health::Unknown,
    };
    Probe::without_answer(health, failure.to_string())
}
