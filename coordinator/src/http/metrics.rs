//! `/metrics` and `/api/v1/metrics`: Prometheus' text format.

use super::{
    App,
    problem::{ApiError, ApiResult},
};
use crate::metrics::{Census, Counts, tally};
use axum::{
    extract::State,
    http::{HeaderName, header},
};
use novacron_common::api::ProblemCode;
use novacron_core::State as Ledger;
use serde::Serialize;
use std::collections::BTreeMap;
use utoipa_axum::{router::OpenApiRouter, routes};

/// Prometheus' text format.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(versioned)).routes(routes!(plain))
}

type Text = ApiResult<([(HeaderName, &'static str); 1], String)>;

/// Metrics of this coordinator and of the ledger.
#[utoipa::path(get, path = "/api/v1/metrics", tag = "operations", operation_id = "metrics",
    responses((status = 200, body = String, content_type = "text/plain")))]
async fn versioned(State(app): State<App>) -> Text {
    scrape(&app).await
}

/// Where Prometheus looks by default.
#[utoipa::path(get, path = "/metrics", tag = "operations", operation_id = "metrics_default_path",
    responses((status = 200, body = String, content_type = "text/plain")))]
async fn plain(State(app): State<App>) -> Text {
    scrape(&app).await
}

/// Reads this node's state as it is: a scrape must work without a quorum too.
async fn scrape(app: &App) -> Text {
    let mut census = app.ledger.read(count);
    let status = app.ledger.status();
    (census.applied, census.leader) = (status.applied, status.leads);
    census.clock_alarms = app.ledger.read(|state| state.alarms().len());
    let ahead = |m: crate::raft::MemberStatus| Some((m.node.to_string(), m.clock_ahead_ms?));
    census.clock_ahead_ms = app.ledger.members().into_iter().filter_map(ahead).collect();
    census.gossip_peers = i64::try_from(app.agents.gossip_peers().await).unwrap_or(i64::MAX);
    let text = app.metrics.text(&census).map_err(|e| ApiError::new(ProblemCode::Internal, e.to_string()))?;
    Ok(([(header::CONTENT_TYPE, TEXT)], text))
}

fn count(state: &Ledger) -> Census {
    let (memory_pages, memory_bytes) = memory(state);
    let enabled = |enabled| if enabled { "enabled" } else { "disabled" }.to_owned();
    Census {
        hosts: tally(state.hosts().iter().map(|h| text(&h.state))),
        vms: tally(state.vms().iter().map(|v| text(&v.state))),
        jobs: tally(state.jobs().iter().map(|j| enabled(j.spec.enabled))),
        migrations: tally(state.migrations().iter().map(|m| text(&m.state))),
        memory_pages,
        memory_bytes,
        fires: tally(state.fires().iter().map(|f| text(&f.state))),
        workflows: tally(state.workflows().iter().filter(|w| !w.removed).map(|w| enabled(w.head.enabled))),
        workflow_runs: tally(state.runs().iter().filter(|r| !r.forgotten).map(|r| text(&r.state))),
        ..Census::default()
    }
}

/// Pages and bytes of memory by kind, of all migrations together.
fn memory(state: &Ledger) -> (Counts, Counts) {
    let (mut pages, mut bytes) = (BTreeMap::new(), BTreeMap::new());
    for record in state.migrations().iter() {
        let memory = record.counts().memory;
        for (kind, sent) in memory.kinds() {
            *pages.entry(kind).or_insert(0) += sent.pages;
            *bytes.entry(kind).or_insert(0) += sent.bytes;
        }
        for (kind, count) in
            [("other", memory.other_bytes), ("written", memory.written_bytes), ("wire", memory.wire_bytes)]
        {
            *bytes.entry(kind).or_insert(0) += count;
        }
    }
    let named =
        |counts: BTreeMap<&str, u64>| counts.into_iter().map(|(kind, n)| (kind.to_owned(), n)).collect();
    (named(pages), named(bytes))
}

/// A state as JSON has it.
fn text(state: &impl Serialize) -> String {
    match serde_json::to_value(state) {
        Ok(serde_json::Value::String(text)) => text,
        _ => "unknown".to_owned(),
    }
}
