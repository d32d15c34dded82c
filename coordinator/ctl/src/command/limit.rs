//! `regentctl limit`.

use std::fmt::Write;

use clap::Args;
use regent_core::time::Span;
use regent_proto::operator::v1 as wire;

use super::notice;
use crate::connection::{Connection, request_id};
use crate::failure::Failure;
use crate::output::{OutputArg, say};
use crate::words;

/// Shows or sets how many automatic failovers may begin in a while, over all applications.
#[derive(Args)]
#[command(after_help = "\
Each failover is decided on its own evidence; the limit is for the day on which something that all of them rest on is
wrong. What is counted are events: all applications that leave one cluster because it is lost are one, whatever else
begins by itself counts alone. Beyond the limit `regentctl why` says blast-radius, and a human looks; `regentctl ack --all`
begins the count anew. What operators begin is neither counted nor held.

Default: half of the applications, at least 2, within 1h.

Examples:
  regentctl limit
  regentctl limit --failovers 3 --within 30m
  regentctl limit --default")]
pub(crate) struct LimitCommand {
    /// At most so many; the other setting gets its default if it is not given.
    #[arg(long, value_name = "N", conflicts_with = "default")]
    failovers: Option<u32>,
    /// Within this time.
    #[arg(long, value_name = "TIME", value_parser = span, conflicts_with = "default")]
    within: Option<Span>,
    /// Back to the defaults.
    #[arg(long)]
    default: bool,
    #[command(flatten)]
    output: OutputArg,
}

fn span(text: &str) -> Result<Span, String> {
    Span::parse(text).map_err(|error| error.to_string())
}

impl LimitCommand {
    pub(crate) async fn run(self, connection: &Connection) -> Result<(), Failure> {
        if self.default || self.failovers.is_some() || self.within.is_some() {
            return self.set(connection).await;
        }
        let answer = connection
            .call(|mut services| async move { services.cluster.status(wire::StatusRequest {}).await })
            .await?;
        let status = answer.status.unwrap_or_default();
        notice(status.view.as_ref());
        self.output.output.print("Limit", &status.limit.unwrap_or_default(), table)
    }

    async fn set(self, connection: &Connection) -> Result<(), Failure> {
        let window = self.within.map(|span| prost_types::Duration {
            seconds: i64::try_from(span.millis() / 1_000).unwrap_or(i64::MAX),
            nanos: i32::try_from(span.millis() % 1_000 * 1_000_000).unwrap_or(0),
        });
        let request = wire::SetLimitRequest { request_id: request_id(), events: self.failovers, window };
        connection
            .call(|mut services| {
                let request = request.clone();
                async move { services.cluster.set_limit(request).await }
            })
            .await?;
        say("set; `regentctl limit` shows it");
        Ok(())
    }
}

fn table(limit: &wire::Limit) -> String {
    let mut text = format!(
        "At most {} automatic failovers within {}.\n",
        limit.events,
        limit.window.as_ref().map(words::span).unwrap_or_default()
    );
    for begun in &limit.begun {
        let why = if begun.lost.is_empty() { String::new() } else { format!(", {} was lost", begun.lost) };
        let _ = writeln!(text, "  {} {}{why}", words::time(begun.at.as_ref()), begun.application);
    }
    text
}
