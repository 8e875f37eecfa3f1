//! Runs of a workflow, and their nodes.

use super::{
    super::{
        App,
        auth::Caller,
        extract::{OptionalBody, Params},
        lookup,
        problem::{ApiError, ApiResult},
    },
    find,
};
use axum::{
    Extension, Json,
    extract::{Path, State},
    http::StatusCode,
};
use novacron_common::{
    api::{
        Decision, NodeRunView, Page, PageQuery, Problem, RunAccepted, RunDetail, RunRetryRequest, RunView,
    },
    ids::{NodeRef, RunId},
};
use novacron_core::{
    CommandBody,
    command::{NodeDecide, RunRetry},
    lists,
    record::{NodeRecord, RunRecord},
    views::{self, NodeOutputs},
    workflow::Definition,
};
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show))
        .routes(routes!(cancel))
        .routes(routes!(retry))
        .routes(routes!(show_node))
        .routes(routes!(items))
        .routes(routes!(approve))
        .routes(routes!(reject))
}

/// The run of this workflow with this id.
pub(super) fn run<'s>(state: &'s novacron_core::State, key: &str, run: &str) -> ApiResult<&'s RunRecord> {
    let workflow = lookup::workflow(state, key)?.id;
    let found = run.parse::<RunId>().ok().and_then(|id| state.run(id));
    found.filter(|r| r.workflow == workflow && !r.forgotten).ok_or_else(|| ApiError::not_found("run", run))
}

/// The node of this version with this id.
pub(super) fn node<'s>(
    state: &'s novacron_core::State,
    run: &RunRecord,
    id: &str,
) -> ApiResult<&'s NodeRecord> {
    let mut nodes = Definition::nodes(state, run.workflow, run.version);
    nodes.find(|node| node.spec.id.as_str() == id).ok_or_else(|| ApiError::not_found("node", id))
}

/// List a workflow's runs, the newest first, without their nodes.
#[utoipa::path(get, path = "/{workflow}/runs", tag = "workflows", operation_id = "list_runs",
    params(("workflow" = String, Path, description = "Id or name"), PageQuery),
    responses((status = 200, body = Page<RunView>), (status = "default", body = Problem)))]
async fn list(
    State(app): State<App>,
    Path(key): Path<String>,
    Params(query): Params<PageQuery>,
) -> ApiResult<Json<Page<RunView>>> {
    app.read(|state| {
        let workflow = lookup::workflow(state, &key)?.id;
        Ok(Json(lists::runs(state, workflow, &query)?))
    })
    .await?
}

/// Show a run with the states and timings of its nodes, its edges and its critical path.
#[utoipa::path(get, path = "/{workflow}/runs/{run}", tag = "workflows", operation_id = "show_run",
    params(("workflow" = String, Path, description = "Id or name"), ("run" = String, Path, description = "Id")),
    responses((status = 200, body = RunDetail), (status = "default", body = Problem)))]
async fn show(State(app): State<App>, Path((key, id)): Path<(String, String)>) -> ApiResult<Json<RunDetail>> {
    detail(&app, &key, &id).await
}

async fn detail(app: &App, key: &str, id: &str) -> ApiResult<Json<RunDetail>> {
    app.read(|state| Ok(Json(views::run_detail(state, run(state, key, id)?)))).await?
}

async fn id_of(app: &App, key: &str, id: &str) -> ApiResult<RunId> {
    app.read(|state| run(state, key, id).map(|run| run.id)).await?
}

/// Cancel a run: what waits ends at once, what is at work is killed. It has ended within half a minute.
#[utoipa::path(post, path = "/{workflow}/runs/{run}/cancel", tag = "workflows", operation_id = "cancel_run",
    params(("workflow" = String, Path, description = "Id or name"), ("run" = String, Path, description = "Id")),
    responses((status = 202, body = RunDetail), (status = "default", body = Problem)))]
async fn cancel(
    State(app): State<App>,
    Path((key, id)): Path<(String, String)>,
) -> ApiResult<(StatusCode, Json<RunDetail>)> {
    let run = id_of(&app, &key, &id).await?;
    app.propose(CommandBody::RunCancel { run }).await?;
    Ok((StatusCode::ACCEPTED, detail(&app, &key, &id).await?))
}

/// Run a part of an ended run again; nodes that stay keep their outputs.
#[utoipa::path(post, path = "/{workflow}/runs/{run}/retry", tag = "workflows", operation_id = "retry_run",
    request_body = Option<RunRetryRequest>,
    params(("workflow" = String, Path, description = "Id or name"), ("run" = String, Path, description = "Id")),
    responses((status = 202, body = RunAccepted), (status = "default", body = Problem)))]
