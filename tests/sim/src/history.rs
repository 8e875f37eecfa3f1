//! What clients and observers saw, with when.

use novacron_common::ids::TokenId;
use novacron_coordinator::raft::{Committed, NodeId};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Nanoseconds since the world began.
pub type At = u64;

/// How a write ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrote {
    /// It is committed.
    Acknowledged,
    /// Nothing was changed, says the answer.
    Refused,
    /// Nobody knows: no answer, or one that says so.
    Unknown,
}

/// One write of a value that no other write has.
#[derive(Debug, Clone, Copy)]
pub struct Write {
    /// The value.
    pub id: TokenId,
    /// When it was asked for.
    pub invoked: At,
    /// When the answer came, and which.
    pub ended: Option<(At, Wrote)>,
}

/// One linearizable read of everything.
#[derive(Debug, Clone)]
pub struct Read {
    /// By which coordinator.
    pub node: NodeId,
    /// When it was asked for.
    pub invoked: At,
    /// When the answer came.
    pub ended: At,
    /// What was there.
    pub seen: BTreeSet<TokenId>,
}

/// All of it.
#[derive(Debug, Default)]
pub struct Seen {
    /// Writes, in the order in which they were asked for.
    pub writes: Vec<Write>,
    /// Reads, in the order of their answers.
    pub reads: Vec<Read>,
    /// What each log entry did, by whoever applied it first, and what was seen that contradicts it.
    pub entries: BTreeMap<u64, (NodeId, u64)>,
    /// Contradictions that were noticed on the spot.
    pub faults: Vec<String>,
    /// Who led which term.
    pub leaders: BTreeMap<u64, NodeId>,
}

/// The record, shared by everybody who writes to it.
#[derive(Debug, Clone, Default)]
pub struct History(Arc<Mutex<Seen>>);

impl History {
    /// To look or to write.
    pub fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A write was asked for; where its end is to be noted.
    pub fn began(&self, id: TokenId, invoked: At) -> usize {
        let mut seen = self.lock();
        seen.writes.push(Write { id, invoked, ended: None });
        seen.writes.len() - 1
    }

    /// A write was answered.
    pub fn ended(&self, write: usize, at: At, wrote: Wrote) {
        self.lock().writes[write].ended = Some((at, wrote));
    }

    /// `node` applied an entry. Every node, in every life, must do the same with it.
    pub fn applied(&self, node: NodeId, entry: &Committed) {
        if entry.reset {
            return;
        }
        let did = digest(entry);
        let mut seen = self.lock();
        match seen.entries.get(&entry.index).copied() {
            None => drop(seen.entries.insert(entry.index, (node, did))),
            Some((_, same)) if same == did => {}
            Some((other, _)) => {
                let index = entry.index;
                seen.faults
                    .push(format!("logs differ: entry {index} did one thing on {other}, another on {node}"));
            }
        }
    }

    /// `node` leads `term`.
    pub fn leads(&self, node: NodeId, term: u64) {
        let mut seen = self.lock();
        let other = *seen.leaders.entry(term).or_insert(node);
        if other != node {
            seen.faults.push(format!("two leaders: {other} and {node} both led term {term}"));
        }
    }
}

fn digest(entry: &Committed) -> u64 {
    let mut trace = crate::trace::Trace::default();
    trace.note(&[entry.index, entry.at.0.unsigned_abs()]);
    for change in &entry.changes {
        trace.note_bytes(&[change.table.number()]);
        trace.note_bytes(&change.key);
        trace.note_bytes(change.value.as_deref().unwrap_or(b"\0removed"));
    }
    trace.hash()
}
