//! Tables: ordered rows in memory, with the rows that changed remembered until the shell has written them.
//!
//! A stored row is one version byte followed by bincode ([`novacron_common::wire::codec`]); keys are big endian so
//! that the store's byte order is the order of the keys.

use crate::index::Indices;
use novacron_common::wire::codec::{self, CodecError};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    collections::{BTreeMap, btree_map::Entry},
    ops::Bound,
};

/// Longest encoded row: the store takes no longer ones.
pub const ROW_MAX: usize = 64 * 1024;

macro_rules! table_ids {
    ($($(#[$doc:meta])* $name:ident = $number:literal $text:literal),* $(,)?) => {
        /// Which table a row is in. Numbers are stored: append-only.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[repr(u8)]
        pub enum TableId { $($(#[$doc])* $name = $number),* }

        impl TableId {
            /// Every table.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The table with this number.
            pub const fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$name),)* _ => None }
            }

            /// Its name, for store trees and messages.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }
        }
    };
}

table_ids! {
    /// The ledger's clock: one row.
    Clock = 1 "clock",
    /// The cluster: one row.
    Cluster = 2 "cluster",
    /// Coordinators.
    Coordinators = 3 "coordinators",
    /// Join tokens.
    JoinTokens = 4 "join_tokens",
    /// API tokens.
    ApiTokens = 5 "api_tokens",
    /// Hosts.
    Hosts = 6 "hosts",
    /// Templates.
    Templates = 7 "templates",
    /// Machines.
    Vms = 8 "vms",
    /// Jobs.
    Jobs = 9 "jobs",
    /// Fires.
    Fires = 10 "fires",
    /// Attempts.
    Attempts = 11 "attempts",
    /// Migrations.
    Migrations = 12 "migrations",
    /// Requests with an idempotency key.
    Requests = 20 "requests",
    /// Tickets for WebSockets.
    Tickets = 21 "tickets",
    /// Coordinators whose clock is off.
    Alarms = 22 "alarms",
    /// What changes with each tick of a job.
    Pulses = 23 "pulses",
    /// Ticks of jobs, summarised.
    History = 24 "history",
    /// Jobs whose fires have not succeeded when they were expected to.
    Overdue = 25 "overdue",
    /// Tenant networks.
    Networks = 26 "networks",
    /// Workflows.
    Workflows = 30 "workflows",
    /// Nodes of workflows' definitions.
    WorkflowNodes = 31 "workflow_nodes",
    /// Runs of workflows.
    Runs = 32 "runs",
    /// What runs were started with.
    RunInputs = 33 "run_inputs",
    /// Nodes of runs.
    NodeRuns = 34 "node_runs",
    /// What nodes that are no jobs do.
    Tasks = 35 "tasks",
}

impl TableId {
    /// Its number, for the store and the wire.
    pub const fn number(self) -> u8 {
        self as u8
    }
}

/// A row that changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Its table.
    pub table: TableId,
    /// Its encoded key.
    pub key: Vec<u8>,
    /// The encoded row; `None` if it is gone.
    pub value: Option<Vec<u8>>,
}

/// Bytes that are not a row.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// A key of the wrong length or with impossible bytes.
    #[error("a key of table {table} cannot be read ({length} bytes)", table = table.name())]
    Key {
        /// The table.
        table: TableId,
        /// The key's length.
        length: usize,
    },
    /// A version that this build does not know.
    #[error("a row of table {table} has format version {version}, this build reads {known}: was the program downgraded?",
            table = table.name())]
    Version {
        /// The table.
        table: TableId,
        /// What is stored.
        version: u8,
        /// What this build reads.
        known: u8,
    },
    /// A row without even a version.
    #[error("a row of table {table} is empty", table = table.name())]
    Empty {
        /// The table.
        table: TableId,
    },
    /// The value does not decode.
    #[error("a row of table {table} cannot be read", table = table.name())]
    Value {
        /// The table.
        table: TableId,
        /// Why.
        #[source]
        cause: CodecError,
    },
    /// A row under a key that is not its own, or a second one under the same key.
    #[error("a row of table {table} is stored under another row's key, or twice", table = table.name())]
    Misfiled {
        /// The table.
        table: TableId,
    },
}

/// A key whose bytes sort as it does.
pub trait RowKey: Ord + Copy + std::fmt::Debug {
    /// The key's bytes.
    fn to_bytes(self) -> Vec<u8>;
    /// The key with these bytes.
    fn from_bytes(bytes: &[u8]) -> Option<Self>;
}

/// A kind of row.
pub trait Row: Serialize + DeserializeOwned + Clone + PartialEq + std::fmt::Debug {
    /// What it is found by.
    type Key: RowKey;
    /// Its table.
    const TABLE: TableId;
    /// The format version that is written.
    const VERSION: u8 = 1;
    /// What it is found by.
    fn key(&self) -> Self::Key;
    /// Adds what is derived from the row.
    fn enter(&self, _index: &mut Indices) {}
    /// Takes away what [`Row::enter`] added.
    fn leave(&self, _index: &mut Indices) {}
    /// Puts what is derived from this row in place of what was derived from `old`, which has the same key.
    fn replace(&self, old: &Self, index: &mut Indices) {
        // What the old row holds (a name) goes before the new one's comes.
        old.leave(index);
        self.enter(index);
    }
}

