//! agent.yaml and the drivers at the edges (`dns`, `http`, `command`) against real DNS servers, sockets and programs.
//! What DNS servers answer is read by `dig`, not by the code under test.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

/// Each test with Knot and with BIND.
macro_rules! on_each_server {
    ($($test:ident)*) => {
        mod knot {
            $(#[tokio::test] async fn $test() { super::$test(super::Kind::Knot).await })*
        }
        mod bind {
            $(#[tokio::test] async fn $test() { super::$test(super::Kind::Bind).await })*
        }
    };
}

#[path = "drivers_edges/children.rs"]
mod children;
#[path = "drivers_edges/command.rs"]
mod command;
#[path = "drivers_edges/config.rs"]
mod config;
#[path = "drivers_edges/dns.rs"]
mod dns;
#[path = "drivers_edges/guard.rs"]
mod guard;
#[path = "drivers_edges/http.rs"]
mod http;
#[path = "drivers_edges/servers.rs"]
mod servers;
#[path = "drivers_edges/support.rs"]
mod support;
#[path = "drivers_edges/ttl.rs"]
mod ttl;
