//! `/api/v1/jobs`, and its un-versioned alias `/api/jobs`: schedules, and what became of their ticks. Fires are in `fires`.

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
    response::{IntoResponse, Response},
};
use novacron_common::{
    api::{ExecuteAccepted, JobCreate, JobQuery, JobUpdate, JobView, LedgerView, Page, PreviewTick, Problem},
    ids::JobId,
    spec::JobSpec,
};
use novacron_core::{
    Applied, CommandBody,
    command::{self, JobExecute, JobPut},
    lists,
    record::JobRecord,
    schedule, views,
};
use serde::Deserialize;
use utoipa::IntoParams;
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
        .routes(routes!(pause))
        .routes(routes!(resume))
        .routes(routes!(next))
        .routes(routes!(ledger))
        .merge(super::fires::relative())
}

/// List jobs.
#[utoipa::path(get, path = "/", tag = "jobs", operation_id = "list_jobs", params(JobQuery),
    responses((status = 200, body = Page<JobView>), (status = "default", body = Problem)))]
async fn list(State(app): State<App>, Params(query): Params<JobQuery>) -> ApiResult<Json<Page<JobView>>> {
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
    Ok((StatusCode::CREATED, view_with_warnings(&app, id).await?))
}

async fn view(app: &App, id: JobId) -> ApiResult<Json<JobView>> {
    app.read(|state| lookup::job(state, &id.to_string()).map(|job| Json(views::job(state, job)))).await?
}

/// With what may surprise about its schedule within a year.
async fn view_with_warnings(app: &App, id: JobId) -> ApiResult<Json<JobView>> {
    let spec = find(app, &id.to_string()).await?.spec;
    let warnings = schedule::warnings(&spec.schedule, spec.timezone, spec.dst, crate::identity::now());
    let Json(view) = view(app, id).await?;
    Ok(Json(JobView { warnings, ..view }))
}

async fn find(app: &App, key: &str) -> ApiResult<JobRecord> {
    app.read(|state| lookup::job(state, key).cloned()).await?
}

/// Show a job.
#[utoipa::path(get, path = "/{job}", tag = "jobs", operation_id = "show_job",
    params(("job" = String, Path, description = "Id or name")),
    responses((status = 200, body = JobView), (status = "default", body = Problem)))]
async fn show(State(app): State<App>, Path(key): Path<String>) -> ApiResult<Json<JobView>> {
    app.read(|state| lookup::job(state, &key).map(|job| Json(views::job(state, job)))).await?
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
    let id = change(&app, &key, |spec| Ok(body.apply_to(spec)?)).await?;
    view_with_warnings(&app, id).await
}

/// Changes a job from its latest definition.
async fn change(app: &App, key: &str, change: impl Fn(&JobSpec) -> ApiResult<JobSpec>) -> ApiResult<JobId> {
    let id = find(app, key).await?.id;
    for _ in 0..UPDATE_TRIES {
        let job = find(app, &id.to_string()).await?;
        let pulse = app.read(|state| state.pulse(id).copied()).await?;
        let pulse = pulse.ok_or_else(|| ApiError::not_found("job", key))?;
        let spec = change(&job.spec)?;
        let update = command::JobUpdate::new(&job, &pulse, spec, crate::identity::now());
        match app.propose(CommandBody::JobUpdate(Box::new(update))).await {
            Err(error) if surely_nothing_changed(&error) => {
                // Absent fields must stay as the latest update left them: take that one and try again.
                if find(app, &id.to_string()).await?.revision == job.revision {
                    return Err(error);
                }
            }
            Err(error) => return Err(error),
            Ok(_) => return Ok(id),
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

/// Keep a job from firing. Ticks until it is resumed are on its ledger as skipped; what runs goes on.
#[utoipa::path(post, path = "/{job}/pause", tag = "jobs", operation_id = "pause_job",
    params(("job" = String, Path, description = "Id or name")),
    responses((status = 200, body = JobView), (status = "default", body = Problem)))]
async fn pause(State(app): State<App>, Path(key): Path<String>) -> ApiResult<Json<JobView>> {
    let id = change(&app, &key, |spec| Ok(JobSpec { enabled: false, ..spec.clone() })).await?;
    view(&app, id).await
}

/// Let a job fire again, from its next tick on.
#[utoipa::path(post, path = "/{job}/resume", tag = "jobs", operation_id = "resume_job",
    params(("job" = String, Path, description = "Id or name")),
    responses((status = 200, body = JobView), (status = "default", body = Problem)))]
