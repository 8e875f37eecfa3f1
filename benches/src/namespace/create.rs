//! From the request to the first instruction, one machine after the other: ours and the runtimes in turn, so that all see the
//! same noise.

use super::{
    ours::{Ours, Then, on_a_network},
    runtimes::{Kind, Runtime},
    stage::Stage,
};
use crate::{
    report::Row,
    stats::{median, percentile},
};
use anyhow::{Context, Result};
use nix::sched::{CloneFlags, unshare};
use novacron_common::spec::NetworkSpec;

/// Of each kind. The 99th percentile is then the third slowest.
const SAMPLES: usize = 200;
/// Of each kind before those.
const WARM_UP: usize = 5;

pub fn rows(stage: &Stage) -> Result<Vec<Row>> {
    let seen = alone(stage)?;
    let networked = on_own_network(stage)?;
    Ok(rows_of(&seen, &networked))
}

/// Milliseconds of each.
struct Seen {
    ours: Vec<f64>,
    runc: Vec<f64>,
    crun: Vec<f64>,
}

fn alone(stage: &Stage) -> Result<Seen> {
    let (runc, crun) =
        (Runtime::set(Kind::Runc, stage, Then::Ends)?, Runtime::set(Kind::Crun, stage, Then::Ends)?);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let host = runtime.block_on(Ours::open(stage))?;
    let mut seen = Seen { ours: Vec::new(), runc: Vec::new(), crun: Vec::new() };
    for _ in 0..WARM_UP + SAMPLES {
        seen.ours.push(runtime.block_on(one(&host, NetworkSpec::default()))?);
        seen.runc.push(runc.create()?);
        seen.crun.push(crun.create()?);
    }
    let settled = |mut all: Vec<f64>| all.split_off(WARM_UP);
    Ok(Seen { ours: settled(seen.ours), runc: settled(seen.runc), crun: settled(seen.crun) })
}

async fn one(host: &Ours, network: NetworkSpec) -> Result<f64> {
    let (vm, ms) = host.create(network, Then::Ends).await?;
    host.remove(vm).await?;
    Ok(ms)
}

/// On a network that has a machine already, as on any host but the first moment; in a network namespace that stands for the host's.
fn on_own_network(stage: &Stage) -> Result<Vec<f64>> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).context("a network namespace that stands for the host's")?;
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
            runtime.block_on(networked(stage))
        });
        thread.join().unwrap_or_else(|_| anyhow::bail!("the thread ended"))
    })
}

async fn networked(stage: &Stage) -> Result<Vec<f64>> {
    let host = Ours::open(stage).await?;
    let (neighbour, _) = host.create(on_a_network(2)?, Then::Stays).await?;
    let mut seen = Vec::new();
    for number in (3..).take(WARM_UP + SAMPLES) {
        seen.push(one(&host, on_a_network(number)?).await?);
    }
    host.remove(neighbour).await?;
    Ok(seen.split_off(WARM_UP))
}

fn rows_of(seen: &Seen, networked: &[f64]) -> Vec<Row> {
    let Seen { ours, runc, crun } = seen;
    let name = |what: &str| format!("create to first instruction, {what}");
    let beside = |per_cent, what: &str, all: &[f64], kind: Kind, most| {
        let (ours, peer) = (percentile(ours, per_cent), percentile(all, per_cent));
        Row::beside(&name(&format!("{what} vs {}", kind.name())), "ms", ours, (kind.name(), peer), most)
    };
    vec![
        Row::at_most(&name("p50"), "ms", median(ours), 5.0),
        Row::at_most(&name("p99"), "ms", percentile(ours, 99.0), 20.0),
        beside(50.0, "p50", runc, Kind::Runc, Some(0.25)),
        beside(99.0, "p99", runc, Kind::Runc, None),
        beside(50.0, "p50", crun, Kind::Crun, Some(0.667)),
        beside(99.0, "p99", crun, Kind::Crun, None),
        Row::at_most(&name("on a network, p50"), "ms", median(networked), 8.0),
        Row::at_most(&name("on a network, p99"), "ms", percentile(networked, 99.0), 20.0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_times_as_fast_as_runc_is_a_quarter_of_its_time() {
        let all = |ms| vec![ms; 10];
        let seen = Seen { ours: all(5.0), runc: all(20.0), crun: all(7.0) };
        let holds = |seen: &Seen, name: &str| {
            let rows = rows_of(seen, &all(8.0));
            let row = rows.iter().find(|row| row.name.ends_with(name)).unwrap();
            (row.goal != "-").then_some(row.holds)
        };
        assert_eq!(holds(&seen, "p50 vs runc"), Some(true));
        assert_eq!(holds(&seen, "p50 vs crun, no cgroup"), Some(false));
        assert_eq!(holds(&seen, "p99 vs runc"), None);
        assert_eq!(holds(&seen, "instruction, p50"), Some(true));
        assert_eq!(holds(&Seen { ours: all(5.1), ..seen }, "instruction, p50"), Some(false));
    }
}
