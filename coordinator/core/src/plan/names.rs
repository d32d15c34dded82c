//! What a switchover does for the names that it redirects before it keeps writes out, so that by then nobody holds an answer of
//! before for long.
//!
//! ```text
//!  embedded:   answered with a TTL of 0 from the beginning of the run on ─┐
//!  rfc2136:    the primary's agent shortens the TTL at the server ────────┴─► wait the documented TTL ─► quiesce, fence …
//!              the redirect writes the documented one again; an undo restores it
//! ```

use std::collections::BTreeMap;

use super::Planning;
use crate::application::{Action, DnsName, DnsProvider, Line, OnFailure};
use crate::id::ResourceId;
use crate::run::{StepKind, UNDO_STAGE};
use crate::time::Span;

/// The TTL of a name at another provider's while a switchover is under way. Of 0 some resolvers make a minimum of their own.
const SHORT: Span = Span::from_secs(1);
/// For one attempt at restoring a TTL: a short one does no harm, and nothing else waits long for it.
const RESTORE: Span = Span::from_secs(30);
/// Attempts at that after the first.
const RESTORE_RETRIES: u32 = 1;

impl Planning<'_> {
    /// Lets the answers of before expire: of the names that these lines redirect.
    pub(super) fn expire(&mut self, lines: &[&Line]) {
        let foreign = self.foreign(lines);
        for (resource, line) in &foreign {
            let mut step = self.step(StepKind::Action(Action::Redirect), Some(resource), self.route.from);
            step.timeout = line.timeout;
            step.retries = line.retries;
            step.on_failure = line.on_failure;
            step.duration = SHORT;
            self.push(step);
        }
        if !foreign.is_empty() {
            self.stage += 1;
        }
        let remembered = self.names(lines).map(|(_, _, name)| name.ttl).max();
        self.wait(remembered.unwrap_or(Span::ZERO));
    }

    /// The TTLs that were shortened are as documented again. One that stays short does no harm.
    pub(super) fn undo_names(&mut self, lines: &[&Line]) {
        for resource in self.foreign(lines).into_keys() {
            let mut step = self.step(StepKind::Action(Action::Redirect), Some(&resource), self.route.from);
            step.stage = UNDO_STAGE;
            step.timeout = RESTORE;
            step.retries = RESTORE_RETRIES;
            step.on_failure = OnFailure::Continue;
            self.push(step);
        }
    }

    /// The names whose TTL has to be shortened first, each with the line that redirects it.
    fn foreign<'l>(&self, lines: &[&'l Line]) -> BTreeMap<ResourceId, &'l Line> {
        let foreign = self.names(lines).filter(|(_, _, name)| name.provider == DnsProvider::Rfc2136);
        foreign.map(|(resource, line, _)| (resource.clone(), line)).collect()
    }

    /// The redirected names whose answers are waited out. One that another server gives with a short TTL expires as soon as that.
    fn names<'a, 'l>(&'a self, lines: &'a [&'l Line]) -> impl Iterator<Item = (&'l ResourceId, &'l Line, &'a DnsName)> {
        let redirects = lines.iter().copied().filter(|line| line.action == Action::Redirect);
        let redirected = redirects.flat_map(|line| line.resources.iter().map(move |resource| (resource, line)));
        redirected.filter_map(move |(resource, line)| {
            let name = self.document.resources.get(resource)?.dns.as_ref()?;
            let expires = match name.provider {
                DnsProvider::Embedded => true,
                DnsProvider::Rfc2136 => name.ttl > SHORT,
            };
            expires.then_some((resource, line, name))
        })
    }
}
