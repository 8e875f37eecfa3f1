//! Raft's log and vote on disk. Everything blocks.

use super::{
    StoreFault, decode, encode,
    parts::{self, Joiner},
};
use crate::raft::types::{Entry, LogId, Vote};
use novacron_common::planted::{self, Mistake};
use novacron_store::{Batch, Store, Tree};
use openraft::RaftLogId;
use serde::de::DeserializeOwned;
use std::ops::RangeBounds;

const TREE: &str = "raft";
const VOTE: &[u8] = b"\0vote";
const COMMITTED: &[u8] = b"\0committed";
const PURGED: &[u8] = b"\0purged";
const ENTRIES: u8 = 1;

/// The log's tree.
#[derive(Clone)]
pub(super) struct LogDisk {
    store: Store,
    tree: Tree,
}

/// Indexes `start..end`, and how many bytes of entries are enough.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub start: u64,
    pub end: u64,
    pub bytes_max: usize,
}

impl LogDisk {
    /// Opens or makes the log in `store`.
    pub fn open(store: Store) -> Result<Self, StoreFault> {
        let tree = store.tree(TREE)?;
        Ok(Self { store, tree })
    }

    /// Makes an empty log go on behind `at`, as if everything before had been purged. Durable when it returns.
    pub fn begin_behind(&self, at: LogId) -> Result<(), StoreFault> {
        self.tree.put(PURGED, &encode(&at)?)?;
        self.put_vote(&Vote::new(at.leader_id.term, at.leader_id.node_id))
    }

    /// Durable when it returns.
    pub fn put_vote(&self, vote: &Vote) -> Result<(), StoreFault> {
        if !planted::is(Mistake::VoteNotWritten) {
            self.tree.put(VOTE, &encode(vote)?)?;
        }
        if planted::is(Mistake::VoteNotSynced) {
            return Ok(());
        }
        Ok(self.store.sync()?)
    }

    pub fn vote(&self) -> Result<Option<Vote>, StoreFault> {
        self.record(VOTE)
    }

    pub fn committed(&self) -> Result<Option<LogId>, StoreFault> {
        Ok(self.record::<Option<LogId>>(COMMITTED)?.flatten())
    }

    pub fn purged(&self) -> Result<Option<LogId>, StoreFault> {
        self.record(PURGED)
    }

    fn record<T: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>, StoreFault> {
        self.tree.get(key)?.map(|bytes| decode(&bytes)).transpose()
    }

    /// The last entry.
    pub fn last(&self) -> Result<Option<LogId>, StoreFault> {
        let Some((key, _)) = self.tree.range(entry_key(0)..entry_limit()).next_back().transpose()? else {
            return Ok(None);
        };
        let index = key.get(1..9).and_then(|b| b.try_into().ok()).map_or(0, u64::from_be_bytes);
        let (entries, _) = self.read(Span { start: index, end: index + 1, bytes_max: usize::MAX })?;
        Ok(entries.last().map(|e| *e.get_log_id()))
    }

    /// Entries, and whether they are all that there are in `span`.
    pub fn read(&self, span: Span) -> Result<(Vec<Entry>, bool), StoreFault> {
        let (mut joiner, mut entries, mut bytes) = (Joiner::default(), Vec::new(), 0);
        if span.start >= span.end {
            return Ok((entries, true));
        }
        for row in self.tree.range(entry_key(span.start)..entry_key(span.end)) {
            let (key, part) = row?;
            let Some(whole) = joiner.take(&key, &part)? else { continue };
            bytes += whole.value.len();
            if bytes > span.bytes_max && !entries.is_empty() {
                return Ok((entries, false));
            }
            entries.push(decode(&whole.value)?);
        }
        Ok((entries, true))
    }

    /// Writes the records of entries, and how far the log is committed. Durable when it returns.
    pub fn append(&self, records: Vec<(u64, Vec<u8>)>, committed: Option<LogId>) -> Result<(), StoreFault> {
        let mut batch = Batch::default();
        for (index, record) in records {
            let key = entry_key(index);
            for (number, part) in (0..).zip(parts::split(&record)) {
                batch.put(parts::part_key(&key, number), part);
            }
        }
        if committed.is_some() {
            batch.put(COMMITTED, encode(&committed)?);
        }
        self.tree.apply(&batch)?;
        if planted::is(Mistake::AppendNotSynced) {
            return Ok(());
        }
        Ok(self.store.sync()?)
    }

    /// Cuts off the entries from `index` on. Durable when it returns.
    pub fn cut(&self, index: u64) -> Result<(), StoreFault> {
        self.remove(entry_key(index)..entry_limit(), Batch::default())?;
        Ok(self.store.sync()?)
    }

    /// Removes the entries up to `upto`.
    pub fn purge(&self, upto: LogId) -> Result<(), StoreFault> {
        // What these entries did to the state must be on disk before they go.
        self.store.sync()?;
        let mut batch = Batch::default();
        batch.put(PURGED, encode(&upto)?);
        self.remove(entry_key(0)..entry_key(upto.index.saturating_add(1)), batch)
    }

    fn remove(&self, range: impl RangeBounds<Vec<u8>>, mut batch: Batch) -> Result<(), StoreFault> {
        for row in self.tree.range(range) {
            batch.remove(row?.0);
        }
        Ok(self.tree.apply(&batch)?)
    }
}

fn entry_key(index: u64) -> Vec<u8> {
    [&[ENTRIES], index.to_be_bytes().as_slice()].concat()
}

fn entry_limit() -> Vec<u8> {
    vec![ENTRIES + 1]
}
