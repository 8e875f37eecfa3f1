//! Errors as one line of text, for logs and for people far away.

use std::error::Error;

/// The error with its causes, outermost first.
pub fn describe(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |cause| (*cause).source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
