//! A call over HTTP, by the same rules as an image's fetch: names are looked up here, every address is checked, the
//! connection is pinned to the checked ones.
//!
//! A redirect is followed only for GET and HEAD, only within the same origin (RFC 6454), and is checked like the first
//! address: the headers of a job may be credentials, and go nowhere else. Any other redirect is simply the answer.

use super::{Answer, Printer};
use crate::{
    image::{
        http::{client, resolve},
        url::{self, Allowed, Checked, UrlFault},
    },
    text::describe,
};
use novacron_common::{
    record::{AttemptEnd, AttemptOutcome},
    spec::{HttpMethod, HttpTarget, StatusRange},
};
use reqwest::{
    Method, Response,
    header::{
        CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, LOCATION, TRANSFER_ENCODING,
    },
};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};

/// Redirects that are followed.
const REDIRECTS_MAX: usize = 5;

/// Bytes of an answer that are read; what comes after them is left out.
const BODY_MAX: u64 = 64 << 20;

/// Headers that the call itself sets.
const OWN_HEADERS: [HeaderName; 4] = [HOST, CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION];

/// A call, checked but for the server's addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpCall {
    method: HttpMethod,
    url: String,
    headers: Vec<(String, String)>,
    body: Option<String>,
    expect: Vec<StatusRange>,
    /// `jobs.url_allow` of agent.toml.
    allow: Vec<String>,
}

/// A call that cannot be made as it is written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadCall {
    /// Its address.
    #[error("url {url:?} cannot be called")]
    Url {
        /// As given.
        url: String,
        /// Why.
        #[source]
        cause: UrlFault,
    },
    /// A header that is none.
    #[error("headers: {name:?} is not a header of HTTP (RFC 9110, section 5), or its value is not")]
    Header {
        /// Its name.
        name: String,
    },
    /// A header that is ours.
    #[error("headers: {name} is set by the call itself: leave it out")]
    OwnHeader {
        /// Its name.
        name: String,
    },
}

/// Checks a target. `variables` (`NOVACRON_JOB_ID` and the like) become headers (`novacron-job-id`).
///
/// # Errors
/// [`BadCall`].
pub fn plan(
    target: &HttpTarget,
    variables: &[(String, String)],
    allow: &[String],
) -> Result<HttpCall, BadCall> {
    let bad_url = |cause| BadCall::Url { url: target.url.clone(), cause };
    url::check(&target.url).map_err(bad_url)?;
    let ours = variables.iter().filter(|(name, _)| name.starts_with("NOVACRON_"));
    let ours = ours.map(|(name, value)| (name.to_ascii_lowercase().replace('_', "-"), value.clone()));
    let headers: Vec<_> = target.headers.iter().cloned().chain(ours).collect();
    header_map(&headers)?;
    Ok(HttpCall {
        method: target.method,
        url: target.url.clone(),
        headers,
        body: target.body.clone(),
        expect: if target.expect.is_empty() { vec![StatusRange::SUCCESS] } else { target.expect.clone() },
        allow: allow.to_vec(),
    })
}

