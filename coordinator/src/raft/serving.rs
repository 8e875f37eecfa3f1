//! What the ledger has to know of the HTTP request that is being served: how fresh its reads must be, the key under
//! which its change is committed, and what it has committed itself.
//!
//! It is a task-local, so that a handler need not pass it through everything that it calls, and cannot forget to.

use novacron_common::spec::Sha256Digest;
use novacron_core::{Applied, CommandBody, command::Keyed, record::RequestKey};
use novacron_runtime::time::Instant;
use std::{
    future::Future,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

/// How fresh a read must be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Reads {
    /// As new as when the request came; asks a majority.
    #[default]
    Linearizable,
    /// This node's state, if it is known to be at most so old; else as new as when the request came.
    Stale {
        /// The limit; `None` for any age.
        max_age: Option<Duration>,
    },
}

/// The `Idempotency-Key` of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// What it is filed under.
    pub key: RequestKey,
    /// SHA-256 of the whole request.
    pub fingerprint: Sha256Digest,
}

/// One request under way.
#[derive(Debug, Default)]
pub struct Serving {
    reads: Reads,
    key: Option<Key>,
    keyed: AtomicU8,
    committed: AtomicU64,
    /// Since when the state that was read may have been out of date; the oldest of all reads.
    as_of: Mutex<AsOf>,
}

/// What a request has read.
#[derive(Debug, Clone, Copy, Default)]
enum AsOf {
    #[default]
    Nothing,
    At(Instant),
    /// This node has heard from no majority since its start.
    Unknown,
}

/// Where the key of a request is.
const UNUSED: u8 = 0;
const UNDER_WAY: u8 = 1;
const COMMITTED: u8 = 2;

tokio::task_local! {
    static SERVING: Arc<Serving>;
}

impl Serving {
    /// A request that reads so, and commits its change under `key`.
    pub fn new(reads: Reads, key: Option<Key>) -> Arc<Self> {
        Arc::new(Self { reads, key, ..Self::default() })
    }

    /// Serves the request: whatever `work` reads and proposes in this task is done for it.
    pub async fn serve<F: Future>(self: Arc<Self>, work: F) -> F::Output {
        SERVING.scope(self, work).await
    }

    pub(super) fn current() -> Option<Arc<Self>> {
        SERVING.try_with(Arc::clone).ok()
    }

    pub(super) fn reads(&self) -> Reads {
        self.reads
    }

    /// The last log index that this request committed: its own writes are newer than its beginning, so that a state
    /// with them is as new as a read needs.
    pub(super) fn committed(&self) -> Option<u64> {
        Some(self.committed.load(Ordering::Acquire)).filter(|index| *index > 0)
    }

    /// Takes note of a read of a state that holds everything that was acknowledged before `at`.
    pub(super) fn read_as_of(&self, at: Option<Instant>) {
        let mut as_of = self.as_of.lock().unwrap_or_else(PoisonError::into_inner);
        *as_of = match (*as_of, at) {
            (AsOf::Unknown, _) | (_, None) => AsOf::Unknown,
            (AsOf::Nothing, Some(at)) => AsOf::At(at),
            (AsOf::At(known), Some(at)) => AsOf::At(known.min(at)),
        };
    }

    /// How old what it read may be now: `None` if it read nothing, `Some(None)` if that is not known.
    pub fn age(&self) -> Option<Option<Duration>> {
        match *self.as_of.lock().unwrap_or_else(PoisonError::into_inner) {
            AsOf::Nothing => None,
            AsOf::At(at) => Some(Some(at.elapsed())),
            AsOf::Unknown => Some(None),
        }
    }

    /// Whether its change is in the ledger under its key.
    pub fn is_keyed(&self) -> bool {
        self.keyed.load(Ordering::Acquire) == COMMITTED
    }

    /// The first change of a request carries its key; the others follow from it.
    pub(super) fn wrap(&self, body: CommandBody) -> CommandBody {
        let claim = self.keyed.compare_exchange(UNUSED, UNDER_WAY, Ordering::AcqRel, Ordering::Acquire);
        match self.key {
            Some(Key { key, fingerprint }) if claim.is_ok() => {
                CommandBody::Keyed(Box::new(Keyed { key, fingerprint, body }))
            }
            _ => body,
        }
    }

    /// What came of it is not known: trying again under the same key does no harm.
    pub(super) fn release(&self) {
        let _ = self.keyed.compare_exchange(UNDER_WAY, UNUSED, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Takes note of what came of it: a refused change leaves the key to the next try.
    pub(super) fn note(&self, index: u64, applied: &Applied) {
        self.committed.fetch_max(index, Ordering::AcqRel);
        let next = if matches!(applied, Applied::Refused(_)) { UNUSED } else { COMMITTED };
        let _ = self.keyed.compare_exchange(UNDER_WAY, next, Ordering::AcqRel, Ordering::Acquire);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use novacron_core::Refusal;

    fn request() -> Arc<Serving> {
        let key = Key { key: RequestKey([1; 32]), fingerprint: Sha256Digest([2; 32]) };
        Serving::new(Reads::Linearizable, Some(key))
    }

    #[test]
    fn the_first_accepted_change_carries_the_key() {
        let (request, body) = (request(), CommandBody::CoordinatorRemove { node: 1 });
        assert!(matches!(request.wrap(body.clone()), CommandBody::Keyed(_)));
        request.note(7, &Applied::Refused(Refusal::conflict("no")));
        assert!(!request.is_keyed());
        assert!(
            matches!(request.wrap(body.clone()), CommandBody::Keyed(_)),
            "a refused one may be tried again"
        );
        request.note(8, &Applied::Done);
        assert!(request.is_keyed());
        assert_eq!(request.wrap(body.clone()), body);
        assert_eq!(request.committed(), Some(8));
    }

    #[test]
    fn without_a_key_a_command_stays_as_it_is() {
        let request = Serving::new(Reads::default(), None);
        let body = CommandBody::CoordinatorRemove { node: 1 };
        assert_eq!(request.wrap(body.clone()), body);
        assert_eq!(request.committed(), None);
    }
}
