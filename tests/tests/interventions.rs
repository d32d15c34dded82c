//! An operator who says something at the wrong moment: abort, pause, resume and clear, at every moment of every kind of run,
//! and where each of its steps is stuck. Whatever was said, the run is driven on: it succeeds, or is undone with the old side
//! open and its services as before, or the command that is advised leads there; what is refused changes nothing; and every
//! effect happens once. In a rehearsal, without processes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, missing_docs, reason = "tests")]

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use regent_tests::rehearsal::Kind;
use regent_tests::rehearsal::words::{Fate, Word, say, say_where_stuck, steps, undisturbed};
use tempfile::TempDir;

/// For the journals of one run: in memory, where there is a place.
fn folder() -> Result<TempDir> {
    let memory = std::path::Path::new("/dev/shm");
    let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    Ok(tempfile::Builder::new().prefix("regent-words-").tempdir_in(parent)?)
}

/// What the leader was about to propose may come after the word. To a clear nothing is stuck there, so it is refused.
const fn may_overtake(word: Word) -> bool {
    match word {
        Word::Abort | Word::Pause | Word::PauseThenResume => true,
        Word::Retry | Word::Done => false,
    }
}

#[test]
fn every_word_at_every_moment_comes_to_a_named_end() -> Result<()> {
    for kind in Kind::ALL {
        let (wanted, moments) = undisturbed(kind, folder()?.path()).with_context(|| format!("{kind:?}"))?;
        ensure!(moments > 5, "{kind:?} has {moments} moments");
        let mut fates: BTreeMap<(String, Fate), u32> = BTreeMap::new();
        for moment in 0..moments {
            for word in Word::ALL {
                let lates = if may_overtake(word) { &[false, true][..] } else { &[false] };
                for late in lates {
                    let fate = say(kind, moment, word, *late, &wanted, folder()?.path())
                        .with_context(|| format!("{kind:?}, {word:?} at moment {moment} of {moments}, late: {late}"))?;
                    *fates.entry((format!("{word:?}"), fate)).or_default() += 1;
                }
            }
        }
        println!("{kind:?}: {moments} moments: {fates:?}");
        let seen = |word: Word, fate: Fate| fates.contains_key(&(format!("{word:?}"), fate));
        for word in [Word::Retry, Word::Done] {
            ensure!(seen(word, Fate::Unmoved), "{kind:?}: {word:?} of what is not stuck was never refused");
            ensure!(!seen(word, Fate::Succeeded) && !seen(word, Fate::Undone), "{kind:?}: {word:?} was taken");
        }
        // What has not passed its point of no return is undone by an abort; what has, goes on.
        let undone = seen(Word::Abort, Fate::Undone);
        let only_forward = matches!(kind, Kind::Loss | Kind::Rejoin);
        ensure!(undone != only_forward, "{kind:?}: {fates:?}");
        if matches!(kind, Kind::Switchover | Kind::Failover | Kind::Loss) {
            ensure!(seen(Word::Abort, Fate::Unmoved), "{kind:?}: {fates:?}");
        }
        // A pause opens again what was fenced and not decided, and takes nothing back that was.
        if matches!(kind, Kind::Switchover | Kind::Failover) {
            let both = seen(Word::Pause, Fate::Undone) && seen(Word::Pause, Fate::Succeeded);
            ensure!(both, "{kind:?}: {fates:?}");
        }
    }
    Ok(())
}

#[test]
fn every_word_where_any_step_is_stuck_comes_to_a_named_end() -> Result<()> {
    let mut stuck = BTreeMap::new();
    for kind in Kind::ALL {
        for step in steps(kind, folder()?.path())? {
            for word in Word::ALL {
                let fate = say_where_stuck(kind, step, word, folder()?.path())
                    .with_context(|| format!("{kind:?}, {word:?} where step {step} is stuck"))?;
                if let Some(fate) = fate {
                    *stuck.entry((format!("{kind:?}"), fate)).or_insert(0) += 1;
                }
            }
        }
    }
    println!("{stuck:?}");
    for (kind, fate) in [
        (Kind::Switchover, Fate::Succeeded),
        (Kind::Undo, Fate::Undone),
        (Kind::QuiescedUndo, Fate::Undone),
        (Kind::Failover, Fate::Succeeded),
        (Kind::Failover, Fate::Undone),
        (Kind::Loss, Fate::Succeeded),
        (Kind::Rejoin, Fate::Succeeded),
    ] {
        ensure!(stuck.contains_key(&(format!("{kind:?}"), fate)), "{kind:?} was never stuck and {fate:?}: {stuck:?}");
    }
    Ok(())
}
