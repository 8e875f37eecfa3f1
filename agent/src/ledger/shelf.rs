//! Records of one type, each with a format version before it.

use novacron_common::wire::codec::{self, CodecError};
use novacron_store::{Store, StoreError, Tree};
use serde::{Serialize, de::DeserializeOwned};
use std::marker::PhantomData;

/// The version of the records that this build writes.
const FORMAT: u8 = 1;

/// The ledger could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The store's reason.
    #[error("the agent's ledger failed")]
    Store(#[from] StoreError),
    /// A record is not what this build can read.
    #[error("a record of the agent's ledger cannot be read")]
    Record(#[from] CodecError),
    /// A record of a later program.
    #[error(
        "a record of the agent's ledger has format {0}: it was written by a newer agent, upgrade this one"
    )]
    Format(u8),
}

/// Records of type `V` by key.
#[derive(Debug)]
pub struct Shelf<V> {
    store: Store,
    tree: Tree,
    record: PhantomData<fn() -> V>,
}

impl<V> Clone for Shelf<V> {
    fn clone(&self) -> Self {
        Self { store: self.store.clone(), tree: self.tree.clone(), record: PhantomData }
    }
}

impl<V: Serialize + DeserializeOwned> Shelf<V> {
    pub(super) fn new(store: Store, tree: Tree) -> Self {
        Self { store, tree, record: PhantomData }
    }

    /// The record of `key`.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn get(&self, key: &[u8]) -> Result<Option<V>, LedgerError> {
        self.tree.get(key)?.map(|bytes| open(&bytes)).transpose()
    }

    /// Writes the record of `key`, durably. Blocks for a disk write.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn put(&self, key: &[u8], record: &V) -> Result<(), LedgerError> {
        let mut bytes = vec![FORMAT];
        bytes.extend(codec::encode(record)?);
        self.tree.put(key, &bytes)?;
        Ok(self.store.sync()?)
    }

    /// Removes the record of `key`, durably. Blocks for a disk write.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn remove(&self, key: &[u8]) -> Result<(), LedgerError> {
        self.tree.remove(key)?;
        Ok(self.store.sync()?)
    }

    /// Every record with its key, in the order of the keys.
    ///
    /// # Errors
    /// [`LedgerError`] at the first that cannot be read.
    pub fn list(&self) -> Result<Vec<(Vec<u8>, V)>, LedgerError> {
        self.tree
            .iter()
            .map(|row| row.map_err(LedgerError::from).and_then(|(k, v)| Ok((k, open(&v)?))))
            .collect()
    }

    /// As [`Shelf::list`], but a record that cannot be read spoils no other.
    ///
    /// # Errors
    /// [`LedgerError`] if the keys themselves cannot be read.
    pub fn list_each(&self) -> Result<Vec<Entry<V>>, LedgerError> {
        let readable = |key: Vec<u8>| self.get(&key).transpose().map(|record| (key, record));
        let keys: Vec<_> = self.tree.keys().collect::<Result<_, _>>()?;
        Ok(keys.into_iter().filter_map(readable).collect())
    }
}

/// A key, and the record under it if it can be read.
pub type Entry<V> = (Vec<u8>, Result<V, LedgerError>);

#[cfg(test)]
impl<V> Shelf<V> {
    /// Puts bytes where a record should be, as a failing disk or a foreign program would.
    pub(crate) fn spoil(&self, key: &[u8]) {
        self.tree.put(key, &[FORMAT, 0xff, 0xff]).unwrap();
    }
}

fn open<V: DeserializeOwned>(bytes: &[u8]) -> Result<V, LedgerError> {
    match bytes.split_first() {
        Some((&FORMAT, record)) => Ok(codec::decode(record)?),
        Some((&other, _)) => Err(LedgerError::Format(other)),
        None => Err(LedgerError::Format(0)),
    }
}
