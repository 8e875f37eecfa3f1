//! What went wrong, and the exit code that a script sees.

use novacron_common::api::{Problem, ProblemCode};
use std::process::ExitCode;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CtlError {
    /// The server said no.
    #[error("{0}")]
    Problem(Box<Problem>),
    /// Nobody answered, or somebody else did.
    #[error("could not reach {server}")]
    Unreachable {
        /// Whom.
        server: String,
        /// Why.
        #[source]
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The settings do not suffice.
    #[error("{0}")]
    Settings(String),
    /// The long work that was waited for ended badly.
    #[error("{0}")]
    Outcome(String),
    /// Something on this machine.
    #[error("could not {doing}")]
    Local {
        /// What was being done.
        doing: String,
        /// The system's reason.
        #[source]
        cause: std::io::Error,
    },
    /// The answer is none that this version understands.
    #[error("the server's answer is not understood: is it newer than this novactl?")]
    Answer(#[source] serde_json::Error),
}

impl CtlError {
    /// The error with its causes and what to do about it.
    pub fn describe(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(inner) = cause {
            text.push_str(": ");
            text.push_str(&inner.to_string());
            cause = inner.source();
        }
        if let Self::Unreachable { server, .. } = self {
            text.push_str(remedy(server, &text).unwrap_or_default());
        }
        if let Self::Problem(problem) = self {
            for detail in problem.details.iter().filter(|d| !problem.cause.contains(&d.reason)) {
                text.push_str(&format!("\n  {detail}"));
            }
        }
        text
    }

    /// 1 failed · 2 usage (clap's) · 3 not found · 4 token · 5 unreachable or no quorum · 6 conflict · 7 invalid.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Problem(problem) => match problem.code {
                ProblemCode::NotFound => 3,
                ProblemCode::Unauthenticated | ProblemCode::Forbidden => 4,
                ProblemCode::Unavailable => 5,
                ProblemCode::NameTaken
                | ProblemCode::Conflict
                | ProblemCode::NoPlacement
                | ProblemCode::HostUnavailable => 6,
                ProblemCode::InvalidRequest | ProblemCode::TooLarge | ProblemCode::IdempotencyKeyReused => 7,
                ProblemCode::Internal => 1,
            },
            Self::Unreachable { .. } => 5,
            Self::Settings(_) => 2,
            Self::Outcome(_) | Self::Local { .. } | Self::Answer(_) => 1,
        })
    }

    /// For `map_err`.
    pub fn local(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        move |cause| Self::Local { doing: doing.into(), cause }
    }
}

/// What to do where the libraries' words do not say it. They are recognised by those words: the layers between hide
/// their types.
fn remedy(server: &str, text: &str) -> Option<&'static str> {
    if text.contains("invalid peer certificate") {
        Some(
            ": this is not the cluster that novactl knows by this address; if it was made anew, run `novactl login` again",
        )
    } else if server.starts_with("http://") && text.contains("invalid HTTP version") {
        Some(": the API speaks HTTPS there: write https://")
    } else if text.contains("Connection refused") {
        Some(": is the coordinator running, and is this its address (http.listen, port 8090 by default)?")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unreachable_server_comes_with_a_remedy() {
        let said = |server: &str, cause: &str| {
            CtlError::Unreachable { server: server.into(), cause: cause.to_owned().into() }.describe()
        };
        assert!(said("https://a:1", "invalid peer certificate: UnknownIssuer").contains("novactl login"));
        assert!(said("http://a:1", "invalid HTTP version parsed").ends_with("write https://"));
        assert!(said("https://a:1", "Connection refused (os error 111)").contains("http.listen"));
        assert_eq!(said("https://a:1", "timed out"), "could not reach https://a:1: timed out");
    }
}