async fn resume(State(app): State<App>, Path(key): Path<String>) -> ApiResult<Json<JobView>> {
    let id = change(&app, &key, |spec| Ok(JobSpec { enabled: true, ..spec.clone() })).await?;
    view(&app, id).await
}

/// How many are wanted.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct CountQuery {
    /// At most this many, 1 to 1000.
    n: Option<usize>,
}

impl CountQuery {
    fn or(&self, usual: usize) -> ApiResult<usize> {
        let n = self.n.unwrap_or(usual);
        match (1..=1000).contains(&n) {
            true => Ok(n),
            false => Err(ApiError::field("n", "must be 1 to 1000")),
        }
    }
}

/// The next ticks of a job's schedule (10 by default), with those marked that a jump of the clock moves or doubles.
#[utoipa::path(get, path = "/{job}/next", tag = "jobs", operation_id = "next_ticks",
    params(("job" = String, Path, description = "Id or name"), CountQuery),
    responses((status = 200, body = Vec<PreviewTick>), (status = "default", body = Problem)))]
async fn next(
    State(app): State<App>,
    Path(key): Path<String>,
    Params(query): Params<CountQuery>,
) -> ApiResult<Json<Vec<PreviewTick>>> {
    let (n, spec) = (query.or(10)?, find(&app, &key).await?.spec);
    Ok(Json(schedule::preview(&spec.schedule, spec.timezone, spec.dst, crate::identity::now(), n)))
}

/// Every tick of a job and what became of it (100 by default), the newest first: fired, skipped or missed, and why.
#[utoipa::path(get, path = "/{job}/ledger", tag = "jobs", operation_id = "job_ledger",
    params(("job" = String, Path, description = "Id or name"), CountQuery),
    responses((status = 200, body = LedgerView), (status = "default", body = Problem)))]
async fn ledger(
    State(app): State<App>,
    Path(key): Path<String>,
    Params(query): Params<CountQuery>,
) -> ApiResult<Json<LedgerView>> {
    let n = query.or(100)?;
    app.read(|state| Ok(Json(views::ledger(state, lookup::job(state, &key)?.id, n)))).await?
}

/// Delete a job with its record of fires. It goes at once if nothing of it runs; else its attempts are ended, and it
/// goes with the last of them.
#[utoipa::path(delete, path = "/{job}", tag = "jobs", operation_id = "delete_job",
    params(("job" = String, Path, description = "Id or name")),
    responses((status = 204), (status = 202, body = JobView), (status = "default", body = Problem)))]
async fn delete(State(app): State<App>, Path(key): Path<String>) -> ApiResult<Response> {
    let id = find(&app, &key).await?.id;
    app.propose(CommandBody::JobRemove { id }).await?;
    let left = app.read(|state| state.job(id).map(|job| views::job(state, job))).await?;
    Ok(match left {
        None => StatusCode::NO_CONTENT.into_response(),
        Some(view) => (StatusCode::ACCEPTED, Json(view)).into_response(),
    })
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
    match app
        .propose(CommandBody::JobExecute(JobExecute { id, at: crate::identity::now(), node: None }))
        .await?
    {
        Applied::FireCommitted(fire) => {
            Ok((StatusCode::ACCEPTED, Json(ExecuteAccepted { fire: fire.to_string() })))
        }
        other => {
            tracing::error!(?other, "an execution was answered by something else than its fire");
            Err(ApiError::new(novacron_common::api::ProblemCode::Internal, "the ledger gave no fire"))
        }
    }
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
