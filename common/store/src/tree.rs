//! One ordered map of the store, with a checksum on each value.

use crate::{StoreError, VALUE_MAX, simulated::Hold};
use std::ops::{Bound, RangeBounds};

const CHECKSUM_BYTES: usize = 4;

/// A key and its value.
pub type Row = (Vec<u8>, Vec<u8>);

/// An ordered map of byte strings. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tree {
    name: String,
    map: Map,
}

#[derive(Debug, Clone)]
enum Map {
    Sled(sled::Tree),
    Simulated(Hold),
}

/// Rows of either.
enum Rows<A, B> {
    Sled(A),
    Simulated(B),
}

impl<T, A: Iterator<Item = T>, B: Iterator<Item = T>> Iterator for Rows<A, B> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        match self {
            Self::Sled(rows) => rows.next(),
            Self::Simulated(rows) => rows.next(),
        }
    }
}

impl<T, A: DoubleEndedIterator<Item = T>, B: DoubleEndedIterator<Item = T>> DoubleEndedIterator
    for Rows<A, B>
{
    fn next_back(&mut self) -> Option<T> {
        match self {
            Self::Sled(rows) => rows.next_back(),
            Self::Simulated(rows) => rows.next_back(),
        }
    }
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
    pub(crate) fn sled(name: &str, tree: sled::Tree) -> Self {
        Self { name: name.to_owned(), map: Map::Sled(tree) }
    }

    pub(crate) fn simulated(name: &str, hold: Hold) -> Self {
        Self { name: name.to_owned(), map: Map::Simulated(hold) }
    }

    /// The value of `key`.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if it is not what was written.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match &self.map {
            Map::Sled(tree) => {
                let found = tree.get(key).map_err(|cause| self.failed("read", cause))?;
                found.map(|stored| self.open(key, &stored)).transpose()
            }
            Map::Simulated(hold) => hold.get(&self.name, key),
        }
    }

    /// Writes `value`; durable after the next [`crate::Store::sync`].
    ///
    /// # Errors
    /// [`StoreError::TooLong`], or sled's.
    pub fn put(&self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        match &self.map {
            Map::Sled(tree) => {
                let sealed = self.seal(value)?;
                tree.insert(key, sealed).map(|_| ()).map_err(|cause| self.failed("write", cause))
            }
            Map::Simulated(hold) => {
                self.check(value)?;
                hold.write(&self.name, vec![(key.to_vec(), Some(value.to_vec()))])
            }
        }
    }

    /// Removes `key`; an absent one is no error.
    ///
    /// # Errors
    /// sled's.
    pub fn remove(&self, key: &[u8]) -> Result<(), StoreError> {
        match &self.map {
            Map::Sled(tree) => {
                tree.remove(key).map(|_| ()).map_err(|cause| self.failed("remove from", cause))
            }
            Map::Simulated(hold) => hold.write(&self.name, vec![(key.to_vec(), None)]),
        }
    }

    /// Does all of `batch`, or none.
    ///
    /// # Errors
    /// [`StoreError::TooLong`] (nothing is done), or sled's.
    pub fn apply(&self, batch: &Batch) -> Result<(), StoreError> {
        match &self.map {
            Map::Sled(tree) => {
                let writes = self.seal_all(batch)?;
                tree.apply_batch(writes).map_err(|cause| self.failed("write a batch to", cause))
            }
            Map::Simulated(hold) => {
                batch
                    .writes
                    .iter()
                    .filter_map(|(_, value)| value.as_ref())
                    .try_for_each(|v| self.check(v))?;
                hold.write(&self.name, batch.writes.clone())
            }
        }
    }

    fn seal_all(&self, batch: &Batch) -> Result<sled::Batch, StoreError> {
        let mut writes = sled::Batch::default();
        for (key, value) in &batch.writes {
            match value {
                Some(value) => writes.insert(key.as_slice(), self.seal(value)?),
                None => writes.remove(key.as_slice()),
            }
        }
        Ok(writes)
    }

    /// The rows with keys in `range`, in order.
    pub fn range<'a>(
        &'a self,
        range: impl RangeBounds<Vec<u8>>,
    ) -> impl DoubleEndedIterator<Item = Result<Row, StoreError>> + 'a {
        let bounds = (range.start_bound().cloned(), range.end_bound().cloned());
        match &self.map {
            Map::Sled(tree) => Rows::Sled(tree.range::<Vec<u8>, _>(bounds).map(|row| self.row(row))),
            Map::Simulated(hold) => Rows::Simulated(hold.range(&self.name, bounds).into_iter()),
        }
    }

    /// Every row, in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Result<Row, StoreError>> + '_ {
        self.range(..)
    }

    /// Every key, in order, whatever its value is worth.
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = Result<Vec<u8>, StoreError>> + '_ {
        match &self.map {
            Map::Sled(tree) => Rows::Sled(tree.iter().keys().map(|key| match key {
                Ok(key) => Ok(key.to_vec()),
                Err(cause) => Err(self.failed("read", cause)),
            })),
            Map::Simulated(hold) => {
                let rows = hold.range(&self.name, (Bound::Unbounded, Bound::Unbounded));
                Rows::Simulated(rows.into_iter().map(|row| row.map(|(key, _)| key)))
            }
        }
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
        match &self.map {
            Map::Sled(tree) => tree.clear().map_err(|cause| self.failed("clear", cause)),
            Map::Simulated(hold) => hold.clear(&self.name),
        }
    }

    fn row(&self, row: sled::Result<(sled::IVec, sled::IVec)>) -> Result<Row, StoreError> {
        let (key, stored) = row.map_err(|cause| self.failed("read", cause))?;
        Ok((key.to_vec(), self.open(&key, &stored)?))
    }

    fn seal(&self, value: &[u8]) -> Result<Vec<u8>, StoreError> {
        self.check(value)?;
        let mut sealed = Vec::with_capacity(CHECKSUM_BYTES + value.len());
        sealed.extend_from_slice(&crc32fast::hash(value).to_le_bytes());
        sealed.extend_from_slice(value);
        Ok(sealed)
    }

    fn check(&self, value: &[u8]) -> Result<(), StoreError> {
        if value.len() > VALUE_MAX {
            return Err(StoreError::TooLong { tree: self.name.clone(), length: value.len() });
        }
        Ok(())
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
