//! Errors as RFC 9457 problem details, with a stable code, the cause, and what to do about it.

use crate::spec::Fault;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A stable code for programs; its HTTP status follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProblemCode {
    /// The body, path or query is not what it should be.
    InvalidRequest,
    /// No or no valid token.
    Unauthenticated,
    /// The token does not allow it.
    Forbidden,
    /// Nothing has that id or name.
    NotFound,
    /// The name is taken.
    NameTaken,
    /// It contradicts the present state.
    Conflict,
    /// No host can take it; `details` has a line for each.
    NoPlacement,
    /// The host is not up.
    HostUnavailable,
    /// The body is too long.
    TooLarge,
    /// An `Idempotency-Key` came with another request than before.
    IdempotencyKeyReused,
    /// The coordinators have no quorum or no leader now.
    Unavailable,
    /// Our fault.
    Internal,
}

impl ProblemCode {
    /// The HTTP status (RFC 9110).
    pub const fn status(self) -> u16 {
        match self {
            Self::InvalidRequest => 400,
            Self::Unauthenticated => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::NameTaken | Self::Conflict | Self::NoPlacement | Self::HostUnavailable => 409,
            Self::TooLarge => 413,
            Self::IdempotencyKeyReused => 422,
            Self::Unavailable => 503,
            Self::Internal => 500,
        }
    }

    /// A short title, the same for every occurrence.
    pub const fn title(self) -> &'static str {
        match self {
            Self::InvalidRequest => "the request is not valid",
            Self::Unauthenticated => "a valid token is needed",
            Self::Forbidden => "the token does not allow this",
            Self::NotFound => "there is no such thing",
            Self::NameTaken => "the name is taken",
            Self::Conflict => "this contradicts the present state",
            Self::NoPlacement => "no host can take it",
            Self::HostUnavailable => "the host is not available",
            Self::TooLarge => "the request is too large",
            Self::IdempotencyKeyReused => "the idempotency key belongs to another request",
            Self::Unavailable => "the cluster cannot commit now",
            Self::Internal => "an internal error",
        }
    }
}

/// An `application/problem+json` body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// The same as `code`, as a URI reference.
    #[serde(rename = "type")]
    pub kind: String,
    /// Short, the same for every occurrence.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// For programs.
    pub code: ProblemCode,
    /// What happened this time.
    pub cause: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
    /// Faults by field, or hosts and what each is short of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<Fault>,
}

impl Problem {
    /// A problem with its cause.
    pub fn new(code: ProblemCode, cause: impl Into<String>) -> Self {
        let kind = serde_json::to_value(code).ok().and_then(|v| v.as_str().map(|s| format!("/problems/{s}")));
        Self {
            kind: kind.unwrap_or_default(),
            title: code.title().to_owned(),
            status: code.status(),
            code,
            cause: cause.into(),
            fix: None,
            details: Vec::new(),
        }
    }

    /// With what to do about it.
    #[must_use]
    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    /// With a line for each field or host.
    #[must_use]
    pub fn details(mut self, details: Vec<Fault>) -> Self {
        self.details = details;
        self
    }
}

impl From<crate::spec::Faults> for Problem {
    fn from(faults: crate::spec::Faults) -> Self {
        let cause = faults.to_string();
        Self::new(ProblemCode::InvalidRequest, cause).details(faults.0)
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.title, self.cause)?;
        match &self.fix {
            Some(fix) => write!(f, " ({fix})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Problem {}
