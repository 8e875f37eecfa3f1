//! Transitions per second: from the first request to the moment at which a client sees that every run has ended.

use super::{
    execute, make,
    shape::{Shape, Work},
    transitions, until_ended,
};
use crate::{report::Row, stats::median};
use anyhow::{Context, Result, ensure};
use novacron_common::api::{RunDetail, RunState};
use novacron_tests::ledger::{api::Api, trio::Reach};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};
use tokio::task::JoinSet;

/// Rounds of each kind; the median counts.
const ROUNDS: usize = 3;
/// Requests for runs under way at once.
const CLIENTS: usize = 16;
const GOAL: f64 = 5000.0;

/// One kind of load.
struct Load {
    name: &'static str,
    shape: Shape,
    runs: usize,
    /// Whether the goal is meant: what ends at an agent starts a process for each node.
    has_goal: bool,
}

const LOADS: [Load; 3] = [
    Load {
        name: "noop nodes",
        shape: Shape { layers: 10, width: 20, work: Work::Noop },
        runs: 200,
        has_goal: true,
    },
    Load {
        name: "1 ms waits, begin and end in entries of their own",
        shape: Shape { layers: 20, width: 20, work: Work::Wait(1) },
        runs: 64,
        has_goal: true,
    },
    Load {
        name: "records at an agent, one process each",
        shape: Shape { layers: 5, width: 20, work: Work::Record },
        runs: 2,
        has_goal: false,
    },
];

/// The rows.
pub fn rows(reach: &Reach) -> Result<Vec<Row>> {
    reach.on_api(async |api| {
        let mut rows = Vec::new();
        for (number, load) in LOADS.iter().enumerate() {
            let mut rates = Vec::new();
            for round in 0..ROUNDS {
                rates.push(round_of(api, load, &format!("rate-{number}-{round}")).await?);
            }
            let name = format!("transitions/s: {}", load.name);
            let goal = if load.has_goal { Some(1.0) } else { None };
            rows.push(Row::more_than(&name, "/s", median(&rates), ("goal", GOAL), goal));
        }
        Ok(rows)
    })
}

async fn round_of(api: &Api, load: &Load, name: &str) -> Result<f64> {
    make(api, name, &load.shape.body()).await?;
    let began = Instant::now();
    let runs = start(api, name, load.runs).await?;
    let asked_s = began.elapsed().as_secs_f64();
    until_ended(api, name).await?;
    let seconds = began.elapsed().as_secs_f64();
    let counted = count(api, &runs).await?;
    #[allow(clippy::cast_precision_loss)]
    let rate = counted as f64 / seconds;
    println!(
        "{}: {} runs of {} nodes, {counted} transitions in {seconds:.2} s (asked for within {asked_s:.2} s): {rate:.0}/s",
        load.name,
        load.runs,
        load.shape.nodes()
    );
    Ok(rate)
}

/// Starts runs, a few at once: their paths.
async fn start(api: &Api, workflow: &str, runs: usize) -> Result<Vec<String>> {
    let left = Arc::new(AtomicUsize::new(runs));
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS.min(runs) {
        let (api, workflow, left) = (api.clone(), workflow.to_owned(), left.clone());
        clients.spawn(async move {
            let mut started = Vec::new();
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
            {
                started.push(execute(&api, &workflow).await?);
            }
            anyhow::Ok(started)
        });
    }
    let mut paths = Vec::new();
    while let Some(started) = clients.join_next().await {
        paths.extend(started??);
    }
    Ok(paths)
}

/// What the ledger says of all of them.
async fn count(api: &Api, runs: &[String]) -> Result<u64> {
    let mut counted = 0;
    for path in runs {
        let run: RunDetail = api.get(0, path).await?;
        let state = run.run.state;
        ensure!(state == RunState::Succeeded, "{path} is {state:?}: {:?}", run.run.reason);
        counted += transitions(&run);
    }
    Some(counted).filter(|counted| *counted > 0).context("no run had a node")
}
