//! Of the machines of agents and coordinators: their clocks and certificates.

use super::{Looking, Place};
use crate::facts::NodeFacts;
use crate::preflight::Severity;
use crate::time::{Span, Timestamp};

/// A certificate that expires sooner is told of.
const CERTIFICATE_NEAR: Span = Span::from_secs(14 * 24 * 3600);
/// Clocks that differ by more make reports hard to read, and certificates fail.
const CLOCKS_APART: Span = Span::from_secs(2);

impl Looking<'_> {
    pub(super) fn of_nodes(&mut self) {
        for cluster in &self.document().clusters {
            if let Some(node) = self.contact(cluster).and_then(|contact| contact.node) {
                self.of_machine(&Place::of(cluster), "its agent", &node);
            }
        }
    }

    /// Any of them may lead when it matters.
    pub(super) fn of_coordinators(&mut self) {
        let (state, evidence, me) = (self.state, self.evidence, self.view.me);
        let others = evidence.machines.iter().filter(|(id, _)| **id != me && state.coordinators.contains_key(id));
        for (id, machine) in others {
            self.of_machine(&Place::default(), &format!("coordinator {id}"), machine);
        }
        if let Some(until) = evidence.papers.certificate_until {
            self.of_certificate(&Place::default(), &format!("coordinator {me}"), until, true);
        }
        if let Some(until) = evidence.papers.authority_until {
            self.of_certificate(&Place::default(), "the authority that all trust", until, true);
        }
    }

    fn of_machine(&mut self, here: &Place, whose: &str, node: &NodeFacts) {
        let fresh = node.is_fresh(self.view.now);
        if fresh && node.ahead_ms.unsigned_abs() > CLOCKS_APART.millis() {
            let apart = Span::from_millis(node.ahead_ms.unsigned_abs());
            let way = if node.ahead_ms > 0 { "ahead of" } else { "behind" };
            let detail = format!("the clock of {whose} is {apart} {way} that of coordinator {}", self.view.me);
            self.add(here.clone(), Severity::Warning, "clocks-apart", detail);
        }
        if let Some(until) = node.certificate_until {
            self.of_certificate(here, whose, until, fresh);
        }
    }

    /// One that has expired is told of whoever has fallen silent, too: it may be why.
    fn of_certificate(&mut self, here: &Place, whose: &str, until: Timestamp, fresh: bool) {
        let left = until.since(self.view.wall);
        if until.0 <= self.view.wall.0 {
            let detail = format!("the certificate of {whose} has expired: nothing connects by it anew");
            self.add(here.clone(), Severity::Warning, "certificate-expires", detail);
        } else if fresh && left < CERTIFICATE_NEAR {
            let detail = format!("the certificate of {whose} expires in {left}");
            self.add(here.clone(), Severity::Warning, "certificate-expires", detail);
        }
    }
}
