//! The network: links between machines, and what is on its way over them.
//!
//! A conversation is a gRPC call with its two streams of frames, each in order, as over TCP. What is sent over a link
//! that is cut is held, as by retransmission, and comes late when the link heals; unless the conversation was given up
//! before, by a keep-alive at either end. Both happen, as the dice fall.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::simulation::clock::TrueTime;
use crate::simulation::dice::Dice;
use crate::simulation::trace::Trace;

/// Names a machine.
pub type MachineId = usize;

/// What a delivery does at the other end.
pub(super) type Arrival = Box<dyn FnOnce() + Send>;

/// Which way within a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    ToServer,
    ToClient,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Network(Arc<Mutex<State>>);

struct State {
    time: TrueTime,
    trace: Trace,
    dice: Dice,
    /// One-way delay in milliseconds, of the healthy link.
    base: BTreeMap<(MachineId, MachineId), u64>,
    cut: BTreeSet<(MachineId, MachineId)>,
    slow: BTreeMap<(MachineId, MachineId), u64>,
    down: BTreeSet<MachineId>,
    listeners: BTreeMap<String, (MachineId, mpsc::UnboundedSender<super::carrier::Incoming>)>,
    talks: BTreeMap<u64, Talk>,
    next_talk: u64,
    sequence: u64,
    due: BTreeMap<(u64, u64), Sent>,
    /// What ends while a process is being buried.
    burial: Option<BTreeSet<(u64, Way, bool)>>,
    held: BTreeMap<u64, Sent>,
}

struct Sent {
    talk: u64,
    way: Way,
    size: usize,
    arrival: Arrival,
}

struct Talk {
    client: MachineId,
    server: MachineId,
    /// Cancelled when this end has lost the other.
    lost: BTreeMap<Way, CancellationToken>,
    /// No frame overtakes the one before.
    last: BTreeMap<Way, u64>,
    blocked_since: Option<u64>,
    /// Blocked for longer, it is given up.
    patience: u64,
    ended: BTreeSet<Way>,
}

impl Network {
    pub(super) fn new(time: TrueTime, trace: Trace, dice: Dice, machines: usize, regions: &[usize]) -> Self {
        let mut dice = dice;
        let mut base = BTreeMap::new();
        for from in 0..machines {
            for to in 0..machines {
                let far = if regions[from] == regions[to] { 0 } else { dice.between(3, 30) };
                base.insert((from, to), 1 + far);
            }
        }
        Self(Arc::new(Mutex::new(State {
            time,
            trace,
            dice,
            base,
            cut: BTreeSet::new(),
            slow: BTreeMap::new(),
            down: BTreeSet::new(),
            listeners: BTreeMap::new(),
            talks: BTreeMap::new(),
            next_talk: 0,
            sequence: 0,
            due: BTreeMap::new(),
            burial: None,
            held: BTreeMap::new(),
        })))
    }

