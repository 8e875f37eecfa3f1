//! `/api/v1/cluster`: the coordinators and what a client must know to trust them.

use super::{
    App,
    extract::OptionalBody,
    problem::{ApiError, ApiResult},
};
use crate::{backup::Frames, raft::MemberStatus};
use axum::{
    Json,
    body::Body,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use novacron_common::api::{
    ClusterView, CoordinatorView, JoinTokenCreated, JoinTokenRole, Problem, ProblemCode, TransferRequest,
    TransferView,
};
use novacron_core::{record::CoordinatorRecord, views};
use std::time::Duration;
use utoipa_axum::{router::OpenApiRouter, routes};

/// How long the token of a replacement is good for.
const REPLACE_VALIDITY: Duration = Duration::from_secs(3600);

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(show))
        .routes(routes!(remove))
        .routes(routes!(replace))
        .routes(routes!(transfer))
        .routes(routes!(backup))
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
    params(("node" = String, Path, description = "Raft node number or name")),
    responses((status = 202, body = ClusterView), (status = "default", body = Problem)))]
async fn remove(
    State(app): State<App>,
    Path(key): Path<String>,
) -> ApiResult<(StatusCode, Json<ClusterView>)> {
    let node = find(&app, &key)?;
    let applied = app.ledger.remove_coordinator(node).await?;
    applied.accepted()?;
    Ok((StatusCode::ACCEPTED, show(State(app)).await))
}

/// A coordinator by number or name, as this node knows it: the leader may be the one that is gone.
fn find(app: &App, key: &str) -> ApiResult<u64> {
    let found = app.ledger.read(|state| {
        let is = |c: &&CoordinatorRecord| c.name.as_str() == key || c.node.to_string() == key;
        state.coordinators().iter().find(is).map(|c| c.node)
    });
    found.ok_or_else(|| ApiError::not_found("coordinator", key))
}

/// Get a token with which a new coordinator comes in another's place, dead or alive. As soon as the new one has the
/// ledger, it votes and the other does not, in one step.
#[utoipa::path(post, path = "/api/v1/cluster/coordinators/{node}/replace", tag = "cluster",
    operation_id = "replace_coordinator",
    params(("node" = String, Path, description = "Raft node number or name")),
    responses((status = 201, body = JoinTokenCreated), (status = "default", body = Problem)))]
async fn replace(
    State(app): State<App>,
    Path(key): Path<String>,
) -> ApiResult<(StatusCode, Json<JoinTokenCreated>)> {
    let node = find(&app, &key)?;
    let made =
        app.parts.authority.join_token(JoinTokenRole::Coordinator, REPLACE_VALIDITY, Some(node)).await?;
    Ok((StatusCode::CREATED, Json(made)))
}

/// Make another coordinator lead. Writes wait meanwhile; `gap_ms` says for how long.
#[utoipa::path(post, path = "/api/v1/cluster/transfer", tag = "cluster", operation_id = "transfer_leadership",
    request_body = Option<TransferRequest>,
    responses((status = 200, body = TransferView), (status = "default", body = Problem)))]
async fn transfer(
    State(app): State<App>,
    OptionalBody(body): OptionalBody<TransferRequest>,
) -> ApiResult<Json<TransferView>> {
    let missing = |key: &str| ApiError::field("to", format!("there is no coordinator {key:?}"));
    let to = body.to.as_deref().map(|key| find(&app, key).map_err(|_| missing(key))).transpose()?;
    let done = app.ledger.transfer(to).await.map_err(Problem::from)?;
    Ok(Json(TransferView { from: done.from, to: done.to, gap_ms: millis(done.gap) }))
}

/// Keep the whole ledger: a file with a checksum, consistent as of one log index. Admins only. The CA's key in it stays
/// sealed; `novacron-coordinator restore` needs the seal key too.
#[utoipa::path(get, path = "/api/v1/cluster/backup", tag = "cluster", operation_id = "backup_ledger",
    responses((status = 200, description = "The file", content_type = "application/octet-stream"),
              (status = "default", body = Problem)))]
async fn backup(State(app): State<App>) -> ApiResult<Response> {
    app.ledger.linearizable().await?;
    let (cluster, node) = (app.parts.cluster, app.parts.node);
    let ledger = app.ledger.clone();
    let make = move || ledger.read_at(|applied, state| Frames::new(cluster, node, applied, state));
    let frames = tokio::task::spawn_blocking(make).await;
    let frames = frames.map_err(|e| ApiError::new(ProblemCode::Internal, e.to_string()))?;
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"novacron.backup\""),
    ];
    Ok((headers, Body::from_stream(futures_util::stream::iter(frames))).into_response())
}
