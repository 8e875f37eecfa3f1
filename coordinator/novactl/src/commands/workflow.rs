//! Workflows and their runs.

use super::{Context, input, job_logs, segment};
use crate::{
    cli::{Format, NodeLogsArgs, NodeName, RunName, WorkflowVerb},
    error::CtlError,
    graph,
    output::{self, Row, word},
    progress,
};
use novacron_common::api::{
    Decision, NodeRunView, Page, RunAccepted, RunDetail, RunRequest, RunRetryRequest, RunState, RunView,
    WorkflowCreate, WorkflowUpdate, WorkflowView,
};

impl Row for WorkflowView {
    const TITLES: &'static [&'static str] =
        &["name", "nodes", "schedule", "enabled", "next", "runs", "open", "failed", "id"];
    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.node_count.to_string(),
            self.schedule.clone().unwrap_or_else(|| "-".into()),
            self.enabled.to_string(),
            output::time(self.next_run_at),
            self.runs.to_string(),
            self.open_runs.to_string(),
            self.failed.to_string(),
            self.id.to_string(),
        ]
    }
}

impl Row for RunView {
    const TITLES: &'static [&'static str] = &["id", "state", "cause", "scheduled", "done", "failed", "ended"];
    fn cells(&self) -> Vec<String> {
        let done = self.nodes.total.saturating_sub(self.nodes.pending + self.nodes.active);
        vec![
            self.id.to_string(),
            word(&self.state),
            word(&self.cause),
            output::time(Some(self.scheduled_at)),
            format!("{done}/{}", self.nodes.total),
            self.nodes.failed.to_string(),
            output::time(self.ended_at),
        ]
    }
}

impl Row for NodeRunView {
    const TITLES: &'static [&'static str] = &["id", "type", "state", "tries", "started", "ended", "reason"];
    fn cells(&self) -> Vec<String> {
        vec![
            self.id.clone(),
            word(&self.node_type),
            word(&self.state),
            self.tries.to_string(),
            output::time(self.started_at),
            output::time(self.ended_at),
            self.reason.clone().unwrap_or_default(),
        ]
    }
}

pub async fn run(context: &Context, verb: WorkflowVerb) -> Result<(), CtlError> {
    let client = &context.client;
    match verb {
        WorkflowVerb::Create(file) => {
            let body: WorkflowCreate = input::json(&file.file)?;
            show(context, &client.post("/api/v1/workflows", Some(&body)).await?)
        }
        WorkflowVerb::Update { workflow, file } => {
            let body: WorkflowUpdate = input::json(&file.file)?;
            show(context, &client.put(&path(&workflow), &body).await?)
        }
        WorkflowVerb::List => {
            output::list(&client.all::<WorkflowView>("/api/v1/workflows", "").await?, context.format)
        }
        WorkflowVerb::Show(name) => show(context, &client.get(&path(&name.workflow)).await?),
        WorkflowVerb::Enable(name) => switch(context, &name.workflow, true).await,
        WorkflowVerb::Disable(name) => switch(context, &name.workflow, false).await,
        WorkflowVerb::Delete(name) => {
            client.delete(&path(&name.workflow)).await?;
            output::line(&format!("{} is gone", name.workflow))
        }
        verb => of_runs(context, verb).await,
    }
}

/// The other half: runs.
async fn of_runs(context: &Context, verb: WorkflowVerb) -> Result<(), CtlError> {
    let client = &context.client;
    match verb {
        WorkflowVerb::Run { workflow, input, wait } => start(context, &workflow, input, wait).await,
        WorkflowVerb::Runs(name) => {
            let runs = client.all::<RunView>(&format!("{}/runs", path(&name.workflow)), "").await?;
            output::list(&runs, context.format)
        }
        WorkflowVerb::Status { run, wait } => {
            let path = run_path(context, &run).await?;
            status(context, &path, wait).await
        }
        WorkflowVerb::Cancel(run) => {
            let path = run_path(context, &run).await?;
            let detail: RunDetail = client.post(&format!("{path}/cancel"), None::<&()>).await?;
            detailed(context, &detail)
        }
        WorkflowVerb::Retry { run, from } => {
            let path = run_path(context, &run).await?;
            let body = RunRetryRequest { from };
            let accepted: RunAccepted = client.post(&format!("{path}/retry"), Some(&body)).await?;
            output::line(&accepted.run.to_string())
        }
        WorkflowVerb::Approve(node) => decide(context, node, "approve").await,
        WorkflowVerb::Reject(node) => decide(context, node, "reject").await,
        WorkflowVerb::Node { workflow, run, node } => {
            let path = run_path(context, &RunName { workflow, run: Some(run) }).await?;
            let view: NodeRunView = client.get(&format!("{path}/nodes/{}", segment(&node))).await?;
            let text = view.output.as_ref().map(ToString::to_string).unwrap_or_default();
            output::one(&view, context.format, &[("output", text)])
        }
        WorkflowVerb::Logs(args) => job_logs::copy(context, &logs_path(&args)).await,
        // The verbs of definitions are `run`'s.
        _ => Ok(()),
    }
}

