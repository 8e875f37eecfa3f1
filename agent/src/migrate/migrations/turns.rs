//! One at a time for each key, and nobody waits for another key.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};
use tokio::sync::{Mutex as Turn, OwnedMutexGuard};

/// Turns by key; those that nobody has or waits for are forgotten.
#[derive(Debug)]
pub(super) struct Turns<K>(Mutex<BTreeMap<K, Weak<Turn<()>>>>);

impl<K> Default for Turns<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Ord> Turns<K> {
    /// Waits until it is the caller's turn, which ends when the guard is dropped.
    pub async fn take(&self, key: K) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| turn.strong_count() > 0);
            let known = turns.get(&key).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let new = Arc::default();
                turns.insert(key, Arc::downgrade(&new));
                new
            })
        };
        turn.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    #[tokio::test]
    async fn a_key_is_taken_by_one_and_others_are_free() {
        let turns = Turns::default();
        let first = turns.take(1).await;
        assert!(turns.take(2).now_or_never().is_some());
        assert!(turns.take(1).now_or_never().is_none());
        drop(first);
        assert!(turns.take(1).now_or_never().is_some());
        let _last = turns.take(3).await;
        assert_eq!(turns.0.lock().unwrap().len(), 1, "what nobody has is forgotten");
    }
}
