//! What others can ask of a coordinator.

pub mod peer;
