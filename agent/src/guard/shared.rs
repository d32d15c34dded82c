//! What the guard counts by, and what it answers: it is armed only for what it can end.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use regent_core::id::{ApplicationId, ResourceId};
use tokio::sync::Notify;

use crate::driver::{Driver, FenceReach};
use crate::guard::clock::Clock;
use crate::guard::{Known, Reply, Request, Table};
use crate::journal::chain;

/// So long does it count that a hard fence was shown to work.
const SHOWN_FOR: Duration = Duration::from_secs(5);
/// Showing it may take so long: an agent waits for the answer, and takes a slow guard for none.
const SHOW_LIMIT: Duration = Duration::from_millis(200);

/// What the loop, the hard fences and the conversations with agents have in common.
pub(super) struct Shared {
    pub(super) file: PathBuf,
    /// When the hard fence of each resource was last shown to work.
    pub(super) shown: Mutex<BTreeMap<(ApplicationId, ResourceId), tokio::time::Instant>>,
    pub(super) table: Mutex<Table>,
    pub(super) changed: Notify,
    pub(super) end: Notify,
    pub(super) agents: AtomicUsize,
    pub(super) known: Known,
    /// Remote resources that were told of.
    pub(super) told: Mutex<BTreeSet<(ApplicationId, ResourceId)>>,
    pub(super) clock: Arc<dyn Clock>,
}

impl Shared {
    pub(super) fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file is written before the answer: a guard that starts anew counts by what was acknowledged.
    pub(super) async fn answer(&self, request: Request) -> Reply {
        let lacking = match &request {
            Request::Arm { application, resources, .. } => self.cannot_end(application, resources).await,
            Request::Status {} | Request::Move { .. } | Request::Disarm { .. } | Request::End {} => BTreeSet::new(),
        };
        let mut table = self.table();
        let before = table.clone();
        let mut unknown = BTreeMap::new();
        match request {
            Request::Status {} => {}
            Request::Arm { application, resources, arm } if lacking.is_empty() => {
                self.say_remote(&application, &resources);
                table.arm(&application, resources, arm);
            }
            Request::Arm { application, .. } => {
                // The agent asks again; by then the file may have been read.
                self.known.read_again();
                unknown.insert(application, lacking);
            }
            Request::Move { application, until } => table.move_once(&application, until),
            Request::Disarm { application } => table.disarm(&application),
            Request::End {} if table.is_idle() => self.end.notify_one(),
            Request::End {} => {}
        }
        if *table != before {
            if let Err(error) = table.store(&self.file) {
                tracing::error!(error = chain(&error), "the guard's file cannot be written: nothing is extended");
                *table = before;
            }
            self.changed.notify_one();
        }
        Reply { entries: table.entries().clone(), unknown }
    }

    /// What has no driver here, or whose hard fence is not shown to work.
    async fn cannot_end(&self, application: &ApplicationId, resources: &BTreeSet<ResourceId>) -> BTreeSet<ResourceId> {
        let looks = resources.iter().map(|resource| async move {
            let can = match self.known.driver(application, resource) {
                Some(driver) => self.is_shown(application, resource, driver.as_ref()).await,
                None => false,
            };
            (!can).then(|| resource.clone())
        });
        futures::future::join_all(looks).await.into_iter().flatten().collect()
    }

    /// What was shown a moment ago is not looked for again, and what was shown once holds where a look does not come to
    /// an end: a machine that is short of time is no reason to fence.
    async fn is_shown(&self, application: &ApplicationId, resource: &ResourceId, driver: &dyn Driver) -> bool {
        let name = (application.clone(), resource.clone());
        let before = self.shown().get(&name).copied();
        if driver.fence_reach() != FenceReach::Local || before.is_some_and(|at| at.elapsed() < SHOWN_FOR) {
            return true;
        }
        match tokio::time::timeout(SHOW_LIMIT, driver.can_end()).await {
            Ok(Ok(())) => {
                self.shown().insert(name, tokio::time::Instant::now());
                true
            }
            Ok(Err(error)) => {
                tracing::error!(%application, %resource, code = error.code, %error, "a hard fence would not work");
                self.shown().remove(&name);
                false
            }
            Err(_) => before.is_some(),
        }
    }

