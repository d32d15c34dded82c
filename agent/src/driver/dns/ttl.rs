//! Another TTL for what a name answers already.

use std::net::SocketAddr;
use std::time::Duration;

use futures::future::{join, join_all};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, RecordType};

use super::rfc2136::Updated;
use super::{DnsDriver, SHORTEST_DEADLINE, facts};
use crate::driver::{Done, DriverError, DriverResult, Redirect};

/// Between two looks at a server that gave a longer TTL.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// What became of one authority.
enum Authority {
    /// It gives no longer TTL than that.
    Follows,
    /// It gives no answer: whoever asks there gets none either.
    Silent,
    /// It gave a longer one to the end.
    Lags,
}

impl DnsDriver {
    /// Changes the TTL at the server, and waits until no authority that answers gives a longer one. From then on answers of
    /// before expire.
    pub(super) async fn change_ttl(&self, name: &Name, redirect: &Redirect) -> DriverResult {
        let Some(updater) = &self.updater else {
            let message = format!(
                "the TTL of {name} is to be {} s, and this agent cannot change it: its file has no `update` for the name; add it",
                redirect.ttl
            );
            return Err(DriverError::permanent("dns-configuration", message));
        };
        let updated = updater.change_ttl(name, redirect).await?;
        let deadline = self.options.timeout.unwrap_or(SHORTEST_DEADLINE);
        let looks = self.authorities.iter().map(|server| follows(*server, name, redirect.ttl, deadline));
        let looks = join_all(looks).await;
        let lags = self.authorities.iter().zip(&looks).filter(|(_, look)| matches!(look, Authority::Lags));
        let lags: Vec<String> = lags.map(|(server, _)| server.to_string()).collect();
        if !lags.is_empty() {
            let message = format!(
                "{name} should have a TTL of {} s, but after {} s these servers give a longer one: {}; see whether they follow \
                 the primary",
                redirect.ttl,
                deadline.as_secs_f32(),
                lags.join(", ")
            );
            return Err(DriverError::retryable("dns-still-old", message));
        }
        if !looks.iter().any(|look| matches!(look, Authority::Follows)) {
            let message = format!("no authority for {name} answers; see that one runs and is reachable");
            return Err(DriverError::retryable("dns-no-authority", message));
        }
        let already = updated == Updated::Already;
        let message = if already {
            format!("{name} had a TTL of {} s already, or no address", redirect.ttl)
        } else {
            format!("{name} was given a TTL of {} s, and answers so", redirect.ttl)
        };
        Ok(Done { already, message, ..Done::default() })
    }
}

/// Asks until this server gives a TTL that is no longer, or none at all.
async fn follows(server: SocketAddr, name: &Name, ttl: u32, deadline: Duration) -> Authority {
    let looks = async {
        loop {
            let (four, six) =
                join(facts::ask(server, name, RecordType::A, false), facts::ask(server, name, RecordType::AAAA, false))
                    .await;
            let (Ok(four), Ok(six)) = (four, six) else { return Authority::Silent };
            let answers = [four, six];
            let answered = |code: ResponseCode| matches!(code, ResponseCode::NoError | ResponseCode::NXDomain);
            if !answers.iter().all(|answer| answered(answer.response_code)) {
                return Authority::Silent;
            }
            if answers.iter().flat_map(|answer| &answer.answers).all(|record| record.ttl <= ttl) {
                return Authority::Follows;
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    };
    tokio::time::timeout(deadline, looks).await.unwrap_or(Authority::Lags)
}
