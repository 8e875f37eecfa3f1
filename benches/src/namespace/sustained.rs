//! Machines made, run to their end and removed for a minute; and how long one takes to be made where a thousand run.

use super::{
    ours::{Ours, Then},
    runtimes::{Kind, Runtime},
    stage::Stage,
};
use crate::{report::Row, stats::median};
use anyhow::{Context, Result};
use novacron_common::spec::NetworkSpec;
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

/// How long each makes machines.
const LENGTH: Duration = Duration::from_secs(60);
/// How many are asked for at once, of either.
const ASKERS: usize = 4;
/// How many run at once in the end, below the number of id ranges that a host has for machines.
const CROWD: usize = 1000;
/// The first and the last of them are compared, this many of each.
const COMPARED: usize = 100;

pub fn rows(stage: &Stage) -> Result<Vec<Row>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let host = Arc::new(runtime.block_on(Ours::open(stage))?);
    let ours = runtime.block_on(rate(&host))?;
    let runc = rate_of(&Runtime::set(Kind::Runc, stage, Then::Ends)?)?;
    Ok(rows_of(ours, runc))
}

pub fn crowd_rows(stage: &Stage) -> Result<Vec<Row>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let host = runtime.block_on(Ours::open(stage))?;
    Ok(vec![crowd_row(&runtime.block_on(crowd(&host))?)])
}

/// Machines a second.
async fn rate(host: &Arc<Ours>) -> Result<f64> {
    let begun = Instant::now();
    let mut askers = JoinSet::new();
    for _ in 0..ASKERS {
        let host = Arc::clone(host);
        askers.spawn(async move {
            let mut made = 0_u32;
            while begun.elapsed() < LENGTH {
                let (vm, _) = host.create(NetworkSpec::default(), Then::Ends).await?;
                host.remove(vm).await?;
                made += 1;
            }
            anyhow::Ok(made)
        });
    }
    let made: Result<Vec<u32>> = askers.join_all().await.into_iter().collect();
    Ok(f64::from(made?.iter().sum::<u32>()) / begun.elapsed().as_secs_f64())
}

/// Containers a second.
fn rate_of(runtime: &Runtime) -> Result<f64> {
    let begun = Instant::now();
    let made = Mutex::new(0_u32);
    let asker = || {
        while begun.elapsed() < LENGTH {
            runtime.create()?;
            *made.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        }
        anyhow::Ok(())
    };
    std::thread::scope(|scope| {
        let askers: Vec<_> = (0..ASKERS).map(|_| scope.spawn(asker)).collect();
        askers.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| anyhow::bail!("ended")))
    })?;
    let made = made.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(f64::from(made) / begun.elapsed().as_secs_f64())
}

/// How long each of a thousand took, in their order, milliseconds.
async fn crowd(host: &Ours) -> Result<Vec<f64>> {
    let (mut vms, mut took) = (Vec::new(), Vec::new());
    for number in 1..=CROWD {
        let made = host.create(NetworkSpec::default(), Then::Stays).await;
        let (vm, ms) = made.with_context(|| format!("machine {number}"))?;
        vms.push(vm);
        took.push(ms);
    }
    for vm in vms {
        host.remove(vm).await?;
    }
    Ok(took)
}

fn rows_of(ours: f64, runc: f64) -> Vec<Row> {
    vec![
        Row::more_than("sustained creates", "/s", ours, ("goal", 300.0), Some(1.0)),
        Row::more_than("sustained creates vs runc", "/s", ours, (Kind::Runc.name(), runc), None),
    ]
}

fn crowd_row(crowd: &[f64]) -> Row {
    let (first, last) = (median(&crowd[..COMPARED]), median(&crowd[crowd.len() - COMPARED..]));
    Row::beside("create, last 100 of 1,000 vs first 100", "ms", last, ("first 100", first), Some(1.25))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_creation_that_grows_with_the_crowd_misses_its_goal() {
        let crowd = |last| [vec![4.0; COMPARED], vec![9.0; 50], vec![last; COMPARED]].concat();
        assert!(crowd_row(&crowd(4.9)).holds && !crowd_row(&crowd(5.1)).holds);
        assert!(rows_of(300.0, 30.0)[0].holds && !rows_of(299.0, 30.0)[0].holds);
    }
}