    fn shown(&self) -> MutexGuard<'_, BTreeMap<(ApplicationId, ResourceId), tokio::time::Instant>> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What this guard cannot do is said when it is armed, not when it would be needed.
    fn say_remote(&self, application: &ApplicationId, resources: &BTreeSet<ResourceId>) {
        for resource in resources {
            let remote =
                self.known.driver(application, resource).is_some_and(|one| one.fence_reach() == FenceReach::Remote);
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            if remote && told.insert((application.clone(), resource.clone())) {
                tracing::warn!(
                    %application, %resource,
                    "it runs on another machine: this guard ends it only by its hardFence command, if one is listed and that \
                     machine can be reached; the coordinators take no silence of this agent for a fence"
                );
            }
        }
    }

    pub(super) fn store(&self) {
        if let Err(error) = self.table().store(&self.file) {
            tracing::error!(error = chain(&error), "the guard's file cannot be written");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use regent_core::id::{Epoch, Token};
    use regent_core::time::Span;

    use super::*;
    use crate::guard::fire::fire;
    use crate::guard::{Drivers, Reread, WatchState, clock};
    use crate::lease::Arm;

    struct Nothing;

    #[async_trait::async_trait]
    impl Driver for Nothing {
        fn kind(&self) -> &'static str {
            "nothing"
        }

        async fn probe(&self) -> crate::driver::Probe {
            crate::driver::Probe::without_answer(crate::driver::Health::Unknown, "nothing")
        }
    }

    fn shared(file: PathBuf, names: &[&str]) -> Arc<Shared> {
        let driver = |name: &&str| (ResourceId::new(name).unwrap(), Arc::new(Nothing) as Arc<dyn Driver>);
        let drivers = names.iter().map(driver).collect();
        Arc::new(Shared {
            file,
            shown: Mutex::default(),
            table: Mutex::new(Table::new("boot".to_owned())),
            changed: Notify::new(),
            end: Notify::new(),
            agents: AtomicUsize::new(0),
            known: BTreeMap::from([(ApplicationId::new("shop").unwrap(), drivers)]).into(),
            told: Mutex::default(),
            clock: clock::of_this_machine(),
        })
    }

    #[tokio::test]
    async fn what_it_cannot_end_it_is_not_armed_for_and_never_said_gone() {
        let place = tempfile::tempdir().unwrap();
        let shop = ApplicationId::new("shop").unwrap();
        let resources: BTreeSet<_> = ["db", "cache"].into_iter().map(|name| ResourceId::new(name).unwrap()).collect();
        let until = clock::of_this_machine().reading().after(Span::ZERO);
        let span = Span::from_secs(1);
        let arm = Arm { epoch: Epoch(1), terms: Token::default(), until, span, paused: false, early: false };
        let ask = || Request::Arm { application: shop.clone(), resources: resources.clone(), arm };

        let knows = shared(place.path().join("guard.json"), &["db", "cache"]);
        assert!(knows.answer(ask()).await.entries.contains_key(&shop));

        let lacks = shared(place.path().join("guard.json"), &["db"]);
        let refused = lacks.answer(ask()).await;
        assert!(refused.entries.is_empty(), "{refused:?}");
        assert_eq!(refused.unknown[&shop], [ResourceId::new("cache").unwrap()].into());
        // Left over from a guard that knew it.
        lacks.table().arm(&shop, resources.clone(), arm);
        assert_eq!(lacks.table().take_due(clock::of_this_machine().reading(), false), std::slice::from_ref(&shop));
        fire(lacks.clone(), shop.clone()).await;
        assert_eq!(lacks.table().entries()[&shop].state, WatchState::Firing);
    }

    /// A database whose process is not found, as long as that is said.
    struct Hidden(std::sync::atomic::AtomicBool);

    #[async_trait::async_trait]
    impl Driver for Hidden {
        fn kind(&self) -> &'static str {
            "hidden"
        }

        fn fence_reach(&self) -> FenceReach {
            FenceReach::Local
        }

        async fn probe(&self) -> crate::driver::Probe {
            crate::driver::Probe::without_answer(crate::driver::Health::Unknown, "hidden")
        }

        async fn can_end(&self) -> Result<(), crate::driver::DriverError> {
            let hidden = || crate::driver::DriverError::retryable("redis-hidden", "not found");
            if self.0.load(Ordering::Relaxed) { Err(hidden()) } else { Ok(()) }
        }
    }

