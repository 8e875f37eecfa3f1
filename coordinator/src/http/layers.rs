//! What happens around every request: measuring, a time-out, and no panic that ends a connection.

use super::{App, problem};
use crate::metrics::Served;
use axum::{
    Router,
    extract::{DefaultBodyLimit, MatchedPath, Request, State},
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
};
use std::time::{Duration, Instant};
use tower_http::catch_panic::CatchPanicLayer;

/// How long a handler may take. Long work answers 202 at once; a stream is upgraded at once.
const HANDLER_TIMEOUT: Duration = Duration::from_secs(30);

/// Wraps a router whose authentication is already in place.
pub fn around(router: Router<App>, app: &App) -> Router<App> {
    router
        .layer(DefaultBodyLimit::max(super::extract::BODY_MAX))
        .layer(from_fn(time_out))
        .layer(CatchPanicLayer::custom(problem::panicked))
        .layer(from_fn_with_state(app.clone(), measure))
}

async fn time_out(request: Request, next: Next) -> Response {
    match tokio::time::timeout(HANDLER_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => problem::took_too_long().into_response(),
    }
}

async fn measure(State(app): State<App>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let response = next.run(request).await;
    let endpoint = route.as_ref().map_or("unmatched", MatchedPath::as_str);
    let status = response.status().as_u16();
    let took = began.elapsed();
    app.metrics.served(&Served { method: method_label(&method), endpoint, status, took });
    tracing::debug!(%method, endpoint, status, took_us = took.as_micros(), "served");
    response
}

/// A client may invent methods; each would be a series.
fn method_label(method: &axum::http::Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        "PATCH" => "PATCH",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}
