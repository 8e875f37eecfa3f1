//! Every error of the API is an RFC 9457 problem with a stable code: this is where the errors of the parts
//! behind it become one, and where axum's own refusals (404, 405, 413) are put into the same form.

use crate::{
    agents::CallError,
    identity::{AuthorityError, NoRandomness},
    raft::LedgerError,
};
use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use novacron_common::{
    api::{Problem, ProblemCode},
    spec::{Fault, Faults},
};
use novacron_core::{Refusal, placement::NoPlacement};

/// What a handler returns when it does not succeed.
#[derive(Debug)]
pub struct ApiError(Box<Problem>);

/// A handler's result.
pub type ApiResult<T> = Result<T, ApiError>;

impl ApiError {
    /// A problem with its cause.
    pub fn new(code: ProblemCode, cause: impl Into<String>) -> Self {
        Self(Box::new(Problem::new(code, cause)))
    }

    /// With what to do about it.
    #[must_use]
    pub fn fix(self, fix: impl Into<String>) -> Self {
        Self(Box::new(self.0.fix(fix)))
    }

    /// One field is at fault.
    pub fn field(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Faults::from(Fault::new(field, reason)).into()
    }

    /// Nothing has that id or name.
    pub fn not_found(what: &str, key: &str) -> Self {
        let key: String = key.chars().take(80).collect();
        Self::new(ProblemCode::NotFound, format!("there is no {what} {key:?}"))
            .fix(format!("list what there is, and give a {what}'s id or name"))
    }

    /// With another status than the code's own (405, 408).
    #[must_use]
    fn status(mut self, status: StatusCode) -> Self {
        self.0.status = status.as_u16();
        self
    }

    /// The problem, as it will be sent.
    pub fn problem(&self) -> &Problem {
        &self.0
    }
}

impl From<Problem> for ApiError {
    fn from(problem: Problem) -> Self {
        Self(Box::new(problem))
    }
}

impl From<Faults> for ApiError {
    fn from(faults: Faults) -> Self {
        Self(Box::new(faults.into()))
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        Problem::from(refusal).into()
    }
}

impl From<NoPlacement> for ApiError {
    fn from(none: NoPlacement) -> Self {
        Refusal::from(none).into()
    }
}

impl From<LedgerError> for ApiError {
    fn from(error: LedgerError) -> Self {
        Problem::from(error).into()
    }
}

impl From<NoRandomness> for ApiError {
    fn from(error: NoRandomness) -> Self {
        Self::new(ProblemCode::Internal, error.to_string())
    }
}

impl From<AuthorityError> for ApiError {
    fn from(error: AuthorityError) -> Self {
        Problem::from(error).into()
    }
}

impl From<CallError> for ApiError {
    fn from(error: CallError) -> Self {
        let cause = match &error {
            CallError::Denied { denial, .. } => denial.text.clone(),
            CallError::Link { cause, .. } => format!("{error}: {cause}"),
            CallError::NoAddress(_) | CallError::TimedOut { .. } | CallError::Mismatch(_) => {
                error.to_string()
            }
        };
        match error {
            CallError::Denied { .. } => Self::new(ProblemCode::Conflict, cause),
            CallError::Mismatch(_) => Self::new(ProblemCode::Internal, cause),
            CallError::NoAddress(_) | CallError::Link { .. } | CallError::TimedOut { .. } => {
                Self::new(ProblemCode::HostUnavailable, cause)
                    .fix("look at `novactl host list`, and try again")
            }
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        // A struct of strings and numbers always serialises; an empty body would still carry the status.
        let body = serde_json::to_vec(&*self.0).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.0.code == ProblemCode::Unauthenticated {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.0.code == ProblemCode::Unavailable {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// The router's answer to a path that it does not serve.
pub async fn no_such_path(uri: axum::http::Uri) -> ApiError {
    let path: String = uri.path().chars().take(120).collect();
    ApiError::new(ProblemCode::NotFound, format!("there is no {path}")).fix("/docs lists every path")
}

/// The router's answer to a method that a path does not serve; axum adds the `Allow` header.
pub async fn no_such_method(method: axum::http::Method, uri: axum::http::Uri) -> ApiError {
    let path: String = uri.path().chars().take(120).collect();
    ApiError::new(ProblemCode::InvalidRequest, format!("{path} does not serve {method}"))
        .status(StatusCode::METHOD_NOT_ALLOWED)
        .fix("the Allow header lists what it serves")
}

/// The answer where a handler took longer than the server gives it.
pub fn took_too_long() -> ApiError {
    ApiError::new(ProblemCode::Unavailable, "the request was not served in time")
        .fix("ask again; a change may have been made all the same")
}

/// The answer where a handler panicked. What it said stays in the log.
pub fn panicked(cause: Box<dyn std::any::Any + Send>) -> Response {
    let text = cause
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| cause.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    tracing::error!(panic = text, "a request handler panicked");
    ApiError::new(ProblemCode::Internal, "the coordinator failed to serve this request")
        .fix("the coordinator's log has the reason: please report it")
        .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_carries_its_status_and_media_type() {
        let response = ApiError::new(ProblemCode::NameTaken, "x").into_response();
        assert_eq!(response.status(), StatusCode::CONFLICT);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
    }

    #[tokio::test]
    async fn a_refused_method_is_405_and_still_a_problem() {
        let uri = "/api/v1/vms".parse().unwrap();
        let error = no_such_method(axum::http::Method::PATCH, uri).await;
        assert_eq!(error.problem().status, 405);
        assert_eq!(error.into_response().status(), StatusCode::METHOD_NOT_ALLOWED);
    }

    #[test]
    fn a_panic_is_a_problem_without_its_message() {
        let response = panicked(Box::new("secret detail"));
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    }
}
