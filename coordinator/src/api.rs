//! gRPC: state changes only by proposing an entry.

pub mod agent;
