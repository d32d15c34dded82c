//! The decision core of Regent: pure, deterministic, without I/O, clock or randomness.
pub mod application;
pub mod decide;
pub mod effect;
pub mod entry;
pub mod evidence;
pub mod id;
pub mod invariant;
pub mod lease;
pub mod observer;
pub mod plan;
pub mod run;
pub mod state;
pub mod target;
pub mod terms;
pub mod time;
pub mod verdict;
pub mod why;