async fn retry(
    State(app): State<App>,
    Path((key, id)): Path<(String, String)>,
    OptionalBody(body): OptionalBody<RunRetryRequest>,
) -> ApiResult<(StatusCode, Json<RunAccepted>)> {
    let (run, from) = app
        .read(|state| {
            let run = run(state, &key, &id)?;
            let from = body.from.as_deref().map(|id| node(state, run, id)).transpose()?;
            Ok::<_, ApiError>((run.id, from.map(|node| node.key.node)))
        })
        .await??;
    app.propose(CommandBody::RunRetry(RunRetry { run, from })).await?;
    Ok((StatusCode::ACCEPTED, Json(RunAccepted { run })))
}

/// Show a node of a run, with its output.
#[utoipa::path(get, path = "/{workflow}/runs/{run}/nodes/{node}", tag = "workflows",
    operation_id = "show_run_node",
    params(("workflow" = String, Path, description = "Id or name"), ("run" = String, Path, description = "Id"),
           ("node" = String, Path, description = "Id")),
    responses((status = 200, body = NodeRunView), (status = "default", body = Problem)))]
async fn show_node(State(app): State<App>, Path(path): Path<NodePath>) -> ApiResult<Json<NodeRunView>> {
    node_view(&app, &path).await
}

/// Workflow, run and node.
pub(super) type NodePath = (String, String, String);

async fn node_view(app: &App, (key, id, node_id): &NodePath) -> ApiResult<Json<NodeRunView>> {
    app.read(|state| {
        let run = run(state, key, id)?;
        let node = node(state, run, node_id)?;
        let row = state.node_run(NodeRef { run: run.id, node: node.key.node, item: 0 });
        Ok(Json(views::node_run(run, node, row, NodeOutputs::Shown)))
    })
    .await?
}

/// List the items of a map, with their outputs.
#[utoipa::path(get, path = "/{workflow}/runs/{run}/nodes/{node}/items", tag = "workflows",
    operation_id = "list_run_items",
    params(("workflow" = String, Path, description = "Id or name"), ("run" = String, Path, description = "Id"),
           ("node" = String, Path, description = "Id")),
    responses((status = 200, body = Page<NodeRunView>), (status = "default", body = Problem)))]
async fn items(
    State(app): State<App>,
    Path((key, id, node_id)): Path<NodePath>,
) -> ApiResult<Json<Page<NodeRunView>>> {
    app.read(|state| {
        let run = run(state, &key, &id)?;
        let items = views::items(state, run, node(state, run, &node_id)?);
        Ok(Json(Page { items, next_cursor: None }))
    })
    .await?
}

/// Approve a node that asks for it.
#[utoipa::path(post, path = "/{workflow}/runs/{run}/nodes/{node}/approve", tag = "workflows",
    operation_id = "approve_run_node", request_body = Option<Decision>,
    params(("workflow" = String, Path, description = "Id or name"), ("run" = String, Path, description = "Id"),
           ("node" = String, Path, description = "Id")),
    responses((status = 200, body = NodeRunView), (status = "default", body = Problem)))]
async fn approve(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Path(path): Path<NodePath>,
    OptionalBody(body): OptionalBody<Decision>,
) -> ApiResult<Json<NodeRunView>> {
    decide(&app, caller, &path, body, true).await
}

/// Reject a node that asks for approval: it fails.
#[utoipa::path(post, path = "/{workflow}/runs/{run}/nodes/{node}/reject", tag = "workflows",
    operation_id = "reject_run_node", request_body = Option<Decision>,
    params(("workflow" = String, Path, description = "Id or name"), ("run" = String, Path, description = "Id"),
           ("node" = String, Path, description = "Id")),
    responses((status = 200, body = NodeRunView), (status = "default", body = Problem)))]
async fn reject(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Path(path): Path<NodePath>,
    OptionalBody(body): OptionalBody<Decision>,
) -> ApiResult<Json<NodeRunView>> {
    decide(&app, caller, &path, body, false).await
}

async fn decide(
    app: &App,
    caller: Caller,
    path: &NodePath,
    body: Decision,
    approved: bool,
) -> ApiResult<Json<NodeRunView>> {
    let workflow = find(app, &path.0).await?.id.to_string();
    let command = app
        .read(|state| {
            let run = run(state, &workflow, &path.1)?;
            let node = node(state, run, &path.2)?.key.node;
            let token = caller.token.and_then(|id| state.api_token(id));
            let by = token.map(|token| token.name.to_string()).unwrap_or_default();
            let comment = body.comment.unwrap_or_default();
            Ok::<_, ApiError>(NodeDecide { run: run.id, node, approved, by, comment })
        })
        .await??;
    app.propose(CommandBody::NodeDecide(command)).await?;
    node_view(app, path).await
}
