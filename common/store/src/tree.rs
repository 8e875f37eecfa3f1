//! One ordered map of the store, with a checksum on each value.

use crate::{StoreError, VALUE_MAX};
use std::ops::RangeBounds;

const CHECKSUM_BYTES: usize = 4;

/// A key and its value.
pub type Row = (Vec<u8>, Vec<u8>);

/// An ordered map of byte strings. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tree {
    name: String,
    tree: sled::Tree,
}

/// Writes that happen together or, after a crash, not at all.
#[derive(Debug, Default, Clone)]
pub struct Batch {
    writes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Batch {
    /// Adds a write.
    pub fn put(&mut self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.writes.push((key.into(), Some(value.into())));
    }

    /// Adds a removal.
    pub fn remove(&mut self, key: impl Into<Vec<u8>>) {
        self.writes.push((key.into(), None));
    }

    /// Whether it would change nothing.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }
}

impl Tree {
    pub(crate) fn new(name: &str, tree: sled::Tree) -> Self {
        Self { name: name.to_owned(), tree }
    }

    /// The value of `key`.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if it is not what was written.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let found = self.tree.get(key).map_err(|cause| self.failed("read", cause))?;
        found.map(|stored| self.open(key, &stored)).transpose()
    }

    /// Writes `value`; durable after the next [`crate::Store::sync`].
    ///
    /// # Errors
    /// [`StoreError::TooLong`], or sled's.
    pub fn put(&self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        let sealed = self.seal(value)?;
        self.tree.insert(key, sealed).map(|_| ()).map_err(|cause| self.failed("write", cause))
    }

    /// Removes `key`; an absent one is no error.
    ///
    /// # Errors
    /// sled's.
    pub fn remove(&self, key: &[u8]) -> Result<(), StoreError> {
        self.tree.remove(key).map(|_| ()).map_err(|cause| self.failed("remove from", cause))
    }

    /// Does all of `batch`, or none.
    ///
    /// # Errors
    /// [`StoreError::TooLong`] (nothing is done), or sled's.
    pub fn apply(&self, batch: &Batch) -> Result<(), StoreError> {
        let mut writes = sled::Batch::default();
        for (key, value) in &batch.writes {
            match value {
                Some(value) => writes.insert(key.as_slice(), self.seal(value)?),
                None => writes.remove(key.as_slice()),
            }
        }
        self.tree.apply_batch(writes).map_err(|cause| self.failed("write a batch to", cause))
    }

    /// The rows with keys in `range`, in order.
    pub fn range<'a>(
        &'a self,
        range: impl RangeBounds<Vec<u8>>,
    ) -> impl DoubleEndedIterator<Item = Result<Row, StoreError>> + 'a {
        let bounds = (range.start_bound().cloned(), range.end_bound().cloned());
        self.tree.range::<Vec<u8>, _>(bounds).map(|row| self.row(row))
    }

    /// Every row, in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Result<Row, StoreError>> + '_ {
        self.tree.iter().map(|row| self.row(row))
    }

    /// Every key, in order, whatever its value is worth.
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = Result<Vec<u8>, StoreError>> + '_ {
        self.tree.iter().keys().map(|key| match key {
            Ok(key) => Ok(key.to_vec()),
            Err(cause) => Err(self.failed("read", cause)),
        })
    }

    /// The row with the lowest key.
    ///
    /// # Errors
    /// As [`Tree::get`].
    pub fn first(&self) -> Result<Option<Row>, StoreError> {
        self.iter().next().transpose()
    }

    /// The row with the highest key.
    ///
    /// # Errors
    /// As [`Tree::get`].
    pub fn last(&self) -> Result<Option<Row>, StoreError> {
        self.iter().next_back().transpose()
    }

    /// Removes every row.
    ///
    /// # Errors
    /// sled's.
    pub fn clear(&self) -> Result<(), StoreError> {
        self.tree.clear().map_err(|cause| self.failed("clear", cause))
    }

    fn row(&self, row: sled::Result<(sled::IVec, sled::IVec)>) -> Result<Row, StoreError> {
        let (key, stored) = row.map_err(|cause| self.failed("read", cause))?;
        Ok((key.to_vec(), self.open(&key, &stored)?))
    }

    fn seal(&self, value: &[u8]) -> Result<Vec<u8>, StoreError> {
        if value.len() > VALUE_MAX {
            return Err(StoreError::TooLong { tree: self.name.clone(), length: value.len() });
        }
        let mut sealed = Vec::with_capacity(CHECKSUM_BYTES + value.len());
        sealed.extend_from_slice(&crc32fast::hash(value).to_le_bytes());
        sealed.extend_from_slice(value);
        Ok(sealed)
    }

    fn open(&self, key: &[u8], stored: &[u8]) -> Result<Vec<u8>, StoreError> {
        let damaged = || StoreError::Damaged {
            tree: self.name.clone(),
            key: key.iter().map(|b| format!("{b:02x}")).collect(),
        };
        let (checksum, value) = stored.split_at_checked(CHECKSUM_BYTES).ok_or_else(damaged)?;
        if crc32fast::hash(value).to_le_bytes() == checksum { Ok(value.to_vec()) } else { Err(damaged()) }
    }

    fn failed(&self, doing: &str, cause: sled::Error) -> StoreError {
        StoreError::Engine { doing: format!("{doing} tree {}", self.name), cause }
    }
}
