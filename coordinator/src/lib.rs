//! The coordinator: one per region. It replicates, observes, decides and answers; it never touches a database.

pub mod api;
pub mod node;
pub mod replica;
