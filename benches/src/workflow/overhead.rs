//! A graph of 1,000 nodes that wait 20 to 100 ms: how much longer its run takes than the longest way through it.
//!
//! The goal is held against the waits that were *asked for*, and against what a client sees from its request to the
//! end. What the ledger itself calls work holds its own lateness at the end of each wait, so it is only told.

use super::{
    execute, make,
    shape::{Shape, Work},
    until_ended,
};
use crate::{report::Row, stats::median};
use anyhow::{Result, ensure};
use novacron_common::api::{RunDetail, RunState};
use novacron_tests::ledger::{api::Api, trio::Reach};
use std::time::Instant;

const SHAPE: Shape = Shape { layers: 40, width: 25, work: Work::Waits };
const ROUNDS: usize = 5;
const GOAL_PER_CENT: f64 = 5.0;

/// One run, milliseconds.
struct Round {
    /// As the client saw it.
    seen: f64,
    /// From the run's first stamp to its last.
    stamped: f64,
    /// The work on the path that the run view names.
    work: f64,
}

/// The rows.
#[allow(clippy::cast_precision_loss)]
pub fn rows(reach: &Reach) -> Result<Vec<Row>> {
    let critical = SHAPE.critical_ms() as f64;
    let mut rounds = Vec::new();
    reach.on_api(async |api| {
        make(api, "wide", &SHAPE.body()).await?;
        for _ in 0..ROUNDS {
            let round = one(api).await?;
            println!(
                "{} nodes: {:.0} ms seen, {:.0} ms stamped, of which the ledger calls {:.0} ms work; the longest way is {critical:.0} ms",
                SHAPE.nodes(),
                round.seen,
                round.stamped,
                round.work
            );
            rounds.push(round);
        }
        Ok(())
    })?;
    let figure = |of: fn(&Round) -> f64| median(&rounds.iter().map(of).collect::<Vec<_>>());
    let over = |total: f64, base: f64| (total - base) / base * 100.0;
    Ok(vec![
        Row::told("1,000 nodes: longest way through the waits asked for", "ms", critical),
        Row::told("1,000 nodes: a run as a client sees it, median", "ms", figure(|round| round.seen)),
        Row::at_most(
            "1,000 nodes: over the longest way, seen",
            "%",
            over(figure(|round| round.seen), critical),
            GOAL_PER_CENT,
        ),
        Row::told(
            "1,000 nodes: over the longest way, stamped",
            "%",
            over(figure(|round| round.stamped), critical),
        ),
        Row::told("1,000 nodes: what the run view calls work on its path", "ms", figure(|round| round.work)),
    ])
}

#[allow(clippy::cast_precision_loss)]
async fn one(api: &Api) -> Result<Round> {
    let began = Instant::now();
    let path = execute(api, "wide").await?;
    until_ended(api, "wide").await?;
    let seen = began.elapsed().as_secs_f64() * 1000.0;
    let run: RunDetail = api.get(0, &path).await?;
    ensure!(run.run.state == RunState::Succeeded, "the run is {:?}: {:?}", run.run.state, run.run.reason);
    let path = &run.critical_path;
    ensure!(path.steps.len() == SHAPE.layers, "the critical path has {} nodes", path.steps.len());
    Ok(Round { seen, stamped: path.total_ms as f64, work: path.work_ms as f64 })
}
