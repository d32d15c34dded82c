//! Of the agents' machines: their clocks and certificates.

use super::{Looking, Place};
use crate::preflight::Severity;
use crate::time::Span;

/// A certificate that expires sooner is told of.
const CERTIFICATE_NEAR: Span = Span::from_secs(14 * 24 * 3600);
/// Clocks that differ by more make reports hard to read, and certificates fail.
const CLOCKS_APART: Span = Span::from_secs(2);

impl Looking<'_> {
    pub(super) fn of_nodes(&mut self) {
        for cluster in &self.document().clusters {
            let Some(node) = self.contact(cluster).and_then(|contact| contact.node) else { continue };
            let (here, fresh) = (Place::of(cluster), node.is_fresh(self.view.now));
            if fresh && node.ahead_ms.unsigned_abs() > CLOCKS_APART.millis() {
                let apart = Span::from_millis(node.ahead_ms.unsigned_abs());
                let way = if node.ahead_ms > 0 { "ahead of" } else { "behind" };
                let detail = format!("the clock of its agent is {apart} {way} that of coordinator {}", self.view.me);
                self.add(here.clone(), Severity::Warning, "clocks-apart", detail);
            }
            let Some(until) = node.certificate_until else { continue };
            let left = until.since(self.view.wall);
            if until.0 <= self.view.wall.0 {
                // Told of an agent that has fallen silent, too: it may be why.
                let detail = "the certificate of its agent has expired: it cannot connect anew";
                self.add(here, Severity::Warning, "certificate-expires", detail);
            } else if fresh && left < CERTIFICATE_NEAR {
                let detail = format!("the certificate of its agent expires in {left}");
                self.add(here, Severity::Warning, "certificate-expires", detail);
            }
        }
    }
}
