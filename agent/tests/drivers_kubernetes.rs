//! The `kubernetes` driver through the real client. `REGENT_TEST_KUBECONFIG` names a real cluster, in which those tests
//! run that need no fault of the server; without it, and for the rest, there is the server of `regent_deploy::kubernetes`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "drivers_kubernetes/argocd.rs"]
mod argocd;
#[path = "drivers_kubernetes/cluster.rs"]
mod cluster;
#[path = "drivers_kubernetes/faults.rs"]
mod faults;
#[path = "drivers_kubernetes/options.rs"]
mod options;
#[path = "drivers_kubernetes/room.rs"]
mod room;
#[path = "drivers_kubernetes/server.rs"]
mod server;
#[path = "drivers_edges/support.rs"]
mod support;
#[path = "drivers_kubernetes/workloads.rs"]
mod workloads;
