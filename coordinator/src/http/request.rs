//! What a request asks of the ledger: how fresh its reads must be (`?stale=`), and the key under which it may be
//! repeated (`Idempotency-Key`). Taken off the request before a handler sees it.

use super::{
    App, idempotency,
    problem::{ApiError, ApiResult},
};
use crate::raft::{Reads, Serving};
use axum::{
    extract::{Request, State},
    http::{HeaderName, HeaderValue, Method, Uri, uri::PathAndQuery},
    middleware::Next,
    response::{IntoResponse, Response},
};
use novacron_common::api::parse_duration;
use std::time::Duration;

/// How old what a stale read shows may be, milliseconds; `unknown` if this coordinator has heard from no majority
/// since its start.
const STALE_AGE: HeaderName = HeaderName::from_static("novacron-stale-age-ms");

/// Serves a request as it asks.
pub async fn serve(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let reads = match take_stale(&mut request) {
        Ok(reads) => reads,
        Err(error) => return error.into_response(),
    };
    if *request.method() == Method::POST && request.headers().contains_key(idempotency::HEADER) {
        return idempotency::serve(app, request, next).await;
    }
    let serving = Serving::new(reads, None);
    let mut response = serving.clone().serve(next.run(request)).await;
    if let (Reads::Stale { .. }, Some(age)) = (reads, serving.age()) {
        response.headers_mut().insert(STALE_AGE, age_text(age));
    }
    response
}

fn age_text(age: Option<Duration>) -> HeaderValue {
    match age {
        // Rounded up: a read is never said to be newer than it is.
        Some(age) => HeaderValue::from(u64::try_from(age.as_micros().div_ceil(1000)).unwrap_or(u64::MAX)),
        None => HeaderValue::from_static("unknown"),
    }
}

/// Takes `stale` out of the query: handlers refuse parameters that they do not know.
fn take_stale(request: &mut Request) -> ApiResult<Reads> {
    let Some((value, uri)) = without_stale(request.uri()) else { return Ok(Reads::Linearizable) };
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Err(ApiError::field("stale", "is for reads: a change is always made to the present state"));
    }
    let reads = parse(&value)?;
    *request.uri_mut() = uri;
    Ok(reads)
}

/// The value of the last `stale` parameter, and the address without any.
fn without_stale(uri: &Uri) -> Option<(String, Uri)> {
    let is_stale = |pair: &&str| *pair == "stale" || pair.starts_with("stale=");
    let (stale, rest): (Vec<&str>, Vec<&str>) = uri.query()?.split('&').partition(|pair| is_stale(pair));
    let value = stale.last()?.strip_prefix("stale=").unwrap_or("true").to_owned();
    let query = rest.join("&");
    let path = uri.path();
    let text = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
    let mut parts = uri.clone().into_parts();
    // A part of what was valid is valid.
    parts.path_and_query = Some(text.parse::<PathAndQuery>().ok()?);
    Some((value, Uri::from_parts(parts).ok()?))
}

fn parse(value: &str) -> ApiResult<Reads> {
    match value {
        "true" | "" => Ok(Reads::Stale { max_age: None }),
        "false" => Ok(Reads::Linearizable),
        text => match parse_duration(text) {
            Some(ms) => Ok(Reads::Stale { max_age: Some(Duration::from_millis(ms)) }),
            None => {
                let text: String = text.chars().take(40).collect();
                Err(ApiError::field(
                    "stale",
                    format!("{text:?} must be true, false or a duration such as 5s"),
                ))
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(uri: &str) -> Option<(String, String)> {
        without_stale(&uri.parse().unwrap()).map(|(value, uri)| (value, uri.to_string()))
    }

    #[test]
    fn the_parameter_is_taken_out_and_the_others_stay() {
        let is = |value: &str, uri: &str| Some((value.to_owned(), uri.to_owned()));
        assert_eq!(taken("/api/v1/vms"), None);
        assert_eq!(taken("/api/v1/vms?limit=3&stalewart=1"), None);
        assert_eq!(taken("/api/v1/vms?stale=5s"), is("5s", "/api/v1/vms"));
        assert_eq!(
            taken("/api/v1/vms?limit=3&stale=true&status=up"),
            is("true", "/api/v1/vms?limit=3&status=up")
        );
        assert_eq!(taken("/api/v1/vms?stale"), is("true", "/api/v1/vms"));
    }

    #[test]
    fn a_limit_is_a_duration() {
        assert_eq!(parse("true").unwrap(), Reads::Stale { max_age: None });
        assert_eq!(parse("false").unwrap(), Reads::Linearizable);
        assert_eq!(parse("250ms").unwrap(), Reads::Stale { max_age: Some(Duration::from_millis(250)) });
        for bad in ["5", "-5s", "soon", "5 s", "99999999999999999999s"] {
            assert_eq!(parse(bad).unwrap_err().problem().details[0].field, "stale", "{bad}");
        }
    }

    #[test]
    fn an_age_is_rounded_up() {
        assert_eq!(age_text(Some(Duration::from_micros(1001))), "2");
        assert_eq!(age_text(Some(Duration::ZERO)), "0");
        assert_eq!(age_text(None), "unknown");
    }
}
