//! `/api/v1/cluster`: the coordinators and what a client must know to trust them.

use super::{
    App,
    problem::{ApiError, ApiResult},
};
use crate::raft::MemberStatus;
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use novacron_common::api::{ClusterView, CoordinatorView, Problem};
use novacron_core::views;
use std::time::Duration;
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(show)).routes(routes!(remove))
}

/// Show the cluster.
#[utoipa::path(get, path = "/api/v1/cluster", tag = "cluster", operation_id = "show_cluster",
    responses((status = 200, body = ClusterView), (status = "default", body = Problem)))]
async fn show(State(app): State<App>) -> Json<ClusterView> {
    // Answered from this node alone: this is what an operator looks at when there is no quorum.
    let coordinators = app.ledger.members().into_iter().map(|member| coordinator(&app, member)).collect();
    let alarms = app.ledger.read(|state| state.alarms().iter().map(views::alarm).collect());
    Json(ClusterView {
        id: app.parts.cluster,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ca_fingerprint: app.parts.authority.ca_fingerprint().to_string(),
        answered_by: app.parts.node,
        coordinators,
        applied: app.ledger.status().applied,
        stale_age_ms: app.ledger.age().map(millis),
        alarms,
    })
}

fn coordinator(app: &App, member: MemberStatus) -> CoordinatorView {
    let record =
        |state: &novacron_core::State| state.coordinators().get(&member.node).map(|c| c.name.to_string());
    CoordinatorView {
        node: member.node,
        name: app.ledger.read(record).unwrap_or_default(),
        quic: member.quic.to_string(),
        http: member.http.to_string(),
        voter: member.voter,
        leader: member.leader,
        silent_ms: member.silence.map(millis),
        clock_ahead_ms: member.clock_ahead_ms,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Take a coordinator out of the cluster.
#[utoipa::path(delete, path = "/api/v1/cluster/coordinators/{node}", tag = "cluster",
    operation_id = "remove_coordinator",
    params(("node" = String, Path, description = "Raft node number")),
    responses((status = 202, body = ClusterView), (status = "default", body = Problem)))]
async fn remove(
    State(app): State<App>,
    Path(key): Path<String>,
) -> ApiResult<(StatusCode, Json<ClusterView>)> {
    let node = key.parse().map_err(|_| ApiError::not_found("coordinator", &key))?;
    let applied = app.ledger.remove_coordinator(node).await?;
    applied.accepted()?;
    Ok((StatusCode::ACCEPTED, show(State(app)).await))
}
