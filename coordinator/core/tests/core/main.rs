//! The core from outside: entries in, exact results out.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::needless_pass_by_value,
    missing_docs,
    unreachable_pub,
    reason = "tests"
)]

mod adopting;
mod advising;
mod ageing;
mod ahead;
mod approving;
mod blast;
mod breaking;
mod carried;
mod clearing;
mod clocks;
mod closed;
mod committing;
mod copying;
mod deciding;
mod declining;
mod drilling;
mod expecting;
mod failing;
mod finding;
mod fixture;
mod installing;
mod intervening;
mod judging;
mod lagging;
mod late;
mod late_window;
mod measuring;
mod members;
mod moving;
mod observing;
mod ordering;
mod planning;
mod quiescing;
mod random;
mod readying;
mod recovering;
mod reinstalling;
mod rejoining;
mod restoring;
mod running;
mod several;
mod shortening;
mod sparing;
mod straying;
mod streaming;
mod stuck;
mod switching;
mod target_lost;
mod telling;
mod undecided;
mod undoing;
mod untouched;
mod voting;
mod waiting;
mod warning;
