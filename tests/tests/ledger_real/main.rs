//! Three coordinators and three agents, real processes on one bridge, a schedule of a hundred jobs a second, and faults:
//! no tick is silently missed, none runs twice at once, and what clients read and write is linearizable. Besides, one
//! promise at a time: stale reads, a lease that is lost, a full disk, a workflow under SIGKILL, the pages' examples.
//!
//! `NOVACRON_SEED` replays a plan of faults, `NOVACRON_SOAK=1` makes it long, `NOVACRON_FAULTS` says how long.

mod disk_full;
mod examples;
mod lease;
mod stale;
mod story;
mod workflow;

use anyhow::{Context as _, Result};
use novacron_tests::ledger::chance;
use novacron_tests::require;

/// Faults in `make test`: about four minutes.
const FAULTS: usize = 30;
/// Faults with `NOVACRON_SOAK=1`.
const FAULTS_SOAK: usize = 200;

#[test]
fn every_tick_fires_once_and_every_read_is_true_through_faults() -> Result<()> {
    require!(root, iptables);
    let seed = chance::seed()?;
    println!("{}={seed}", chance::SEED);
    story::run(seed, faults()?)
}

fn faults() -> Result<usize> {
    match std::env::var("NOVACRON_FAULTS") {
        Ok(count) => count.parse().with_context(|| format!("NOVACRON_FAULTS is no number: {count:?}")),
        Err(_) if std::env::var_os("NOVACRON_SOAK").is_some() => Ok(FAULTS_SOAK),
        Err(_) => Ok(FAULTS),
    }
}
