//! The coordinator: one per region. It replicates, observes, decides and answers; it never touches a database.

pub mod admin;
pub mod api;
pub mod backup;
pub mod clock;
pub mod config;
pub mod dashboard;
pub mod dns;
pub mod engine;
pub mod join;
pub mod members;
pub mod node;
pub mod observer;
pub mod program;
pub mod proposals;
pub mod raft;
pub mod replica;
pub mod telemetry;
pub mod view;
pub mod works;
