//! A world of real processes on one machine: what the quickstart shows and the whole-product tests run in.
//!
//! ```text
//!  eu-west                      eu-central                   eu-north
//!  keeper ─ coordinator 1       keeper ─ coordinator 2       keeper ─ coordinator 3
//!         ─ agent, guard               ─ agent, guard
//!         ─ PostgreSQL, Redis ──────►  ─ PostgreSQL, Redis (standbys)
//!         ─ demo service               ─ (demo service, once activated)
//!    127.0.0.11                   127.0.0.12
//! ```
//!
//! A region is one [`keeper::Keeper`]: every process of the region descends from it, the daemons too, so a region can be lost
//! whole and at once, and nothing survives the harness, however that ends.
//!
//! The regions share loopback addresses, or each stands in a namespace of its own behind links that can be cut: [`ground`].
//!
//! This crate serves tests and demonstrations and nothing else depends on it; its errors are therefore `anyhow`.

pub mod certs;
pub mod clock;
pub mod config;
pub mod ctl;
pub mod demo;
pub mod ground;
pub mod keeper;
pub mod knot;
pub mod kubernetes;
pub mod net;
pub mod place;
pub mod ports;
pub mod postgres;
pub mod quickstart;
pub mod redis;
pub mod region;
pub mod script;
pub mod tree;
pub mod wait;
pub mod world;
pub mod writer;
