//! What comes in: from coordinators, the guard, steps, probes and the tasks of the loop itself.

use regent_core::id::{ApplicationId, Epoch, Token};
use regent_core::planted::{self, Mistake};
use regent_core::terms::Terms;
use regent_core::time::Span;
use regent_proto::agent::v1 as wire;
use regent_proto::agent::v1::connect_request::Body as Say;
use regent_proto::agent::v1::connect_response::Body as Heard;

use crate::agent::beats::Link;
use crate::agent::{Agent, BeingStored, Event};
use crate::driver::Health;
use crate::facts::Fact;
use crate::guard::{GuardEvent, Request, WatchState};
use crate::journal::{Hold, Record};
use crate::lease::facts::Word as LeaseWord;
use crate::lease::{Fence, GuardWord, Reading};
use crate::probe::Sight;
use crate::steps::StepEvent;
use crate::steps::order::Action;
use crate::uplink::{LinkEvent, LinkId, convert, coordinator, say};

const fn opens(kind: wire::StepKind) -> bool {
    matches!(kind, wire::StepKind::Unfence | wire::StepKind::Promote | wire::StepKind::Activate)
}

impl Agent {
    pub(super) fn hear_link(&mut self, link: LinkId, event: LinkEvent) {
        if !self.dialling.knows(link) {
            return;
        }
        let Some(event) = self.joining.keep(link, event) else { return };
        if matches!(event, LinkEvent::Up { .. }) && !self.belongs(link, &event) {
            return;
        }
        match event {
            LinkEvent::Up { welcome, say: sender } => {
                self.note_coordinator(link, coordinator(&welcome));
                if !self.dialling.knows(link) {
                    return;
                }
                self.links.insert(link, Link::new(coordinator(&welcome), sender));
                if let Some(known) = &welcome.coordinators {
                    self.hear_coordinators(known);
                }
                for terms in &welcome.terms {
                    self.hear_terms(terms);
                }
                let statuses = self.steps.all();
                if let Some(link) = self.links.get(&link) {
                    for status in statuses {
                        let _ = say(&link.say, Say::StepStatus(status));
                    }
                }
            }
            LinkEvent::Down => {
                self.links.remove(&link);
                self.round_trips.remove(&link);
            }
            LinkEvent::Doubled => self.hear_doubled(),
            LinkEvent::Heard(_) if !self.links.contains_key(&link) => {}
            LinkEvent::Heard(Heard::Answer(answer)) => self.hear_answer(link, &answer),
            LinkEvent::Heard(Heard::Terms(terms)) => self.hear_terms(&terms),
            LinkEvent::Heard(Heard::Step(command)) => self.hear_command(&command),
            LinkEvent::Heard(Heard::Coordinators(known)) => self.hear_coordinators(&known),
            LinkEvent::Heard(Heard::LookNow(asked)) => self.hear_look(link, asked.number),
            // Both end the stream before they get here.
            LinkEvent::Heard(Heard::Welcome(_) | Heard::Refusal(_)) => {}
        }
    }

    fn hear_answer(&mut self, id: LinkId, answer: &wire::Answer) {
        let now = self.clock.reading();
        let Some(stamp) = &answer.stamp else { return };
        if stamp.installation != self.installation.0 || stamp.incarnation != self.incarnation.0 {
            return;
        }
        let Some(link) = self.links.get_mut(&id) else { return };
        let coordinator = link.coordinator;
        link.receipt = link.receipt.max(answer.receipt);
        if let Some(round_trip) = link.answered(stamp.number, now) {
            self.round_trips.insert(id, round_trip);
        }
        let applications: Vec<ApplicationId> = self.leases.keys().cloned().collect();
        for application in &applications {
            let granted = answer.grants.iter().find(|grant| grant.application == application.as_str());
            let higher = answer.higher.iter().filter(|notice| notice.application == application.as_str());
            let word = LeaseWord {
                granted: granted.map(|grant| Epoch(grant.epoch)),
                higher: higher.map(|notice| Epoch(notice.epoch)).max(),
            };
            if let Some(higher) = word.higher {
                drop(self.see_epoch(application, higher));
            }
            self.with(application, |lease| lease.answered(now, coordinator, stamp.number, word));
        }
        // Two-way contact or a lease is lacking: the receipt is named at once.
        let lacking = self.leases.values().any(|lease| lease.is_primary() && lease.end(now).is_none());
        if let Some(link) = self.links.get_mut(&id) {
            link.soon |= link.named_receipt == 0 || lacking;
        }
    }

