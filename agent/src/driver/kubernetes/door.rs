//! The way to an API server: over TLS that is verified, by credentials that are read and never made by a program.

use std::path::PathBuf;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use tokio::sync::Mutex;

use super::failure::root;
use crate::driver::DriverError;

/// A connection that takes longer to be made is given up.
const CONNECT: Duration = Duration::from_secs(3);
/// Longer than a watch lasts, which the server ends by itself: silence for so long is a connection that is dead.
const SILENCE: Duration = Duration::from_secs(30);

/// A client that is made when it is needed first, and anew when its credentials are no longer taken: the files may have
/// been renewed.
pub(crate) struct Door {
    kubeconfig: Option<PathBuf>,
    context: Option<String>,
    client: Mutex<Option<Client>>,
}

impl Door {
    /// By a kubeconfig, or else by the service account of this pod.
    pub(crate) fn new(kubeconfig: Option<PathBuf>, context: Option<String>) -> Self {
        Self { kubeconfig, context, client: Mutex::default() }
    }

    /// The client.
    pub(crate) async fn client(&self) -> Result<Client, DriverError> {
        let mut kept = self.client.lock().await;
        if let Some(client) = &*kept {
            return Ok(client.clone());
        }
        let client = self.open().await?;
        *kept = Some(client.clone());
        Ok(client)
    }

    /// The next client reads the files again, if this failure may be one of credentials.
    pub(crate) async fn hear(&self, error: &DriverError) {
        if matches!(error.code, "kubernetes-unauthenticated" | "kubernetes-unreachable" | "kubernetes-configuration") {
            *self.client.lock().await = None;
        }
    }

    async fn open(&self) -> Result<Client, DriverError> {
        let mut config = match &self.kubeconfig {
            Some(path) => {
                let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
                let read = async { Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &options).await };
                read.await.map_err(|error| unusable(&format!("{} cannot be used", path.display()), &why(&error)))?
            }
            None => Config::incluster()
                .map_err(|error| unusable("there is no service account of a pod; name a kubeconfig", &root(&error)))?,
        };
        refuse_unsafe(&config)?;
        config.connect_timeout = Some(CONNECT);
        config.read_timeout = Some(SILENCE);
        // Else the time for which a connection lay idle counted as silence.
        config.reset_reader_on_write = true;
        // A Job that was made, though the answer was lost, would be made again: drivers and steps repeat by what they read.
        config.default_retry = false;
        Client::try_from(config).map_err(|error| unusable("no client can be made of the kubeconfig", &root(&error)))
    }
}

/// No credential goes to whoever answers, and no program runs that agent.yaml does not list: it would run without a
/// bound, and what it prints, a token, is part of its errors.
fn refuse_unsafe(config: &Config) -> Result<(), DriverError> {
    let (login, https) = (&config.auth_info, config.cluster_url.scheme_str() == Some("https"));
    let refused = if config.accept_invalid_certs {
        "insecure-skip-tls-verify is set; name the certificate-authority of the API server"
    } else if !https {
        "the address of the API server does not begin with https"
    } else if login.exec.is_some() || login.auth_provider.is_some() {
        "its user logs in by a program (exec or auth-provider); name a tokenFile or a client certificate"
    } else {
        return Ok(());
    };
    Err(unusable("the kubeconfig is refused", refused))
}

/// Of what is no YAML only the place: an error of the parser quotes what stands there, which may be a token.
fn why(error: &KubeconfigError) -> String {
    let KubeconfigError::Parse(error) = error else { return root(error) };
    let place = error.location().map(|place| format!(" at line {} column {}", place.line(), place.column()));
    format!("it is no kubeconfig in YAML{}", place.unwrap_or_default())
}

fn unusable(what: &str, why: &str) -> DriverError {
    // Another attempt reads the files again.
    DriverError::retryable("kubernetes-configuration", format!("{what}: {why}"))
}
