//! The agent: one per cluster. It probes, fences and acts; it decides nothing but to fence itself.

pub mod agent;
pub mod config;
pub mod dial;
pub mod driver;
pub mod facts;
pub mod fence;
pub mod guard;
pub mod journal;
pub mod lease;
pub mod probe;
pub mod program;
pub mod secret;
pub mod settings;
pub mod steps;
pub mod uplink;
pub mod witness;
