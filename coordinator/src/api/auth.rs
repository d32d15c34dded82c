//! Who may do what. Operators may call all of `regent.operator.v1`; coordinators may pass an operator's read on to the
//! leader; agents have no business there.

use regent_proto::tls::{Identity, peer_identity};
use tonic::{Request, Status};

/// Metadata of a call that a coordinator passes on: it is answered where it arrives, so it is never passed on twice.
pub(crate) const FORWARDED: &str = "regent-forwarded";

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Caller {
    /// A person or a tool, by the name in the certificate.
    Operator(String),
    /// A coordinator on behalf of an operator that it has checked.
    Forwarded,
}

/// Whether a call has been passed on already.
pub(crate) fn is_forwarded<T>(request: &Request<T>) -> bool {
    request.metadata().contains_key(FORWARDED)
}

/// The operator's name: the actor of a mutation and of its audit record.
pub(crate) fn operator<T>(request: &Request<T>) -> Result<String, Status> {
    permit_operator(peer_identity(request)?)
}

/// An operator, or a coordinator that passes on what an operator asked.
pub(crate) fn operator_or_forwarded<T>(request: &Request<T>) -> Result<Caller, Status> {
    permit(peer_identity(request)?, is_forwarded(request))
}

fn permit_operator(identity: Identity) -> Result<String, Status> {
    match identity {
        Identity::Operator(name) => Ok(name),
        other @ (Identity::Coordinator(_) | Identity::Agent(_)) => Err(denied(&other)),
    }
}

fn permit(identity: Identity, forwarded: bool) -> Result<Caller, Status> {
    match identity {
        Identity::Operator(name) => Ok(Caller::Operator(name)),
        Identity::Coordinator(_) if forwarded => Ok(Caller::Forwarded),
        other @ (Identity::Coordinator(_) | Identity::Agent(_)) => Err(denied(&other)),
    }
}

fn denied(identity: &Identity) -> Status {
    Status::permission_denied(format!(
        "{identity} may not do this: use an operator's certificate (`regentctl certs operator NAME`)"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_may_everything_and_agents_nothing() {
        assert_eq!(permit_operator(Identity::Operator("ann".into())).unwrap(), "ann");
        assert_eq!(permit(Identity::Operator("ann".into()), false).unwrap(), Caller::Operator("ann".into()));
        for forwarded in [false, true] {
            let status = permit(Identity::Agent("eu-west-1".into()), forwarded).unwrap_err();
            assert_eq!(status.code(), tonic::Code::PermissionDenied);
            assert!(status.message().contains("agent/eu-west-1"), "{status}");
        }
    }

    #[test]
    fn a_coordinator_may_pass_on_reads_and_change_nothing() {
        assert_eq!(permit(Identity::Coordinator(1), true).unwrap(), Caller::Forwarded);
        assert!(permit(Identity::Coordinator(1), false).is_err());
        assert!(permit_operator(Identity::Coordinator(1)).is_err());
    }
}