/// The stored form of a row.
///
/// # Errors
/// [`CodecError`] if it cannot be encoded, which no kind of row is.
pub fn encode_row<R: Row>(row: &R) -> Result<Vec<u8>, CodecError> {
    codec::encode_behind(R::VERSION, row)
}

/// The row that was stored so.
///
/// # Errors
/// [`DecodeError`] if it is damaged or of a newer version.
pub fn decode_row<R: Row>(bytes: &[u8]) -> Result<R, DecodeError> {
    match bytes.split_first() {
        None => Err(DecodeError::Empty { table: R::TABLE }),
        Some((version, body)) if *version == R::VERSION => {
            codec::decode(body).map_err(|cause| DecodeError::Value { table: R::TABLE, cause })
        }
        Some((version, _)) => {
            Err(DecodeError::Version { table: R::TABLE, version: *version, known: R::VERSION })
        }
    }
}

/// The rows of one kind. Each is in a box of its own: keys that only rise, as ids do, leave the nodes of the map little
/// more than half full, and a row in the node would take that room as well.
#[derive(Debug, Clone, PartialEq)]
pub struct Table<R: Row> {
    rows: BTreeMap<R::Key, Box<R>>,
    /// Keys of rows that changed, as they changed: one may be there more than once.
    dirty: Vec<R::Key>,
}

impl<R: Row> Default for Table<R> {
    fn default() -> Self {
        Self { rows: BTreeMap::new(), dirty: Vec::new() }
    }
}

impl<R: Row> Table<R> {
    /// The row with this key.
    pub fn get(&self, key: &R::Key) -> Option<&R> {
        self.rows.get(key).map(Box::as_ref)
    }

    /// Whether there is a row with this key.
    pub fn has(&self, key: &R::Key) -> bool {
        self.rows.contains_key(key)
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Every row, in the order of keys.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &R> {
        self.rows.values().map(Box::as_ref)
    }

    /// The rows behind `after` (from the first if `None`), in the order of keys. Costs what is taken of it.
    pub fn after(&self, after: Option<R::Key>) -> impl DoubleEndedIterator<Item = &R> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.rows.range((from, Bound::Unbounded)).map(|(_, row)| row.as_ref())
    }

    /// The rows in a range of keys.
    pub fn range(&self, keys: impl std::ops::RangeBounds<R::Key>) -> impl DoubleEndedIterator<Item = &R> {
        self.rows.range(keys).map(|(_, row)| row.as_ref())
    }

    /// Writes a row, and keeps what is derived from it.
    pub(crate) fn put(&mut self, row: R, index: &mut Indices) {
        let key = row.key();
        self.touched(key);
        match self.rows.entry(key) {
            Entry::Occupied(mut held) => {
                row.replace(held.get(), index);
                **held.get_mut() = row;
            }
            Entry::Vacant(room) => {
                row.enter(index);
                room.insert(Box::new(row));
            }
        }
    }

    /// Removes a row, and what is derived from it.
    pub(crate) fn remove(&mut self, key: &R::Key, index: &mut Indices) {
        if let Some(row) = self.rows.remove(key) {
            self.touched(*key);
            row.leave(index);
        }
    }

    fn touched(&mut self, key: R::Key) {
        // One command often writes the same row several times.
        if self.dirty.last() != Some(&key) {
            self.dirty.push(key);
        }
    }

    pub(crate) fn load(&mut self, key: &[u8], value: &[u8]) -> Result<&R, DecodeError> {
        let key = R::Key::from_bytes(key).ok_or(DecodeError::Key { table: R::TABLE, length: key.len() })?;
        let row: R = decode_row(value)?;
        if row.key() != key {
            return Err(DecodeError::Misfiled { table: R::TABLE });
        }
        match self.rows.entry(key) {
            Entry::Vacant(room) => Ok(room.insert(Box::new(row))),
            Entry::Occupied(_) => Err(DecodeError::Misfiled { table: R::TABLE }),
        }
    }

    pub(crate) fn take_changes(&mut self, into: &mut Vec<Change>) {
        let mut dirty = std::mem::take(&mut self.dirty);
        dirty.sort_unstable();
        dirty.dedup();
        into.reserve(dirty.len());
        for key in dirty {
            let value = self.rows.get(&key).map(|row| encoded(row.as_ref()));
            into.push(Change { table: R::TABLE, key: key.to_bytes(), value });
        }
    }

    pub(crate) fn encoded_rows(&self) -> impl Iterator<Item = (TableId, Vec<u8>, Vec<u8>)> {
        self.rows.iter().map(|(key, row)| (R::TABLE, key.to_bytes(), encoded(row.as_ref())))
    }
}

/// Rows are checked against [`ROW_MAX`] (or are bounded by construction) before they enter a table, and nothing in them
/// is of a kind that the codec refuses.
#[allow(clippy::expect_used)]
fn encoded<R: Row>(row: &R) -> Vec<u8> {
    encode_row(row).expect("a row is plain data")
}
