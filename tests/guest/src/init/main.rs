//! `/init` of the lab's guest: loads drivers, brings the network up, then ticks on the serial console while other threads
//! rewrite and verify memory, write and verify the disk, echo on TCP port 7, take data on port 9 and wait for the power button.
//!
//! Built for `x86_64-unknown-linux-gnu` with `+crt-static`, so that the initramfs holds this one file and the drivers.

mod agent;
mod boot;
mod console;
mod echo;
mod feed;
mod net;
mod power;
mod work;

use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use novacron_guest::disk::DiskTest;
use novacron_guest::memory::Arena;
use novacron_guest::options::Options;
use novacron_guest::stats::Stats;
use novacron_guest::tick::Tick;

use crate::console::Console;

/// What the threads share.
struct Guest {
    options: Options,
    console: Console,
    stats: Stats,
    arena: Mutex<Arena>,
    disk: Option<Mutex<DiskTest>>,
}

fn main() -> ExitCode {
    if std::process::id() != 1 {
        eprintln!(
            "novacron-guest is /init of the test guest: it mounts, loads drivers and powers off, so it runs as process 1 only"
        );
        return ExitCode::from(2);
    }
    let console = boot::prepare();
    let options = Options::parse(&std::fs::read_to_string("/proc/cmdline").unwrap_or_default());
    let guest = Arc::new(start(options, console));
    spawn_workers(&guest);
    tick_for_ever(&guest)
}

fn start(options: Options, console: Console) -> Guest {
    for word in &options.refused {
        console.line(&format!("REFUSED {word}"));
    }
    if let Some((addr, prefix)) = options.addr {
        match net::bring_up("eth0", addr, prefix) {
            Ok(()) => console.line(&format!("NET {addr}/{prefix}")),
            Err(cause) => console.line(&format!("FAULT eth0: {cause}")),
        }
    }
    let disk = options.disk.as_deref().and_then(|name| work::open_disk(&console, name, options.disk_mib));
    if let Some(name) = options.disk.as_deref().filter(|_| options.read_mib > 0) {
        work::read_end(&console, name, options.read_mib);
    }
    let arena = Arena::new(options.mib, options.fill);
    console.line(&format!("READY pages={} tick={} fill={:?}", arena.len(), options.tick_ms, options.fill));
    let stats = Stats::new(options.rate);
    Guest { options, console, stats, arena: Mutex::new(arena), disk: disk.map(Mutex::new) }
}

fn spawn_workers(guest: &Arc<Guest>) {
    let workers: [fn(&Guest); 8] = [
        work::rewrite,
        work::verify,
        work::use_disk,
        echo::serve,
        feed::serve,
        power::wait_for_button,
        console::obey,
        agent::run,
    ];
    for worker in workers {
        let guest = Arc::clone(guest);
        thread::spawn(move || worker(&guest));
    }
}

/// One line a period. A guest that was stalled does not burst: the schedule moves on from where it woke up.
fn tick_for_ever(guest: &Guest) -> ! {
    let period = Duration::from_millis(guest.options.tick_ms);
    let mut due = Instant::now();
    for number in 1.. {
        let tick = Tick { number, guest_us: boot::monotonic_us(), counters: guest.stats.counters() };
        guest.console.line(&tick.to_string());
        due += period;
        match due.checked_duration_since(Instant::now()) {
            Some(left) => thread::sleep(left),
            None => due = Instant::now(),
        }
    }
    unreachable!("a u64 of ticks outlasts the guest")
}
