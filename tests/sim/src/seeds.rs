//! Many seeds, or the one that `NOVACRON_SEED` names.

use std::{
    env, fmt,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
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

/// Tries each seed; as many at once as there are cores.
///
/// # Panics
/// If a variable is set to something that is no number.
pub fn each(seed: impl Fn(u64) -> Vec<String> + Sync) -> Tried {
    let (first, count) = match (number("NOVACRON_SEED"), number("NOVACRON_SEEDS")) {
        (Some(one), _) => (one, 1),
        (None, count) => (1, count.unwrap_or(SEEDS)),
    };
    let (next, failed) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    let cores = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let one = next.fetch_add(1, Ordering::Relaxed);
                    if one >= count {
                        return;
                    }
                    let faults = seed(first + one);
                    if !faults.is_empty() {
                        failed.lock().unwrap_or_else(PoisonError::into_inner).push((first + one, faults));
                    }
                }
            });
        }
    });
    let mut failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
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
