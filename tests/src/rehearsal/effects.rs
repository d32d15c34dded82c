//! What drivers act on in a rehearsal. Every effect is counted where it happens; asked for twice, it happens once, but for a
//! listed command, which is run whenever it is asked for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use regent_agent::driver::{
    Done, Driver, DriverError, DriverResult, FenceReach, Health, Marker, Probe, Redirect, Rehearsal, Rejoin, Role,
};
use regent_core::id::{ClusterId, ResourceId, Token};

/// Where all databases stand all the time.
const POSITION: u64 = 1_000;

/// How often what was done, by place.
pub type Effects = BTreeMap<String, u32>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    Primary,
    Fenced,
    Standby,
}

#[derive(Debug, Default)]
struct Things {
    databases: BTreeMap<String, Condition>,
    services: BTreeMap<String, bool>,
    /// Copies that are there, by the run that they were made for.
    copies: BTreeMap<String, u64>,
    /// Listed commands that were run, by the place of their service, and whose end is not known to be stored.
    run: BTreeMap<String, Vec<Token>>,
    /// How often the agent died before it had stored such an end: nobody can know that it was run, and it is run again.
    forgotten: BTreeMap<String, u32>,
    seen: Effects,
}

/// Shared by all drivers.
#[derive(Debug, Clone, Default)]
pub(super) struct World(Arc<Mutex<Things>>);

impl World {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Everything but what happened in this place, if one is left alone.
    pub(super) fn seen_but_for(&self, left_alone: Option<&str>) -> Effects {
        let things = self.lock();
        let mut seen = things.seen.clone();
        for (what, times) in &things.forgotten {
            // One that was not run again shows: too few are left.
            if let Some(seen) = seen.get_mut(what) {
                *seen = seen.saturating_sub(*times);
            }
        }
        // The state at the end is part of what has to be the same.
        seen.extend(things.databases.iter().map(|(place, it)| (format!("{place} is {it:?}"), 1)));
        seen.extend(things.services.iter().map(|(place, runs)| (format!("{place} runs"), u32::from(*runs))));
        seen.extend(things.copies.keys().map(|place| (format!("a copy of {place} is left"), 1)));
        seen.retain(|what, _| !left_alone.is_some_and(|place| what.starts_with(place)));
        seen
    }

    fn lock(&self) -> MutexGuard<'_, Things> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A database of a cluster; the primary's is one at the start.
    pub(super) fn database(&self, cluster: &ClusterId, resource: &str, primary: bool) -> Arc<dyn Driver> {
        let place = format!("{resource} in {cluster}");
        let now = if primary { Condition::Primary } else { Condition::Standby };
        self.lock().databases.entry(place.clone()).or_insert(now);
        Arc::new(Database { world: self.clone(), place })
    }

    /// The service of a cluster; the primary's runs at the start.
    pub(super) fn service(&self, cluster: &ClusterId, resource: &str, runs: bool) -> Arc<dyn Driver> {
        let place = format!("{resource} in {cluster}");
        self.lock().services.entry(place.clone()).or_insert(runs);
        Arc::new(Service { world: self.clone(), place })
    }
}

impl World {
    /// A listed command was run, by a step of this token; its end is not stored yet.
    pub(super) fn was_run(&self, cluster: &ClusterId, resource: &ResourceId, token: Token) {
        self.lock().run.entry(format!("{resource} in {cluster}")).or_default().push(token);
    }

    /// The agent of a cluster dies: of its commands only those have ended whose end it has stored.
    pub(super) fn dies(&self, cluster: &ClusterId, resource: &ResourceId, is_stored: impl Fn(Token) -> bool) {
        let place = format!("{resource} in {cluster}");
        let mut things = self.lock();
        let tokens = things.run.remove(&place).unwrap_or_default();
        let forgotten = tokens.into_iter().filter(|token| !is_stored(*token)).count();
        *things.forgotten.entry(ran(&place)).or_default() += u32::try_from(forgotten).unwrap_or(u32::MAX);
    }
}

/// The name of this effect.
fn ran(place: &str) -> String {
    format!("{place} ran its command")
}

struct Database {
    world: World,
    place: String,
}

impl Database {
    /// Makes it so, and counts it unless it was so.
    fn becomes(&self, wanted: Condition, what: &str) -> DriverResult {
        let mut things = self.world.lock();
        let already = things.databases.insert(self.place.clone(), wanted) == Some(wanted);
        if !already {
            *things.seen.entry(format!("{} was {what}", self.place)).or_default() += 1;
        }
        Ok(Done { already, message: what.to_owned(), position: Some(POSITION), ..Done::default() })
    }

    fn now(&self) -> Option<Condition> {
        self.world.lock().databases.get(&self.place).copied()
    }

