//! Many seeds, or the one that `NOVACRON_SEED` names.

use std::{
    env, fmt,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

/// Seeds in a run of the tests; `NOVACRON_SEEDS` in its place makes it more or fewer.
pub const SEEDS: u64 = 200;
/// Faults of one seed that are shown.
const SHOWN: usize = 8;

/// What came of them.
#[derive(Debug, Default)]
pub struct Tried {
    /// How many there were.
    pub seeds: u64,
    /// What was wrong with which.
    pub failed: Vec<(u64, Vec<String>)>,
}

/// Does something with each of `items`, as many at once as there are cores.
pub fn parallel<T: Sync, R: Send>(items: &[T], act: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let cores = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = act(item);
                    done.lock().unwrap_or_else(PoisonError::into_inner).push(outcome);
                }
            });
        }
    });
    done.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Tries each seed.
///
/// # Panics
/// If a variable is set to something that is no number.
pub fn each(seed: impl Fn(u64) -> Vec<String> + Sync) -> Tried {
    each_up_to(SEEDS, seed)
}

/// As [`each`], with so many seeds where `NOVACRON_SEEDS` says nothing.
///
/// # Panics
/// As [`each`].
pub fn each_up_to(usual: u64, seed: impl Fn(u64) -> Vec<String> + Sync) -> Tried {
    let (first, count) = match (number("NOVACRON_SEED"), number("NOVACRON_SEEDS")) {
        (Some(one), _) => (one, 1),
        (None, count) => (1, count.unwrap_or(usual)),
    };
    each_of(first, count, seed)
}

/// Tries `count` seeds from `first` on.
pub fn each_of(first: u64, count: u64, seed: impl Fn(u64) -> Vec<String> + Sync) -> Tried {
    let seeds: Vec<u64> = (first..first + count).collect();
    let tried = parallel(&seeds, |one| (*one, seed(*one)));
    let mut failed: Vec<_> = tried.into_iter().filter(|(_, faults)| !faults.is_empty()).collect();
    failed.sort();
    Tried { seeds: count, failed }
}

fn number(name: &str) -> Option<u64> {
    let set = env::var(name).ok()?;
    Some(set.parse().unwrap_or_else(|_| panic!("{name}={set} is no number")))
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} of {} seeds failed", self.failed.len(), self.seeds)?;
        for (seed, faults) in &self.failed {
            writeln!(f, "replay: NOVACRON_SEED={seed} cargo nextest run -p novacron-sim every_seed")?;
            for fault in faults.iter().take(SHOWN) {
                writeln!(f, "    {fault}")?;
            }
        }
        Ok(())
    }
}
