//! `/api/v1/jobs`, and its un-versioned alias `/api/jobs`: schedules and their fires.

use super::{
    App,
    extract::{Body, Params},
    lookup,
    problem::{ApiError, ApiResult},
};
use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
};
use novacron_common::{
    api::{ExecuteAccepted, FireView, JobCreate, JobUpdate, JobView, Page, PageQuery, Problem},
    ids::{FireKey, JobId},
    spec::JobSpec,
};
use novacron_core::{
    Applied, CommandBody,
    command::{self, JobExecute, JobPut},
    lists,
    record::JobRecord,
    views::{self, Outputs},
};
use utoipa_axum::{router::OpenApiRouter, routes};

/// Times that an update is made again because another came between.
const UPDATE_TRIES: usize = 8;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().nest("/api/v1/jobs", relative())
}

/// The same under the path of the first documents.
pub fn aliases() -> Router<App> {
    Router::new().nest("/api/jobs", relative().split_for_parts().0)
}

fn relative() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(show, update, delete))
        .routes(routes!(execute))
        .routes(routes!(fires))
        .routes(routes!(show_fire))
}

/// List jobs.
#[utoipa::path(get, path = "/", tag = "jobs", operation_id = "list_jobs", params(PageQuery),
    responses((status = 200, body = Page<JobView>), (status = "default", body = Problem)))]
async fn list(State(app): State<App>, Params(query): Params<PageQuery>) -> ApiResult<Json<Page<JobView>>> {
    Ok(Json(app.read(|state| lists::jobs(state, &query)).await??))
}

/// Make a job.
#[utoipa::path(post, path = "/", tag = "jobs", operation_id = "create_job", request_body = JobCreate,
    responses((status = 201, body = JobView), (status = "default", body = Problem)))]
async fn create(
    State(app): State<App>,
    Body(body): Body<JobCreate>,
) -> ApiResult<(StatusCode, Json<JobView>)> {
    let id = JobId::generate();
    let put = JobPut::new(id, JobSpec::try_from(&body)?, crate::identity::now());
    // A repeated request gets the job that the first one made.
    let id = match app.propose(CommandBody::JobPut(Box::new(put))).await? {
        Applied::JobStored(id) => id,
        _ => id,
    };
    Ok((StatusCode::CREATED, view(&app, id).await?))
}

async fn view(app: &App, id: JobId) -> ApiResult<Json<JobView>> {
    app.read(|state| lookup::job(state, &id.to_string()).map(|job| Json(views::job(job)))).await?
}

async fn find(app: &App, key: &str) -> ApiResult<JobRecord> {
    app.read(|state| lookup::job(state, key).cloned()).await?
}

/// Show a job.
#[utoipa::path(get, path = "/{job}", tag = "jobs", operation_id = "show_job",
    params(("job" = String, Path, description = "Id or name")),
    responses((status = 200, body = JobView), (status = "default", body = Problem)))]
async fn show(State(app): State<App>, Path(key): Path<String>) -> ApiResult<Json<JobView>> {
    app.read(|state| lookup::job(state, &key).map(|job| Json(views::job(job)))).await?
}

/// Change a job; fields that are absent stay.
#[utoipa::path(put, path = "/{job}", tag = "jobs", operation_id = "update_job", request_body = JobUpdate,
    params(("job" = String, Path, description = "Id or name")),
    responses((status = 200, body = JobView), (status = "default", body = Problem)))]
async fn update(
    State(app): State<App>,
    Path(key): Path<String>,
    Body(body): Body<JobUpdate>,
) -> ApiResult<Json<JobView>> {
    let id = find(&app, &key).await?.id;
    for _ in 0..UPDATE_TRIES {
        let job = find(&app, &id.to_string()).await?;
        let spec = body.apply_to(&job.spec)?;
        let update = command::JobUpdate::new(&job, spec, crate::identity::now());
        match app.propose(CommandBody::JobUpdate(Box::new(update))).await {
            Err(error) if surely_nothing_changed(&error) => {
                // Absent fields must stay as the latest update left them: take that one and try again.
                if find(&app, &id.to_string()).await?.revision == job.revision {
                    return Err(error);
                }
            }
            Err(error) => return Err(error),
            Ok(_) => return view(&app, id).await,
        }
    }
    Err(ApiError::new(
        novacron_common::api::ProblemCode::Conflict,
        "the job is being changed by others all the time",
    )
    .fix("try again"))
}

