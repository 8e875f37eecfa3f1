//! Who asks, and may they: a bearer token (RFC 6750) from the header, or for a WebSocket a single-use ticket.
//! Only `/health…` is open.

use super::{
    App,
    problem::{ApiError, ApiResult},
};
use crate::identity::ApiToken;
use axum::{
    extract::{Query, Request, State},
    http::{HeaderMap, Method, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use novacron_common::api::{ProblemCode, TokenRole};
use serde::Deserialize;
use std::time::Instant;

/// What the token of a request may do; an extension of the request.
#[derive(Debug, Clone, Copy)]
pub struct Caller {
    /// Its rights.
    pub role: TokenRole,
}

/// Refuses what is not allowed, before any handler runs.
pub async fn guard(State(app): State<App>, mut request: Request, next: Next) -> Response {
    if is_open(request.uri().path()) {
        return next.run(request).await;
    }
    let asked = Asked::of(&request);
    match asked.admit(&app).await {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(error) => error.into_response(),
    }
}

/// A load balancer and an operator in need must get these without a token.
fn is_open(path: &str) -> bool {
    matches!(path, "/health" | "/health/live" | "/health/ready")
}

/// What of a request matters here. Taken out before anything is awaited: a body cannot be shared between threads.
struct Asked {
    changes: bool,
    ticket: Option<String>,
    token: ApiResult<ApiToken>,
}

impl Asked {
    fn of(request: &Request) -> Self {
        Self {
            changes: changes(request.method(), request.uri().path()),
            ticket: ticket(request),
            token: bearer(request.headers()),
        }
    }

    async fn admit(self, app: &App) -> ApiResult<Caller> {
        let by_ticket = self.ticket.and_then(|ticket| app.tickets.spend(&ticket, Instant::now()));
        let caller = match by_ticket {
            Some(role) => Caller { role },
            None => by_token(app, &self.token?).await?,
        };
        if caller.role == TokenRole::Reader && self.changes {
            return Err(ApiError::new(ProblemCode::Forbidden, "this token may look, but change nothing")
                .fix("use a token whose role is admin"));
        }
        Ok(caller)
    }
}

/// Whether a request changes anything. A ticket is for looking; a console is the guest's keyboard.
fn changes(method: &Method, path: &str) -> bool {
    let looks =
        matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) || path == "/api/v1/ws/tickets";
    !looks || path.ends_with("/console")
}

#[derive(Deserialize)]
struct TicketQuery {
    ticket: String,
}

/// Only a WebSocket may come with a ticket.
fn ticket(request: &Request) -> Option<String> {
    let upgrades = request.headers().get(header::UPGRADE)?.as_bytes().eq_ignore_ascii_case(b"websocket");
    let Query(query) = Query::<TicketQuery>::try_from_uri(request.uri()).ok()?;
    upgrades.then_some(query.ticket)
}

fn bearer(headers: &HeaderMap) -> ApiResult<ApiToken> {
    let missing = || {
        ApiError::new(ProblemCode::Unauthenticated, "no token was sent")
            .fix("send Authorization: Bearer nva1.…, as `novacron-coordinator init` or `novactl token create` printed it")
    };
    let value = headers.get(header::AUTHORIZATION).ok_or_else(missing)?;
    let text = value.to_str().map_err(|_| missing())?;
    let (scheme, token) = text.split_once(' ').ok_or_else(missing)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(missing());
    }
    token.trim().parse().map_err(|_| not_valid())
}

async fn by_token(app: &App, token: &ApiToken) -> ApiResult<Caller> {
    if let Some(caller) = look_up(app, token) {
        return Ok(caller);
    }
    // A token that was made a moment ago on another coordinator may not have reached this one.
    app.ledger.linearizable().await?;
    look_up(app, token).ok_or_else(not_valid)
}

fn look_up(app: &App, token: &ApiToken) -> Option<Caller> {
    app.ledger.read(|state| {
        let record = state.api_token(token.id)?;
        token.is(&record.secret_sha256).then_some(Caller { role: record.role })
    })
}

fn not_valid() -> ApiError {
    ApiError::new(ProblemCode::Unauthenticated, "the token is not valid")
        .fix("it may have been removed: make a new one with `novactl token create`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_health_is_open() {
        for open in ["/health", "/health/live", "/health/ready"] {
            assert!(is_open(open));
        }
        for shut in ["/", "/metrics", "/docs", "/api/v1/openapi.json", "/health/", "/health/../metrics"] {
            assert!(!is_open(shut), "{shut}");
        }
    }

    #[test]
    fn a_reader_looks_but_does_not_type_into_a_console() {
        assert!(!changes(&Method::GET, "/api/v1/vms"));
        assert!(!changes(&Method::POST, "/api/v1/ws/tickets"));
        assert!(changes(&Method::POST, "/api/v1/vms"));
        assert!(changes(&Method::DELETE, "/api/v1/vms/x"));
        assert!(changes(&Method::GET, "/api/v1/vms/x/console"));
    }

    #[test]
    fn a_header_without_a_bearer_token_is_refused() {
        for value in ["", "Basic abc", "nva1.x", "Bearer", "Bearer nope"] {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            assert_eq!(bearer(&headers).unwrap_err().problem().status, 401, "{value:?}");
        }
        assert_eq!(bearer(&HeaderMap::new()).unwrap_err().problem().status, 401);
    }
}
