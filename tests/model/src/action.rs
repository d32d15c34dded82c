//! What can happen in one step.

use super::entry::{Change, Entry, Step};
use super::group::Intent;
use super::id::{Cluster, Few, Number, Observer};
use super::state::Message;

/// One thing that happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Time passes.
    Tick(Drift),
    /// A heartbeat reaches a coordinator and its answer returns, all in an instant.
    Contact(Observer, Cluster),
    /// An agent sends a heartbeat to all coordinators.
    Beat(Cluster),
    /// A coordinator hears it.
    Hear(Observer, Message),
    /// A coordinator hears it, and it is still in flight.
    HearDoubled(Observer, Message),
    /// A grant arrives.
    Receive(Message),
    /// A grant arrives, and is still in flight.
    ReceiveDoubled(Message),
    /// An agent stores the newest terms that a coordinator knows.
    Learn(Observer, Cluster),
    /// A heartbeat names the terms that are stored, and that is committed.
    Name(Cluster),
    /// Journal and marker are written under the first lease.
    Lead(Cluster),
    /// A coordinator votes.
    Vote(Observer, Cluster),
    /// A coordinator takes its vote back.
    Withdraw(Observer, Cluster),
    /// A coordinator repeats what it has not seen applied.
    Retry(Observer, Cluster),
    /// A coordinator proposes its start.
    Start(Observer),
    /// A leader proposes a decision.
    Decide(Observer, Entry),
    /// A proposal is committed.
    Commit(Entry),
    /// A proposal is committed, and is still in flight.
    Double(Entry),
    /// A proposal is committed by these coordinators, which hold it.
    CommitBy(Entry, Few),
    /// A coordinator applies the next entry.
    Apply(Observer),
    /// An operator changes something.
    Operate(Change),
    /// A step is asked for.
    Command(Step, Cluster, u8),
    /// The success of a step is committed.
    Report(Cluster, Number),
    /// A step reaches its agent, down the stream of some coordinator that knows of it.
    Dispatch(Observer, Intent),
    /// What a promotion began has come to its end.
    Opens(Cluster),
    /// A target opens at once by the decision, in worlds that ask for no lease.
    Promote(Observer, Cluster),
    /// A self-fence is lifted.
    Lift(Cluster),
    /// An agent asks another for a promise, and gets it.
    Promise(Cluster, Cluster),
    /// Something breaks, or is mended.
    Fail(Fault),
}

/// What breaks, and what mends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A coordinator's process dies.
    Crash(Observer),
    /// It begins anew.
    Restart(Observer),
    /// A coordinator loses its disk.
    Wipe(Observer),
    /// These coordinators elect a leader among them, who holds less than was committed.
    Elect(Few),
    /// An agent's process dies.
    CrashAgent(Cluster),
    /// It begins anew.
    RestartAgent(Cluster),
    /// A guard dies.
    CrashGuard(Cluster),
    /// It begins anew.
    RestartGuard(Cluster),
    /// A machine dies.
    LosePower(Cluster),
    /// It begins anew.
    Boot(Cluster),
    /// The group is restored from a backup.
    Restore,
    /// All agents have reported to the restored group.
    Recover,
}

/// Which clock runs otherwise than the others in a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drift {
    /// None.
    None,
    /// A machine's stands still.
    Slow(Cluster),
    /// A machine's passes two.
    Fast(Cluster),
    /// A coordinator's passes two.
    Hasty(Observer),
}
