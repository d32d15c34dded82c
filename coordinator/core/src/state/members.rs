//! One change of the members at a time, and the next only when nobody counts by older voters.

use super::Applied;
use super::apply::{Applying, ignored, refused};
use crate::effect::Effect;
use crate::id::CoordinatorId;
use crate::members::{MemberChange, unconfirmed};

pub(super) fn change(
    applying: &mut Applying<'_>,
    change: &MemberChange,
    by: &str,
    overridden: Option<&str>,
) -> Applied {
    let state = &*applying.state;
    let id = change.id();
    if let Some(open) = &state.changing {
        let taken_back = matches!(open, MemberChange::Add { id: added, .. } if *added == id)
            && matches!(change, MemberChange::Remove { .. });
        if open == change {
            return ignored("it is under way");
        }
        if !taken_back {
            return refused(
                "member-change-under-way",
                format!("coordinator {} is being added or removed; one at a time", open.id()),
            );
        }
    } else if state.voters.len() > 1 {
        return refused("member-change-under-way", "the membership is being changed; one at a time");
    } else if let Err(not) = sound(applying, change) {
        return not;
    } else if overridden.is_none_or(str::is_empty)
        && let Some(application) = unconfirmed(state).next()
    {
        return refused(
            "voters-unconfirmed",
            format!(
                "the primary's agent of {application} has not confirmed terms with the present coordinators; wait for it, \
                 or give a reason with --override"
            ),
        );
    }
    applying.state.changing = Some(change.clone());
    let (event, what) = match change {
        MemberChange::Add { address, .. } => ("member-add", format!("coordinator {id} at {address}")),
        MemberChange::Remove { .. } => ("member-remove", format!("coordinator {id}")),
    };
    let overridden = overridden.filter(|reason| !reason.is_empty());
    let detail = overridden.map_or_else(|| what.clone(), |reason| format!("{what}; overridden: {reason}"));
    applying.audit(event, None, None, by, detail);
    applying.done()
}

fn sound(applying: &Applying<'_>, change: &MemberChange) -> Result<(), Applied> {
    let state = &*applying.state;
    let id = change.id();
    match change {
        MemberChange::Add { .. } if state.is_voter(id) => {
            Err(refused("already-member", format!("coordinator {id} belongs to the group")))
        }
        MemberChange::Add { .. } if state.removed.contains_key(&id) => Err(refused(
            "id-used-up",
            format!("coordinator {id} was removed from the group; an id is used once, take another one"),
        )),
        MemberChange::Add { .. } => Ok(()),
        MemberChange::Remove { .. } if !state.is_voter(id) && !state.coordinators.contains_key(&id) => {
            Err(refused("not-a-member", format!("coordinator {id} does not belong to the group")))
        }
        MemberChange::Remove { .. } if state.voters.iter().all(|set| set.len() <= 1) && state.is_voter(id) => {
            Err(refused("last-member", format!("coordinator {id} is the only voter; add another one first")))
        }
        MemberChange::Remove { .. } => Ok(()),
    }
}

/// Raft's membership is as it was wished.
pub(super) fn ended(applying: &mut Applying<'_>, id: CoordinatorId) -> Applied {
    let Some(open) = applying.state.changing.clone().filter(|open| open.id() == id) else {
        return ignored("no such change is under way");
    };
    let alone = applying.state.voters.len() <= 1;
    let voter = applying.state.is_voter(id);
    match open {
        MemberChange::Add { .. } if alone && voter => {
            applying.audit("member-added", None, None, "leader", format!("coordinator {id} votes"));
        }
        MemberChange::Remove { .. } if alone && !voter => {
            let identity = applying.state.coordinators.remove(&id).map(|known| known.identity).unwrap_or_default();
            // Whoever comes under this id again has forgotten, or never knew, what it granted and voted.
            applying.state.removed.insert(id, identity);
            applying.state.dns_serial = applying.state.dns_serial.wrapping_add(1);
            applying.effects.push(Effect::CoordinatorsChanged);
            applying.audit("member-removed", None, None, "leader", format!("coordinator {id}; its id is used up"));
        }
        MemberChange::Add { .. } | MemberChange::Remove { .. } => return ignored("the membership is not so yet"),
    }
    applying.state.changing = None;
    applying.done()
}
