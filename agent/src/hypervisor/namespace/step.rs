//! One step towards isolation that failed, in words that a user can act on.

use super::observe;
use nix::errno::Errno;

/// A kernel call that was refused, and what it was for.
#[derive(Debug, thiserror::Error)]
#[error("could not {doing}")]
pub struct StepError {
    /// What was being done, e.g. "mount the overlay".
    pub doing: String,
    /// The kernel's reason, or the library's.
    #[source]
    pub cause: Box<dyn std::error::Error + Send + Sync>,
}

impl StepError {
    pub fn new(doing: impl Into<String>, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { doing: doing.into(), cause: cause.into() }
    }

    /// This error and its causes in one line, for where only text can go.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut next = std::error::Error::source(self);
        while let Some(cause) = next {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            next = cause.source();
        }
        text
    }
}

/// Says what a call was for: to the user where it failed, and to a test that [observes](super::observe) where it did not.
pub trait Doing<T> {
    fn doing(self, what: &str) -> Result<T, StepError>;
}

impl<T, E: Into<Box<dyn std::error::Error + Send + Sync>>> Doing<T> for Result<T, E> {
    fn doing(self, what: &str) -> Result<T, StepError> {
        self.inspect(|_| observe::taken(what)).map_err(|cause| StepError::new(what, cause))
    }
}

/// The result of a system call that `nix` does not wrap.
pub fn checked(result: libc::c_long) -> Result<libc::c_long, Errno> {
    if result < 0 { Err(Errno::last()) } else { Ok(result) }
}