    /// A higher epoch was named, by whomever and in whatever: it is kept over restarts, since whoever has seen it
    /// refuses what is below (S2). The fence that follows from it waits for no disk; what others will rely on is said
    /// only after what this returns, where it is still on its way to the disk.
    pub(super) fn see_epoch(&mut self, application: &ApplicationId, epoch: Epoch) -> Option<BeingStored> {
        let lease = self.leases.get(application).map_or(Epoch(0), |lease| lease.seen());
        let stored = self.journal.view().applications.get(application).map_or(Epoch(0), |view| view.seen);
        if epoch > lease {
            tracing::warn!(%application, epoch = epoch.0, "a higher epoch was named");
            let now = self.clock.reading();
            self.with(application, |lease| lease.epoch_seen(now, epoch));
        }
        let seen = epoch.max(lease);
        let record = Record::Seen { application: application.clone(), epoch: seen };
        (seen > stored).then(|| {
            let storing = tokio::spawn(self.journal.append(vec![record]));
            Box::pin(async move { drop(storing.await) }) as BeingStored
        })
    }

    fn hear_terms(&mut self, update: &wire::TermsUpdate) {
        let now = self.clock.reading();
        let offered = match convert::terms(update) {
            Ok(offered) => offered,
            Err(error) => {
                let error = crate::journal::chain(&error);
                tracing::error!(application = update.application, error, "terms cannot be understood");
                return;
            }
        };
        let application = offered.application;
        self.note_former_life(&application, &offered.terms);
        if !self.leases.contains_key(&application) {
            self.add_lease(&application, GuardWord::Nothing, now);
            if self.guard_alive {
                self.with(&application, |lease| lease.guard_up(now));
            }
        }
        self.store_moved_peers(&application, &offered.terms, &offered.peers);
        self.offered_peers.insert(application.clone(), offered.peers);
        self.with(&application, |lease| lease.terms_offered(now, offered.terms));
    }

    /// The epochs of a released application stay seen, as its tokens do: coordinators that lag still speak of them, and
    /// a name's epochs only rise (S2). Terms that begin below them are stored and never led by; that is said.
    fn note_former_life(&self, application: &ApplicationId, terms: &Terms) {
        let view = self.journal.view();
        let Some(view) = view.applications.get(application) else { return };
        if view.released && terms.epoch < view.seen {
            tracing::error!(
                %application, epoch = terms.epoch.0, seen = view.seen.0,
                "terms below an epoch that this agent has seen: it takes no part until they are above it"
            );
        }
    }

    /// An agent may have moved, or enrolled its key, without new terms.
    fn store_moved_peers(
        &self,
        application: &ApplicationId,
        terms: &Terms,
        peers: &std::collections::BTreeMap<regent_core::id::ClusterId, crate::journal::Peer>,
    ) {
        let moved = {
            let view = self.journal.view();
            let view = view.applications.get(application);
            view.is_some_and(|view| view.terms.as_ref() == Some(terms) && view.peers != *peers)
        };
        if moved {
            let (application, terms) = (application.clone(), Box::new(terms.clone()));
            tokio::spawn(self.journal.append(vec![Record::Terms { application, terms, peers: peers.clone() }]));
        }
    }

