//! `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header): a POST that is repeated with its key is done once
//! and answered alike, at any coordinator, also after a change of leader or a restart.
//!
//! The key is committed in one command with what the request changes, so that there is no moment at which only one
//! of both is there. The answer follows in a second command. A repetition gets that answer; if a coordinator died
//! between the two, the handler runs again, its command answers with what came of the first, and the answer is made
//! anew from that. A request that was refused changed nothing and keeps no key.

use super::{
    App,
    auth::Caller,
    extract::BODY_MAX,
    problem::{ApiError, ApiResult},
};
use crate::{
    identity::sha256,
    raft::{Key, Reads, Serving},
};
use axum::{
    body::{Body, Bytes, to_bytes},
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use novacron_common::{api::ProblemCode, ids::TokenId};
use novacron_core::{
    ANSWER_MAX, CommandBody, Refusal,
    command::RequestAnswered,
    record::{Answer, RequestKey},
};

/// The request header.
pub const HEADER: HeaderName = HeaderName::from_static("idempotency-key");
/// Says that an answer is that of an earlier request.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// Longest key, bytes.
const KEY_MAX: usize = 200;
/// What sealing adds to an answer, and a little more.
const SEAL_OVERHEAD: usize = 64;

/// Serves a POST that carries a key.
pub async fn serve(app: App, request: Request, next: Next) -> Response {
    match attempt(&app, request, next).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    }
}

async fn attempt(app: &App, request: Request, next: Next) -> ApiResult<Response> {
    let (parts, body) = request.into_parts();
    let text = key_of(&parts.headers)?.to_owned();
    let token = parts.extensions.get::<Caller>().and_then(|caller| caller.token);
    // A body that is too long is refused as without a key.
    let body = to_bytes(body, BODY_MAX).await.map_err(|_| {
        ApiError::new(ProblemCode::TooLarge, format!("the body is longer than {BODY_MAX} bytes"))
    })?;
    let key = Key { key: filed_under(token, &text), fingerprint: fingerprint(&parts, &body) };
    if let Some(response) = kept(app, &key)? {
        return Ok(response);
    }
    let serving = Serving::new(Reads::Linearizable, Some(key));
    let request = Request::from_parts(parts, Body::from(body));
    let response = serving.clone().serve(next.run(request)).await;
    match serving.is_keyed() && response.status().is_success() {
        true => Ok(keep(app, &key, response).await),
        false => Ok(response),
    }
}

/// The key, which a client chooses.
fn key_of(headers: &HeaderMap) -> ApiResult<&str> {
    let bad = || {
        ApiError::field(
            "Idempotency-Key",
            format!("must be 1 to {KEY_MAX} printable ASCII characters, sent once"),
        )
    };
    let mut values = headers.get_all(HEADER).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => {
            let text = value.to_str().map_err(|_| bad())?;
            let fits = (1..=KEY_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
            if fits { Ok(text) } else { Err(bad()) }
        }
        _ => Err(bad()),
    }
}

/// Two callers that choose the same key do not meet.
fn filed_under(token: Option<TokenId>, key: &str) -> RequestKey {
    let owner = token.map(|token| token.to_string()).unwrap_or_default();
    RequestKey(sha256(format!("{owner}\0{key}").as_bytes()).0)
}

fn fingerprint(parts: &Parts, body: &Bytes) -> novacron_common::spec::Sha256Digest {
    let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
    let head = format!("{}\0{target}\0", parts.method);
    sha256(&[head.as_bytes(), body].concat())
}

/// The answer that this node's ledger has. One that it has not received yet is found when the command is applied.
fn kept(app: &App, key: &Key) -> ApiResult<Option<Response>> {
    let known = app.ledger.read(|state| {
        state.request(&key.key).map(|known| (known.fingerprint == key.fingerprint, known.answer.clone()))
    });
    match known {
        None | Some((true, None)) => Ok(None),
        Some((false, _)) => Err(Refusal::key_reused().into()),
        Some((true, Some(answer))) => Ok(Some(replay(app, &answer)?)),
    }
}

fn replay(app: &App, answer: &Answer) -> ApiResult<Response> {
    let body = app.parts.authority.unseal_answer(&answer.sealed)?;
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    let mut response = (status, body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
    Ok(response)
}

/// Keeps the answer for repetitions. If that fails, a repetition is answered anew.
async fn keep(app: &App, key: &Key, response: Response) -> Response {
    let (parts, body) = response.into_parts();
    // Handlers answer with buffers of their own making.
    let Ok(body) = to_bytes(body, usize::MAX).await else {
        return ApiError::new(ProblemCode::Internal, "the answer could not be read").into_response();
    };
    if body.len() + SEAL_OVERHEAD <= ANSWER_MAX
        && let Err(error) = commit(app, key, parts.status, &body).await
    {
        tracing::debug!(%error, "an answer was not kept for repetitions");
    }
    Response::from_parts(parts, Body::from(body))
}

async fn commit(app: &App, key: &Key, status: StatusCode, body: &[u8]) -> anyhow::Result<()> {
    let sealed = app.parts.authority.seal_answer(body)?;
    let answer = Answer { status: status.as_u16(), sealed };
    let command = RequestAnswered { key: key.key, answer };
    app.ledger.propose(CommandBody::RequestAnswered(Box::new(command))).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(values: &[&str]) -> ApiResult<String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(HEADER, value.parse().unwrap());
        }
        key_of(&headers).map(str::to_owned)
    }

    #[test]
    fn a_key_is_short_printable_and_alone() {
        assert_eq!(key(&["a-1"]).unwrap(), "a-1");
        assert!(key(&[&"k".repeat(KEY_MAX)]).is_ok());
        for bad in [vec![""], vec!["a b"], vec!["a", "a"], vec!["\u{e4}"]] {
            assert_eq!(key(&bad).unwrap_err().problem().details[0].field, "Idempotency-Key", "{bad:?}");
        }
        assert!(key(&[&"k".repeat(KEY_MAX + 1)]).is_err());
    }

    #[test]
    fn callers_and_requests_are_told_apart() {
        let (one, two) = (Some(TokenId::from_u128(1)), Some(TokenId::from_u128(2)));
        assert_eq!(filed_under(one, "k"), filed_under(one, "k"));
        assert_ne!(filed_under(one, "k"), filed_under(two, "k"));
        assert_ne!(filed_under(one, "k"), filed_under(one, "l"));
        let print = |method: &str, uri: &str, body: &'static str| {
            let request = Request::builder().method(method).uri(uri).body(()).unwrap();
            fingerprint(&request.into_parts().0, &Bytes::from_static(body.as_bytes()))
        };
        let first = print("POST", "/a", "{}");
        assert_eq!(print("POST", "/a", "{}"), first);
        for other in [print("POST", "/b", "{}"), print("POST", "/a?x=1", "{}"), print("POST", "/a", "{ }")] {
            assert_ne!(other, first);
        }
    }
}
