//! The read index (Raft dissertation, section 6.4): what a state must hold to be current, asked of a majority.
//!
//! Readers that come while a round is under way share the next one, so that their number costs no messages.

use super::{LedgerError, commit::Missed, ledger::Inner};
use novacron_runtime::{
    spawn,
    time::{self, Instant},
};
use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::{Semaphore, mpsc, oneshot};

/// Most readers that wait.
const QUEUE_MAX: usize = 16 * 1024;
/// Rounds under way at once: a reader that just missed one need not wait for all of it.
const UNDER_WAY_MAX: usize = 2;
/// How often a node makes sure by itself that its state is current: what a stale read is told of its age is then
/// seldom longer than this, while a majority answers.
const CONFIRM_PERIOD: Duration = Duration::from_millis(500);

type Index = Result<u64, Missed>;

/// The near end of a queue of readers.
#[derive(Clone)]
pub(super) struct Readers(mpsc::Sender<oneshot::Sender<Index>>);

/// Its far end.
pub(super) type Waiting = mpsc::Receiver<oneshot::Sender<Index>>;

pub(super) fn queue() -> (Readers, Waiting) {
    let (sender, receiver) = mpsc::channel(QUEUE_MAX);
    (Readers(sender), receiver)
}

impl Readers {
    /// The read index of a round that begins after this call.
    pub async fn index(&self) -> Index {
        let (answer, answered) = oneshot::channel();
        self.0.try_send(answer).map_err(|refused| {
            Missed::Final(match refused {
                mpsc::error::TrySendError::Full(_) => LedgerError::Busy,
                mpsc::error::TrySendError::Closed(_) => LedgerError::Stopped,
            })
        })?;
        answered.await.unwrap_or(Err(Missed::Final(LedgerError::Stopped)))
    }
}

/// Runs a round for whoever waits, until every [`Readers`] is gone.
pub(super) async fn run<F: Future<Output = Index> + Send + 'static>(
    mut waiting: Waiting,
    round: impl Fn() -> F + Send,
) {
    let slots = Arc::new(Semaphore::new(UNDER_WAY_MAX));
    while let Some(first) = waiting.recv().await {
        // While this waits, the next round gathers readers: the busier, the more share it.
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let mut readers = vec![first];
        while let Ok(next) = waiting.try_recv() {
            readers.push(next);
        }
        let round = round();
        spawn(async move {
            let index = round.await;
            for reader in readers {
                // A reader that is gone does not want to know.
                let _ = reader.send(index.clone());
            }
            drop(slot);
        });
    }
}

/// When this node's state was last known to hold everything that was acknowledged anywhere.
#[derive(Debug, Default)]
pub(super) struct Freshness(Mutex<Option<Instant>>);

impl Freshness {
    /// Everything that was acknowledged before `began` is applied here.
    pub fn confirm(&self, began: Instant) {
        let mut at = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *at = (*at).max(Some(began));
    }

    /// Since when the state may be out of date; `None` before it was confirmed for the first time.
    pub fn since(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How old the state may be.
    pub fn age(&self) -> Option<Duration> {
        self.since().map(|at| at.elapsed())
    }
}

/// Confirms the state again and again while nobody reads, until the node stops.
pub(super) async fn confirm(inner: Arc<Inner>) {
    loop {
        time::sleep(CONFIRM_PERIOD).await;
        if inner.freshness.age().is_some_and(|age| age < CONFIRM_PERIOD) {
            continue;
        }
        if inner.linearizable().await == Err(LedgerError::Stopped) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[tokio::test]
    async fn readers_that_wait_share_a_round_that_began_after_them() {
        let (readers, waiting) = queue();
        let rounds = Arc::new(AtomicU64::new(0));
        let (counter, gate) = (rounds.clone(), Arc::new(Semaphore::new(0)));
        let open = gate.clone();
        let task = tokio::spawn(run(waiting, move || {
            let (number, gate) = (counter.fetch_add(1, Ordering::SeqCst) + 1, gate.clone());
            async move {
                gate.acquire().await.map(drop).map_err(|_| Missed::Retry)?;
                Ok(number)
            }
        }));
        let many: Vec<_> = (0..1000)
            .map(|_| {
                let readers = readers.clone();
                tokio::spawn(async move { readers.index().await })
            })
            .collect();
        while rounds.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        open.add_permits(2000);
        for reader in many {
            assert!(reader.await.unwrap().is_ok());
        }
        let taken = rounds.load(Ordering::SeqCst);
        assert!(taken < 10, "1000 readers took {taken} rounds");
        assert!(readers.index().await.is_ok_and(|index| index > taken), "a later reader needs a later round");
        drop(readers);
        task.await.unwrap();
    }

    #[test]
    fn the_age_counts_from_the_beginning_of_the_confirmation() {
        let fresh = Freshness::default();
        assert_eq!(fresh.age(), None);
        let began = Instant::now() - Duration::from_millis(30);
        fresh.confirm(began);
        assert!(fresh.age() >= Some(Duration::from_millis(30)));
        fresh.confirm(began - Duration::from_millis(5));
        assert_eq!(fresh.since(), Some(began), "an older round says nothing new");
    }
}