    fn hear_command(&mut self, command: &wire::StepCommand) {
        let now = self.clock.reading();
        let application = ApplicationId::new(&command.application).ok();
        let lease = application.as_ref().and_then(|application| self.leases.get(application));
        let seen = lease.map_or(Epoch(0), |lease| lease.seen());
        // Told before the step may begin: a lapse right after it finds something open.
        if let Some(application) = application.as_ref().filter(|_| opens(command.kind())) {
            self.with(application, |lease| lease.opening_is(now, true));
        }
        let (fencers, resting, mut ended) = (&mut self.fencers, &mut self.resting, None);
        let statuses = self.steps.take(command, seen, |order| {
            super::quarantine::break_off(resting, order);
            let fencer = fencers.get_mut(&order.application).filter(|_| order.action.closes())?;
            ended = fencer.end_lift().inspect(|_| tracing::info!(application = %order.application, "a lift is ended"));
            ended.clone()
        });
        if let Some(application) = &application {
            // Before anything else may begin a lift: what closes counts from here on.
            self.retell_holds(application, now);
            if ended.is_some() {
                self.with(application, |lease| lease.lifted(now, false));
            }
        }
        // Whoever commands at a higher epoch has seen it decided, however the command is answered.
        match application.and_then(|application| self.see_epoch(&application, Epoch(command.epoch))) {
            None => self.say_statuses(&statuses),
            Some(stored) => {
                let events = self.events.clone();
                tokio::spawn(async move {
                    stored.await;
                    let _ = events.send(Event::ToBeSaid(statuses));
                });
            }
        }
        let applications: Vec<_> = self.leases.keys().cloned().collect();
        for application in applications {
            self.retell_holds(&application, now);
        }
    }

    fn say_statuses(&self, statuses: &[wire::StepStatus]) {
        for status in statuses {
            for link in self.links.values() {
                let _ = say(&link.say, Say::StepStatus(status.clone()));
            }
        }
    }

    pub(super) fn hear_step(&mut self, event: StepEvent) {
        let now = self.clock.reading();
        if let StepEvent::Ended(key, outcome) = &event
            && let Some(order) = self.steps.order(key)
        {
            let (application, resource, action) =
                (order.application.clone(), order.resource.clone(), order.action.clone());
            let good = outcome.code.is_empty();
            let resources: Vec<_> = match &resource {
                Some(resource) => vec![resource.clone()],
                None => self.guarded(&application).into_keys().collect(),
            };
            for resource in resources {
                if let Some(probe) = self.probe_now.get(&(application.clone(), resource.clone())) {
                    probe.notify_one();
                }
                let name = (application.clone(), resource);
                if action == Action::Fence && outcome.code != "journal-full" {
                    self.confirmed.insert(name, good);
                }
            }
            if let Action::Rejoin(_) = action
                && good
            {
                self.rejoined.extend(resource.map(|resource| (application.clone(), resource)));
                let all = self.guarded(&application).into_keys();
                if all.into_iter().all(|resource| self.rejoined.contains(&(application.clone(), resource))) {
                    self.with(&application, |lease| lease.rejoined(now));
                }
            }
            if action == Action::Release && good {
                self.with(&application, |lease| lease.released(now));
            }
        }
        let statuses = self.steps.note(event);
        self.say_statuses(&statuses);
        let applications: Vec<_> = self.leases.keys().cloned().collect();
        for application in applications {
            self.retell_holds(&application, now);
        }
    }

    /// Tells the lease what is stored of commanded fences, or on its way to the disk.
    pub(super) fn retell_holds(&mut self, application: &ApplicationId, now: Reading) {
        let holds = self.journal.view().applications.get(application).map(|view| view.holds()).unwrap_or_default();
        self.confirmed.retain(|(of, resource), confirmed| {
            let stands = match holds.get(resource) {
                Some(Hold::Fence) => true,
                Some(Hold::Quiesce) => !*confirmed,
                None => false,
            };
            of != application || stands
        });
        let held = |resource| holds.contains_key(resource) || self.steps.is_being_closed(application, resource);
        let any = self.guarded(application).keys().any(held);
        let opening = self.steps.any_opening(application);
        let guarded: Vec<_> = self.guarded(application).into_keys().collect();
        let confirmed = |resource| self.confirmed.get(&(application.clone(), resource)) == Some(&true);
        let closed = !guarded.is_empty() && guarded.into_iter().all(confirmed);
        self.with(application, |lease| {
            lease.closed_is(closed);
            let mut commands = lease.commanded_is(now, any);
            commands.extend(lease.opening_is(now, opening));
            commands
        });
    }

