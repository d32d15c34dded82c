//! `kind: http`: an endpoint that must answer with a status and, if asked for, a text.

use std::time::Duration;

use async_trait::async_trait;
use reqwest::redirect::Policy;
use reqwest::{Client, Url};

use super::{Done, Driver, DriverError, DriverResult, Health, Probe, Role};
use crate::config::HttpOptions;

/// How much of a body is read.
const BODY_LIMIT: usize = 64 * 1024;

/// An endpoint.
pub struct HttpDriver {
    client: Client,
    url: Url,
    /// The URL without its query, which may hold a token.
    shown: String,
    expect_status: u16,
    expect_body: Option<String>,
    timeout: Duration,
}

/// Why an endpoint does not serve as it should.
struct Fault {
    /// It answered, or it certainly is not there.
    certain: bool,
    message: String,
}

impl HttpDriver {
    /// A driver for one endpoint.
    ///
    /// # Errors
    /// If the URL is malformed or the system's authorities cannot be loaded.
    pub fn new(options: HttpOptions) -> Result<Self, DriverError> {
        let wrong = |what: String| DriverError::permanent("http-configuration", what);
        let url = Url::parse(&options.url).map_err(|error| wrong(format!("the URL is malformed: {error}")))?;
        let mut shown = url.clone();
        shown.set_query(None);
        shown.set_fragment(None);
        // Each look is a new connection to what the name says now: an open one could lead to the old place.
        let client = Client::builder()
            .no_proxy()
            .redirect(Policy::none())
            .pool_max_idle_per_host(0)
            .timeout(options.timeout)
            .user_agent(concat!("regent-agent/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| wrong(format!("no HTTP client can be made for {shown}: {}", root(&error))))?;
        Ok(Self {
            client,
            url,
            shown: shown.to_string(),
            expect_status: options.expect_status,
            expect_body: options.expect_body,
            timeout: options.timeout,
        })
    }

    async fn look(&self) -> Result<(), Fault> {
        let mut response = self.client.get(self.url.clone()).send().await.map_err(|error| self.unanswered(&error))?;
        let status = response.status().as_u16();
        if status != self.expect_status {
            return Err(self.fault(&format!("answered {status}, and {} is expected", self.expect_status)));
        }
        let Some(text) = &self.expect_body else { return Ok(()) };
        let mut body = Vec::new();
        while body.len() < BODY_LIMIT
            && let Some(chunk) = response.chunk().await.map_err(|error| self.unanswered(&error))?
        {
            body.extend_from_slice(&chunk);
            if contains(&body, text.as_bytes()) {
                return Ok(());
            }
        }
        if contains(&body, text.as_bytes()) {
            return Ok(());
        }
        Err(self.fault(&format!("answered {status}, but {text:?} is not within the first 64 KiB of the body")))
    }

    fn fault(&self, what: &str) -> Fault {
        Fault { certain: true, message: format!("{} {what}; see the service", self.shown) }
    }

    fn unanswered(&self, error: &reqwest::Error) -> Fault {
        if error.is_timeout() {
            let message =
                format!("{} did not answer within {} s; see the service", self.shown, self.timeout.as_secs_f32());
            return Fault { certain: false, message };
        }
        let message = format!("{} cannot be asked ({}); see that it runs and is reachable", self.shown, root(error));
        Fault { certain: is_refused(error), message }
    }
}

fn contains(body: &[u8], text: &[u8]) -> bool {
    text.is_empty() || body.windows(text.len()).any(|window| window == text)
}

/// The innermost cause: the outer ones repeat the URL, query included.
fn root(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    if std::ptr::addr_eq(cause, error) { "unknown cause".to_owned() } else { cause.to_string() }
}

fn is_refused(error: &reqwest::Error) -> bool {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(inner) = cause {
        if let Some(io) = inner.downcast_ref::<std::io::Error>()
            && matches!(io.kind(), std::io::ErrorKind::ConnectionRefused | std::io::ErrorKind::ConnectionReset)
        {
            return true;
        }
        cause = inner.source();
    }
    false
}

#[async_trait]
impl Driver for HttpDriver {
    fn kind(&self) -> &'static str {
        "http"
    }

    async fn probe(&self) -> Probe {
        let (health, detail) = match self.look().await {
            Ok(()) => (Health::Healthy, format!("{} answers as expected", self.shown)),
            Err(Fault { certain: true, message }) => (Health::Failed, message),
            Err(Fault { certain: false, message }) => (Health::Unknown, message),
        };
        Probe { role: Role::None, ..Probe::without_answer(health, detail) }
    }

    async fn verify(&self) -> DriverResult {
        match self.look().await {
            Ok(()) => {
                let message = format!("{} answers as expected", self.shown);
                Ok(Done { already: true, message, ..Done::default() })
            }
            Err(fault) => Err(DriverError::retryable("http-not-ready", fault.message)),
        }
    }
}