fn path(workflow: &str) -> String {
    format!("/api/v1/workflows/{}", segment(workflow))
}

fn logs_path(args: &NodeLogsArgs) -> String {
    let run = format!("{}/runs/{}", path(&args.workflow), segment(&args.run));
    let item = args.item.map(|item| format!("&item={item}")).unwrap_or_default();
    let attempt = args.attempt.map(|attempt| format!("&attempt={attempt}")).unwrap_or_default();
    format!("{run}/nodes/{}/logs?follow={}{item}{attempt}", segment(&args.node), args.follow)
}

/// The path of the run that is meant: the newest where none is named.
async fn run_path(context: &Context, name: &RunName) -> Result<String, CtlError> {
    let runs = format!("{}/runs", path(&name.workflow));
    if let Some(run) = &name.run {
        return Ok(format!("{runs}/{}", segment(run)));
    }
    let newest: Page<RunView> = context.client.get(&format!("{runs}?limit=1")).await?;
    let newest = newest.items.first().map(|run| run.id);
    let none = || CtlError::Outcome(format!("{} has not run yet", name.workflow));
    Ok(format!("{runs}/{}", newest.ok_or_else(none)?))
}

fn show(context: &Context, view: &WorkflowView) -> Result<(), CtlError> {
    output::one(view, context.format, &[("description", view.description.clone())])?;
    match (context.format, &view.nodes, &view.edges) {
        (Format::Table, Some(nodes), Some(edges)) => {
            let named = nodes.iter().map(|node| (node.id.clone(), word(&node.node_type)));
            output::line(&graph::text(&named.collect::<Vec<_>>(), edges))
        }
        _ => Ok(()),
    }
}

async fn switch(context: &Context, workflow: &str, enabled: bool) -> Result<(), CtlError> {
    let body = WorkflowUpdate { enabled: Some(enabled), ..WorkflowUpdate::default() };
    show(context, &context.client.put(&path(workflow), &body).await?)
}

async fn start(context: &Context, workflow: &str, input: Option<String>, wait: bool) -> Result<(), CtlError> {
    let parsed = input.map(|text| serde_json::from_str(&text)).transpose();
    let input = parsed.map_err(|e| CtlError::Settings(format!("--input is no JSON: {e}")))?;
    let body = RunRequest { input };
    let accepted: RunAccepted =
        context.client.post(&format!("{}/execute", path(workflow)), Some(&body)).await?;
    if !wait {
        return output::line(&accepted.run.to_string());
    }
    status(context, &format!("{}/runs/{}", path(workflow), accepted.run), true).await
}

/// Shows a run; one that was waited for and did not succeed is an error.
async fn status(context: &Context, path: &str, wait: bool) -> Result<(), CtlError> {
    if wait {
        progress::run(&context.client, path).await?;
    }
    let detail: RunDetail = context.client.get(path).await?;
    detailed(context, &detail)?;
    match detail.run.state {
        RunState::Failed | RunState::Cancelled if wait => {
            let why = detail.run.reason.unwrap_or_default();
            Err(CtlError::Outcome(format!("the run {}: {why}", word(&detail.run.state))))
        }
        _ => Ok(()),
    }
}

fn detailed(context: &Context, detail: &RunDetail) -> Result<(), CtlError> {
    if context.format == Format::Json {
        return output::json(detail);
    }
    let path = &detail.critical_path;
    let steps: Vec<_> = path.steps.iter().map(|step| format!("{} {} ms", step.id, step.work_ms)).collect();
    let more = [
        ("reason", detail.run.reason.clone().unwrap_or_default()),
        ("took", format!("{} ms, {} ms of it between nodes", path.total_ms, path.overhead_ms)),
        ("critical path", steps.join(" → ")),
    ];
    output::one(&detail.run, context.format, &more)?;
    let nodes = detail.node_runs.iter().map(|node| {
        let took = node.started_at.zip(node.ended_at).map(|(from, to)| format!(" {} ms", to.0 - from.0));
        let why = node.reason.as_ref().map(|reason| format!(" ({reason})"));
        (node.id.clone(), word(&node.state) + &took.unwrap_or_default() + &why.unwrap_or_default())
    });
    output::line(&graph::text(&nodes.collect::<Vec<_>>(), &detail.edges))
}

async fn decide(context: &Context, name: NodeName, verb: &str) -> Result<(), CtlError> {
    let node =
        format!("{}/runs/{}/nodes/{}/{verb}", path(&name.workflow), segment(&name.run), segment(&name.node));
    let body = Decision { comment: name.comment };
    let view: NodeRunView = context.client.post(&node, Some(&body)).await?;
    output::one(&view, context.format, &[])
}
