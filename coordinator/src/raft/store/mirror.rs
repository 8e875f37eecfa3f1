//! The way of the state's rows to the disk, behind the state in memory.
//!
//! What an entry did is answered as soon as it is in memory: the entry itself is durable and can do it again. So the rows
//! follow a moment later, off the way of every request, and a row that several entries changed meanwhile is written once.
//! A state on disk is always that after one whole entry, with its index beside it; after a crash Raft applies the log from
//! there (Raft dissertation, section 5.1: the state machine may be volatile as long as the log is not). Only one thing has
//! to wait for the rows: an entry leaves the log when they have it ([`Mirror::written`]).
//!
//! What waits is bounded: behind [`WAITING_BYTES_MAX`] the next entry is applied when the disk has caught up.

use super::{
    StoreFault, blocking,
    rows::{AppliedTo, Row, Rows},
};
use crate::raft::types::Committed;
use novacron_common::planted::{self, Mistake};
use novacron_core::{Change, TableId};
use novacron_runtime::time::sleep;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::watch;

/// How long rows are gathered before they are written. What a crash costs is to apply the entries of so long again.
const GATHERED_FOR: Duration = Duration::from_millis(200);
/// Bytes of changes that may wait.
const WAITING_BYTES_MAX: usize = 16 << 20;
/// A batch is closed when it has so many changes. A batch of sled stops every other write of the process, that of the log
/// as well.
const BATCH_CHANGES_MAX: usize = 1000;

/// The near end. Clones are the same.
#[derive(Clone)]
pub(super) struct Mirror {
    shared: Arc<Shared>,
}

struct Shared {
    /// Held by whoever writes.
    rows: Mutex<Rows>,
    waiting: Mutex<Waiting>,
    progress: watch::Sender<Progress>,
}

#[derive(Default)]
struct Waiting {
    entries: VecDeque<Applied>,
    bytes: usize,
    /// A task writes.
    writing: bool,
}

/// What one entry did, and how far the state is with it.
struct Applied {
    committed: Arc<Committed>,
    to: AppliedTo,
    bytes: usize,
}

/// How far the disk is.
#[derive(Clone)]
struct Progress {
    /// The last entry in the rows; `None` before the first, whose index is 0.
    written: Option<u64>,
    /// Bytes of changes that wait.
    waiting: usize,
    /// The last entry for which somebody waits. If it is not written, nothing more is gathered.
    wanted: Option<u64>,
    failed: Option<Arc<StoreFault>>,
}

impl Mirror {
    /// Rows that stand at `applied`.
    pub fn new(rows: Rows, applied: &AppliedTo) -> Self {
        let written = index_of(applied);
        let progress = watch::Sender::new(Progress { written, waiting: 0, wanted: written, failed: None });
        Self { shared: Arc::new(Shared { rows: Mutex::new(rows), waiting: Mutex::default(), progress }) }
    }

    /// Takes what an entry did. It is written soon.
    pub fn push(&self, committed: Arc<Committed>, to: AppliedTo) {
        let bytes = committed.changes.iter().map(bytes_of).sum();
        let mut waiting = self.waiting();
        waiting.bytes += bytes;
        waiting.entries.push_back(Applied { committed, to, bytes });
        self.shared.progress.send_modify(|progress| progress.waiting = waiting.bytes);
        if !std::mem::replace(&mut waiting.writing, true) {
            novacron_runtime::spawn(self.clone().write());
        }
    }

    /// Waits until there is room for what another entry does.
    pub async fn room(&self) -> Result<(), StoreFault> {
        self.when(|progress| progress.waiting < WAITING_BYTES_MAX).await
    }

    /// Waits until the rows have what the entries up to this index did; they must have been pushed. They are durable after
    /// the next sync of the store.
    pub async fn written(&self, last: Option<u64>) -> Result<(), StoreFault> {
        self.shared.progress.send_modify(|progress| progress.wanted = progress.wanted.max(last));
        self.when(|progress| progress.written >= last).await
    }

    /// A snapshot's bytes and of which state, which has the entries up to this index at least. Made of the rows: entries are
    /// applied meanwhile, and theirs wait.
    pub async fn snapshot(&self, last: Option<u64>) -> Result<(Vec<u8>, AppliedTo), StoreFault> {
        self.written(last).await?;
        let mirror = self.clone();
        blocking(move || mirror.rows().snapshot()).await
    }

    /// Puts the rows of a snapshot in place of everything, also of what waits; durable when it returns. Blocks.
    pub fn replace(&self, snapshot: Vec<Row>, applied: &AppliedTo) -> Result<(), StoreFault> {
        let mut rows = self.rows();
        rows.replace(snapshot, applied)?;
        let mut waiting = self.waiting();
        waiting.entries.clear();
        waiting.bytes = 0;
        self.shared.progress.send_modify(|progress| {
            (progress.written, progress.waiting) = (index_of(applied), 0);
        });
        Ok(())
    }

