//! How long the quiesces of a planned move let transactions end, as the agents tell it, beside how long the move may keep
//! writes out. All of it comes before the decision, and whoever logs in anew is refused meanwhile: where there is no time left
//! to decide, the move is an outage for nothing, and is refused.
//!
//! What is not known refuses nothing: a look that is old, and an agent of an older release.

use crate::application::{Action, Line};
use crate::id::ResourceId;
use crate::plan::switchover_lines;
use crate::preflight::{Note, Severity};
use crate::readiness::Place;
use crate::time::Span;
use crate::verdict::Scene;

/// What is to be known of it, at the database that takes the most.
pub(crate) fn of_quiesces(scene: &Scene<'_>, max_write_outage: Span) -> Option<(Place, Note)> {
    let facts = scene.evidence.contacts.get(scene.primary)?.facts.get(scene.application)?;
    let grace = |resource: &ResourceId| {
        let facts = facts.get(resource).filter(|facts| facts.is_fresh(scene.now))?;
        facts.postgres.as_ref()?.grace
    };
    let mut total = Span::ZERO;
    let mut most: Option<(Span, &ResourceId)> = None;
    for line in before_the_fence(scene) {
        // Those of one line are quiesced side by side.
        let longest = line.resources.iter().filter_map(|resource| Some((grace(resource)?, resource))).max();
        total = longest.map_or(total, |(span, _)| total.plus(span));
        most = most.max(longest);
    }
    let (_, resource) = most?;
    let (severity, follows) = if total >= max_write_outage {
        (
            Severity::Blocker,
            "no time would be left to decide, and it would be undone; allow more, or lower `grace` there",
        )
    } else if total > max_write_outage.divided(2) {
        (Severity::Warning, "the fence and the catch-up have to do with the rest")
    } else {
        return None;
    };
    let place = Place { cluster: Some(scene.primary.clone()), resource: Some(resource.clone()) };
    let detail = format!(
        "transactions are given {total} to end before the fence; maxWriteOutage is {max_write_outage}: {follows}"
    );
    Some((place, Note { severity, code: "quiesce-grace".to_owned(), detail }))
}

/// Behind the fence a quiesce finds nobody.
fn before_the_fence<'a>(scene: &Scene<'a>) -> impl Iterator<Item = &'a Line> {
    let (lines, _) = switchover_lines(&scene.known.document);
    let opens =
        |line: &&Line| matches!(line.action, Action::Promote | Action::Activate | Action::Redirect | Action::Run);
    let caught_up = lines.iter().position(|line| line.action == Action::CatchUp);
    let fence = caught_up.or_else(|| lines.iter().position(opens)).unwrap_or(lines.len());
    lines.into_iter().take(fence).filter(|line| line.action == Action::Quiesce)
}
