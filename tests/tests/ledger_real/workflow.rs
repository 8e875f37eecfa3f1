//! A workflow whose leader is killed twice in the middle of its run, with real processes: it goes on, and each node is
//! done once, as the attempts themselves wrote it down.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use novacron_common::api::{JobView, NodeRunState, RunAccepted, RunDetail, RunState};
use novacron_common::ids::FireKey;
use novacron_tests::ledger::faults::{Fault, Step};
use novacron_tests::ledger::harvest::Harvest;
use novacron_tests::ledger::trio::{Trio, TrioOptions};
use novacron_tests::require;
use reqwest::Method;
use serde_json::{Value, json};

/// Stages one after the other, with a wait behind each.
const STAGES: usize = 6;
/// Nodes beside each other in a stage; the last of them fires a job.
const WIDTH: usize = 4;
const KILL: Step = Step { fault: Fault::KillLeader, hold: Duration::from_millis(300), pick: 0 };
const LIMIT: Duration = Duration::from_secs(120);

/// Every node of a stage, then a wait, then every node of the next stage. In front of the last stage somebody has to
/// approve: so the run cannot have ended when a leader is killed, however slow the test is.
fn graph() -> Value {
    let (mut nodes, mut edges) = (Vec::new(), Vec::new());
    for stage in 0..STAGES {
        let wait = format!("wait-{stage}");
        for place in 0..WIDTH {
            let id = format!("node-{stage}-{place}");
            nodes.push(match place + 1 {
                WIDTH => json!({"id": id, "type": "job", "config": {"jobId": "recorder"}}),
                _ => json!({"id": id, "type": "record", "config": {}}),
            });
            edges.push(json!({"from": id, "to": wait}));
            if stage > 0 {
                edges.push(json!({"from": format!("wait-{}", stage - 1), "to": id}));
            }
        }
        nodes.push(match stage + 2 {
            STAGES => json!({"id": wait, "type": "approve", "config": {"message": "the last stage?"}}),
            _ => json!({"id": wait, "type": "wait", "config": {"duration": "500ms"}}),
        });
    }
    json!({"name": "staged", "nodes": nodes, "edges": edges})
}

#[test]
fn a_run_survives_sigkill_of_its_leader_and_each_node_is_done_once() -> Result<()> {
    require!(root, iptables);
    let mut options = TrioOptions::new("workflow");
    options.agents = 1;
    let mut trio = Trio::start(&options)?;
    let outcome = told(&mut trio);
    outcome.map_err(|fault| anyhow!("{fault:?}\n{}", trio.seats.last_words(40)))
}

fn told(trio: &mut Trio) -> Result<()> {
    let run = begin(trio)?;
    for third in [1, 2] {
        let enough = STAGES * WIDTH * third / 3;
        trio.reach.wait_until(LIMIT, "a part of the run is done", async |api| {
            let detail: RunDetail = api.insist(Method::GET, &run, None, LIMIT).await?.into()?;
            Ok(detail.run.nodes.succeeded as usize >= enough)
        })?;
        let held = KILL.begin(&mut trio.seats, &trio.reach)?;
        println!("{} is killed", held.node(&trio.seats));
        std::thread::sleep(KILL.hold);
        held.end(&mut trio.seats)?;
        trio.reach.wait_until_well(LIMIT)?;
    }
    ensure!(detail(trio, &run)?.run.state == RunState::Running, "it ended without its approval");
    approve(trio, &run)?;
    trio.reach.wait_until(LIMIT, "the run has ended", async |api| {
        let detail: RunDetail = api.insist(Method::GET, &run, None, LIMIT).await?.into()?;
        Ok(detail.run.ended_at.is_some())
    })?;
    judge(trio, &detail(trio, &run)?)
}

/// Makes job and workflow and begins a run; its path.
fn begin(trio: &Trio) -> Result<String> {
    trio.reach.on_api(async |api| {
        let job = json!({"name": "recorder", "schedule": "@yearly", "target": {"type": "record"}});
        api.send(0, Method::POST, "/api/v1/jobs", Some(&job)).await?.into::<JobView>()?;
        api.send(0, Method::POST, "/api/v1/workflows", Some(&graph())).await?.into::<Value>()?;
        let path = "/api/v1/workflows/staged/execute";
        let accepted: RunAccepted = api.send(0, Method::POST, path, Some(&json!({}))).await?.into()?;
        Ok(format!("/api/v1/workflows/staged/runs/{}", accepted.run))
    })
}

/// Lets the last stage begin, once the run has come to it.
fn approve(trio: &Trio, run: &str) -> Result<()> {
    let path = format!("{run}/nodes/wait-{}/approve", STAGES - 2);
    trio.reach.wait_until(LIMIT, "it takes the approval", async |api| {
        let answer = api.insist(Method::POST, &path, Some(&json!({})), LIMIT).await?;
        Ok((200..300).contains(&answer.status))
    })
}

fn detail(trio: &Trio, run: &str) -> Result<RunDetail> {
    trio.reach.on_api(async |api| api.insist(Method::GET, run, None, LIMIT).await?.into())
}

/// Every node was tried once and succeeded; every fire of a node wrote one line, and nothing else did.
fn judge(trio: &Trio, detail: &RunDetail) -> Result<()> {
    ensure!(detail.run.state == RunState::Succeeded, "{:?}", detail.run);
    ensure!(detail.node_runs.len() == STAGES * (WIDTH + 1), "{} nodes", detail.node_runs.len());
    let odd = detail.node_runs.iter().find(|node| node.state != NodeRunState::Succeeded || node.tries != 1);
    ensure!(odd.is_none(), "{odd:?}");
    let fires = detail.node_runs.iter().filter_map(|node| node.fire.as_deref());
    let mut fired = fires.map(str::parse).collect::<Result<Vec<FireKey>, _>>().context("a node's fire")?;
    let mut harvest = Harvest::default();
    harvest.take_records(&trio.seats.agents)?;
    let mut written: Vec<FireKey> = harvest.runs().map(|run| run.fire).collect();
    fired.sort_unstable();
    written.sort_unstable();
    ensure!(fired.len() == STAGES * WIDTH, "{} nodes fired", fired.len());
    ensure!(fired == written, "the ledger has {fired:?}, the attempts wrote {written:?}");
    Ok(())
}
