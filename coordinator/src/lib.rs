//! The coordinator: one per region. It replicates, observes, decides and answers; it never touches a database.

pub mod admin;
pub mod dashboard;
pub mod dns;
pub mod node;
pub mod replica;
pub mod telemetry;
pub mod view;
