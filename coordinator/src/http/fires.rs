//! `/api/v1/jobs/{job}/fires`: what came of a job's ticks and of requests.

use super::{
    App,
    extract::Params,
    lookup,
    problem::{ApiError, ApiResult},
};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use novacron_common::{
    api::{FireView, Page, PageQuery, Problem},
    ids::FireKey,
};
use novacron_core::{
    CommandBody, lists,
    record::FireRecord,
    views::{self, Outputs},
};
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn relative() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(fires)).routes(routes!(show_fire)).routes(routes!(cancel_fire))
}

fn find<'s>(state: &'s novacron_core::State, job: &str, fire: &str) -> ApiResult<&'s FireRecord> {
    let job = lookup::job(state, job)?.id;
    let found = fire.parse::<FireKey>().ok().filter(|key| key.job == job).and_then(|key| state.fire(key));
    found.ok_or_else(|| ApiError::not_found("fire", fire))
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
        let record = find(state, &key, &fire)?;
        Ok(Json(views::fire(state, record, Outputs::Shown)))
    })
    .await?
}

/// End a fire: at once if it waits, else by killing its attempt.
#[utoipa::path(post, path = "/{job}/fires/{fire}/cancel", tag = "jobs", operation_id = "cancel_fire",
    params(("job" = String, Path, description = "Id or name"), ("fire" = String, Path, description = "Id")),
    responses((status = 202, body = FireView), (status = "default", body = Problem)))]
async fn cancel_fire(
    State(app): State<App>,
    Path((key, fire)): Path<(String, String)>,
) -> ApiResult<(StatusCode, Json<FireView>)> {
    let known = app.read(|state| find(state, &key, &fire).map(|record| record.key)).await??;
    app.propose(CommandBody::FireCancel { fire: known }).await?;
    let left = app.read(|state| {
        let record = find(state, &key, &fire)?;
        ApiResult::Ok(views::fire(state, record, Outputs::LeftOut))
    });
    Ok((StatusCode::ACCEPTED, Json(left.await??)))
}