    /// Writes what waits, and what comes meanwhile, until there is nothing.
    async fn write(self) {
        loop {
            self.gather().await;
            let mirror = self.clone();
            match blocking(move || mirror.write_waiting()).await {
                Ok(true) => {}
                Ok(false) => return,
                Err(fault) => {
                    tracing::error!(error = %super::Chain(&fault), "the ledger's rows could not be written");
                    self.shared.progress.send_modify(|progress| progress.failed = Some(Arc::new(fault)));
                    return;
                }
            }
        }
    }

    /// Until somebody wants the rows, or for a while.
    async fn gather(&self) {
        let mut progress = self.shared.progress.subscribe();
        let wanted = progress.wait_for(|p| p.wanted > p.written || p.waiting > WAITING_BYTES_MAX / 2);
        tokio::select! {
            biased;
            _ = wanted => {}
            () = sleep(GATHERED_FOR) => {}
        }
    }

    /// Writes what waits now; whether something came meanwhile. If nothing did, the writer may go.
    fn write_waiting(&self) -> Result<bool, StoreFault> {
        let rows = self.rows();
        let mut left = self.waiting().entries.len();
        while let Some(batch) = self.next_batch(&mut left) {
            let Some(last) = batch.last() else { break };
            let to = if planted::is(Mistake::AppliedTooNear) { &batch[0].to } else { &last.to };
            rows.write(latest(&batch), to)?;
            let (written, waiting) = (index_of(&last.to), self.waiting().bytes);
            self.shared.progress.send_modify(|progress| {
                (progress.written, progress.waiting) = (written, waiting);
            });
        }
        let mut waiting = self.waiting();
        waiting.writing = !waiting.entries.is_empty();
        Ok(waiting.writing)
    }

    /// The next batch of the first `left` entries that wait.
    fn next_batch(&self, left: &mut usize) -> Option<Vec<Applied>> {
        let mut waiting = self.waiting();
        let (mut batch, mut changes) = (Vec::new(), 0);
        while *left > 0
            && changes < BATCH_CHANGES_MAX
            && let Some(entry) = waiting.entries.pop_front()
        {
            *left -= 1;
            changes += entry.committed.changes.len();
            waiting.bytes -= entry.bytes;
            batch.push(entry);
        }
        (!batch.is_empty()).then_some(batch)
    }

    async fn when(&self, there: impl Fn(&Progress) -> bool) -> Result<(), StoreFault> {
        let settled = |progress: &Progress| progress.failed.is_some() || there(progress);
        let mut progress = self.shared.progress.subscribe();
        // The sender is `self`.
        let failed = match progress.wait_for(settled).await {
            Ok(progress) => progress.failed.clone(),
            Err(_) => None,
        };
        failed.map_or(Ok(()), |fault| Err(StoreFault::Rows(fault)))
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.shared.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn index_of(applied: &AppliedTo) -> Option<u64> {
    applied.last.map(|last| last.index)
}

fn bytes_of(change: &Change) -> usize {
    change.key.len() + change.value.as_ref().map_or(0, Vec::len)
}

/// Each row that `batch` changed, as its last entry left it, in the order of the disk.
fn latest(batch: &[Applied]) -> impl Iterator<Item = &Change> {
    let changes = batch.iter().flat_map(|entry| &entry.committed.changes);
    let last: BTreeMap<(TableId, &[u8]), &Change> =
        changes.map(|change| ((change.table, change.key.as_slice()), change)).collect();
    last.into_values()
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use novacron_common::units::UnixMillis;
    use novacron_store::Store;
    use openraft::{CommittedLeaderId, LogId};
    use tokio::task::unconstrained;

    const CHANGE_BYTES: usize = 32 << 10;

    fn entry(index: u64) -> (Arc<Committed>, AppliedTo) {
        let key = index.to_be_bytes().to_vec();
        let change = Change { table: TableId::ApiTokens, key, value: Some(vec![7; CHANGE_BYTES]) };
        let committed = Committed { index, at: UnixMillis(1), changes: vec![change], reset: false };
        let last = Some(LogId { leader_id: CommittedLeaderId::new(1, 1), index });
        (Arc::new(committed), AppliedTo { last, ..AppliedTo::default() })
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_waits_for_a_slow_disk_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let rows = Rows::open(Store::open(folder.path()).unwrap()).unwrap();
        let mirror = Mirror::new(rows, &AppliedTo::default());
        let mut taken = 0;
        {
            let _slow_disk = mirror.rows();
            // Unconstrained: what this task has done so far is no reason to wait.
            while taken < 1000 && unconstrained(mirror.room()).now_or_never().is_some() {
                taken += 1;
                let (committed, to) = entry(taken);
                mirror.push(committed, to);
            }
        }
        assert_eq!(taken, (WAITING_BYTES_MAX / CHANGE_BYTES) as u64);
        mirror.room().await.unwrap();
        mirror.written(Some(taken)).await.unwrap();
        assert_eq!(mirror.rows().snapshot().unwrap().1.last.map(|last| last.index), Some(taken));
    }
}
