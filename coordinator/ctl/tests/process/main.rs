//! The program itself, as a process, against coordinators that answer on loopback with mutual TLS.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "in a test they are the assertion")]

#[path = "../../../tests/operator_api/world.rs"]
mod world;

#[path = "../../../tests/operator_api/moving.rs"]
mod moving;

mod bad_input;
mod certs;
mod changes;
mod reads;
mod runs;
mod terminal;
mod verbs;
