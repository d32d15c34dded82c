//! The order that `after` gives has no cycle.
//!
//! Resources that nothing open stands before are taken away until none is left. What is left holds every cycle, and
//! from each of it `after` leads on into what is left; so walking must come back to a resource it has seen.

use std::collections::{BTreeMap, BTreeSet};

use super::draft::ResourceDraft;
use super::mistake::Mistakes;

/// Names cycles until each is broken by one that is named, at the item that closes it.
pub(super) fn check(drafts: &[ResourceDraft], mistakes: &mut Mistakes) {
    let places: BTreeMap<&str, usize> =
        drafts.iter().enumerate().map(|(index, draft)| (draft.name.value.as_str(), index)).collect();
    let mut open: BTreeMap<usize, BTreeSet<usize>> = drafts
        .iter()
        .enumerate()
        .map(|(index, draft)| {
            let before = draft.after.iter().filter_map(|name| places.get(name.value.as_str()).copied());
            (index, before.collect())
        })
        .collect();
    while !mistakes.is_full() {
        take_away(&mut open);
        let cycles = find(&open);
        if cycles.is_empty() {
            return;
        }
        for cycle in cycles {
            report(&cycle, drafts, mistakes);
            for index in cycle {
                open.remove(&index);
            }
        }
    }
}

/// Takes away all that stands in no cycle and after none. References to what is gone do not count.
fn take_away(open: &mut BTreeMap<usize, BTreeSet<usize>>) {
    let mut waiting: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    let mut missing: BTreeMap<usize, usize> = BTreeMap::new();
    let mut free = Vec::new();
    for (index, before) in open.iter() {
        let before: Vec<usize> = before.iter().copied().filter(|before| open.contains_key(before)).collect();
        if before.is_empty() {
            free.push(*index);
        }
        missing.insert(*index, before.len());
        for before in before {
            waiting.entry(before).or_default().push(*index);
        }
    }
    while let Some(index) = free.pop() {
        open.remove(&index);
        for next in waiting.remove(&index).unwrap_or_default() {
            if let Some(missing) = missing.get_mut(&next) {
                *missing -= 1;
                if *missing == 0 {
                    free.push(next);
                }
            }
        }
    }
}

/// Cycles without a resource in common, each beginning with the one that stands first in the document. Walks from
/// each resource along its first open `after`, and never twice the same way.
fn find(open: &BTreeMap<usize, BTreeSet<usize>>) -> Vec<Vec<usize>> {
    let mut cycles = Vec::new();
    let mut walked: BTreeSet<usize> = BTreeSet::new();
    for start in open.keys() {
        let mut path: Vec<usize> = Vec::new();
        let mut next = Some(*start);
        while let Some(at) = next.filter(|at| walked.insert(*at)) {
            path.push(at);
            next = open.get(&at).and_then(|before| before.iter().copied().find(|before| open.contains_key(before)));
        }
        // What stops the walk is on its own path, or on an earlier one whose cycle is known.
        let Some(begin) = path.iter().position(|at| Some(*at) == next) else { continue };
        let mut cycle = path.split_off(begin);
        let first = cycle.iter().enumerate().min_by_key(|(_, index)| **index).map_or(0, |(position, _)| position);
        cycle.rotate_left(first);
        cycles.push(cycle);
    }
    cycles
}

fn report(cycle: &[usize], drafts: &[ResourceDraft], mistakes: &mut Mistakes) {
    let names: Vec<&str> =
        cycle.iter().filter_map(|index| drafts.get(*index)).map(|draft| draft.name.value.as_str()).collect();
    let (Some(first), Some(last)) = (names.first(), cycle.last().and_then(|index| drafts.get(*index))) else { return };
    let shown = if names.len() > 10 {
        format!("{} → …", names.get(..10).unwrap_or_default().join(" → "))
    } else {
        names.join(" → ")
    };
    let closing = last.after.iter().find(|name| name.value == *first);
    let at = closing.map_or(&last.name.at, |name| &name.at);
    mistakes.add(at, format_args!("a cycle, each after the next: {shown} → {first}"));
}
