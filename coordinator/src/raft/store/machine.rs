//! The state machine: the core's state in memory, mirrored row by row to disk.

use super::{
    Journal, StoreFault, blocking, fatal,
    mirror::Mirror,
    rows::{AppliedTo, Rows},
    snapshot,
};
use crate::raft::types::{
    Committed, Entry, LogId, NodeId, Outcomes, SnapshotMeta, StorageError, StorageIoError, StoredMembership,
    Types,
};
use novacron_common::{
    planted::{self, Mistake},
    units::UnixMillis,
};
use novacron_core::State;
use novacron_store::Store;
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder, Snapshot, storage::RaftStateMachine};
use std::{
    io::Cursor,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::sync::broadcast;

/// Entries that a slow subscriber may be behind before it loses some and has to read the state anew.
const COMMITTED_BACKLOG: usize = 4096;

/// The state machine. Clones are the same one; openraft applies through one of them only.
#[derive(Clone)]
pub(crate) struct StateMachine {
    shared: Arc<Shared>,
    log: Journal,
}

struct Shared {
    /// Memory, the truth for readers. Held for the length of a command or of a look.
    replica: RwLock<Replica>,
    /// Disk.
    mirror: Mirror,
    /// A snapshot was built or installed. It is not kept: a node that wants it gets that of a later state, which serves it
    /// as well.
    has_snapshot: AtomicBool,
    committed: broadcast::Sender<Arc<Committed>>,
}

struct Replica {
    state: State,
    applied: AppliedTo,
}

impl StateMachine {
    /// Loads the state from `store`. Entries are applied when they are durable in `log`.
    pub fn open(store: Store, log: Journal) -> Result<Self, StoreFault> {
        let rows = Rows::open(store)?;
        let (state, applied) = rows.load()?;
        let shared = Shared {
            mirror: Mirror::new(rows, &applied),
            replica: RwLock::new(Replica { state, applied }),
            has_snapshot: AtomicBool::new(false),
            committed: broadcast::channel(COMMITTED_BACKLOG).0,
        };
        Ok(Self { shared: Arc::new(shared), log })
    }

    /// Looks at the state. Short looks only: nothing is applied meanwhile.
    pub fn read<R>(&self, look: impl FnOnce(&State) -> R) -> R {
        look(&self.replica().state)
    }

    /// The same, with the index of the last entry in it.
    pub fn read_at<R>(&self, look: impl FnOnce(u64, &State) -> R) -> R {
        let replica = self.replica();
        look(replica.applied.last.map_or(0, |log_id| log_id.index), &replica.state)
    }

    /// The index of the last applied entry, 0 before the first.
    pub fn applied_index(&self) -> u64 {
        self.last_applied().unwrap_or(0)
    }

    /// Waits until the rows on disk have all that is applied now.
    pub async fn written(&self) -> Result<(), StoreFault> {
        self.shared.mirror.written(self.last_applied()).await
    }

    fn last_applied(&self) -> Option<u64> {
        self.replica().applied.last.map(|log_id| log_id.index)
    }

    /// Entries as they are applied from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Committed>> {
        self.shared.committed.subscribe()
    }

    fn replica(&self) -> RwLockReadGuard<'_, Replica> {
        self.shared.replica.read().unwrap_or_else(PoisonError::into_inner)
    }

    async fn apply_durable(&self, entries: Vec<Entry>) -> Result<Vec<Outcomes>, StoreFault> {
        // Whoever sees what an entry did must never see it undone by a crash.
        if let Some(last) = entries.last() {
            self.log.synced(last.log_id.index).await?;
        }
        let mut outcomes = Vec::with_capacity(entries.len());
        for entry in entries {
            self.shared.mirror.room().await?;
            outcomes.push(self.apply_one(entry));
        }
        Ok(outcomes)
    }

    fn apply_one(&self, entry: Entry) -> Outcomes {
        let (outcomes, committed, applied) = {
            let mut replica = self.shared.replica.write().unwrap_or_else(PoisonError::into_inner);
            let (outcomes, committed) = replica.apply(entry);
            (outcomes, Arc::new(committed), replica.applied.clone())
        };
        self.shared.mirror.push(committed.clone(), applied);
        // Nobody listening is fine.
        let _ = self.shared.committed.send(committed);
        outcomes
    }

    /// A snapshot of a state that has all that is applied now. What it has is in the rows: the log may be purged up to it.
    async fn build(&self) -> Result<Snapshot<Types>, StoreFault> {
        let (bytes, applied) = self.shared.mirror.snapshot(self.last_applied()).await?;
        self.shared.has_snapshot.store(true, Ordering::Release);
        Ok(Snapshot { meta: meta_of(&applied), snapshot: Box::new(Cursor::new(bytes)) })
    }

    fn install(&self, meta: SnapshotMeta, bytes: Vec<u8>) -> Result<(), StoreFault> {
        let rows = snapshot::read(&bytes)?;
        let state = State::load(rows.iter().cloned())?;
        let applied = AppliedTo { last: meta.last_log_id, membership: meta.last_membership.clone() };
        self.shared.mirror.replace(rows, &applied)?;
        *self.shared.replica.write().unwrap_or_else(PoisonError::into_inner) = Replica { state, applied };
        let index = meta.last_log_id.map_or(0, |log_id| log_id.index);
        self.shared.has_snapshot.store(true, Ordering::Release);
        let reset = Committed { index, at: UnixMillis::default(), changes: Vec::new(), reset: true };
        let _ = self.shared.committed.send(Arc::new(reset));
        Ok(())
    }
}

