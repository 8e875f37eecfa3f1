//! The log's way to the disk, beside Raft and not in its way.
//!
//! openraft 0.9 waits for the leader's own sync before it replicates, and again before it takes the next proposal: one
//! sync after the other, and one entry in each. Here an append only queues the entries, so that the leader's sync runs
//! beside the followers' and everything that was queued meanwhile shares the next one. openraft then counts this node
//! for entries that it may still lose, so no promise may leave before they are durable, and these are all the places
//! where one could:
//! * a follower acknowledges entries when they are durable and it has heard of no later leader, who may have cut them off
//!   ([`Journal::kept`]);
//! * a leader tells others of a commit when its own log is durable up to there ([`Journal::durable_part`]), so that a
//!   follower never applies what a majority could forget;
//! * an entry is applied, and so answered, when it is durable here ([`Journal::synced`]);
//! * a leader that restarts has perhaps lost entries that others have of it. It must not put others in their places under
//!   the same ids, and so does not go on in its term ([`super::LogStore::renounce`]).
//!
//! What is queued is bounded by who waits for it: the proposer's entries under way, and one request of the leader.

use super::{
    StoreFault, blocking, encode,
    log_disk::{LogDisk, Span},
    tail::{Tail, Unwritten},
};
use crate::raft::types::{Entry, LogId, Vote};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// The log. Clones are the same.
#[derive(Clone)]
pub(crate) struct Journal {
    shared: Arc<Shared>,
}

struct Shared {
    disk: LogDisk,
    state: Mutex<State>,
    progress: watch::Sender<Progress>,
}

#[derive(Default)]
struct State {
    tail: Tail,
    /// A task is writing.
    writing: bool,
    /// How far openraft may apply after a restart before it has heard from a leader; `None` before it was told.
    committed: Option<Option<LogId>>,
    /// The last vote since the start; `None` while it is that of the disk.
    vote: Option<Vote>,
}

/// How far the log is on stable storage.
#[derive(Debug, Clone)]
enum Progress {
    /// Every entry below this index is.
    Below(u64, Option<LogId>),
    /// Nobody knows: a write failed.
    Failed(Arc<StoreFault>),
}

impl Journal {
    pub(super) fn new(disk: LogDisk) -> Self {
        let progress = watch::Sender::new(Progress::Below(u64::MAX, None));
        Self { shared: Arc::new(Shared { disk, state: Mutex::default(), progress }) }
    }

    pub(super) fn disk(&self) -> LogDisk {
        self.shared.disk.clone()
    }

    /// Queues entries; they can be read at once, and are durable when [`Journal::synced`] says so.
    pub(super) fn append(&self, entries: Vec<Entry>) -> Result<(), StoreFault> {
        self.check()?;
        let records: Vec<Vec<u8>> = entries.iter().map(encode).collect::<Result<_, _>>()?;
        let mut state = self.state();
        for (entry, record) in entries.into_iter().zip(records) {
            state.tail.push(entry, record);
        }
        self.publish(&state.tail, None);
        if !std::mem::replace(&mut state.writing, true) {
            novacron_runtime::spawn(self.clone().write());
        }
        Ok(())
    }

    /// Writes what is queued, and what is queued meanwhile, until there is nothing.
    async fn write(self) {
        while let Some((batch, committed)) = self.next() {
            let (disk, last) = (self.disk(), batch.last);
            let written = blocking(move || disk.append(batch.records, committed)).await;
            let mut state = self.state();
            match written {
                Ok(()) => {
                    state.tail.synced(last.index);
                    self.publish(&state.tail, Some(last));
                }
                Err(fault) => {
                    state.writing = false;
                    self.shared.progress.send_replace(Progress::Failed(Arc::new(fault)));
                    return;
                }
            }
        }
    }

    /// The next batch, and the commit that may be written with it: one whose entry is on disk then.
    fn next(&self) -> Option<(Unwritten, Option<LogId>)> {
        let mut state = self.state();
        let batch = state.tail.take_unwritten();
        state.writing = batch.is_some();
        let batch = batch?;
        let committed = state.committed.flatten().filter(|id| id.index <= batch.last.index);
        Some((batch, committed))
    }

