//! Whether an application is protected: another cluster could take over now, and what it would lose lies within the limits.
//! A side that was taken back counts from when it streams again, never by word.

use serde::Serialize;

use crate::id::ClusterId;
use crate::switchover::receives;
use crate::target;
use crate::verdict::Scene;

/// Whether the loss of the primary could be borne.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Protection {
    /// The clusters that protect it; empty: it is not protected.
    pub by: Vec<ClusterId>,
    /// Of every other cluster: why it does not.
    pub not_by: Vec<(ClusterId, String)>,
}

impl Protection {
    /// Some cluster protects it.
    #[must_use]
    pub const fn is_protected(&self) -> bool {
        !self.by.is_empty()
    }

    /// In one line.
    #[must_use]
    pub fn sentence(&self) -> String {
        if self.by.is_empty() {
            let why: Vec<String> = self.not_by.iter().map(|(cluster, why)| format!("{cluster}: {why}")).collect();
            return format!("not protected: {}", why.join("; "));
        }
        let names: Vec<&str> = self.by.iter().map(ClusterId::as_str).collect();
        format!("protected by {}", names.join(", "))
    }
}

/// Looks at every cluster beside the primary.
#[must_use]
pub fn of(scene: &Scene<'_>) -> Protection {
    let mut protection = Protection { by: Vec::new(), not_by: Vec::new() };
    let limit = scene.known.document.automation.max_data_loss;
    for judged in target::rank(scene) {
        let candidate = match judged {
            Ok(candidate) => candidate,
            Err(unfit) => {
                protection.not_by.push((unfit.cluster, unfit.detail));
                continue;
            }
        };
        let cluster = candidate.cluster;
        let cut = scene.known.document.guarded().into_iter().find(|resource| !receives(scene, &cluster, resource));
        // A document that accepts any loss has a target, and is not protected by it.
        let beyond = candidate.loss.is_none_or(|loss| loss > limit);
        match (cut, beyond) {
            (Some(resource), _) => {
                let why = format!("{resource} does not receive from {} just now", scene.primary);
                protection.not_by.push((cluster, why));
            }
            (None, true) => {
                let told =
                    candidate.loss.map_or_else(|| "cannot be told".to_owned(), |loss| format!("would be {loss}"));
                protection.not_by.push((cluster, format!("the loss {told}, the limit is {limit}")));
            }
            (None, false) => protection.by.push(cluster),
        }
    }
    protection
}
