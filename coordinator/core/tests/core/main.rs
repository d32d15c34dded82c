//! The core from outside: entries in, exact results out.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::needless_pass_by_value,
    missing_docs,
    unreachable_pub,
    reason = "tests"
)]

mod approving;
mod breaking;
mod clocks;
mod closed;
mod deciding;
mod fixture;
mod installing;
mod late;
mod measuring;
mod observing;
mod random;
mod rejoining;
mod running;
mod stuck;
mod switching;
mod voting;