    pub(super) fn hear_guard(&mut self, event: GuardEvent) {
        let now = self.clock.reading();
        let applications: Vec<_> = self.leases.keys().cloned().collect();
        let (counts, up) = match event {
            GuardEvent::Up(counts) => (counts, true),
            GuardEvent::Counts(counts) => (counts, false),
            GuardEvent::Unknown(application, lacking) => {
                if self.guard_lacks.get(&application) != Some(&lacking) {
                    let names = lacking.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                    tracing::error!(
                        %application, resources = names,
                        "the guard could not end these resources, so no lease is extended: it has not read of them in \
                         agent.yaml, or does not find their processes; see its log"
                    );
                    self.guard_lacks.insert(application, lacking);
                }
                return;
            }
            GuardEvent::Lost => {
                self.guard_alive = false;
                tracing::error!("the guard does not answer: no lease is extended");
                for application in &applications {
                    self.with(application, |lease| lease.guard_lost(now));
                }
                return;
            }
        };
        self.guard_alive = true;
        for application in &applications {
            if up {
                // What it did not hear while it was away.
                match self.leases.get(application).map(|lease| lease.fence()) {
                    Some(Fence::Closing { confirm_by, .. }) => {
                        self.guard.ask(Request::Move { application: application.clone(), until: confirm_by });
                    }
                    Some(Fence::Closed { .. }) => {
                        self.guard.ask(Request::Disarm { application: application.clone() });
                    }
                    _ => {}
                }
                self.with(application, |lease| lease.guard_up(now));
            }
            match counts.get(application).map(|watched| (watched.state, watched.arm)) {
                Some((WatchState::Armed, arm)) => {
                    self.noted_fired.remove(application);
                    if up {
                        self.guard_lacks.remove(application);
                    }
                    self.with(application, |lease| lease.guard_armed(now, arm));
                }
                Some((WatchState::Fired, _)) => {
                    if self.noted_fired.insert(application.clone()) {
                        tracing::error!(%application, "the guard has fenced hard");
                        self.with(application, |lease| lease.guard_fired(now));
                    }
                    self.guard.ask(Request::Disarm { application: application.clone() });
                }
                Some((WatchState::Moved | WatchState::Firing, _)) => {}
                None => {
                    self.noted_fired.remove(application);
                }
            }
        }
    }

    pub(super) fn hear(&mut self, event: Event) {
        let now = self.clock.reading();
        match event {
            Event::TermsStored(application, terms, true) => {
                let (epoch, number): (Epoch, Token) = (terms.epoch, terms.number);
                tracing::info!(%application, epoch = epoch.0, terms = %number, "terms are stored");
                let before = self.leases.get(&application).map(crate::lease::Lease::missing);
                self.with(&application, |lease| lease.terms_stored(now, *terms));
                if self.leases.get(&application).map(crate::lease::Lease::missing) != before {
                    self.say_missing(&application);
                }
                self.retell_holds(&application, now);
            }
            Event::TermsStored(application, _, false) => {
                self.with(&application, |lease| lease.terms_not_stored(now));
            }
            Event::GuardedWritten(application, epoch, resources, written) => {
                self.with(&application, |lease| lease.guarded_written(now, epoch, resources, written));
            }
            Event::Fenced(application, confirmed) => {
                if confirmed {
                    tracing::warn!(%application, "fenced by this agent itself, confirmed");
                }
                self.with(&application, |lease| lease.fenced(now, confirmed));
                self.probe_soon(&application);
            }
            Event::Lifted(application, opened) => {
                self.with(&application, |lease| lease.lifted(now, opened));
                // Seen open as soon as it is.
                let looked = self.probe_now.iter().filter(|((of, _), _)| *of == application);
                looked.for_each(|(_, at_once)| at_once.notify_one());
                self.probe_soon(&application);
            }
            Event::Held(application, resource, held) => {
                // A step that fences has the last word: this is the repeat of an older one.
                let confirmed = self.confirmed.entry((application.clone(), resource)).or_insert(held);
                *confirmed &= held;
                self.retell_holds(&application, now);
            }
            Event::Diverged(application, resource, terms, found) => {
                self.measured((application, resource), terms, found, now);
            }
            Event::RogueFenced(application, resource, fenced) => self.rogue_fenced(application, resource, fenced),
            Event::Rested(application, resource, outcome) => self.rested(application, resource, outcome),
            Event::KeptClosed(application, resource, outcome) => self.kept_closed(application, resource, outcome),
            Event::ToBeSaid(statuses) => self.say_statuses(&statuses),
            Event::GroupStored(stored) => self.group_stored(stored),
        }
    }

