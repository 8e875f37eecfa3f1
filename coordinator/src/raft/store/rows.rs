//! The state's rows on disk: two trees, of which a pointer says which is the one. Installing a snapshot fills the
//! other and then turns the pointer, so that a crash leaves the old state or the new, never a mixture.

use super::{StoreFault, decode, encode, snapshot};
use crate::raft::types::{LogId, StoredMembership};
use novacron_common::planted::{self, Mistake};
use novacron_core::{Change, State, TableId};
use novacron_store::{Batch, Store, Tree};
use serde::{Deserialize, Serialize};

const POINTER_TREE: &str = "pointer";
const POINTER: &[u8] = b"state";
const APPLIED: &[u8] = b"\0applied";
const ROWS: u8 = 1;

/// Most bytes of rows in one batch while a snapshot is installed.
const INSTALL_BATCH_BYTES: usize = 1 << 20;

/// One row: table, key, value. All encoded by the core, at most `novacron_core::ROW_MAX` bytes each.
pub(super) type Row = (TableId, Vec<u8>, Vec<u8>);

/// How far the state is, and what Raft must know of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct AppliedTo {
    /// The last entry in the state.
    pub last: Option<LogId>,
    /// The last membership in the state.
    pub membership: StoredMembership,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Which {
    A,
    B,
}

impl Which {
    const fn tree(self) -> &'static str {
        match self {
            Self::A => "state-a",
            Self::B => "state-b",
        }
    }

    const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// The rows on disk. One owner: the state machine.
pub(super) struct Rows {
    store: Store,
    pointer: Tree,
    which: Which,
    tree: Tree,
}

impl Rows {
    /// Opens the tree that the pointer names.
    pub fn open(store: Store) -> Result<Self, StoreFault> {
        let pointer = store.tree(POINTER_TREE)?;
        let which = pointer.get(POINTER)?.map_or(Ok(Which::A), |bytes| decode(&bytes))?;
        let tree = store.tree(which.tree())?;
        Ok(Self { store, pointer, which, tree })
    }

    /// Everything that is stored. The rows pass by one at a time: a million jobs are in memory once, not twice.
    pub fn load(&self) -> Result<(State, AppliedTo), StoreFault> {
        let mut applied = AppliedTo::default();
        let state = State::try_load(self.stored(&mut applied))?;
        Ok((state, applied))
    }

    /// A snapshot's bytes, and of which state.
    pub fn snapshot(&self) -> Result<(Vec<u8>, AppliedTo), StoreFault> {
        let mut applied = AppliedTo::default();
        let bytes = snapshot::write(self.stored(&mut applied))?;
        Ok((bytes, applied))
    }

    /// Every row, and on the way how far the state is.
    fn stored<'a>(
        &'a self,
        applied: &'a mut AppliedTo,
    ) -> impl Iterator<Item = Result<Row, StoreFault>> + 'a {
        self.tree.iter().filter_map(move |row| match row.map(|(key, value)| read_row(&key, value)) {
            Err(fault) => Some(Err(fault.into())),
            Ok(Err(fault)) => Some(Err(fault)),
            Ok(Ok(Stored::Row(row))) => Some(Ok(row)),
            Ok(Ok(Stored::Applied(upto))) => {
                *applied = upto;
                None
            }
        })
    }

    /// Writes `changes`, and how far the state is with them, together or not at all.
    pub fn write<'a>(
        &self,
        changes: impl IntoIterator<Item = &'a Change>,
        applied: &AppliedTo,
    ) -> Result<(), StoreFault> {
        let mut batch = Batch::default();
        for Change { table, key, value } in changes {
            if planted::is(Mistake::RowsForgotten) && key.last().is_some_and(|byte| byte % 8 == 1) {
                continue;
            }
            match value {
                Some(value) => batch.put(row_key(*table, key), value.as_slice()),
                None => batch.remove(row_key(*table, key)),
            }
        }
        let mut applied = applied.clone();
        if planted::is(Mistake::AppliedTooFar)
            && let Some(last) = &mut applied.last
        {
            last.index += 1;
        }
        batch.put(APPLIED, encode(&applied)?);
        Ok(self.tree.apply(&batch)?)
    }

    /// Puts `rows` in place of everything; durable when it returns.
    pub fn replace(&mut self, rows: Vec<Row>, applied: &AppliedTo) -> Result<(), StoreFault> {
        let which = self.which.other();
        // What a crash in the middle of an earlier installation left behind goes first.
        self.store.drop_tree(which.tree())?;
        let tree = self.store.tree(which.tree())?;
        fill(&tree, rows)?;
        tree.put(APPLIED, &encode(applied)?)?;
        self.store.sync()?;
        self.pointer.put(POINTER, &encode(&which)?)?;
        self.store.sync()?;
        self.store.drop_tree(self.which.tree())?;
        (self.which, self.tree) = (which, tree);
        Ok(())
    }
}

/// What a key of the tree stands for.
enum Stored {
    Row(Row),
    Applied(AppliedTo),
}

fn read_row(key: &[u8], value: Vec<u8>) -> Result<Stored, StoreFault> {
    match key {
        APPLIED => Ok(Stored::Applied(decode(&value)?)),
        [ROWS, table, key @ ..] => {
            let table = TableId::from_number(*table).ok_or(StoreFault::Table(*table))?;
            Ok(Stored::Row((table, key.to_vec(), value)))
        }
        _ => Err(StoreFault::Parts { key: hex::encode(key) }),
    }
}

fn fill(tree: &Tree, rows: Vec<Row>) -> Result<(), StoreFault> {
    let (mut batch, mut bytes) = (Batch::default(), 0);
    for (table, key, value) in rows {
        bytes += key.len() + value.len();
        batch.put(row_key(table, &key), value);
        if bytes >= INSTALL_BATCH_BYTES {
            tree.apply(&std::mem::take(&mut batch))?;
            bytes = 0;
        }
    }
    Ok(tree.apply(&batch)?)
}

fn row_key(table: TableId, key: &[u8]) -> Vec<u8> {
    [&[ROWS, table.number()], key].concat()
}
