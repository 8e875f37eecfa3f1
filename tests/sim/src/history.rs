//! What clients and observers saw, with when.

use crate::jobs;
use novacron_common::{
    ids::{AttemptKey, FireKey, HostId, TokenId},
    record::AttemptOutcome,
};
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
    /// Nothing goes wrong any more: clients are silent, and attempts take no longer than they must.
    pub over: bool,
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
    /// Attempts that run now, by fire.
    pub alive: BTreeMap<FireKey, (AttemptKey, HostId)>,
    /// Attempts that were ever started.
    pub started: BTreeSet<AttemptKey>,
    /// Ends that were acknowledged to the host.
    pub acknowledged: BTreeMap<AttemptKey, AttemptOutcome>,
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

impl History {
    /// A host starts an attempt: the only one of its fire that runs, and for the first time.
    pub fn attempt_started(&self, attempt: AttemptKey, host: HostId) {
        let mut seen = self.lock();
        let beside = seen.alive.keys().find(|fire| fire.job == attempt.fire.job && **fire != attempt.fire);
        if let Some(other) = beside.copied().filter(|_| jobs::forbids_two(attempt.fire.job)) {
            seen.faults.push(format!("two at a time: {attempt} starts while {other} runs"));
        }
        if let Some((other, there)) = seen.alive.insert(attempt.fire, (attempt, host)) {
            seen.faults.push(format!("two alive: {attempt} starts on {host} while {other} runs on {there}"));
        }
        if !seen.started.insert(attempt) {
            seen.faults.push(format!("started twice: {attempt}, now on {host}"));
        }
    }

    /// It runs no more.
    pub fn attempt_ended(&self, attempt: AttemptKey) {
        let mut seen = self.lock();
        if seen.alive.get(&attempt.fire).is_some_and(|(alive, _)| *alive == attempt) {
            seen.alive.remove(&attempt.fire);
        }
    }

    /// The coordinator said that it has this end.
    pub fn acknowledged(&self, attempt: AttemptKey, outcome: AttemptOutcome) {
        // A host that lost its power after this may say once more that it is lost: that is out of date.
        self.lock().acknowledged.entry(attempt).or_insert(outcome);
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