fn header_map(headers: &[(String, String)]) -> Result<HeaderMap, BadCall> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let bad = || BadCall::Header { name: name.chars().take(80).collect() };
        let key: HeaderName = name.parse().map_err(|_| bad())?;
        if OWN_HEADERS.contains(&key) {
            return Err(BadCall::OwnHeader { name: name.clone() });
        }
        map.append(key, HeaderValue::from_str(value).map_err(|_| bad())?);
    }
    Ok(map)
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum NoAnswer {
    #[error("could not call {url}")]
    Url {
        url: String,
        #[source]
        cause: UrlFault,
    },
    #[error(transparent)]
    Call(#[from] BadCall),
    #[error("could not call {url}")]
    Http {
        url: String,
        #[source]
        cause: reqwest::Error,
    },
}

impl NoAnswer {
    /// Whether the server certainly has seen nothing of it.
    fn before_it_was_sent(&self) -> bool {
        match self {
            Self::Url { .. } | Self::Call(_) => true,
            Self::Http { cause, .. } => cause.is_connect() || cause.is_builder(),
        }
    }
}

/// Calls, and prints the status and the body. Success exits 0, another status with its number, and an answer that
/// never came whole with 1; a server that was not reached is a failed start.
pub(super) async fn ask(call: &HttpCall, printer: &mut Printer<'_>) -> Answer {
    let (outcome, result) = match answered(call, printer).await {
        Ok((status, result)) if call.expect.iter().any(|range| range.holds(status)) => {
            (AttemptOutcome::Exited(0), result)
        }
        Ok((status, result)) => (AttemptOutcome::Exited(status.into()), result),
        Err(error) if error.before_it_was_sent() => {
            (AttemptOutcome::FailedToStart { reason: describe(&error) }, None)
        }
        Err(error) => {
            printer.print(format!("\n[{}]\n", describe(&error)).as_bytes());
            (AttemptOutcome::Exited(1), None)
        }
    };
    Answer { outcome, result }
}

async fn answered(call: &HttpCall, printer: &mut Printer<'_>) -> Result<(u16, Option<String>), NoAnswer> {
    let response = follow(call).await?;
    let (status, url) = (response.status(), response.url().to_string());
    printer.print(format!("{:?} {status}\n\n", response.version()).as_bytes());
    let body = read(response, printer).await.map_err(|cause| NoAnswer::Http { url, cause })?;
    Ok((status.as_u16(), body))
}

async fn follow(call: &HttpCall) -> Result<Response, NoAnswer> {
    let refused = |url: &str| {
        let url = url.to_owned();
        move |cause| NoAnswer::Url { url, cause }
    };
    let mut next = url::check(&call.url).map_err(refused(&call.url))?;
    for _ in 0..=REDIRECTS_MAX {
        let response = send(call, &next).await?;
        let Some(location) = redirect(call, &response) else { return Ok(response) };
        let to = url::check_redirect(&next.url, &location).map_err(refused(&location))?;
        if to.url.origin() != next.url.origin() {
            return Err(refused(&location)(UrlFault::OtherOrigin));
        }
        next = to;
    }
    Err(refused(&call.url)(UrlFault::Redirects(REDIRECTS_MAX)))
}

/// Where to go on, if the answer is a redirect that is followed. One that was expected is an answer.
fn redirect(call: &HttpCall, response: &Response) -> Option<String> {
    let status = response.status();
    let is_safe = matches!(call.method, HttpMethod::Get | HttpMethod::Head);
    if !status.is_redirection() || !is_safe || call.expect.iter().any(|range| range.holds(status.as_u16())) {
        return None;
    }
    response.headers().get(LOCATION)?.to_str().ok().map(str::to_owned)
}

/// One request, to none but the checked addresses.
async fn send(call: &HttpCall, to: &Checked) -> Result<Response, NoAnswer> {
    let allowed: Vec<Allowed> = call.allow.iter().filter_map(|text| text.parse().ok()).collect();
    let addresses = resolve(to).await;
    let bare: Vec<IpAddr> = addresses.iter().map(SocketAddr::ip).collect();
    let url = || to.url.to_string();
    url::check_addresses(&to.host, &bare, &allowed).map_err(|cause| NoAnswer::Url { url: url(), cause })?;
    let failed = |cause| NoAnswer::Http { url: url(), cause };
    let request = client(to, &addresses).map_err(failed)?.request(method(call.method), to.url.clone());
    let request = request.headers(header_map(&call.headers)?);
    let request = match &call.body {
        Some(body) => request.body(body.clone()),
        None => request,
    };
    request.send().await.map_err(failed)
}

const fn method(method: HttpMethod) -> Method {
    match method {
        HttpMethod::Get => Method::GET,
        HttpMethod::Head => Method::HEAD,
        HttpMethod::Post => Method::POST,
        HttpMethod::Put => Method::PUT,
        HttpMethod::Patch => Method::PATCH,
        HttpMethod::Delete => Method::DELETE,
    }
}

/// Prints the body as it comes, and keeps its beginning as the result, as far as that is text.
async fn read(mut response: Response, printer: &mut Printer<'_>) -> Result<Option<String>, reqwest::Error> {
    let (mut head, mut total) = (Vec::new(), 0);
    while let Some(chunk) = response.chunk().await? {
        printer.print(&chunk);
        let room = AttemptEnd::RESULT_MAX - head.len();
        head.extend_from_slice(&chunk[..chunk.len().min(room)]);
        total += chunk.len() as u64;
        if total > BODY_MAX {
            printer.print(format!("\n[the answer goes on beyond {BODY_MAX} bytes]\n").as_bytes());
            break;
        }
    }
    Ok(super::text_of(head).filter(|text| !text.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(url: &str, headers: &[(&str, &str)]) -> HttpTarget {
        let headers = headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        HttpTarget { method: HttpMethod::Post, url: url.into(), headers, body: None, expect: Vec::new() }
    }

    #[test]
    fn a_call_is_checked_before_it_is_made_and_names_what_is_wrong() {
        let bad = |url: &str, headers: &[(&str, &str)]| plan(&target(url, headers), &[], &[]).unwrap_err();
        for url in ["file:///etc/passwd", "gopher://x/", "http://user:pw@example.org/", "x"] {
            assert!(matches!(bad(url, &[]), BadCall::Url { .. }), "{url}");
        }
        let url = "https://example.org/";
        for (name, value) in [("a b", "c"), ("", "c"), ("x", "a\r\nInjected: b"), ("x", "\0")] {
            assert!(matches!(bad(url, &[(name, value)]), BadCall::Header { .. }), "{name:?} {value:?}");
        }
        for name in ["Host", "content-length", "Transfer-Encoding"] {
            assert!(matches!(bad(url, &[(name, "1")]), BadCall::OwnHeader { .. }), "{name}");
        }
    }

    #[test]
    fn an_attempt_tells_who_it_is_and_expects_success_by_default() {
        let variables = [("NOVACRON_FIRE_ID".into(), "fire-1".into()), ("PATH".into(), "/bin".into())];
        let call = plan(&target("http://example.org/hook", &[("accept", "*/*")]), &variables, &[]).unwrap();
        assert_eq!(
            call.headers,
            [("accept".into(), "*/*".into()), ("novacron-fire-id".into(), "fire-1".into())]
        );
        assert_eq!(call.expect, [StatusRange::SUCCESS]);
    }
}
