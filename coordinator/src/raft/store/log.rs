//! Raft's log and vote as openraft wants them. The vote is durable when its writing returns; entries are when
//! [`Journal`] says so, and until then nothing that depends on them leaves this node.

use super::{
    StoreFault, blocking, fatal,
    journal::Journal,
    log_disk::{LogDisk, Span},
};
use crate::raft::types::{Entry, LogId, NodeId, StorageError, StorageIoError, Types, Vote};
use novacron_store::Store;
use openraft::{
    LogState, OptionalSend, RaftLogReader,
    storage::{LogFlushed, RaftLogStorage},
};
use std::{fmt::Debug, io, ops::Bound, ops::RangeBounds};

/// Most bytes of entries in one replication request, so that a slow link can carry it within its deadline; one
/// entry is sent whatever its length.
const REPLICATION_BYTES_MAX: usize = 512 * 1024;

/// The log. Clones are the same log; openraft writes through one of them only.
#[derive(Clone)]
pub(crate) struct LogStore {
    journal: Journal,
}

impl LogStore {
    /// Opens or makes the log in `store`.
    pub fn open(store: Store) -> Result<Self, StoreFault> {
        Ok(Self { journal: Journal::new(LogDisk::open(store)?) })
    }

    /// If node `node` led when it stopped, makes it stand for election again, in the next term. openraft would go on in
    /// the old one; but entries that others had received of it may have been lost here, and others would get their ids.
    /// To be called before Raft reads the vote. Blocks.
    pub fn renounce(&self, node: NodeId) -> Result<(), StoreFault> {
        let disk = self.journal.disk();
        match disk.vote()? {
            Some(vote) if vote.is_committed() && vote.leader_id.voted_for() == Some(node) => {
                disk.put_vote(&Vote::new(vote.leader_id.term + 1, node))
            }
            _ => Ok(()),
        }
    }

    /// How far it is durable.
    pub fn journal(&self) -> Journal {
        self.journal.clone()
    }

    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&LogDisk) -> Result<T, StoreFault> + Send + 'static,
    ) -> Result<T, StoreFault> {
        let disk = self.journal.disk();
        blocking(move || work(&disk)).await
    }
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
        self.journal.read(span_of(&range)).await.map_err(fatal(StorageIoError::read_logs))
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, StorageError> {
        let span = Span { start, end, bytes_max: REPLICATION_BYTES_MAX };
        self.journal.read(span).await.map_err(fatal(StorageIoError::read_logs))
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, StorageError> {
        let last = self.journal.last();
        let read = move |disk: &LogDisk| {
            let last_purged_log_id = disk.purged()?;
            // Entries up to the purged one may have outlived a crash; the marker is what counts.
            let last_log_id =
                last.map_or_else(|| disk.last(), |last| Ok(Some(last)))?.max(last_purged_log_id);
            Ok(LogState { last_purged_log_id, last_log_id })
        };
        self.with(read).await.map_err(fatal(StorageIoError::read_logs))
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &openraft::Vote<NodeId>) -> Result<(), StorageError> {
        self.journal.vote(*vote).await.map_err(fatal(StorageIoError::write_vote))
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        self.with(LogDisk::vote).await.map_err(fatal(StorageIoError::read_vote))
    }

    /// Written with the next entries: it only tells a restarted node how far it may apply before it has heard from a
    /// leader.
    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        self.journal.note_committed(committed);
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        match self.journal.committed() {
            Some(committed) => Ok(committed),
            None => self.with(LogDisk::committed).await.map_err(fatal(StorageIoError::read)),
        }
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<Types>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        match self.journal.append(entries.into_iter().collect()) {
            Ok(()) => callback.log_io_completed(Ok(())),
            Err(fault) => {
                callback.log_io_completed(Err(io::Error::other(fault.to_string())));
                return Err(fatal(StorageIoError::write_logs)(fault));
            }
        }
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.journal.cut(log_id.index).await.map_err(fatal(StorageIoError::write_logs))
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.journal.purge(log_id).await.map_err(fatal(StorageIoError::write_logs))
    }
}
