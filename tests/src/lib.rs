//! Whole-product tests, and the simulation of the real code.
#![allow(clippy::expect_used, reason = "a world that cannot be built is a failure of the test")]

pub mod simulation;
