//! What whole-product tests are made of: a world whose regions can be cut off from each other ([`stage`]), writers in every
//! region ([`crew`]), and a judge who looks at what those were told and at the databases, and at nothing that Regent says of
//! itself but its report and its epochs ([`oracle`]). Beside it switchovers there and back under many clients ([`rounds`]).
//! The simulation of the real code and the protocol as a model are crates of their own.

#![allow(clippy::expect_used, reason = "a world that cannot be built is a failure of the test")]

pub mod alone;
pub mod ballast;
pub mod crew;
pub mod epochs;
pub mod gate;
pub mod oracle;
pub mod rehearsal;
pub mod rounds;
pub mod scratch;
pub mod soak;
pub mod stage;
