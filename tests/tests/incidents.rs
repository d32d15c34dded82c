//! The incidents that others had, each played through on real parts in namespaces with links that fail. The oracle decides.
//!
//! They need root and minutes each: `tests/run` leaves them out, and counts them; `tests/run --profile full` plays them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, missing_docs, reason = "tests")]

#[path = "incidents/all_regions_bad.rs"]
mod all_regions_bad;
#[path = "incidents/coordinators.rs"]
mod coordinators;
#[path = "incidents/faults.rs"]
mod faults;
#[path = "incidents/forgetful_primary.rs"]
mod forgetful_primary;
#[path = "incidents/full_disks.rs"]
mod full_disks;
#[path = "incidents/leader_dies_between_steps.rs"]
mod leader_dies_between_steps;
#[path = "incidents/name_servers.rs"]
mod name_servers;
#[path = "incidents/partitions.rs"]
mod partitions;
#[path = "incidents/returning.rs"]
mod returning;
#[path = "incidents/short_partition.rs"]
mod short_partition;
#[path = "incidents/silent_replica.rs"]
mod silent_replica;
#[path = "incidents/slow_is_not_dead.rs"]
mod slow_is_not_dead;
#[path = "incidents/stale_dns_writer.rs"]
mod stale_dns_writer;
