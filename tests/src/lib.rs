//! See ARCHITECTURE.md.

pub mod model;
