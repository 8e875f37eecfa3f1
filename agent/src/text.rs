//! Errors as one line of text, for logs and for people far away.

use std::error::Error;

type Cause<'a> = &'a (dyn Error + 'static);

/// The error with its causes, outermost first.
pub fn describe(error: Cause<'_>) -> String {
    let causes = std::iter::successors(Some(error), cause_of);
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn cause_of<'a>(error: &Cause<'a>) -> Option<Cause<'a>> {
    (**error).source()
}
