//! The safety protocol as a model that is searched to its end (stateright).
//!
//! One definition of the protocol, and a few small [worlds](world) in which some of its parts and some faults are
//! switched on. In every state of every world the promises must hold; and each of the known [mistakes](mistake), put
//! in, must break the promise that it is known to break.
//!
//! ```text
//!  operator, leader ─► entry in flight ─► committed (group) ─► applied (observer: view) ─► grant, vote
//!                                                                       │                    │
//!                                             databases ◄─ agent, guard ◄─ terms, steps ◄────┘
//! ```
//!
//! What stands for what:
//! - Raft is one line of committed [entries](entry); each coordinator has applied a part of it. Proposals may be lost,
//!   late, doubled and reordered before they are committed. Any coordinator may propose as a leader.
//! - Heartbeats and grants may be lost, late, doubled and reordered in one world; in the others they arrive at once.
//! - Time is discrete, D is four to six ticks, F and M are one. Everything that can happen may happen between two ticks,
//!   in any order. Within each D one clock may run slow or fast by M.
//! - A fence takes as long as it may: what was open closes at the end of F.
//! - An agent and its guard do not die at once without the machine: nothing covers that.
//!
//! L1 is asked of every state of all worlds but three, whose states are too many to play each to its end within the time
//! of a test: `lease`, where heartbeats and grants are in flight, `promises`, where D changes beside them, and `disks`,
//! where every commit has three ways. Leases, promises and a changing D are asked one by one in the others. In `votes`
//! and `promotion` it is asked with the third coordinator gone for good.

pub mod action;
pub mod agent;
pub mod check;
pub mod entry;
pub mod group;
pub mod healing;
pub mod id;
pub mod mistake;
pub mod observer;
pub mod offer;
pub mod protocol;
pub mod state;
pub mod step;
pub mod story;
pub mod terms;
pub mod world;

pub use check::{Broken, Report, search};
pub use mistake::Mistake;
pub use world::World;
