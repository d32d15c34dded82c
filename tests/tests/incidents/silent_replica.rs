//! Stripe, July 2019: replicas that answered and had stopped to say how far they were, and an election between them.

use std::time::Duration;

use anyhow::{Result, ensure};
use regent_deploy::config::APPLICATION;
use regent_deploy::wait;
use regent_tests::crew::Way;
use regent_tests::stage::{CENTRAL, NORTH, Stage, WEST, play};

const D: Duration = Duration::from_secs(3);

/// What operators are told.
const NO_POSITION: &str = "answers probes and reports no position";

/// Makes the standby answer every question but that for its position: catalogues replicate, and a primary is not asked
/// for these.
const SILENCE: &str = "
    SET allow_system_table_mods = on;
    CREATE OR REPLACE FUNCTION pg_catalog.pg_last_wal_receive_lsn() RETURNS pg_lsn LANGUAGE sql AS 'SELECT NULL::pg_lsn';
    CREATE OR REPLACE FUNCTION pg_catalog.pg_last_wal_replay_lsn() RETURNS pg_lsn LANGUAGE sql AS 'SELECT NULL::pg_lsn';";

#[test]
fn silent_replica() -> Result<()> {
    play(|net| async {
        let stage = Stage::start(net, D).await?;
        let primary = stage.region(WEST).cluster()?.postgres.connect_as_agent().await?;
        primary.batch_execute(SILENCE).await?;
        drop(primary);
        wait::until("an alert", Duration::from_secs(20), || async {
            let why = stage.world.ctl().run(&["why", APPLICATION]).await?;
            ensure!(why.contains(NO_POSITION), "{why}");
            Ok(())
        })
        .await?;
        stage.crew.keeps_writing(NORTH, Way::Name, Duration::from_secs(2), Duration::from_secs(1)).await?;

        stage.region(WEST).lose().await?;
        stage.crew.takes_nothing(NORTH, Way::Name, D * 4).await?;
        let why = stage.world.ctl().run(&["why", APPLICATION]).await?;
        ensure!(why.contains(NO_POSITION), "{why}");
        ensure!(stage.changes().await? == 0, "the epoch rose");
        ensure!(stage.region(CENTRAL).cluster()?.postgres.is_in_recovery().await?, "it was promoted");
        stage.end().await
    })
}
