//! `regentctl certs`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use regent_proto::tls::Identity;

use crate::certs::{CA_DAYS, CertsError, Folder, LEAF_DAYS, Made};
use crate::failure::{Failure, chain};
use crate::output::say;

/// Makes an authority, and certificates for coordinators, agents and operators. Needs no coordinator.
#[derive(Args)]
#[command(after_help = "\
Every connection of Regent is mutual TLS, and a certificate says who its bearer is. Keep ca-key.pem off the nodes; each
node needs ca.pem, its own certificate and its own key. Files are readable by their owner only.

Examples:
  regentctl certs ca --dir certs --group dev
  regentctl certs coordinator 1 --dir certs --name 10.0.1.10 --name c1.example.com
  regentctl certs agent eu-west-1 --dir certs --name 10.0.1.20
  regentctl certs operator ann --dir certs              writes operator.pem and operator-key.pem
  regentctl certs operator bob --dir certs --file bob   writes bob.pem and bob-key.pem")]
pub(crate) struct Certs {
    #[command(subcommand)]
    who: Who,
}

#[derive(Subcommand)]
enum Who {
    /// The authority that signs all others: ca.pem and ca-key.pem.
    Ca {
        /// Short name of the group; certificates of another group are refused.
        #[arg(long, default_value = "dev")]
        group: String,
        /// For so many days.
        #[arg(long, default_value_t = CA_DAYS, value_parser = days())]
        days: u32,
        #[command(flatten)]
        place: Place,
    },
    /// A coordinator's: coordinator-ID.pem and coordinator-ID-key.pem.
    Coordinator {
        /// Its id, as in coordinator.yaml.
        id: u64,
        #[command(flatten)]
        leaf: Leaf,
    },
    /// An agent's: agent-CLUSTER.pem and agent-CLUSTER-key.pem.
    Agent {
        /// Its cluster, as in agent.yaml.
        cluster: String,
        #[command(flatten)]
        leaf: Leaf,
    },
    /// An operator's: operator.pem and operator-key.pem.
    Operator {
        /// Who it is; the audit will say so.
        name: String,
        #[command(flatten)]
        leaf: Leaf,
    },
}

#[derive(Args)]
struct Place {
    /// Folder of the certificates; made if it is not there.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Replace files that exist.
    #[arg(long)]
    force: bool,
}

#[derive(Args)]
struct Leaf {
    /// DNS name or IP address under which it is dialled, beside localhost; may be given more than once.
    #[arg(long = "name", id = "san", value_name = "HOST")]
    names: Vec<String>,
    /// For so many days.
    #[arg(long, default_value_t = LEAF_DAYS, value_parser = days())]
    days: u32,
    /// Names of the files: FILE.pem and FILE-key.pem.
    #[arg(long, value_name = "FILE")]
    file: Option<String>,
    #[command(flatten)]
    place: Place,
}

fn days() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=36_500)
}

impl Certs {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let made = match self.who {
            Who::Ca { group, days, place } => place.folder().authority(&group, days),
            Who::Coordinator { id, leaf } => leaf.issue(&format!("coordinator-{id}"), &Identity::Coordinator(id)),
            Who::Agent { cluster, leaf } => leaf.issue(&format!("agent-{cluster}"), &Identity::Agent(cluster)),
            Who::Operator { name, leaf } => leaf.issue("operator", &Identity::Operator(name)),
        };
        let made = made.map_err(|error| Failure::failed(chain(&error)))?;
        say(&format!("{}\n{}", made.certificate.display(), made.key.display()));
        Ok(())
    }
}

impl Leaf {
    fn issue(self, stem: &str, identity: &Identity) -> Result<Made, CertsError> {
        let stem = self.file.as_deref().unwrap_or(stem);
        self.place.folder().issue(stem, identity, &self.names, self.days)
    }
}

impl Place {
    fn folder(self) -> Folder {
        Folder { dir: self.dir, force: self.force }
    }
}
