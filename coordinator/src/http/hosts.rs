//! `/api/v1/hosts`: hypervisor hosts, and the tokens with which they join.

use super::{
    App,
    extract::{OptionalBody, Params},
    lookup,
    problem::{ApiError, ApiResult},
};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use novacron_common::{
    api::{HostView, JoinTokenCreate, JoinTokenCreated, JoinTokenRole, Page, PageQuery, Problem},
    ids::HostId,
};
use novacron_core::{
    CommandBody,
    command::{HostCordon, HostRemove},
    lists, views,
};
use serde::Deserialize;
use std::time::Duration;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

/// A join token's validity where none is asked for.
const TTL_DEFAULT_SECONDS: u32 = 3600;
/// The longest validity: a week.
const TTL_MAX_SECONDS: u32 = 7 * 24 * 3600;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show, remove))
        .routes(routes!(cordon))
        .routes(routes!(uncordon))
        .routes(routes!(fence))
        .routes(routes!(join_token))
}

/// List hosts.
#[utoipa::path(get, path = "/api/v1/hosts", tag = "hosts", operation_id = "list_hosts", params(PageQuery),
    responses((status = 200, body = Page<HostView>), (status = "default", body = Problem)))]
async fn list(State(app): State<App>, Params(query): Params<PageQuery>) -> ApiResult<Json<Page<HostView>>> {
    let page = app.read(|state| lists::hosts(state, &query)).await??;
    Ok(Json(Page { items: page.items.into_iter().map(|h| fresh(&app, h)).collect(), ..page }))
}

/// Show a host.
#[utoipa::path(get, path = "/api/v1/hosts/{host}", tag = "hosts", operation_id = "show_host",
    params(("host" = String, Path, description = "Id or name")),
    responses((status = 200, body = HostView), (status = "default", body = Problem)))]
async fn show(State(app): State<App>, Path(key): Path<String>) -> ApiResult<Json<HostView>> {
    let view = app.read(|state| lookup::host(state, &key).map(|host| views::host(state, host))).await??;
    Ok(Json(fresh(&app, view)))
}

/// The ledger learns of changes only; who has the host's session knows when it was last heard.
fn fresh(app: &App, mut view: HostView) -> HostView {
    view.last_seen = view.last_seen.max(app.agents.last_heard(view.id));
    view
}

async fn find(app: &App, key: &str) -> ApiResult<HostId> {
    app.read(|state| lookup::host(state, key).map(|host| host.id)).await?
}

/// Query of a removal.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct RemoveQuery {
    /// Remove it although machines or attempts are on it: you vouch that it is off and stays off.
    #[serde(default)]
    force: bool,
}

/// Remove a host. Its agent is cut off at once.
#[utoipa::path(delete, path = "/api/v1/hosts/{host}", tag = "hosts", operation_id = "remove_host",
    params(("host" = String, Path, description = "Id or name"), RemoveQuery),
    responses((status = 204), (status = "default", body = Problem)))]
async fn remove(
    State(app): State<App>,
    Path(key): Path<String>,
    Params(query): Params<RemoveQuery>,
) -> ApiResult<StatusCode> {
    let host = find(&app, &key).await?;
    app.propose(CommandBody::HostRemove(HostRemove { host, force: query.force })).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Keep new machines off a host.
#[utoipa::path(post, path = "/api/v1/hosts/{host}/cordon", tag = "hosts", operation_id = "cordon_host",
    params(("host" = String, Path, description = "Id or name")),
    responses((status = 200, body = HostView), (status = "default", body = Problem)))]
async fn cordon(State(app): State<App>, Path(key): Path<String>) -> ApiResult<Json<HostView>> {
    set_cordon(&app, &key, true).await
}

/// Let new machines onto a host again.
#[utoipa::path(post, path = "/api/v1/hosts/{host}/uncordon", tag = "hosts", operation_id = "uncordon_host",
    params(("host" = String, Path, description = "Id or name")),
    responses((status = 200, body = HostView), (status = "default", body = Problem)))]
async fn uncordon(State(app): State<App>, Path(key): Path<String>) -> ApiResult<Json<HostView>> {
    set_cordon(&app, &key, false).await
}

/// Declare a host off that is out of sight: you vouch that nothing runs there any more. Its attempts count as lost,
/// and are tried elsewhere as their jobs say; should it come back with one all the same, that is killed.
#[utoipa::path(post, path = "/api/v1/hosts/{host}/fence", tag = "hosts", operation_id = "fence_host",
    params(("host" = String, Path, description = "Id or name")),
    responses((status = 200, body = HostView), (status = "default", body = Problem)))]
async fn fence(State(app): State<App>, Path(key): Path<String>) -> ApiResult<Json<HostView>> {
    let host = find(&app, &key).await?;
    app.propose(CommandBody::HostFence { host }).await?;
    show(State(app.clone()), Path(host.to_string())).await
}

async fn set_cordon(app: &App, key: &str, cordoned: bool) -> ApiResult<Json<HostView>> {
    let host = find(app, key).await?;
    app.propose(CommandBody::HostCordon(HostCordon { host, cordoned })).await?;
    show(State(app.clone()), Path(host.to_string())).await
}

/// Make a one-time token with which a host (or a further coordinator) joins.
#[utoipa::path(post, path = "/api/v1/hosts/join-tokens", tag = "hosts", operation_id = "create_join_token",
    request_body = Option<JoinTokenCreate>,
    responses((status = 201, body = JoinTokenCreated), (status = "default", body = Problem)))]
async fn join_token(
    State(app): State<App>,
    OptionalBody(body): OptionalBody<JoinTokenCreate>,
) -> ApiResult<(StatusCode, Json<JoinTokenCreated>)> {
    let seconds = body.ttl_seconds.unwrap_or(TTL_DEFAULT_SECONDS);
    if !(1..=TTL_MAX_SECONDS).contains(&seconds) {
        return Err(ApiError::field("ttl_seconds", format!("must be 1 to {TTL_MAX_SECONDS} (a week)")));
    }
    if body.replaces.is_some() && body.role != JoinTokenRole::Coordinator {
        return Err(ApiError::field("replaces", "is for a token whose role is coordinator"));
    }
    let (validity, replaces) = (Duration::from_secs(u64::from(seconds)), body.replaces);
    let made = app.parts.authority.join_token(body.role, validity, replaces).await?;
    Ok((StatusCode::CREATED, Json(made)))
}
