//! The agent: one per cluster. It probes, fences and acts; it decides nothing but to fence itself.

pub mod config;
pub mod driver;
pub mod guard;
pub mod journal;
pub mod lease;
pub mod secret;