impl Replica {
    fn apply(&mut self, entry: Entry) -> (Outcomes, Committed) {
        let index = entry.log_id.index;
        self.applied.last = Some(entry.log_id);
        let mut outcomes = Vec::new();
        let mut at = UnixMillis::default();
        match entry.payload {
            EntryPayload::Blank => {}
            EntryPayload::Membership(membership) => {
                self.applied.membership = StoredMembership::new(Some(entry.log_id), membership);
            }
            EntryPayload::Normal(commands) => {
                for mut command in commands.0 {
                    if planted::is(Mistake::ClockInApply) {
                        command.at = crate::identity::now();
                    }
                    at = at.max(command.at);
                    outcomes.push(self.state.apply(index, command));
                }
            }
        }
        let changes = self.state.take_changes();
        (Outcomes(outcomes), Committed { index, at, changes, reset: false })
    }
}

fn meta_of(applied: &AppliedTo) -> SnapshotMeta {
    let id = applied.last.map_or_else(|| "0".to_owned(), |l| format!("{}-{}", l.leader_id.term, l.index));
    SnapshotMeta { last_log_id: applied.last, last_membership: applied.membership.clone(), snapshot_id: id }
}

impl RaftSnapshotBuilder<Types> for StateMachine {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types>, StorageError> {
        self.build().await.map_err(fatal(|cause| StorageIoError::write_snapshot(None, cause)))
    }
}

impl RaftStateMachine<Types> for StateMachine {
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        let applied = &self.replica().applied;
        Ok((applied.last, applied.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Outcomes>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let applied = self.apply_durable(entries.into_iter().collect()).await;
        applied.map_err(fatal(StorageIoError::write_state_machine))
    }

    async fn get_snapshot_builder(&mut self) -> Self::SnapshotBuilder {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &openraft::SnapshotMeta<NodeId, crate::raft::types::Member>,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError> {
        let (machine, meta) = (self.clone(), meta.clone());
        let installed = blocking(move || machine.install(meta, snapshot.into_inner())).await;
        installed.map_err(fatal(|cause| StorageIoError::write_snapshot(None, cause)))
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Types>>, StorageError> {
        if !self.shared.has_snapshot.load(Ordering::Acquire) {
            return Ok(None);
        }
        let built = self.build().await;
        built.map(Some).map_err(fatal(|cause| StorageIoError::read_snapshot(None, cause)))
    }
}
