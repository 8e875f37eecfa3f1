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
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show))
        .routes(routes!(cancel))
        .routes(routes!(give_up))
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
    ask(&app, id, CommandBody::MigrationCancel { id }).await
}

/// Give a stranded guest up (post-copy): what is left of it ends, and its machine is on the target, stopped, with its disk.
#[utoipa::path(post, path = "/api/v1/migrations/{migration}/give-up", tag = "migrations",
    operation_id = "give_up_migration",
    params(("migration" = String, Path, description = "Id")),
    responses((status = 202, body = MigrationView), (status = "default", body = Problem)))]
async fn give_up(
    State(app): State<App>,
    Path(key): Path<String>,
) -> ApiResult<(StatusCode, Json<MigrationView>)> {
    let id = parse(&key)?;
    ask(&app, id, CommandBody::MigrationGiveUp { id }).await
}

async fn ask(app: &App, id: MigrationId, body: CommandBody) -> ApiResult<(StatusCode, Json<MigrationView>)> {
    app.propose(body).await?;
    Ok((StatusCode::ACCEPTED, Json(view(app, id).await?)))
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
