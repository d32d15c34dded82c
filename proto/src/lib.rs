//! Generated code of Regent's three gRPC packages, and TLS helpers. No logic.
#![allow(missing_docs, clippy::all, clippy::pedantic, reason = "most of it is generated")]

/// What clients speak over.
pub mod line;
/// Identities in certificates, server settings and channels.
pub mod tls;
/// A channel that keeps the newest value.
pub mod watch;
/// What systemd is told of a process.
pub mod watchdog;

/// Agents with coordinators, and agents among themselves.
pub mod agent {
    pub mod v1 {
        tonic::include_proto!("regent.agent.v1");
    }
}
/// Coordinators among themselves.
pub mod peer {
    pub mod v1 {
        tonic::include_proto!("regent.peer.v1");
    }
}
/// Operators.
pub mod operator {
    pub mod v1 {
        tonic::include_proto!("regent.operator.v1");
    }
}

/// Encoded file descriptors, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/regent.bin"));