    fn publish(&self, tail: &Tail, synced: Option<LogId>) {
        self.shared.progress.send_if_modified(|progress| {
            let Progress::Below(below, last) = progress else { return false };
            let next = tail.first_unsynced();
            let changed = *below != next;
            (*below, *last) = (next, synced.or(*last));
            changed
        });
    }

    /// Waits until the entry at `index`, and all before it, are on stable storage here.
    pub async fn synced(&self, index: u64) -> Result<(), StoreFault> {
        let there = |progress: &Progress| match progress {
            Progress::Below(below, _) => index < *below,
            Progress::Failed(_) => true,
        };
        if !there(&self.shared.progress.borrow()) {
            // The sender is `self`.
            let _ = self.shared.progress.subscribe().wait_for(there).await;
        }
        self.check()
    }

    /// Waits until everything that is queued is on stable storage.
    pub(super) async fn settled(&self) -> Result<(), StoreFault> {
        self.synced(u64::MAX - 1).await
    }

    /// Waits until the entry at `index`, which came from the leader of `vote`, is on stable storage here, and says whether
    /// that is sure: a later leader may have put another in its place meanwhile.
    pub async fn kept(&self, index: u64, vote: Vote) -> Result<bool, StoreFault> {
        self.synced(index).await?;
        // A vote is noted before anything is cut off in its name.
        Ok(self.state().vote.is_none_or(|known| known <= vote))
    }

    /// Makes a vote durable, and what was queued before it: a founder that voted and has lost the entry that makes it a
    /// member could neither lead nor be founded again.
    pub(super) async fn vote(&self, vote: Vote) -> Result<(), StoreFault> {
        self.state().vote = Some(vote);
        self.settled().await?;
        let disk = self.disk();
        blocking(move || disk.put_vote(&vote)).await
    }

    /// `committed`, or a part of it that is surely durable here. Being told less does no harm.
    pub fn durable_part(&self, committed: Option<LogId>) -> Option<LogId> {
        match &*self.shared.progress.borrow() {
            Progress::Below(below, _) if committed.is_none_or(|id| id.index < *below) => committed,
            Progress::Below(_, synced) => (*synced).min(committed),
            Progress::Failed(_) => None,
        }
    }

    /// The entries in `span`.
    pub(super) async fn read(&self, span: Span) -> Result<Vec<Entry>, StoreFault> {
        // What is in memory now is taken now: while the disk is read, it may leave memory.
        let (first, young) = {
            let state = self.state();
            let first = state.tail.first().unwrap_or(u64::MAX);
            (first, state.tail.read(Span { start: span.start.max(first), ..span }))
        };
        if span.start >= first.min(span.end) {
            return Ok(young);
        }
        let (disk, old) = (self.disk(), Span { end: span.end.min(first), ..span });
        let (mut entries, whole) = blocking(move || disk.read(old)).await?;
        // A limited reader that has something comes again for the rest.
        if whole && (span.bytes_max == usize::MAX || entries.is_empty()) {
            entries.extend(young);
        }
        Ok(entries)
    }

    /// The last entry in memory.
    pub(super) fn last(&self) -> Option<LogId> {
        self.state().tail.last()
    }

    /// Cuts off the entries from `index` on. Durable when it returns.
    pub(super) async fn cut(&self, index: u64) -> Result<(), StoreFault> {
        self.settled().await?;
        self.state().tail.cut(index);
        self.shared.progress.send_modify(|progress| {
            if let Progress::Below(_, synced) = progress {
                *synced = synced.filter(|id| id.index < index);
            }
        });
        let disk = self.disk();
        blocking(move || disk.cut(index)).await
    }

    /// Removes the entries up to `upto`, whose effects are in the state.
    pub(super) async fn purge(&self, upto: LogId) -> Result<(), StoreFault> {
        self.settled().await?;
        self.state().tail.purge(upto.index);
        let disk = self.disk();
        blocking(move || disk.purge(upto)).await
    }

    /// Takes note of a commit; it is written with the next entries.
    pub(super) fn note_committed(&self, committed: Option<LogId>) {
        self.state().committed = Some(committed);
    }

    /// The last commit that was noted since the start.
    pub(super) fn committed(&self) -> Option<Option<LogId>> {
        self.state().committed
    }

    fn check(&self) -> Result<(), StoreFault> {
        match &*self.shared.progress.borrow() {
            Progress::Below(..) => Ok(()),
            Progress::Failed(fault) => Err(StoreFault::Log(fault.clone())),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