    /// Makes a copy for this run, and counts it unless it is there.
    fn copied(&self, run: u64) -> DriverResult {
        let mut things = self.world.lock();
        let already = things.copies.insert(self.place.clone(), run) == Some(run);
        if !already {
            *things.seen.entry(format!("{} was copied", self.place)).or_default() += 1;
        }
        Ok(Done { already, message: "copied".to_owned(), ..Done::default() })
    }

    /// Looks at the copy of this run, and counts nothing: nothing changes.
    fn copy_of(&self, run: u64) -> DriverResult {
        if self.world.lock().copies.get(&self.place) == Some(&run) {
            return Ok(Done { message: "the copy was looked at".to_owned(), ..Done::default() });
        }
        Err(DriverError::permanent("no-copy", format!("run {run} has no copy of {}", self.place)))
    }

    /// Takes away whatever copy there is, and counts it.
    fn cleaned_up(&self) -> DriverResult {
        let mut things = self.world.lock();
        let already = things.copies.remove(&self.place).is_none();
        if !already {
            *things.seen.entry(format!("the copy of {} was taken away", self.place)).or_default() += 1;
        }
        Ok(Done { already, message: "taken away".to_owned(), ..Done::default() })
    }
}

#[async_trait]
impl Driver for Database {
    fn kind(&self) -> &'static str {
        "postgres"
    }

    fn fence_reach(&self) -> FenceReach {
        FenceReach::Local
    }

    async fn probe(&self) -> Probe {
        let primary = matches!(self.now(), Some(Condition::Primary | Condition::Fenced));
        Probe {
            role: if primary { Role::Primary } else { Role::Standby },
            writable: self.now() == Some(Condition::Primary),
            position: Some(POSITION),
            ..Probe::without_answer(Health::Healthy, "")
        }
    }

    async fn guard(&self, _marker: &Marker) -> DriverResult {
        Ok(Done::default())
    }

    async fn fence(&self) -> DriverResult {
        match self.now() {
            Some(Condition::Standby) | None => Ok(Done { already: true, ..Done::default() }),
            Some(Condition::Primary | Condition::Fenced) => self.becomes(Condition::Fenced, "fenced"),
        }
    }

    async fn fence_hard(&self) -> DriverResult {
        self.fence().await
    }

    async fn unfence(&self) -> DriverResult {
        self.becomes(Condition::Primary, "opened")
    }

    async fn catch_up(&self, _position: u64) -> DriverResult {
        Ok(Done { position: Some(POSITION), ..Done::default() })
    }

    async fn promote(&self, _position: Option<u64>) -> DriverResult {
        self.becomes(Condition::Primary, "promoted")
    }

    async fn verify(&self) -> DriverResult {
        Ok(Done::default())
    }

    async fn rejoin(&self, _rejoin: &Rejoin) -> DriverResult {
        self.becomes(Condition::Standby, "made a standby")
    }

    async fn rehearse(&self, rehearsal: Rehearsal, run: u64) -> DriverResult {
        match rehearsal {
            Rehearsal::Promote | Rehearsal::Restore => self.copied(run),
            Rehearsal::Verify => self.copy_of(run),
            Rehearsal::CleanUp => self.cleaned_up(),
        }
    }
}

struct Service {
    world: World,
    place: String,
}

impl Service {
    fn becomes(&self, runs: bool, what: &str) -> DriverResult {
        let mut things = self.world.lock();
        let already = things.services.insert(self.place.clone(), runs) == Some(runs);
        if !already {
            *things.seen.entry(format!("{} was {what}", self.place)).or_default() += 1;
        }
        Ok(Done { already, message: what.to_owned(), ..Done::default() })
    }
}

#[async_trait]
impl Driver for Service {
    fn kind(&self) -> &'static str {
        "command"
    }

    async fn probe(&self) -> Probe {
        Probe { role: Role::None, ..Probe::without_answer(Health::Healthy, "") }
    }

    async fn activate(&self) -> DriverResult {
        self.becomes(true, "started")
    }

    async fn deactivate(&self) -> DriverResult {
        self.becomes(false, "stopped")
    }

    async fn quiesce(&self) -> DriverResult {
        self.deactivate().await
    }

    /// Nothing shows whether it was run before: it is run.
    async fn run(&self, _command: &str) -> DriverResult {
        *self.world.lock().seen.entry(ran(&self.place)).or_default() += 1;
        Ok(Done { message: "run".to_owned(), ..Done::default() })
    }

    /// Of a name too: it follows the applied state.
    async fn redirect(&self, _redirect: &Redirect) -> DriverResult {
        Ok(Done::default())
    }

    async fn verify(&self) -> DriverResult {
        Ok(Done::default())
    }
}
