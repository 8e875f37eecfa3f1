//! A ledger that does not begin with nothing: one that is restored.

use super::{
    StoreFault,
    log_disk::LogDisk,
    rows::{AppliedTo, Rows},
};
use crate::raft::types::{LogId, StoredMembership};
use novacron_core::State;
use novacron_store::Store;

/// Fills an empty store, so that Raft goes on behind `at`. Durable when it returns.
pub(crate) fn seed(
    store: Store,
    state: &State,
    at: LogId,
    membership: StoredMembership,
) -> Result<(), StoreFault> {
    let log = LogDisk::open(store.clone())?;
    Rows::open(store)?.replace(state.rows().collect(), &AppliedTo { last: Some(at), membership })?;
    log.begin_behind(at)
}

/// The state that is on disk, and the last log index in it.
pub(crate) fn peek(store: Store) -> Result<(u64, State), StoreFault> {
    let (state, applied) = Rows::open(store)?.load()?;
    Ok((applied.last.map_or(0, |last| last.index), state))
}