    #[tokio::test]
    async fn it_is_not_armed_for_a_database_whose_hard_fence_was_not_shown_to_work() {
        let place = tempfile::tempdir().unwrap();
        let (shop, db) = (ApplicationId::new("shop").unwrap(), ResourceId::new("db").unwrap());
        let driver = Arc::new(Hidden(true.into()));
        let mut shared = shared(place.path().join("guard.json"), &[]);
        let known: Drivers =
            BTreeMap::from([(shop.clone(), BTreeMap::from([(db.clone(), driver.clone() as Arc<dyn Driver>)]))]);
        Arc::get_mut(&mut shared).unwrap().known = known.into();
        let until = clock::of_this_machine().reading().after(Span::ZERO);
        let span = Span::from_secs(1);
        let arm = Arm { epoch: Epoch(1), terms: Token::default(), until, span, paused: false, early: false };
        let ask = || Request::Arm { application: shop.clone(), resources: [db.clone()].into(), arm };
        let refused = shared.answer(ask()).await;
        assert!(refused.entries.is_empty(), "{refused:?}");
        assert_eq!(refused.unknown[&shop], [db.clone()].into());
        driver.0.store(false, Ordering::Relaxed);
        assert!(shared.answer(ask()).await.unknown.is_empty());
        // Its process is lost sight of: the lease that runs is extended no more, once that has been looked for again.
        driver.0.store(true, Ordering::Relaxed);
        assert!(shared.answer(ask()).await.unknown.is_empty());
        shared.shown().values_mut().for_each(|at| *at -= SHOWN_FOR);
        assert_eq!(shared.answer(ask()).await.unknown[&shop], [db.clone()].into());
    }

    #[tokio::test]
    async fn what_the_agent_brings_along_is_read_and_what_has_left_the_file_stays_known() {
        let place = tempfile::tempdir().unwrap();
        let shop = ApplicationId::new("shop").unwrap();
        let [db, cache] = ["db", "cache"].map(|name| ResourceId::new(name).unwrap());
        let until = clock::of_this_machine().reading().after(Span::from_secs(60));
        let span = Span::from_secs(60);
        let arm = Arm { epoch: Epoch(1), terms: Token::default(), until, span, paused: false, early: false };
        let ask = |resource: &ResourceId| Request::Arm {
            application: shop.clone(),
            resources: [resource.clone()].into(),
            arm,
        };
        let named = |resource: &ResourceId| {
            let driver = Arc::new(Nothing) as Arc<dyn Driver>;
            Drivers::from([(shop.clone(), BTreeMap::from([(resource.clone(), driver)]))])
        };
        let file = Arc::new(Mutex::new(Err("a mistake in line 3".to_owned())));
        let reading = file.clone();
        let reread: Reread = Arc::new(move || reading.lock().unwrap().clone());
        let known = Known::with_reread(named(&db), reread);
        let shared = Arc::new(Shared {
            file: place.path().join("guard.json"),
            shown: Mutex::default(),
            table: Mutex::new(Table::new("boot".to_owned())),
            changed: Notify::new(),
            end: Notify::new(),
            agents: AtomicUsize::new(0),
            known,
            told: Mutex::default(),
            clock: clock::of_this_machine(),
        });
        assert_eq!(shared.answer(ask(&cache)).await.unknown[&shop], [cache.clone()].into());
        assert!(shared.answer(ask(&db)).await.unknown.is_empty(), "a file with mistakes changes nothing");
        *file.lock().unwrap() = Ok(named(&cache));
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        while !shared.answer(ask(&cache)).await.unknown.is_empty() {
            assert!(tokio::time::Instant::now() < deadline, "it was never read");
            tokio::task::yield_now().await;
        }
        assert!(shared.answer(ask(&db)).await.unknown.is_empty(), "a deadline may stand for it");
    }
}
