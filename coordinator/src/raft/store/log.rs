//! Raft's log and vote. An append returns, and calls back, only after `Store::sync`.

use super::{
    StoreFault, blocking, decode, encode, fatal,
    parts::{self, Joiner},
};
use crate::raft::types::{Entry, LogId, NodeId, StorageError, StorageIoError, Types, Vote};
use novacron_common::planted::{self, Mistake};
use novacron_store::{Batch, Store, Tree};
use openraft::{
    LogState, OptionalSend, RaftLogId, RaftLogReader,
    storage::{LogFlushed, RaftLogStorage},
};
use std::{fmt::Debug, io, ops::Bound, ops::RangeBounds};

const TREE: &str = "raft";
const VOTE: &[u8] = b"\0vote";
const COMMITTED: &[u8] = b"\0committed";
const PURGED: &[u8] = b"\0purged";
const ENTRIES: u8 = 1;

/// Most bytes of entries in one replication request, so that a slow link can carry it within a heartbeat; one
/// entry is sent whatever its length.
const REPLICATION_BYTES_MAX: usize = 512 * 1024;

/// The log. Clones are the same log; openraft writes through one of them only.
#[derive(Clone)]
pub(crate) struct LogStore {
    store: Store,
    tree: Tree,
}

/// Indexes `start..end`, and how many bytes of entries are enough.
#[derive(Clone, Copy)]
struct Span {
    start: u64,
    end: u64,
    bytes_max: usize,
}

impl LogStore {
    /// Opens or makes the log in `store`.
    pub fn open(store: Store) -> Result<Self, StoreFault> {
        let tree = store.tree(TREE)?;
        Ok(Self { store, tree })
    }

    /// Makes an empty log go on behind `at`, as if everything before had been purged. Durable when it returns.
    pub(super) fn begin_behind(&self, at: LogId) -> Result<(), StoreFault> {
        self.tree.put(PURGED, &encode(&at)?)?;
        self.tree.put(VOTE, &encode(&Vote::new(at.leader_id.term, at.leader_id.node_id))?)?;
        Ok(self.store.sync()?)
    }

    fn record<T: serde::de::DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>, StoreFault> {
        self.tree.get(key)?.map(|bytes| decode(&bytes)).transpose()
    }

    fn last_entry(&self) -> Result<Option<LogId>, StoreFault> {
        let Some((key, _)) = self.tree.range(entry_key(0)..entry_limit()).next_back().transpose()? else {
            return Ok(None);
        };
        let index = key.get(1..9).and_then(|b| b.try_into().ok()).map_or(0, u64::from_be_bytes);
        let entries = self.read(Span { start: index, end: index + 1, bytes_max: usize::MAX })?;
        Ok(entries.last().map(|e| *e.get_log_id()))
    }

    fn read(&self, span: Span) -> Result<Vec<Entry>, StoreFault> {
        let (mut joiner, mut entries, mut bytes) = (Joiner::default(), Vec::new(), 0);
        if span.start >= span.end {
            return Ok(entries);
        }
        for row in self.tree.range(entry_key(span.start)..entry_key(span.end)) {
            let (key, part) = row?;
            let Some(whole) = joiner.take(&key, &part)? else { continue };
            bytes += whole.value.len();
            if bytes > span.bytes_max && !entries.is_empty() {
                break;
            }
            entries.push(decode(&whole.value)?);
        }
        Ok(entries)
    }

    fn append(&self, entries: &[Entry]) -> Result<(), StoreFault> {
        let mut batch = Batch::default();
        for entry in entries {
            let key = entry_key(entry.log_id.index);
            for (number, part) in (0..).zip(parts::split(&encode(entry)?)) {
                batch.put(parts::part_key(&key, number), part);
            }
        }
        self.tree.apply(&batch)?;
        if planted::is(Mistake::AppendNotSynced) {
            return Ok(());
        }
        Ok(self.store.sync()?)
    }

    fn remove(&self, range: impl RangeBounds<Vec<u8>>, mut batch: Batch) -> Result<(), StoreFault> {
        for row in self.tree.range(range) {
            batch.remove(row?.0);
        }
        Ok(self.tree.apply(&batch)?)
    }

    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, StoreFault> + Send + 'static,
    ) -> Result<T, StoreFault> {
        let log = self.clone();
        blocking(move || work(&log)).await
    }
}

fn entry_key(index: u64) -> Vec<u8> {
    [&[ENTRIES], index.to_be_bytes().as_slice()].concat()
}

fn entry_limit() -> Vec<u8> {
    vec![ENTRIES + 1]
}

fn span_of(range: &impl RangeBounds<u64>) -> Span {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(before) => before + 1,
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(last) => last + 1,
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    Span { start, end, bytes_max: usize::MAX }
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        let span = span_of(&range);
        self.with(move |log| log.read(span)).await.map_err(fatal(StorageIoError::read_logs))
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, StorageError> {
        let span = Span { start, end, bytes_max: REPLICATION_BYTES_MAX };
        self.with(move |log| log.read(span)).await.map_err(fatal(StorageIoError::read_logs))
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, StorageError> {
        let read = |log: &Self| {
            let last_purged_log_id: Option<LogId> = log.record(PURGED)?;
            // Entries up to the purged one may have outlived a crash; the marker is what counts.
            let last_log_id = log.last_entry()?.max(last_purged_log_id);
            Ok(LogState { last_purged_log_id, last_log_id })
        };
        self.with(read).await.map_err(fatal(StorageIoError::read_logs))
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &openraft::Vote<NodeId>) -> Result<(), StorageError> {
        let vote = *vote;
        let write = move |log: &Self| {
            if !planted::is(Mistake::VoteNotWritten) {
                log.tree.put(VOTE, &encode(&vote)?)?;
            }
            if planted::is(Mistake::VoteNotSynced) {
                return Ok(());
            }
            Ok(log.store.sync()?)
        };
        self.with(write).await.map_err(fatal(StorageIoError::write_vote))
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        self.with(|log| log.record(VOTE)).await.map_err(fatal(StorageIoError::read_vote))
    }

    /// Not synced: it only tells a restarted node how far it may apply before it has heard from a leader.
    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        let write = move |log: &Self| Ok(log.tree.put(COMMITTED, &encode(&committed)?)?);
        self.with(write).await.map_err(fatal(StorageIoError::write))
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        let read = |log: &Self| Ok(log.record::<Option<LogId>>(COMMITTED)?.flatten());
        self.with(read).await.map_err(fatal(StorageIoError::read))
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<Types>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let written = self.with(move |log| log.append(&entries)).await;
        match written {
            Ok(()) => callback.log_io_completed(Ok(())),
            Err(fault) => {
                callback.log_io_completed(Err(io::Error::other(fault.to_string())));
                return Err(fatal(StorageIoError::write_logs)(fault));
            }
        }
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        let cut = move |log: &Self| {
            log.remove(entry_key(log_id.index)..entry_limit(), Batch::default())?;
            Ok(log.store.sync()?)
        };
        self.with(cut).await.map_err(fatal(StorageIoError::write_logs))
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        let cut = move |log: &Self| {
            // What these entries did to the state must be on disk before they go.
            log.store.sync()?;
            let mut batch = Batch::default();
            batch.put(PURGED, encode(&log_id)?);
            log.remove(entry_key(0)..entry_key(log_id.index.saturating_add(1)), batch)
        };
        self.with(cut).await.map_err(fatal(StorageIoError::write_logs))
    }
}
