//! Agent and guard as processes of their own: this very test program, started again as one or the other.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use regent_agent::agent::{self, Parts};
use regent_agent::driver::*;
use regent_agent::guard::{self, Drivers, ProcessDoor, Spawner, clock};
use regent_agent::journal::Journal;
use regent_agent::witness::WitnessKey;
use regent_proto::agent::v1::LeaseState;
use tokio_util::sync::CancellationToken;

use super::world::{Member, coordinators, names, plain_dial, settings, terms, until};

const PLACE: &str = "REGENT_TEST_PLACE";
const COORDINATORS: &str = "REGENT_TEST_COORDINATORS";

/// A "database": a process that the fence ends.
struct Victim {
    place: PathBuf,
}

impl Victim {
    fn pid(&self) -> Option<Pid> {
        std::fs::read_to_string(self.place.join("victim.pid")).ok()?.trim().parse().ok().map(Pid::from_raw)
    }

    fn note(&self, call: &str) {
        use std::io::Write as _;
        let path = self.place.join("calls");
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        // In one go: the agent and its guard write side by side.
        file.write_all(format!("{call}\n").as_bytes()).unwrap();
    }
}

#[async_trait::async_trait]
impl Driver for Victim {
    fn kind(&self) -> &'static str {
        "victim"
    }

    fn fence_reach(&self) -> FenceReach {
        FenceReach::Local
    }

    async fn probe(&self) -> Probe {
        Probe::without_answer(Health::Healthy, "victim")
    }

    async fn guard(&self, _marker: &Marker) -> DriverResult {
        Ok(Done::default())
    }

    async fn fence(&self) -> DriverResult {
        self.note("fence");
        Ok(Done::default())
    }

    async fn fence_hard(&self) -> DriverResult {
        self.note("hard");
        let pid = self.pid().ok_or_else(|| DriverError::retryable("victim", "no pid"))?;
        let _ = kill(pid, Signal::SIGKILL);
        Ok(Done::default())
    }

    async fn unfence(&self) -> DriverResult {
        self.note("unfence");
        Ok(Done { already: true, ..Done::default() })
    }
}

fn drivers(place: &Path) -> Drivers {
    let (application, resource) = names();
    let driver: Arc<dyn Driver> = Arc::new(Victim { place: place.to_owned() });
    BTreeMap::from([(application, BTreeMap::from([(resource, driver)]))])
}

fn again(helper: &str, place: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", helper, "--ignored", "--nocapture"]).env(PLACE, place);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn place() -> PathBuf {
    PathBuf::from(std::env::var(PLACE).expect("is started by another test"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "is the guard process of another test"]
async fn helper_guard() {
    guard::protect();
    let place = place();
    std::fs::write(place.join("guard.pid"), std::process::id().to_string()).unwrap();
    guard::run(&place.join("run"), drivers(&place).into(), false, std::future::pending()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "is the agent process of another test"]
async fn helper_agent() {
    let place = place();
    let coordinators: Vec<String> = std::env::var(COORDINATORS).unwrap().split(',').map(str::to_owned).collect();
    let address: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let at = place.clone();
    let spawner: Spawner =
        Box::new(move || tokio::process::Command::from(again("processes::helper_guard", &at)).spawn());
    let parts = Parts {
        settings: settings("a", &place, address, coordinators.clone()),
        drivers: drivers(&place),
        journal: Journal::open(&place.join("data")).unwrap(),
        key: Arc::new(WitnessKey::open(&place.join("data")).unwrap()),
        dial: plain_dial(&coordinators),
        door: Arc::new(ProcessDoor::new(&place.join("run"), spawner)),
        clock: clock::of_this_machine(),
        onlooker: None,
    };
    let (_handles, running) = agent::start(parts, CancellationToken::new());
    running.await.unwrap();
}

/// Ends the processes of the test, whatever becomes of it.
struct Ours {
    place: PathBuf,
    children: Vec<Child>,
}

impl Drop for Ours {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        if let Some(guard) = guard_pid(&self.place) {
            let _ = kill(guard, Signal::SIGKILL);
        }
    }
}

fn guard_pid(place: &Path) -> Option<Pid> {
    std::fs::read_to_string(place.join("guard.pid")).ok()?.parse().ok().map(Pid::from_raw)
}

fn calls(place: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(place.join("calls")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_guard_outlives_a_killed_agent_and_fences_at_the_lease_end() {
    const D: u64 = 4_000;
    let lease = Duration::from_millis(D - D / 6 - 250);
    let group = coordinators().await;
    let a = Member::new("a", &group).await;
    let place = a.directory.path().to_owned();
    group.iter().for_each(|coordinator| coordinator.set_terms(&terms(10, 1, "a", D, &[&a])));
    let victim = Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().unwrap();
    std::fs::write(place.join("victim.pid"), victim.id().to_string()).unwrap();
    let mut ours = Ours { place: place.clone(), children: vec![victim] };
    let start = || {
        let mut command = again("processes::helper_agent", &place);
        command.env(COORDINATORS, a.coordinators.join(",")).spawn().unwrap()
    };
    let held_by = |incarnation: u64| {
        let control = group[0].control();
        let last = control.beats.get("a").and_then(|beats| beats.last()).cloned();
        last.is_some_and(|beat| {
            beat.stamp.as_ref().is_some_and(|stamp| stamp.incarnation == incarnation)
                && beat.applications.iter().any(|one| one.lease() == LeaseState::Held && one.terms_named.is_some())
        })
    };

    // The first incarnation was this test's own look at the journal.
    ours.children.push(start());
    until("the first process' lease", || held_by(2)).await;
    let first_guard = guard_pid(&place);
    kill_now(&mut ours);
    ours.children.push(start());
    until("the second process' lease", || held_by(3)).await;
    assert_eq!(guard_pid(&place), first_guard, "attached to the running guard");
    assert!(calls(&place).iter().all(|call| call == "unfence"), "no fence in between: {:?}", calls(&place));

    let killed = Instant::now();
    kill_now(&mut ours);
    until("the guard's hard fence", || ours.children[0].try_wait().unwrap().is_some()).await;
    let took = killed.elapsed();
    assert!(took <= lease + Duration::from_millis(300), "at the end of the lease: {took:?} of {lease:?}");
    assert!(took >= lease.checked_sub(Duration::from_millis(900)).unwrap(), "not before its time: {took:?}");

    // The next agent learns of it, and under a new lease opens again.
    let before = calls(&place).len();
    ours.children.push(start());
    until("the third process' lease", || held_by(4)).await;
    until("the lifting", || calls(&place)[before..].iter().any(|call| call == "unfence")).await;
    assert_eq!(calls(&place).iter().filter(|call| *call == "hard").count(), 1);

    // A guard that is killed is started again and counts on by its file; one that does not answer extends nothing.
    kill(guard_pid(&place).unwrap(), Signal::SIGKILL).unwrap();
    until("another guard", || guard_pid(&place) != first_guard).await;
    until("the lease under it", || held_by(4)).await;
    kill(guard_pid(&place).unwrap(), Signal::SIGSTOP).unwrap();
    let stopped = Instant::now();
    until("the self-fence", || calls(&place).iter().any(|call| call == "fence")).await;
    assert!(stopped.elapsed() <= lease + Duration::from_millis(700));
    kill(guard_pid(&place).unwrap(), Signal::SIGCONT).unwrap();
}

fn kill_now(ours: &mut Ours) {
    let agent = ours.children.last_mut().unwrap();
    agent.kill().unwrap();
    agent.wait().unwrap();
}
