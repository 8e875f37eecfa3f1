//! What must be true of a history.

use crate::{
    cluster::Cluster,
    history::{Seen, Wrote},
    jobs,
    trace::Trace,
};
use novacron_common::ids::TokenId;
use std::collections::BTreeSet;

/// Everything that is wrong with a run; empty if nothing is.
pub fn faults(cluster: &Cluster) -> Vec<String> {
    let seen = cluster.history.lock();
    let mut faults = seen.faults.clone();
    faults.extend(reads_are_linearizable(&seen));
    faults.extend(states_agree(cluster));
    let last = cluster.machines().find_map(|machine| cluster.ledger(machine));
    let kept: BTreeSet<TokenId> = last
        .map(|ledger| ledger.read(|state| state.api_tokens().iter().map(|t| t.id).collect()))
        .unwrap_or_default();
    faults.extend(writes_are_kept(&seen, &kept));
    let since = jobs::recent(cluster);
    faults.extend(
        last.map(|ledger| ledger.read(|state| jobs::faults(state, &seen, since))).unwrap_or_default(),
    );
    faults
}

/// An acknowledged write is there at the end; one that was refused is not.
fn writes_are_kept(seen: &Seen, kept: &BTreeSet<TokenId>) -> Vec<String> {
    let wrong = seen.writes.iter().filter_map(|write| match write.ended {
        Some((at, Wrote::Acknowledged)) if !kept.contains(&write.id) => {
            Some(format!("lost: {} was acknowledged at {at} ns and is gone", write.id))
        }
        Some((at, Wrote::Refused)) if kept.contains(&write.id) => {
            Some(format!("a lie: {} was refused at {at} ns and is there", write.id))
        }
        _ => None,
    });
    wrong.collect()
}

/// A read sees every write that was acknowledged before it began, and all that an earlier read saw; and nothing
/// that was asked for only after it ended.
fn reads_are_linearizable(seen: &Seen) -> Vec<String> {
    let mut faults = Vec::new();
    for read in &seen.reads {
        let missed = seen.writes.iter().find(|write| {
            matches!(write.ended, Some((at, Wrote::Acknowledged)) if at < read.invoked)
                && !read.seen.contains(&write.id)
        });
        if let Some(write) = missed {
            faults.push(format!(
                "stale read: {} answered at {} ns without {}, acknowledged before {} ns",
                read.node, read.ended, write.id, read.invoked
            ));
        }
        let early = seen.writes.iter().find(|w| w.invoked > read.ended && read.seen.contains(&w.id));
        faults
            .extend(early.map(|w| format!("a read at {} ns saw {} before it was written", read.ended, w.id)));
    }
    faults.extend(reads_go_forward(seen));
    faults
}

fn reads_go_forward(seen: &Seen) -> Vec<String> {
    let mut faults = Vec::new();
    // In the order of their ends: what is acknowledged to one reader before another asks, the other sees.
    for (at, later) in seen.reads.iter().enumerate() {
        let before = seen.reads[..at].iter().rev().find(|earlier| earlier.ended < later.invoked);
        let Some(earlier) = before else { continue };
        if let Some(gone) = earlier.seen.difference(&later.seen).next() {
            faults.push(format!(
                "reads go back: {} saw {gone} by {} ns, {} at {} ns does not",
                earlier.node, earlier.ended, later.node, later.invoked
            ));
        }
    }
    faults
}

/// All coordinators are up, have applied the same, and are in the same state.
fn states_agree(cluster: &Cluster) -> Vec<String> {
    let states: Vec<_> = cluster
        .machines()
        .map(|machine| cluster.ledger(machine).map(|ledger| (ledger.status().applied, ledger.read(digest))))
        .collect();
    match states.split_first() {
        Some((Some(first), rest)) if rest.iter().all(|other| other.as_ref() == Some(first)) => Vec::new(),
        _ => vec![format!("states differ at the end (applied index and hash): {states:?}")],
    }
}

fn digest(state: &novacron_core::State) -> u64 {
    let mut trace = Trace::default();
    for (table, key, value) in state.rows() {
        trace.note_bytes(&[table.number()]);
        trace.note_bytes(&key);
        trace.note_bytes(&value);
    }
    trace.hash()
}
