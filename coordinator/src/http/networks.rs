//! `/api/v1/networks`: tenant networks, which namespace machines are on.

use super::{
    App,
    extract::{Body, Params},
    lookup,
    problem::ApiResult,
};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use novacron_common::{
    api::{NetworkCreate, NetworkView, Page, PageQuery, Problem},
    ids::NetworkId,
};
use novacron_core::{Applied, CommandBody, command, lists, views};
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(show, delete))
}

/// List tenant networks.
#[utoipa::path(get, path = "/api/v1/networks", tag = "networks", operation_id = "list_networks",
    params(PageQuery),
    responses((status = 200, body = Page<NetworkView>), (status = "default", body = Problem)))]
async fn list(
    State(app): State<App>,
    Params(query): Params<PageQuery>,
) -> ApiResult<Json<Page<NetworkView>>> {
    Ok(Json(app.read(|state| lists::networks(state, &query)).await??))
}

/// Make a tenant network. A host has a bridge of it for as long as machines of it run there.
#[utoipa::path(post, path = "/api/v1/networks", tag = "networks", operation_id = "create_network",
    request_body = NetworkCreate,
    responses((status = 201, body = NetworkView), (status = "default", body = Problem)))]
async fn create(
    State(app): State<App>,
    Body(body): Body<NetworkCreate>,
) -> ApiResult<(StatusCode, Json<NetworkView>)> {
    let (name, subnet, dns) = body.check()?;
    let id = NetworkId::generate();
    let create = command::NetworkCreate { id, name, subnet, dns };
    let id = match app.propose(CommandBody::NetworkCreate(Box::new(create))).await? {
        Applied::NetworkStored(id) => id,
        _ => id,
    };
    let view = show(State(app), Path(id.to_string())).await?;
    Ok((StatusCode::CREATED, view))
}

/// Show a tenant network.
#[utoipa::path(get, path = "/api/v1/networks/{network}", tag = "networks", operation_id = "show_network",
    params(("network" = String, Path, description = "Id or name")),
    responses((status = 200, body = NetworkView), (status = "default", body = Problem)))]
async fn show(State(app): State<App>, Path(key): Path<String>) -> ApiResult<Json<NetworkView>> {
    app.read(|state| lookup::network(state, &key).map(|found| Json(views::network(state, found)))).await?
}

/// Delete a tenant network. Refused while a machine is on it.
#[utoipa::path(delete, path = "/api/v1/networks/{network}", tag = "networks", operation_id = "delete_network",
    params(("network" = String, Path, description = "Id or name")),
    responses((status = 204), (status = "default", body = Problem)))]
async fn delete(State(app): State<App>, Path(key): Path<String>) -> ApiResult<StatusCode> {
    let id = app.read(|state| lookup::network(state, &key).map(|found| found.id)).await??;
    app.propose(CommandBody::NetworkRemove { id }).await?;
    Ok(StatusCode::NO_CONTENT)
}
