//! The network: links between machines, and what is on its way over them.
//!
//! A conversation is a gRPC call with its two streams of frames, each in order, as over TCP. What is sent over a link
//! that is cut is held, as by retransmission, and comes late when the link heals; unless the conversation was given up
//! before, by a keep-alive at either end. Both happen, as the dice fall.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::clock::TrueTime;
use crate::dice::Dice;
use crate::trace::Trace;

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
    links: Vec<Vec<Link>>,
    down: Vec<bool>,
    /// Some link is cut or some machine is down, or was when conversations were last looked at.
    troubled: bool,
    listeners: BTreeMap<String, (MachineId, mpsc::UnboundedSender<super::carrier::Incoming>)>,
    talks: BTreeMap<u64, Talk>,
    next_talk: u64,
    sequence: u64,
    due: BTreeMap<(u64, u64), Sent>,
    /// What ends while a process is being buried.
    burial: Option<BTreeSet<(u64, Way, bool)>>,
    held: BTreeMap<u64, Sent>,
}

/// One way between two machines.
#[derive(Default, Clone, Copy)]
struct Link {
    /// One-way delay in milliseconds while it is healthy.
    base: u64,
    slow: u64,
    cut: bool,
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
    lost: [CancellationToken; 2],
    /// No frame overtakes the one before.
    last: [u64; 2],
    blocked_since: Option<u64>,
    /// Blocked for longer, it is given up.
    patience: u64,
    given_up: bool,
    ended: [bool; 2],
    kept: Option<Box<dyn Any + Send>>,
}

impl Network {
    pub(super) fn new(time: TrueTime, trace: Trace, dice: Dice, machines: usize, regions: &[usize]) -> Self {
        let mut dice = dice;
        let mut links = vec![vec![Link::default(); machines]; machines];
        for (from, ways) in links.iter_mut().enumerate() {
            for (to, link) in ways.iter_mut().enumerate() {
                let far = if regions[from] == regions[to] { 0 } else { dice.between(3, 30) };
                link.base = 1 + far;
            }
        }
        Self(Arc::new(Mutex::new(State {
            time,
            trace,
            dice,
            links,
            down: vec![false; machines],
            troubled: false,
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
        let lost = [at_server.clone(), at_client.clone()];
        let ended = [false; 2];
        let (blocked_since, given_up, kept) = (None, false, None);
        let talk = Talk { client, server, lost, last: [0; 2], blocked_since, patience, given_up, ended, kept };
        state.talks.insert(id, talk);
        (id, at_client, at_server)
    }

    /// Dropped when both ends are done.
    pub(super) fn keep(&self, talk: u64, what: Box<dyn Any + Send>) {
        if let Some(talk) = self.lock().talks.get_mut(&talk) {
            talk.kept = Some(what);
        }
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
        known.ended[own.at()] = true;
        if known.ended == [true; 2] {
            state.talks.remove(&talk);
            return;
        }
        if !in_order {
            let other = match own {
                Way::ToClient => Way::ToServer,
                Way::ToServer => Way::ToClient,
            };
            let lost = known.lost[other.at()].clone();
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

    /// Nothing is on its way any more: what is still held would hold this network, and so itself.
    pub(super) fn end_of_the_world(&self) {
        let left = {
            let mut state = self.lock();
            let (due, held) = (std::mem::take(&mut state.due), std::mem::take(&mut state.held));
            (due, held, std::mem::take(&mut state.listeners), std::mem::take(&mut state.talks))
        };
        drop(left);
    }

    /// Cuts one way.
    pub(super) fn cut(&self, from: MachineId, to: MachineId) {
        let mut state = self.lock();
        state.links[from][to].cut = true;
        state.troubled = true;
    }

    /// Heals one way: what was held comes late.
    pub(super) fn heal(&self, from: MachineId, to: MachineId) {
        let mut state = self.lock();
        state.links[from][to].cut = false;
        state.release();
    }

    /// Delays one way by so many milliseconds more.
    pub(super) fn slow(&self, from: MachineId, to: MachineId, by: u64) {
        self.lock().links[from][to].slow = by;
    }

    /// No cuts and no delays any more.
    pub(super) fn heal_all(&self) {
        let mut state = self.lock();
        for link in state.links.iter_mut().flatten() {
            (link.cut, link.slow) = (false, 0);
        }
        state.release();
    }

    /// The machine has no power: nothing leaves it and nothing reaches it.
    pub(super) fn power(&self, machine: MachineId, on: bool) {
        let mut state = self.lock();
        if on {
            state.down[machine] = false;
            // What it knew of before is answered with a reset.
            for talk in state.talks.values() {
                let forgot = |end: Way, at| at == machine && talk.ended[end.at()];
                if forgot(Way::ToClient, talk.client) || forgot(Way::ToServer, talk.server) {
                    talk.lost.iter().for_each(CancellationToken::cancel);
                }
            }
        } else {
            state.down[machine] = true;
            state.troubled = true;
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

impl Way {
    const fn at(self) -> usize {
        self as usize
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
        self.links[link.0][link.1].cut || self.down[link.0] || self.down[link.1]
    }

    fn send(&mut self, sent: Sent) {
        let now = self.time.now();
        let Some(link) = self.talks.get(&sent.talk).map(|talk| talk.link(sent.way)) else { return };
        // A machine without power sends nothing, not even that it is gone.
        if self.down[link.0] {
            return;
        }
        self.sequence += 1;
        let sequence = self.sequence;
        if self.is_cut(link) {
            self.held.insert(sequence, sent);
            return;
        }
        let Link { base, slow, .. } = self.links[link.0][link.1];
        let jitter = self.dice.below(base / 2 + slow / 4 + 1);
        let Some(talk) = self.talks.get_mut(&sent.talk) else { return };
        let last = &mut talk.last[sent.way.at()];
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
        if !self.troubled {
            return;
        }
        self.troubled = self.links.iter().flatten().any(|link| link.cut) || self.down.contains(&true);
        let now = self.time.now();
        let (links, down) = (&self.links, &self.down);
        let is_cut = |(from, to): (MachineId, MachineId)| links[from][to].cut || down[from] || down[to];
        for talk in self.talks.values_mut() {
            if !is_cut(talk.link(Way::ToServer)) && !is_cut(talk.link(Way::ToClient)) {
                talk.blocked_since = None;
                continue;
            }
            let since = *talk.blocked_since.get_or_insert(now);
            if now - since >= talk.patience && !std::mem::replace(&mut talk.given_up, true) {
                // Each end finds out for itself.
                talk.lost.iter().for_each(CancellationToken::cancel);
            }
        }
    }
}
