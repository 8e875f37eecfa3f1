//! The threads that use memory and disk and check what they hold.

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use novacron_guest::content::PAGE_BYTES;
use novacron_guest::disk::DiskTest;
use novacron_guest::pace::Pace;
use novacron_guest::stats::Stats;

use crate::Guest;
use crate::console::Console;

const PAGES_PER_MIB: f64 = (1 << 20) as f64 / PAGE_BYTES as f64;
/// How long the loops rest between batches.
const REST: Duration = Duration::from_millis(10);
/// Pages done under one hold of the lock: short enough that no other thread waits for long.
const BATCH: u64 = 16;

/// Rewrites and pokes pages at the asked rates, for ever.
pub fn rewrite(guest: &Guest) {
    let (mut pages, mut pokes, mut last) = (Pace::default(), Pace::default(), Instant::now());
    loop {
        thread::sleep(REST);
        let elapsed = std::mem::replace(&mut last, Instant::now()).elapsed();
        if !guest.stats.is_running() {
            continue;
        }
        let rate = guest.stats.rate.load(std::sync::atomic::Ordering::Relaxed) as f64 * PAGES_PER_MIB;
        let due = pages.due(rate, elapsed);
        in_batches(due, |n| (0..n).for_each(|_| locked(&guest.arena).rewrite_one()));
        Stats::add(&guest.stats.pages, due);
        let due = pokes.due(guest.options.pokes as f64, elapsed);
        in_batches(due, |n| {
            let mut arena = locked(&guest.arena);
            (0..n).for_each(|_| arena.poke_one());
        });
        Stats::add(&guest.stats.pokes, due);
    }
}

/// Walks over the working set for ever and counts pages that do not hold what they must.
pub fn verify(guest: &Guest) {
    let (mut pace, mut last, mut index) = (Pace::default(), Instant::now(), 0);
    loop {
        thread::sleep(REST);
        let elapsed = std::mem::replace(&mut last, Instant::now()).elapsed();
        let due = pace.due(guest.options.verify as f64 * PAGES_PER_MIB, elapsed);
        in_batches(due, |n| (0..n).for_each(|_| index = verify_one(guest, index)));
    }
}

/// Checks one page and says which is next.
fn verify_one(guest: &Guest, index: usize) -> usize {
    let arena = locked(&guest.arena);
    if !arena.holds(index) {
        Stats::add(&guest.stats.bad, 1);
        guest.console.line(&format!("BAD page {index}"));
    }
    if index + 1 < arena.len() {
        return index + 1;
    }
    Stats::add(&guest.stats.passes, 1);
    0
}

/// Waits for the device to appear, opens it and says what it holds.
pub fn open_disk(console: &Console, name: &str, mib: u64) -> Option<DiskTest> {
    let path = Path::new("/dev").join(name);
    for _ in 0..100 {
        if path.exists() {
            break;
        }
        thread::sleep(Duration::from_millis(50));
    }
    match DiskTest::open(&path, mib) {
        Ok((disk, found)) => {
            let (slots, seq) = (disk.slots(), disk.last_seq());
            console.line(&format!("DISK slots={slots} found={} torn={} seq={seq}", found.blocks, found.torn));
            Some(disk)
        }
        Err(cause) => {
            console.line(&format!("FAULT {}: {cause}", path.display()));
            None
        }
    }
}

/// Reads the last `mib` MiB of a disk, of which the kernel keeps what it has room for.
pub fn read_end(console: &Console, name: &str, mib: u64) {
    let read = || {
        let mut disk = File::open(Path::new("/dev").join(name))?;
        let size = disk.seek(SeekFrom::End(0))?;
        disk.seek(SeekFrom::Start(size.saturating_sub(mib << 20)))?;
        io::copy(&mut disk, &mut io::sink())
    };
    if let Err(cause) = read() {
        console.line(&format!("FAULT reading {name}: {cause}"));
    }
}

/// Writes one block and reads one back, for ever.
pub fn use_disk(guest: &Guest) {
    let Some(disk) = &guest.disk else { return };
    loop {
        thread::sleep(Duration::from_millis(guest.options.disk_ms));
        if guest.stats.is_running()
            && let Err(cause) = write_and_check(guest, disk)
        {
            Stats::add(&guest.stats.disk_bad, 1);
            guest.console.line(&format!("BAD disk: {cause}"));
        }
    }
}

fn write_and_check(guest: &Guest, disk: &Mutex<DiskTest>) -> io::Result<()> {
    let mut disk = locked(disk);
    disk.write_one()?;
    Stats::add(&guest.stats.disk_writes, 1);
    if let Some(right) = disk.check_one()? {
        Stats::add(&guest.stats.disk_reads, 1);
        if !right {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a block does not hold what was written last",
            ));
        }
    }
    Ok(())
}

fn in_batches(due: u64, mut batch: impl FnMut(u64)) {
    let mut left = due;
    while left > 0 {
        let n = left.min(BATCH);
        batch(n);
        left -= n;
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