    fn probe_soon(&self, application: &ApplicationId) {
        let of = self.probe_now.iter().filter(|((name, _), _)| name == application);
        of.for_each(|(_, probe)| probe.notify_one());
    }

    pub(super) fn hear_sight(&mut self, mut sight: Sight) {
        self.look_for_closed(&mut sight);
        self.look_for_rogue(&sight);
        self.look_at_divergence(&mut sight);
        self.keep_closed(&mut sight);
        self.keep_at_rest(&sight.application, &sight.resource);
        let name = (sight.application.clone(), sight.resource.clone());
        if sight.probe.writable && self.confirmed.get(&name) == Some(&true) {
            self.confirmed.remove(&name);
            let now = self.clock.reading();
            self.retell_holds(&name.0, now);
        }
        let before = self.sights.get(&name).map(|(_, sight)| &sight.probe);
        let turned = before.is_none_or(|before| {
            (before.health, before.role, before.writable)
                != (sight.probe.health, sight.probe.role, sight.probe.writable)
        });
        // What changed is told at once; the rest comes with the next heartbeat.
        self.beat_now |= turned;
        self.sequence += 1;
        self.sights.insert(name, (self.sequence, sight));
    }

    pub(super) fn hear_fact(&mut self, fact: Fact) {
        self.sequence += 1;
        self.facts.insert((fact.application.clone(), fact.resource.clone()), (self.sequence, fact));
    }

    /// A database of the primary that was restarted comes up closed at rest; under the running lease the agent opens
    /// it again (safety.md, "Closed at rest"). As long as it is closed it does not serve, whatever it says of itself.
    fn look_for_closed(&mut self, sight: &mut Sight) {
        let closed = sight.probe.health == Health::Healthy && !sight.probe.writable;
        if !closed || self.steps.is_busy(&sight.application, &sight.resource) {
            return;
        }
        let now = self.clock.reading();
        let leads = self.leases.get(&sight.application).is_some_and(|lease| lease.keeps_open(now));
        if planted::makes(Mistake::ClosedStaysClosed)
            || !leads
            || !self.opened(&sight.application).contains_key(&sight.resource)
        {
            return;
        }
        let name = (sight.application.clone(), sight.resource.clone());
        let before = self.sights.get(&name).map_or(0, |(_, before)| before.failures);
        sight.probe.health = Health::Failed;
        sight.probe.detail = format!("closed at rest, being opened; {}", sight.probe.detail);
        sight.failures = before + 1;
        self.with(&sight.application, |lease| lease.closed_seen(now));
    }

    /// The probes call every guarded resource healthy.
    pub(super) fn is_healthy(&self, application: &ApplicationId, now: Reading) -> bool {
        let missing = self.leases.get(application).is_some_and(|lease| !lease.missing().is_empty());
        !missing
            && self.guarded(application).into_keys().all(|resource| {
                self.sights
                    .get(&(application.clone(), resource))
                    .is_some_and(|(_, sight)| sight.is_fresh(now) && sight.probe.health == Health::Healthy)
            })
    }

    pub(super) fn largest_round_trip(&self) -> Span {
        self.round_trips.values().copied().max().unwrap_or_default()
    }
}
