//! What a rejoin overwrites, and what is kept of it: counted in the databases' logs and beside their files, where a step that
//! was done twice shows.
//!
//! A step that is held before or after its effect does that once. The agent that dies there may have been in the middle of
//! another rejoin, which goes on side by side: that one begins anew, and may save and copy once more.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use regent_deploy::config::{CACHE, DATABASE};
use regent_deploy::region::Cluster;
use regent_tests::stage::Stage;

use super::effects::copies_are_logged;
use super::plan::{Kind, Point};

/// In a whole world, since its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rebuilt {
    /// Base backups of a PostgreSQL.
    base_backups: usize,
    /// Full copies of a Redis.
    full_copies: usize,
    /// Folders with what was saved before a PostgreSQL was rewound.
    diverged: usize,
    /// Data folders of a PostgreSQL that made room for a copy.
    postgres_aside: usize,
    /// Snapshots of a Redis that made room for a copy.
    redis_aside: usize,
}

impl Rebuilt {
    /// Has every PostgreSQL write down who copies it, and counts what there was.
    pub(crate) async fn so_far(stage: &Stage) -> Result<Self> {
        for cluster in clusters(stage) {
            copies_are_logged(cluster).await?;
        }
        Self::counted(stage)
    }

    /// What there is now.
    pub(crate) fn counted(stage: &Stage) -> Result<Self> {
        let mut all = Self { base_backups: 0, full_copies: 0, diverged: 0, postgres_aside: 0, redis_aside: 0 };
        for cluster in clusters(stage) {
            let (postgres, redis) = (&cluster.postgres, &cluster.redis);
            all.base_backups += lines(&postgres.log(), "received replication command: BASE_BACKUP")?;
            all.full_copies += lines(&redis.log(), "Starting BGSAVE for SYNC")?;
            let beside = postgres.data().parent().context("PGDATA lies nowhere")?.to_owned();
            all.diverged += named(&beside, ".regent-diverged-")?;
            all.postgres_aside += named(&beside, ".regent-set-aside-")?;
            all.redis_aside += named(&redis.config_file().with_file_name("data"), ".regent-set-aside-")?;
        }
        Ok(all)
    }

    /// No more was added since `before` than a run without the crash adds, but for what the crash broke off.
    pub(crate) fn repeats_nothing(self, point: Point, before: Self) -> Result<()> {
        let again = |resource: &str| usize::from(point.may_break_off(resource));
        let (postgres, redis) = (again(DATABASE), again(CACHE));
        // A PostgreSQL is rewound: its log is kept long enough. Of what a killed one alone had, there may be nothing.
        let (saved, copied) = match point.kind {
            // Everything is at the new side; a Redis that was ended by its fence has lost the name of its history.
            Kind::Switchover | Kind::Quiesced => (0..=postgres, 0..=1 + redis),
            Kind::Failover => (0..=1 + postgres, 0..=1 + redis),
            Kind::Loss => (0..=1 + postgres, 1..=1 + redis),
            Kind::Rejoin => (1..=1 + postgres, 1..=1 + redis),
            Kind::Undo | Kind::Drill => (0..=0, 0..=0),
        };
        for (what, then, now, wanted) in [
            ("base backups of PostgreSQL", before.base_backups, self.base_backups, 0..=postgres),
            ("data folders of PostgreSQL set aside", before.postgres_aside, self.postgres_aside, 0..=postgres),
            ("folders with what diverged", before.diverged, self.diverged, saved),
            ("full copies of Redis", before.full_copies, self.full_copies, copied.clone()),
            ("snapshots of Redis set aside", before.redis_aside, self.redis_aside, copied),
        ] {
            let added = now.checked_sub(then).with_context(|| format!("{what}: of {then} only {now} are left"))?;
            ensure!(wanted.contains(&added), "{what}: {added}, where it may be {wanted:?}: {before:?}, then {self:?}");
        }
        Ok(())
    }
}

fn clusters(stage: &Stage) -> impl Iterator<Item = &Cluster> {
    stage.world.regions().iter().filter_map(|region| region.cluster().ok())
}

fn lines(log: &Path, what: &str) -> Result<usize> {
    let text = std::fs::read_to_string(log).with_context(|| format!("no log at {}", log.display()))?;
    Ok(text.lines().filter(|line| line.contains(what)).count())
}

/// Entries of a folder with this in their names.
fn named(folder: &Path, what: &str) -> Result<usize> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot look into {}", folder.display()))?;
    let entries = entries.collect::<Result<Vec<_>, _>>()?;
    Ok(entries.iter().filter(|entry| entry.file_name().to_string_lossy().contains(what)).count())
}
