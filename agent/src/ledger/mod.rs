//! What the agent must not forget: one store in its data folder, with a shelf for each kind of record.
//!
//! A record is on stable storage when [`Shelf::put`] returns; only then does the agent act on it.

mod shelf;

pub use shelf::{LedgerError, Shelf};

use novacron_common::units::Incarnation;
use novacron_store::Store;
use serde::{Serialize, de::DeserializeOwned};
use std::path::Path;

/// The agent's ledger. Cheap to clone.
#[derive(Debug, Clone)]
pub struct AgentLedger {
    store: Store,
}

impl AgentLedger {
    /// Opens or makes it in `data_dir`.
    ///
    /// # Errors
    /// [`LedgerError`] if another agent has it open or it is damaged.
    pub fn open(data_dir: &Path) -> Result<Self, LedgerError> {
        Ok(Self::on(Store::open(&data_dir.join("ledger"))?))
    }

    /// In this store.
    pub fn on(store: Store) -> Self {
        Self { store }
    }

    /// The shelf `name`; the same name must always be used with the same type.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn shelf<V: Serialize + DeserializeOwned>(&self, name: &str) -> Result<Shelf<V>, LedgerError> {
        Ok(Shelf::new(self.store.clone(), self.store.tree(name)?))
    }

    /// Begins a new life of this agent: counts up, durably.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn raise_incarnation(&self) -> Result<Incarnation, LedgerError> {
        let shelf = self.shelf::<Incarnation>("incarnation")?;
        let next = shelf.get(b"last")?.unwrap_or_default().next();
        shelf.put(b"last", &next)?;
        Ok(next)
    }

    /// The host's boot id if it differs from the one seen at the last start: the host has booted since.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn notice_boot(&self, boot_id: &str) -> Result<bool, LedgerError> {
        let shelf = self.shelf::<String>("boot")?;
        let seen = shelf.get(b"id")?;
        if seen.as_deref() != Some(boot_id) {
            shelf.put(b"id", &boot_id.to_owned())?;
        }
        Ok(seen.as_deref() != Some(boot_id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_life_has_a_higher_number_and_a_boot_is_noticed_once() {
        let folder = tempfile::tempdir().unwrap();
        let first = AgentLedger::open(folder.path()).unwrap();
        assert_eq!(first.raise_incarnation().unwrap(), Incarnation(1));
        assert!(first.notice_boot("a").unwrap());
        drop(first);
        let second = AgentLedger::open(folder.path()).unwrap();
        assert_eq!(second.raise_incarnation().unwrap(), Incarnation(2));
        assert!(!second.notice_boot("a").unwrap());
        assert!(second.notice_boot("b").unwrap());
    }
}
