//! `/api/v1/workflows`, and its un-versioned alias `/api/workflows`: definitions and their runs.

mod logs;
mod runs;

use super::{
    App,
    extract::{Body, OptionalBody, Params},
    lookup,
    problem::{ApiError, ApiResult},
};
use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
};
use novacron_common::{
    api::{
        Page, PageQuery, Problem, ProblemCode, RunAccepted, RunRequest, WorkflowCreate, WorkflowUpdate,
        WorkflowView,
    },
    ids::{JobId, RunId, WorkflowId},
    spec::workflow::WorkflowSpec,
};
use novacron_core::{
    Applied, CommandBody,
    command::{self, RunStart, WorkflowPut},
    lists,
    record::WorkflowRecord,
    views::{self, Shapes},
};
use utoipa_axum::{router::OpenApiRouter, routes};

/// Times that an update is made again because another came between.
const UPDATE_TRIES: usize = 8;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().nest("/api/v1/workflows", relative())
}

/// The same under the path of the first documents.
pub fn aliases() -> Router<App> {
    Router::new().nest("/api/workflows", relative().split_for_parts().0)
}

fn relative() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(show, update, delete))
        .routes(routes!(execute))
        .merge(runs::routes())
        .merge(logs::routes())
}

/// List workflows, without their nodes.
#[utoipa::path(get, path = "/", tag = "workflows", operation_id = "list_workflows", params(PageQuery),
    responses((status = 200, body = Page<WorkflowView>), (status = "default", body = Problem)))]
async fn list(
    State(app): State<App>,
    Params(query): Params<PageQuery>,
) -> ApiResult<Json<Page<WorkflowView>>> {
    Ok(Json(app.read(|state| lists::workflows(state, &query)).await??))
}

/// Make a workflow.
#[utoipa::path(post, path = "/", tag = "workflows", operation_id = "create_workflow",
    request_body = WorkflowCreate,
    responses((status = 201, body = WorkflowView), (status = "default", body = Problem)))]
async fn create(
    State(app): State<App>,
    Body(body): Body<WorkflowCreate>,
) -> ApiResult<(StatusCode, Json<WorkflowView>)> {
    let spec = app.read(|state| body.check(&|name| job_named(state, name))).await??;
    let put = WorkflowPut::new(WorkflowId::generate(), spec, crate::identity::now());
    match app.propose(CommandBody::WorkflowPut(Box::new(put))).await? {
        // A repeated request gets the workflow that the first one made.
        Applied::WorkflowStored(id) => Ok((StatusCode::CREATED, view(&app, &id.to_string()).await?)),
        other => Err(unexpected(&other)),
    }
}

fn job_named(state: &novacron_core::State, name: &str) -> Option<JobId> {
    state.index().job_named(&name.parse().ok()?)
}

fn unexpected(applied: &Applied) -> ApiError {
    tracing::error!(?applied, "a command about workflows was answered by something else");
    ApiError::new(ProblemCode::Internal, "the ledger gave another answer than expected")
}

async fn view(app: &App, key: &str) -> ApiResult<Json<WorkflowView>> {
    app.read(|state| {
        let workflow = lookup::workflow(state, key)?;
        Ok(Json(views::workflow(state, workflow, Shapes::Shown)))
    })
    .await?
}

/// Show a workflow with its nodes and edges.
#[utoipa::path(get, path = "/{workflow}", tag = "workflows", operation_id = "show_workflow",
    params(("workflow" = String, Path, description = "Id or name")),
    responses((status = 200, body = WorkflowView), (status = "default", body = Problem)))]
async fn show(State(app): State<App>, Path(key): Path<String>) -> ApiResult<Json<WorkflowView>> {
    view(&app, &key).await
}

async fn find(app: &App, key: &str) -> ApiResult<WorkflowRecord> {
    app.read(|state| lookup::workflow(state, key).cloned()).await?
}

/// Change a workflow; fields that are absent stay. Runs that have begun keep their definition.
#[utoipa::path(put, path = "/{workflow}", tag = "workflows", operation_id = "update_workflow",
    request_body = WorkflowUpdate, params(("workflow" = String, Path, description = "Id or name")),
    responses((status = 200, body = WorkflowView), (status = "default", body = Problem)))]
async fn update(
    State(app): State<App>,
    Path(key): Path<String>,
    Body(body): Body<WorkflowUpdate>,
) -> ApiResult<Json<WorkflowView>> {
    let id = find(&app, &key).await?.id.to_string();
    for _ in 0..UPDATE_TRIES {
        let (record, spec) = app.read(|state| updated(state, &id, &body)).await??;
        let now = crate::identity::now();
        let update = command::WorkflowUpdate::new(&record, spec, body.changes_shape(), now);
        match app.propose(CommandBody::WorkflowUpdate(Box::new(update))).await {
            // Absent fields must stay as the latest update left them: take that one and try again.
            Err(_) if find(&app, &id).await?.revision != record.revision => {}
            Err(error) => return Err(error),
            Ok(_) => return view(&app, &id).await,
        }
    }
    let cause = "the workflow is being changed by others all the time";
    Err(ApiError::new(ProblemCode::Conflict, cause).fix("try again"))
}

fn updated(
    state: &novacron_core::State,
    id: &str,
    body: &WorkflowUpdate,
) -> ApiResult<(WorkflowRecord, WorkflowSpec)> {
    let record = lookup::workflow(state, id)?;
    let spec = body.apply_to(&views::workflow_spec(state, record), &|name| job_named(state, name))?;
    Ok((record.clone(), spec))
}

/// Delete a workflow with its record of runs. Runs that have not ended are to be cancelled first.
#[utoipa::path(delete, path = "/{workflow}", tag = "workflows", operation_id = "delete_workflow",
    params(("workflow" = String, Path, description = "Id or name")),
    responses((status = 204), (status = "default", body = Problem)))]
async fn delete(State(app): State<App>, Path(key): Path<String>) -> ApiResult<StatusCode> {
    let id = find(&app, &key).await?.id;
    app.propose(CommandBody::WorkflowRemove { id }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Run a workflow now, whatever its schedule says.
#[utoipa::path(post, path = "/{workflow}/execute", tag = "workflows", operation_id = "execute_workflow",
    request_body = Option<RunRequest>, params(("workflow" = String, Path, description = "Id or name")),
    responses((status = 202, body = RunAccepted), (status = "default", body = Problem)))]
async fn execute(
    State(app): State<App>,
    Path(key): Path<String>,
    OptionalBody(body): OptionalBody<RunRequest>,
) -> ApiResult<(StatusCode, Json<RunAccepted>)> {
    let workflow = find(&app, &key).await?.id;
    let input = body.input.map(|input| input.to_string()).unwrap_or_default();
    let start = RunStart { id: RunId::generate(), workflow, input };
    match app.propose(CommandBody::RunStart(Box::new(start))).await? {
        Applied::RunStarted(run) => Ok((StatusCode::ACCEPTED, Json(RunAccepted { run }))),
        other => Err(unexpected(&other)),
    }
}
