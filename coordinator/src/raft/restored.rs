//! A ledger's files while nobody runs on them: looking into them, and beginning anew with the content of a backup.

use super::{
    OpenError, StoreFault,
    store::{peek, seed},
    types::{LogId, Member, NodeId, StoredMembership},
};
use novacron_core::State;
use novacron_store::Store;
use openraft::{CommittedLeaderId, Membership};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// The term of what was restored: before any that the new cluster will have.
const TERM: u64 = 1;

/// The state in `folder`, and the last log index in it. Entries that a crash left in the log alone are not in it.
///
/// # Errors
/// [`OpenError::Store`] if a coordinator runs on these files, or they cannot be read.
pub fn look_into(folder: &Path) -> Result<(u64, State), OpenError> {
    let store = Store::open(folder).map_err(StoreFault::from)?;
    Ok(peek(store)?)
}

/// Makes a ledger in `folder`, which must be empty, with `state` at `index` and with `node` as its only voter.
///
/// # Errors
/// [`OpenError::Store`] if it cannot be written.
pub fn begin_with(
    folder: &Path,
    state: &State,
    index: u64,
    (node, member): (NodeId, Member),
) -> Result<(), OpenError> {
    let store = Store::open(folder).map_err(StoreFault::from)?;
    let at = LogId::new(CommittedLeaderId::new(TERM, node), index);
    let voters = vec![BTreeSet::from([node])];
    let membership =
        StoredMembership::new(Some(at), Membership::new(voters, BTreeMap::from([(node, member)])));
    Ok(seed(store, state, at, membership)?)
}
