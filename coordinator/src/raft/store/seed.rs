//! A ledger that does not begin with nothing: one that is restored.

use super::{
    StoreFault,
    log_disk::{LogDisk, Span},
    rows::{AppliedTo, Rows},
};
use crate::raft::types::{LogId, StoredMembership};
use novacron_core::State;
use novacron_store::Store;
use openraft::EntryPayload;

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

/// The state that a coordinator which does not run would come up with, and the last log index in it: that of the rows,
/// and all that the log has behind them, committed or not.
pub(crate) fn peek(store: Store) -> Result<(u64, State), StoreFault> {
    let (mut state, applied) = Rows::open(store.clone())?.load()?;
    let mut last = applied.last.map_or(0, |last| last.index);
    let behind = Span { start: last + 1, end: u64::MAX, bytes_max: usize::MAX };
    for entry in LogDisk::open(store)?.read(behind)?.0 {
        last = entry.log_id.index;
        if let EntryPayload::Normal(commands) = entry.payload {
            for command in commands.0 {
                state.apply(last, command);
            }
        }
    }
    Ok((last, state))
}
