//! Who asks, and may they: a bearer token (RFC 6750) from the header, or for a WebSocket a single-use ticket.
//! Only `/health…` is open.
//!
//! The documentation is for people with a browser, which sends no bearer token by itself but asks for a password:
//! there, and only there, the token is also taken as the password of Basic authentication (RFC 7617). Elsewhere it
//! is not, because a browser adds such a password to requests that other sites made it send.

use super::{
    App,
    openapi::{DOCUMENT_PATH, PAGE_PATH},
    problem::{ApiError, ApiResult},
    tickets,
};
use crate::identity::ApiToken;
use axum::{
    extract::{Query, Request, State},
    http::{HeaderMap, HeaderValue, Method, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use novacron_common::{
    api::{ProblemCode, TokenRole},
    ids::TokenId,
};
use serde::Deserialize;

/// What the token of a request may do; an extension of the request.
#[derive(Debug, Clone, Copy)]
pub struct Caller {
    /// Its rights.
    pub role: TokenRole,
    /// Its token; `None` if it came with a ticket.
    pub token: Option<TokenId>,
}

/// Refuses what is not allowed, before any handler runs.
pub async fn guard(State(app): State<App>, mut request: Request, next: Next) -> Response {
    if is_open(request.uri().path()) {
        return next.run(request).await;
    }
    let browsable = is_documentation(request.method(), request.uri().path());
    let asked = Asked::of(&request, browsable);
    match asked.admit(&app).await {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(error) => refuse(error, browsable),
    }
}

/// Where a browser may come, a 401 makes it ask for a password.
fn refuse(error: ApiError, browsable: bool) -> Response {
    const ASK: HeaderValue = HeaderValue::from_static(r#"Basic realm="NovaCron", charset="UTF-8""#);
    let asks = browsable && error.problem().code == ProblemCode::Unauthenticated;
    let mut response = error.into_response();
    if asks {
        response.headers_mut().append(header::WWW_AUTHENTICATE, ASK);
    }
    response
}

/// The document, its page and the page's parts.
fn is_documentation(method: &Method, path: &str) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
        && (path == DOCUMENT_PATH || path == PAGE_PATH || path.starts_with("/docs/"))
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
    fn of(request: &Request, browsable: bool) -> Self {
        Self {
            changes: changes(request.method(), request.uri().path()),
            ticket: ticket(request),
            token: token(request.headers(), browsable),
        }
    }

    async fn admit(self, app: &App) -> ApiResult<Caller> {
        let caller = match (self.ticket, self.token) {
            (_, Ok(token)) => by_token(app, &token).await?,
            (Some(ticket), Err(_)) => Caller { role: tickets::spend(app, &ticket).await?, token: None },
            (None, Err(error)) => return Err(error),
        };
        if caller.role == TokenRole::Reader && self.changes {
            return Err(ApiError::new(ProblemCode::Forbidden, "this token may look, but change nothing")
                .fix("use a token whose role is admin"));
        }
        Ok(caller)
    }
}

/// Everything there is, in one file: not for everybody who may look.
const BACKUP_PATH: &str = "/api/v1/cluster/backup";

/// Whether a request changes anything, or is as weighty. A ticket is for looking; a console is the guest's
/// keyboard, and so is a command in it.
fn changes(method: &Method, path: &str) -> bool {
    let looks =
        matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) || path == "/api/v1/ws/tickets";
    !looks || path.ends_with("/console") || path.ends_with("/exec") || path == BACKUP_PATH
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

/// The token of a request, as a bearer or, where a browser may come, as a password.
fn token(headers: &HeaderMap, browsable: bool) -> ApiResult<ApiToken> {
    let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let (scheme, credentials) = value.and_then(|text| text.split_once(' ')).ok_or_else(missing)?;
    if scheme.eq_ignore_ascii_case("bearer") {
        credentials.trim().parse().map_err(|_| not_valid())
    } else if browsable && scheme.eq_ignore_ascii_case("basic") {
        password(credentials.trim()).and_then(|token| token.parse().ok()).ok_or_else(not_valid)
    } else {
        Err(missing())
    }
}

/// What follows the user's name (of which nothing is asked) in Basic credentials.
fn password(credentials: &str) -> Option<String> {
    let text = String::from_utf8(STANDARD.decode(credentials).ok()?).ok()?;
    text.split_once(':').map(|(_, password)| password.trim().to_owned())
}

fn missing() -> ApiError {
    ApiError::new(ProblemCode::Unauthenticated, "no token was sent").fix(
        "send Authorization: Bearer nva1.…, as `novacron-coordinator init` or `novactl token create` printed it \
         (on /docs a browser may send it as the password, with any user name)",
    )
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
        token.is(&record.secret_sha256).then_some(Caller { role: record.role, token: Some(token.id) })
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
        assert!(changes(&Method::GET, "/api/v1/vms/x/exec"));
    }

    fn headers(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())])
    }

    #[test]
    fn a_header_without_a_bearer_token_is_refused() {
        for value in ["", "Basic abc", "nva1.x", "Bearer", "Bearer nope", "Basic OjpueGE="] {
            for browsable in [false, true] {
                let error = token(&headers(value), browsable).unwrap_err();
                assert_eq!(error.problem().status, 401, "{value:?}");
            }
        }
        assert_eq!(token(&HeaderMap::new(), true).unwrap_err().problem().status, 401);
    }

    #[test]
    fn a_password_is_a_token_only_on_the_documentation() {
        let made = ApiToken::generate().unwrap();
        let basic = headers(&format!("Basic {}", STANDARD.encode(format!("anyone:{made}"))));
        assert_eq!(token(&basic, true).unwrap().id, made.id);
        assert!(token(&basic, false).is_err());
        for path in ["/docs", "/docs/", "/docs/swagger-ui.css", DOCUMENT_PATH] {
            assert!(is_documentation(&Method::GET, path) && !is_documentation(&Method::POST, path), "{path}");
        }
        for path in ["/", "/docsx", "/api/v1/vms", "/api/v1/openapi.json/x", "/metrics"] {
            assert!(!is_documentation(&Method::GET, path), "{path}");
        }
    }
}
