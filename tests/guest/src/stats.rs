//! The counters that the guest's threads share and each tick prints.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::tick::Counters;

/// Counters and switches. Relaxed order is enough: each number stands alone.
#[derive(Debug)]
pub struct Stats {
    /// Whole pages rewritten.
    pub pages: AtomicU64,
    /// 8-byte writes.
    pub pokes: AtomicU64,
    /// Times that the whole working set has been verified.
    pub passes: AtomicU64,
    /// Pages found wrong.
    pub bad: AtomicU64,
    /// Disk blocks written.
    pub disk_writes: AtomicU64,
    /// Disk blocks read back and compared.
    pub disk_reads: AtomicU64,
    /// Disk blocks found wrong, and disk calls that failed.
    pub disk_bad: AtomicU64,
    /// Rewriting, MiB a second.
    pub rate: AtomicU64,
    /// Whether the writers write.
    pub running: AtomicBool,
}

impl Stats {
    /// All zero, running at `rate` MiB a second.
    #[must_use]
    pub fn new(rate: u64) -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            pages: zero(),
            pokes: zero(),
            passes: zero(),
            bad: zero(),
            disk_writes: zero(),
            disk_reads: zero(),
            disk_bad: zero(),
            rate: AtomicU64::new(rate),
            running: AtomicBool::new(true),
        }
    }

    /// Adds to one counter.
    pub fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }

    /// Whether the writers write.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.running.load(Ordering::Relaxed)
    }

    /// All counters as a tick prints them.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            pages: get(&self.pages),
            pokes: get(&self.pokes),
            passes: get(&self.passes),
            bad: get(&self.bad),
            disk_writes: get(&self.disk_writes),
            disk_reads: get(&self.disk_reads),
            disk_bad: get(&self.disk_bad),
        }
    }
}
