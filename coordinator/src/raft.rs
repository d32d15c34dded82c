//! Replication.

pub mod codec;
pub mod log_store;
pub mod ondisk;
mod snapshot_file;
pub mod state_machine;
mod store;
pub mod types;
mod writer;

#[cfg(test)]
mod tests;
