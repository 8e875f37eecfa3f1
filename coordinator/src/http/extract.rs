//! Bodies and queries whose faults name the field, as problems: axum's own extractors answer in plain text.

use super::problem::{ApiError, ApiResult};
use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Query, Request},
    http::{StatusCode, request::Parts},
    response::IntoResponse,
};
use novacron_common::api::ProblemCode;
use serde::de::DeserializeOwned;

/// Longest request body, bytes. A VM's largest part is its user-data (16 KiB).
pub const BODY_MAX: usize = 1 << 20;

/// A JSON body.
#[derive(Debug)]
pub struct Body<T>(pub T);

/// A JSON body that may be left out.
#[derive(Debug)]
pub struct OptionalBody<T>(pub T);

/// A query string.
#[derive(Debug)]
pub struct Params<T>(pub T);

async fn bytes<S: Send + Sync>(request: Request, state: &S) -> ApiResult<Bytes> {
    Bytes::from_request(request, state).await.map_err(|rejection| {
        let text = rejection.body_text();
        match rejection.into_response().status() {
            StatusCode::PAYLOAD_TOO_LARGE => {
                ApiError::new(ProblemCode::TooLarge, format!("the body is longer than {BODY_MAX} bytes"))
            }
            _ => ApiError::new(ProblemCode::InvalidRequest, format!("the body could not be read: {text}")),
        }
    })
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = ApiError;
    async fn from_request(request: Request, state: &S) -> ApiResult<Self> {
        parse(&bytes(request, state).await?).map(Self)
    }
}

impl<S: Send + Sync, T: DeserializeOwned + Default> FromRequest<S> for OptionalBody<T> {
    type Rejection = ApiError;
    async fn from_request(request: Request, state: &S) -> ApiResult<Self> {
        let bytes = bytes(request, state).await?;
        if bytes.iter().all(u8::is_ascii_whitespace) {
            Ok(Self(T::default()))
        } else {
            parse(&bytes).map(Self)
        }
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> ApiResult<Self> {
        Query::try_from_uri(&parts.uri).map(|Query(params)| Self(params)).map_err(|rejection| {
            let text = rejection.body_text();
            let reason = text.split_once(": ").map_or(text.as_str(), |(_, reason)| reason);
            ApiError::field(query_field(reason), reason)
        })
    }
}

/// axum says either `limit: invalid digit …` or ``unknown field `x`, expected …``.
fn query_field(reason: &str) -> String {
    quoted_field(reason)
        .or_else(|| reason.split_once(": ").map(|(field, _)| field))
        .unwrap_or("query")
        .to_owned()
}

/// Parses a body; a fault names the field's path, the line and the column.
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> ApiResult<T> {
    // serde would take a list for a struct, field by field.
    if bytes.trim_ascii_start().first() == Some(&b'[') {
        return Err(ApiError::field("body", "must be a JSON object, not a list, at line 1 column 1"));
    }
    let mut from = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut from).map_err(|e| {
        let path = e.path().to_string();
        let cause = e.into_inner();
        ApiError::field(body_field(&path, &cause), cause.to_string())
    })?;
    from.end().map_err(|e| ApiError::field("body", e.to_string()))?;
    Ok(value)
}

/// The path of the field at fault. serde's path ends at the struct where a field is unknown or missing.
fn body_field(path: &str, cause: &serde_json::Error) -> String {
    if cause.is_syntax() || cause.is_eof() {
        return "body".to_owned();
    }
    let message = cause.to_string();
    let path = path.trim_start_matches('.');
    let at_root = path.is_empty() || path == "?";
    match quoted_field(&message) {
        Some(field) if at_root => field.to_owned(),
        Some(field) if path.ends_with(field) => path.to_owned(),
        Some(field) => format!("{}.{field}", path.trim_end_matches(".?")),
        None if at_root => "body".to_owned(),
        None => path.trim_end_matches(".?").to_owned(),
    }
}

/// The field in ``unknown field `x` `` or ``missing field `x` ``.
fn quoted_field(message: &str) -> Option<&str> {
    let rest = ["unknown field `", "missing field `", "duplicate field `"]
        .iter()
        .find_map(|lead| message.split_once(lead).map(|(_, rest)| rest))?;
    rest.split('`').next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use novacron_common::api::{JobCreate, PageQuery, VmCreate};

    fn fault<T: DeserializeOwned + std::fmt::Debug>(body: &str) -> (String, String) {
        let error = parse::<T>(body.as_bytes()).unwrap_err();
        let fault = error.problem().details[0].clone();
        (fault.field, fault.reason)
    }

    #[test]
    fn an_unknown_field_is_named_with_its_path() {
        let (field, _) = fault::<VmCreate>(r#"{"name":"a","templat":"x","resources":{"cpu":1}}"#);
        assert_eq!(field, "templat");
        let (field, _) = fault::<VmCreate>(
            r#"{"name":"a","template":"x","resources":{"cpu":1,"memory_g":2,"storage_gb":1}}"#,
        );
        assert_eq!(field, "resources.memory_g");
        let (field, _) = fault::<JobCreate>(
            r#"{"name":"a","schedule":"@daily","target":{"type":"command","command":["x"],"shell":true}}"#,
        );
        assert_eq!(field, "target.shell");
    }

    #[test]
    fn a_missing_or_mistyped_field_is_named() {
        assert_eq!(fault::<VmCreate>(r#"{"template":"x","resources":{"cpu":1}}"#).0, "name");
        assert_eq!(fault::<VmCreate>(r#"{"name":"a","template":"x","resources":{}}"#).0, "resources.cpu");
        let (field, reason) = fault::<VmCreate>(r#"{"name":"a","template":"x","resources":{"cpu":"two"}}"#);
        assert_eq!(field, "resources.cpu");
        assert!(reason.contains("line 1 column"), "{reason}");
        assert_eq!(
            fault::<VmCreate>(r#"{"name":"a","template":"x","resources":{"cpu":-1}}"#).0,
            "resources.cpu"
        );
    }

    #[test]
    fn malformed_json_names_line_and_column() {
        for bad in ["", "{", "{\n\"limit\": ,}", "{} x", "[1]"] {
            let (field, reason) = fault::<PageQuery>(bad);
            assert_eq!(field, "body", "{bad}");
            assert!(reason.contains("line"), "{reason}");
        }
    }

    #[test]
    fn a_query_fault_names_its_parameter() {
        let uri: axum::http::Uri = "/x?limit=ten".parse().unwrap();
        let text = Query::<PageQuery>::try_from_uri(&uri).unwrap_err().body_text();
        assert_eq!(query_field(text.split_once(": ").unwrap().1), "limit", "{text}");
        let uri: axum::http::Uri = "/x?page=2".parse().unwrap();
        let text = Query::<PageQuery>::try_from_uri(&uri).unwrap_err().body_text();
        assert_eq!(query_field(text.split_once(": ").unwrap().1), "page", "{text}");
    }
}
