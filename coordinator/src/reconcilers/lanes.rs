//! Work that waits for an agent, in lanes: one task at a time for each key, so that a slow host holds up nobody
//! else and nothing is asked of it twice at once. Dropping the lanes aborts what is under way; all of it can be
//! asked again.

use novacron_runtime::task::JoinSet;
use std::{
    collections::HashSet,
    future::Future,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::Notify;

/// Lanes by key.
#[derive(Debug)]
pub struct Lanes<K> {
    busy: Arc<Mutex<HashSet<K>>>,
    finished: Arc<Notify>,
    tasks: JoinSet<()>,
}

impl<K: Hash + Eq + Clone + Send + 'static> Lanes<K> {
    /// All free.
    pub fn new() -> Self {
        Self { busy: Arc::default(), finished: Arc::default(), tasks: JoinSet::new() }
    }

    /// Whether work of this key is under way.
    pub fn is_busy(&self, key: &K) -> bool {
        lock(&self.busy).contains(key)
    }

    /// Starts `work`, unless work of this key is under way.
    pub fn start(&mut self, key: K, work: impl Future<Output = ()> + Send + 'static) {
        while self.tasks.try_join_next().is_some() {}
        if !lock(&self.busy).insert(key.clone()) {
            return;
        }
        let done = Done { key, busy: self.busy.clone(), finished: self.finished.clone() };
        self.tasks.spawn(async move {
            work.await;
            drop(done);
        });
    }

    /// Fires when a lane becomes free.
    pub fn finished(&self) -> Arc<Notify> {
        self.finished.clone()
    }
}

fn lock<K>(busy: &Mutex<HashSet<K>>) -> std::sync::MutexGuard<'_, HashSet<K>> {
    busy.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Frees the lane even if its work panics.
struct Done<K: Hash + Eq> {
    key: K,
    busy: Arc<Mutex<HashSet<K>>>,
    finished: Arc<Notify>,
}

impl<K: Hash + Eq> Drop for Done<K> {
    fn drop(&mut self) {
        lock(&self.busy).remove(&self.key);
        self.finished.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test]
    async fn a_key_has_one_task_at_a_time_and_is_free_afterwards() {
        let mut lanes = Lanes::new();
        let (runs, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let work = || {
            let (runs, gate) = (runs.clone(), gate.clone());
            async move {
                runs.fetch_add(1, Ordering::SeqCst);
                gate.notified().await;
            }
        };
        lanes.start("host", work());
        lanes.start("host", work());
        tokio::task::yield_now().await;
        assert!(lanes.is_busy(&"host"));
        gate.notify_one();
        lanes.finished().notified().await;
        assert!(!lanes.is_busy(&"host"));
        assert_eq!(runs.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_panic_frees_the_lane() {
        let mut lanes = Lanes::new();
        lanes.start(1, async { panic!("expected by the test") });
        lanes.finished().notified().await;
        assert!(!lanes.is_busy(&1));
    }
}