/// Whether an update that was answered so was refused. One whose outcome is not known must not be made again: if it was
/// committed after all, another client may have written since, and would be overwritten by what it had already seen replaced.
fn surely_nothing_changed(error: &ApiError) -> bool {
    error.problem().code == novacron_common::api::ProblemCode::Conflict
}

/// Delete a job with its record of fires. An attempt that runs is not ended.
#[utoipa::path(delete, path = "/{job}", tag = "jobs", operation_id = "delete_job",
    params(("job" = String, Path, description = "Id or name")),
    responses((status = 204), (status = "default", body = Problem)))]
async fn delete(State(app): State<App>, Path(key): Path<String>) -> ApiResult<StatusCode> {
    let id = find(&app, &key).await?.id;
    app.propose(CommandBody::JobRemove { id }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Fire a job now, whatever its schedule says.
#[utoipa::path(post, path = "/{job}/execute", tag = "jobs", operation_id = "execute_job",
    params(("job" = String, Path, description = "Id or name")),
    responses((status = 202, body = ExecuteAccepted), (status = "default", body = Problem)))]
async fn execute(
    State(app): State<App>,
    Path(key): Path<String>,
) -> ApiResult<(StatusCode, Json<ExecuteAccepted>)> {
    let id = find(&app, &key).await?.id;
    match app.propose(CommandBody::JobExecute(JobExecute { id, at: crate::identity::now() })).await? {
        Applied::FireCommitted(fire) => {
            Ok((StatusCode::ACCEPTED, Json(ExecuteAccepted { fire: fire.to_string() })))
        }
        other => {
            tracing::error!(?other, "an execution was answered by something else than its fire");
            Err(ApiError::new(novacron_common::api::ProblemCode::Internal, "the ledger gave no fire"))
        }
    }
}

/// List a job's fires with their attempts, the newest first, without what the attempts printed.
#[utoipa::path(get, path = "/{job}/fires", tag = "jobs", operation_id = "list_fires",
    params(("job" = String, Path, description = "Id or name"), PageQuery),
    responses((status = 200, body = Page<FireView>), (status = "default", body = Problem)))]
async fn fires(
    State(app): State<App>,
    Path(key): Path<String>,
    Params(query): Params<PageQuery>,
) -> ApiResult<Json<Page<FireView>>> {
    app.read(|state| {
        let job = lookup::job(state, &key)?.id;
        Ok(Json(lists::fires(state, job, &query)?))
    })
    .await?
}

/// Show a fire, with what its attempts printed.
#[utoipa::path(get, path = "/{job}/fires/{fire}", tag = "jobs", operation_id = "show_fire",
    params(("job" = String, Path, description = "Id or name"), ("fire" = String, Path, description = "Id")),
    responses((status = 200, body = FireView), (status = "default", body = Problem)))]
async fn show_fire(
    State(app): State<App>,
    Path((key, fire)): Path<(String, String)>,
) -> ApiResult<Json<FireView>> {
    app.read(|state| {
        let job = lookup::job(state, &key)?.id;
        let found = fire.parse::<FireKey>().ok().filter(|key| key.job == job).and_then(|key| state.fire(key));
        let record = found.ok_or_else(|| ApiError::not_found("fire", &fire))?;
        Ok(Json(views::fire(state, record, Outputs::Shown)))
    })
    .await?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::LedgerError;
    use novacron_core::Refusal;

    #[test]
    fn only_a_refused_update_is_made_again() {
        assert!(surely_nothing_changed(&Refusal::conflict("the job was changed in the meantime").into()));
        for unsure in [LedgerError::Unknown, LedgerError::NoLeader(Vec::new()), LedgerError::Busy] {
            assert!(!surely_nothing_changed(&unsure.into()));
        }
    }
}
