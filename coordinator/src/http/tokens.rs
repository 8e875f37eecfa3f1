//! `/api/v1/tokens`: who may use the API, and the tickets with which a browser opens a WebSocket.

use super::{
    App,
    auth::Caller,
    extract::{Body, Params},
    problem::{ApiError, ApiResult},
    tickets,
};
use crate::identity::ApiToken;
use axum::{
    Extension, Json,
    extract::{Path, State},
    http::StatusCode,
};
use novacron_common::{
    api::{Page, PageQuery, Problem, ProblemCode, TokenCreate, TokenCreated, TokenView, WsTicket},
    spec::Faults,
};
use novacron_core::{Applied, CommandBody, command::TokenPut, lists};
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(delete)).routes(routes!(ticket))
}

/// List API tokens, without their secrets.
#[utoipa::path(get, path = "/api/v1/tokens", tag = "tokens", operation_id = "list_tokens", params(PageQuery),
    responses((status = 200, body = Page<TokenView>), (status = "default", body = Problem)))]
async fn list(State(app): State<App>, Params(query): Params<PageQuery>) -> ApiResult<Json<Page<TokenView>>> {
    Ok(Json(app.read(|state| lists::tokens(state, &query)).await??))
}

/// Make an API token. Its secret is shown once.
#[utoipa::path(post, path = "/api/v1/tokens", tag = "tokens", operation_id = "create_token",
    request_body = TokenCreate,
    responses((status = 201, body = TokenCreated), (status = "default", body = Problem)))]
async fn create(
    State(app): State<App>,
    Body(body): Body<TokenCreate>,
) -> ApiResult<(StatusCode, Json<TokenCreated>)> {
    let mut faults = Faults::default();
    let name = faults.take("name", body.name.parse());
    let name = faults.into_result(name)?;
    let token = ApiToken::generate()?;
    let put = TokenPut { id: token.id, name, role: body.role, secret_sha256: token.secret_sha256() };
    if app.propose(CommandBody::TokenPut(put)).await? != Applied::TokenStored(token.id) {
        return Err(secret_lost());
    }
    Ok((StatusCode::CREATED, Json(TokenCreated { id: token.id, token: token.to_string() })))
}

/// An earlier request with the same key made a token, and its answer was lost with the coordinator that made it.
pub fn secret_lost() -> ApiError {
    ApiError::new(
        ProblemCode::Conflict,
        "the token was made, and its secret was lost before it could be answered",
    )
    .fix("make another one with a new Idempotency-Key")
}

/// Remove an API token. It is worth nothing from now on.
#[utoipa::path(delete, path = "/api/v1/tokens/{token}", tag = "tokens", operation_id = "delete_token",
    params(("token" = String, Path, description = "Id")),
    responses((status = 204), (status = "default", body = Problem)))]
async fn delete(State(app): State<App>, Path(key): Path<String>) -> ApiResult<StatusCode> {
    let id = key.parse().map_err(|_| ApiError::not_found("token", &key))?;
    app.propose(CommandBody::TokenRemove { id }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Get a ticket for one WebSocket at any coordinator, for clients that cannot send a header with it.
#[utoipa::path(post, path = "/api/v1/ws/tickets", tag = "events", operation_id = "create_ws_ticket",
    responses((status = 201, body = WsTicket), (status = "default", body = Problem)))]
async fn ticket(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
) -> ApiResult<(StatusCode, Json<WsTicket>)> {
    let ticket = tickets::issue(&app, caller.role).await?;
    let expires_in = u32::try_from(tickets::VALIDITY.as_secs()).unwrap_or(u32::MAX);
    Ok((StatusCode::CREATED, Json(WsTicket { ticket, expires_in })))
}
