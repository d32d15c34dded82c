//! The program itself, as a process, against coordinators that answer on loopback with mutual TLS.

#[path = "../../../tests/operator_api/world.rs"]
mod world;

mod bad_input;
mod certs;
mod changes;
mod reads;
mod runs;
mod terminal;
