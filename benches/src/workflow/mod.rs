//! `workflow`: durable node transitions per second, and what a graph of 1,000 nodes costs over its critical path.
//!
//! One coordinator and one agent, each a process on a node of its own, with the client of the API in a third. A
//! transition is a change of a node's state that is in the ledger with its stamp: `ready → running` and
//! `running → ended` of every node, counted from the nodes of the runs after they have ended. There is no peer row:
//! Debian has no workflow engine with a replicated log, and `make -j` neither keeps anything nor survives.

mod overhead;
mod rate;
mod shape;

use crate::report::publish;
use anyhow::{Context, Result, bail};
use novacron_common::api::{Page, RunAccepted, RunDetail, RunView, WorkflowView};
use novacron_tests::ledger::{
    api::Api,
    trio::{Trio, TrioOptions},
};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Runs of a workflow: as many as are kept, and as are on a page.
const RUNS_MAX: usize = 1000;
/// How long a run may take.
const RUN_LIMIT: Duration = Duration::from_secs(120);
/// Between two looks at a run.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Both parts, or the one that `ROW` names.
pub fn run() -> Result<()> {
    let wanted = std::env::var("ROW").ok();
    let wants = |part: &str| wanted.as_deref().is_none_or(|wanted| wanted == part);
    let mut options = TrioOptions::new("bench-w");
    (options.coordinators, options.agents) = (1, 1);
    options.log = "warn".to_owned();
    let trio = Trio::start(&options)?;
    let mut rows = Vec::new();
    if wants("rate") {
        rows.extend(rate::rows(&trio.reach)?);
        publish("workflow", &rows)?;
    }
    if wants("overhead") {
        rows.extend(overhead::rows(&trio.reach)?);
        publish("workflow", &rows)?;
    }
    anyhow::ensure!(!rows.is_empty(), "ROW is {wanted:?}; there are rate and overhead");
    Ok(())
}

/// Makes a workflow of which as many runs as there may be are kept.
async fn make(api: &Api, name: &str, shape: &Value) -> Result<()> {
    let mut body = shape.clone();
    body["name"] = json!(name);
    body["runs_kept"] = json!(RUNS_MAX);
    body["max_parallel"] = json!(1000);
    let made = api.send(0, Method::POST, "/api/v1/workflows", Some(&body)).await?;
    made.into::<WorkflowView>().with_context(|| format!("making {name}")).map(drop)
}

/// Starts a run: the path of it.
async fn execute(api: &Api, workflow: &str) -> Result<String> {
    let path = format!("/api/v1/workflows/{workflow}/execute");
    let accepted: RunAccepted = api.send(0, Method::POST, &path, Some(&json!({}))).await?.into()?;
    Ok(format!("/api/v1/workflows/{workflow}/runs/{}", accepted.run))
}

/// Waits until every run of a workflow has ended. How is seen when the nodes are counted.
async fn until_ended(api: &Api, workflow: &str) -> Result<()> {
    let deadline = Instant::now() + RUN_LIMIT;
    // The newest run is rarely the last to end: it is the cheap question, asked until the other is worth it.
    while !(ended(api, workflow, 1).await? && ended(api, workflow, RUNS_MAX).await?) {
        if Instant::now() > deadline {
            bail!("runs of {workflow} have not ended within {RUN_LIMIT:?}");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

/// Whether the newest runs have ended.
async fn ended(api: &Api, workflow: &str, newest: usize) -> Result<bool> {
    let path = format!("/api/v1/workflows/{workflow}/runs?limit={newest}");
    let runs: Page<RunView> = api.get(0, &path).await?;
    Ok(runs.items.iter().all(|run| run.state.is_final()))
}

/// Transitions that the ledger has stamped: beginnings and ends of nodes.
fn transitions(run: &RunDetail) -> u64 {
    let stamps = run.node_runs.iter().flat_map(|node| [node.started_at, node.ended_at]);
    stamps.flatten().count() as u64
}