    /// What comes to this address goes to whoever holds the receiver.
    pub(super) fn listen(&self, address: &str, at: MachineId) -> mpsc::UnboundedReceiver<super::carrier::Incoming> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.lock().listeners.insert(address.to_owned(), (at, sender));
        receiver
    }

    pub(super) fn listener(
        &self,
        address: &str,
    ) -> Option<(MachineId, mpsc::UnboundedSender<super::carrier::Incoming>)> {
        self.lock().listeners.get(address).cloned()
    }

    /// Begins a conversation; each end is told by its token when it has lost the other.
    pub(super) fn begin(&self, client: MachineId, server: MachineId) -> (u64, CancellationToken, CancellationToken) {
        let mut state = self.lock();
        state.next_talk += 1;
        let id = state.next_talk;
        let (at_client, at_server) = (CancellationToken::new(), CancellationToken::new());
        let patience = state.dice.between(200, 3_000);
        let lost = BTreeMap::from([(Way::ToClient, at_client.clone()), (Way::ToServer, at_server.clone())]);
        let talk =
            Talk { client, server, lost, last: BTreeMap::new(), blocked_since: None, patience, ended: BTreeSet::new() };
        state.talks.insert(id, talk);
        (id, at_client, at_server)
    }

    /// Hashed with everything else.
    pub(super) fn note(&self, what: &str) {
        self.lock().trace.note(what.as_bytes());
    }

    /// On its way; it arrives, or it does not.
    pub(super) fn send(&self, talk: u64, way: Way, size: usize, arrival: Arrival) {
        self.lock().send(Sent { talk, way, size, arrival });
    }

    /// This end has nothing more to say or hear. Unless the other end knows, it hears of it.
    pub(super) fn end(&self, talk: u64, own: Way, in_order: bool) {
        let mut state = self.lock();
        if let Some(burial) = &mut state.burial {
            burial.insert((talk, own, in_order));
            return;
        }
        let Some(known) = state.talks.get_mut(&talk) else { return };
        known.ended.insert(own);
        if known.ended.len() == 2 {
            state.talks.remove(&talk);
            return;
        }
        if !in_order {
            let other = match own {
                Way::ToClient => Way::ToServer,
                Way::ToServer => Way::ToClient,
            };
            let Some(lost) = known.lost.get(&other).cloned() else { return };
            state.send(Sent { talk, way: other, size: 0, arrival: Box::new(move || lost.cancel()) });
        }
    }

    /// A process is killed within `end`. Its tasks go in an order that depends on all tasks that ever were; what they
    /// leave behind goes in the order of the conversations.
    pub(super) fn bury(&self, end: impl FnOnce()) {
        self.lock().burial = Some(BTreeSet::new());
        end();
        let buried = self.lock().burial.take().unwrap_or_default();
        for (talk, own, in_order) in buried {
            self.end(talk, own, in_order);
        }
    }

    /// Everything that is due arrives, in order; conversations over cut links are given up.
    pub(super) fn deliver(&self) {
        loop {
            let arrival = {
                let mut state = self.lock();
                let now = state.time.now();
                let Some(entry) = state.due.first_entry() else { break };
                if entry.key().0 > now {
                    break;
                }
                let ((_, sequence), sent) = entry.remove_entry();
                let Some(talk) = state.talks.get(&sent.talk) else { continue };
                let link = talk.link(sent.way);
                if state.is_cut(link) {
                    state.held.insert(sequence, sent);
                    continue;
                }
                let way = if sent.way == Way::ToServer { '>' } else { '<' };
                // Sizes differ by the bytes of keys, which are not from the seed.
                let what = format!("{way} {} {} {} {}", link.0, link.1, sent.talk, sent.size.min(3));
                state.trace.note(what.as_bytes());
                sent.arrival
            };
            arrival();
        }
        self.lock().give_up();
    }

    /// Cuts one way.
    pub(super) fn cut(&self, from: MachineId, to: MachineId) {
        self.lock().cut.insert((from, to));
    }

    /// Heals one way: what was held comes late.
    pub(super) fn heal(&self, from: MachineId, to: MachineId) {
        let mut state = self.lock();
        state.cut.remove(&(from, to));
        state.release();
    }

    /// Delays one way by so many milliseconds more.
    pub(super) fn slow(&self, from: MachineId, to: MachineId, by: u64) {
        self.lock().slow.insert((from, to), by);
    }

    /// No cuts and no delays any more.
    pub(super) fn heal_all(&self) {
        let mut state = self.lock();
        state.cut.clear();
        state.slow.clear();
        state.release();
    }

    /// The machine has no power: nothing leaves it and nothing reaches it.
    pub(super) fn power(&self, machine: MachineId, on: bool) {
        let mut state = self.lock();
        if on {
            state.down.remove(&machine);
            // What it knew of before is answered with a reset.
            for talk in state.talks.values() {
                let forgot = |end, at| at == machine && talk.ended.contains(&end);
                if forgot(Way::ToClient, talk.client) || forgot(Way::ToServer, talk.server) {
                    talk.lost.values().for_each(CancellationToken::cancel);
                }
            }
        } else {
            state.down.insert(machine);
        }
    }

    /// Something sent from here would arrive.
    #[must_use]
    pub fn reaches(&self, from: MachineId, to: MachineId) -> bool {
        !self.lock().is_cut((from, to))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Talk {
    const fn link(&self, way: Way) -> (MachineId, MachineId) {
        match way {
            Way::ToServer => (self.client, self.server),
            Way::ToClient => (self.server, self.client),
        }
    }
}

impl State {
    fn is_cut(&self, link: (MachineId, MachineId)) -> bool {
        self.cut.contains(&link) || self.down.contains(&link.0) || self.down.contains(&link.1)
    }

    fn send(&mut self, sent: Sent) {
        let now = self.time.now();
        let Some(link) = self.talks.get(&sent.talk).map(|talk| talk.link(sent.way)) else { return };
        // A machine without power sends nothing, not even that it is gone.
        if self.down.contains(&link.0) {
            return;
        }
        self.sequence += 1;
        let sequence = self.sequence;
        if self.is_cut(link) {
            self.held.insert(sequence, sent);
            return;
        }
        let base = self.base.get(&link).copied().unwrap_or(1);
        let slow = self.slow.get(&link).copied().unwrap_or(0);
        let jitter = self.dice.below(base / 2 + slow / 4 + 1);
        let Some(talk) = self.talks.get_mut(&sent.talk) else { return };
        let last = talk.last.entry(sent.way).or_default();
        let at = (now + base + slow + jitter).max(*last);
        self.trace.note(format!("sent {} until {at}", sent.talk).as_bytes());
        *last = at;
        self.due.insert((at, sequence), sent);
    }

    fn release(&mut self) {
        let held = std::mem::take(&mut self.held);
        for (sequence, sent) in held {
            let Some(link) = self.talks.get(&sent.talk).map(|talk| talk.link(sent.way)) else { continue };
            if self.is_cut(link) {
                self.held.insert(sequence, sent);
            } else {
                self.send(sent);
            }
        }
    }

    fn give_up(&mut self) {
        let now = self.time.now();
        let blocked: Vec<u64> = self
            .talks
            .iter()
            .filter(|(_, talk)| self.is_cut(talk.link(Way::ToServer)) || self.is_cut(talk.link(Way::ToClient)))
            .map(|(id, _)| *id)
            .collect();
        let mut waiting = BTreeSet::new();
        for id in blocked {
            waiting.insert(id);
            let Some(talk) = self.talks.get_mut(&id) else { continue };
            let since = *talk.blocked_since.get_or_insert(now);
            if now - since >= talk.patience {
                // Each end finds out for itself.
                talk.lost.values().for_each(CancellationToken::cancel);
            }
        }
        for (id, talk) in &mut self.talks {
            if !waiting.contains(id) {
                talk.blocked_since = None;
            }
        }
    }
}
