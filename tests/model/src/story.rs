//! A trace in the words of the domain.

use super::action::{Action, Drift, Fault};
use super::agent::Fence;
use super::id::{Cluster, Observer};
use super::state::{Message, State};

/// One line for what happened between two states.
#[must_use]
pub fn tell(before: &State, action: &Action, after: &State) -> String {
    let mut line = deed(action, after);
    for (cluster, (old, new)) in (0..).map(Cluster).zip(before.agents.iter().zip(&after.agents)) {
        match (old.is_open(), new.is_open()) {
            (false, true) => line.push_str(&format!("; {cluster} is OPEN")),
            (true, false) => line.push_str(&format!("; {cluster} is closed")),
            (true, true) | (false, false) => {}
        }
        if new.fence == Fence::Own && old.fence != Fence::Own {
            line.push_str(" by its own fence");
        }
        let lease = new.lease_left(cluster);
        if old.lease_left(cluster) != lease {
            line.push_str(&match lease {
                0 => format!("; the lease of {cluster} is over"),
                1 => format!("; the lease of {cluster} runs for 1 tick"),
                _ => format!("; the lease of {cluster} runs for {lease} ticks"),
            });
        }
    }
    line
}

fn deed(action: &Action, after: &State) -> String {
    match action {
        Action::Tick(drift) => match drift {
            Drift::None => "a tick passes".to_owned(),
            Drift::Slow(cluster) => format!("a tick passes, but not by the clock of {cluster}"),
            Drift::Fast(cluster) => format!("a tick passes, two by the clock of {cluster}"),
            Drift::Hasty(observer) => format!("a tick passes, two by the clock of {observer}"),
        },
        Action::Contact(observer, cluster) => {
            let coordinator = after.coordinator(*observer);
            if coordinator.view.epoch == after.agent(*cluster).terms.epoch {
                format!("{observer} hears {cluster} and grants for epoch {}", coordinator.view.epoch)
            } else {
                format!("{observer} tells {cluster} of epoch {}", coordinator.view.epoch)
            }
        }
        Action::Beat(cluster) => format!("{cluster} sends a heartbeat to all"),
        Action::Hear(observer, message) => heard(*observer, message),
        Action::HearDoubled(observer, message) => format!("{}; it is still in flight", heard(*observer, message)),
        Action::Receive(message) => received(message),
        Action::ReceiveDoubled(message) => format!("{}; it is still in flight", received(message)),
        Action::Learn(observer, cluster) => {
            format!("{cluster} stores terms {} from {observer}", after.agent(*cluster).terms.number)
        }
        Action::Name(cluster) => {
            format!("{cluster} names terms {}, which is committed", after.agent(*cluster).terms.number)
        }
        Action::Lead(cluster) => {
            format!("{cluster} writes that it leads epoch {} and is guarded", after.agent(*cluster).led)
        }
        Action::Vote(observer, cluster) => {
            let watch = after.coordinator(*observer).watches[cluster.at()];
            format!("{observer} proposes its vote {} on {cluster}", watch.number)
        }
        Action::Withdraw(observer, cluster) => {
            let watch = after.coordinator(*observer).watches[cluster.at()];
            format!("{observer} proposes withdrawal {} on {cluster}", watch.number)
        }
        Action::Retry(observer, cluster) => format!("{observer} repeats its word on {cluster}"),
        Action::Start(observer) => format!("{observer} proposes its start"),
        Action::Decide(observer, entry) => format!("{observer} proposes: {entry}"),
        Action::Commit(entry) => format!("committed {}: {entry}", after.head.index),
        Action::Double(entry) => format!("committed {}, and still in flight: {entry}", after.head.index),
        Action::CommitBy(entry, holders) => {
            let names: Vec<String> = holders.iter().map(|one| Observer(one).to_string()).collect();
            format!("committed {} by {}: {entry}", after.head.index, names.join(" and "))
        }
        Action::Apply(observer) => format!("{observer} applies entry {}", after.coordinator(*observer).view.index),
        Action::Operate(change) => format!("committed {}: {change}", after.head.index),
        Action::Command(step, cluster, epoch) => {
            format!("committed {}: intent to {step} {cluster} at epoch {epoch}", after.head.index)
        }
        Action::Report(cluster, intent) => {
            format!("committed {}: step {intent} of {cluster} has succeeded", after.head.index)
        }
        Action::Dispatch(observer, intent) => {
            format!("{} is told by {observer} to {}, token {}", intent.cluster, intent.step, intent.number)
        }
        Action::Opens(cluster) => format!("the promotion of {cluster} comes to its end"),
        Action::Promote(observer, cluster) => {
            let epoch = after.agent(*cluster).terms.epoch;
            format!("{cluster} is promoted at epoch {epoch}, as {observer} knows it")
        }
        Action::Lift(cluster) => format!("{cluster} lifts its self-fence"),
        Action::Promise(asker, other) => {
            let left = after.agent(*other).promised.map_or(0, |promised| promised.left);
            format!("{other} promises {asker} to refuse promotions for {left} ticks")
        }
        Action::Fail(fault) => failure(*fault),
    }
}

fn heard(by: Observer, message: &Message) -> String {
    match message {
        Message::Beat { cluster, number, incarnation, .. } => {
            format!("{by} hears heartbeat {incarnation}.{number} of {cluster} and grants")
        }
        Message::Grant { .. } => String::new(),
    }
}

fn received(message: &Message) -> String {
    match message {
        Message::Grant { cluster, number, incarnation, by, .. } => {
            format!("{cluster} receives the grant of {by} for heartbeat {incarnation}.{number}")
        }
        Message::Beat { .. } => String::new(),
    }
}

fn failure(fault: Fault) -> String {
    match fault {
        Fault::Crash(observer) => format!("{observer} dies"),
        Fault::Restart(observer) => format!("{observer} starts again, with nothing but its disk"),
        Fault::Wipe(observer) => format!("{observer} loses its disk"),
        Fault::Elect(voters) => {
            let names: Vec<String> = voters.iter().map(|one| Observer(one).to_string()).collect();
            format!("{} elect a leader, who has not seen all that was committed", names.join(" and "))
        }
        Fault::CrashAgent(cluster) => format!("the agent of {cluster} dies"),
        Fault::RestartAgent(cluster) => format!("the agent of {cluster} starts again"),
        Fault::CrashGuard(cluster) => format!("the guard of {cluster} dies"),
        Fault::RestartGuard(cluster) => format!("the guard of {cluster} starts again"),
        Fault::LosePower(cluster) => format!("the machine of {cluster} dies"),
        Fault::Boot(cluster) => format!("the machine of {cluster} starts again"),
        Fault::Restore => "the group is restored from its backup".to_owned(),
        Fault::Recover => "all agents have reported their highest epochs, and the group recovers".to_owned(),
    }
}
