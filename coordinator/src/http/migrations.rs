//! `/api/v1/migrations`: moves of machines. A move is asked for at `/api/v1/vms/{vm}/migrate`.

use super::{
    App,
    extract::Params,
    problem::{ApiError, ApiResult},
};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use novacron_common::{
    api::{MigrationView, Page, PageQuery, Problem},
    ids::MigrationId,
};
use novacron_core::{CommandBody, lists, views};
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(show)).routes(routes!(cancel))
}

/// List migrations.
#[utoipa::path(get, path = "/api/v1/migrations", tag = "migrations", operation_id = "list_migrations",
    params(PageQuery),
    responses((status = 200, body = Page<MigrationView>), (status = "default", body = Problem)))]
async fn list(
    State(app): State<App>,
    Params(query): Params<PageQuery>,
) -> ApiResult<Json<Page<MigrationView>>> {
    Ok(Json(app.read(|state| lists::migrations(state, &query)).await??))
}

/// Show a migration.
#[utoipa::path(get, path = "/api/v1/migrations/{migration}", tag = "migrations", operation_id = "show_migration",
    params(("migration" = String, Path, description = "Id")),
    responses((status = 200, body = MigrationView), (status = "default", body = Problem)))]
async fn show(State(app): State<App>, Path(key): Path<String>) -> ApiResult<Json<MigrationView>> {
    view(&app, parse(&key)?).await.map(Json)
}

/// Undo a migration. It works until the hand-over; after that the machine is on the target.
#[utoipa::path(post, path = "/api/v1/migrations/{migration}/cancel", tag = "migrations",
    operation_id = "cancel_migration",
    params(("migration" = String, Path, description = "Id")),
    responses((status = 202, body = MigrationView), (status = "default", body = Problem)))]
async fn cancel(
    State(app): State<App>,
    Path(key): Path<String>,
) -> ApiResult<(StatusCode, Json<MigrationView>)> {
    let id = parse(&key)?;
    app.propose(CommandBody::MigrationCancel { id }).await?;
    Ok((StatusCode::ACCEPTED, Json(view(&app, id).await?)))
}

fn parse(key: &str) -> ApiResult<MigrationId> {
    key.parse().map_err(|_| ApiError::not_found("migration", key))
}

/// A migration as it is now.
pub async fn view(app: &App, id: MigrationId) -> ApiResult<MigrationView> {
    app.read(|state| {
        let record = state.migration(id).ok_or_else(|| ApiError::not_found("migration", &id.to_string()))?;
        Ok(views::migration(state, record))
    })
    .await?
}
