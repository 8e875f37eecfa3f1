//! What is sent again when no answer came, and how often.

use crate::error::CtlError;
use aws_lc_rs::rand;
use novacron_common::api::ProblemCode;
use std::time::Duration;

/// The request header.
pub const HEADER: &str = "idempotency-key";
/// Pauses before the second try and the following: together longer than a change of leader takes.
pub const PAUSES: &[Duration] =
    &[Duration::from_millis(200), Duration::from_millis(500), Duration::from_millis(1000)];

/// A new key; without random numbers none, and then a `POST` is sent once.
pub fn key() -> Option<String> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).ok()?;
    Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Whether the same request may succeed a moment later.
pub fn may_pass(error: &CtlError) -> bool {
    match error {
        CtlError::Unreachable { .. } => true,
        CtlError::Problem(problem) => problem.code == ProblemCode::Unavailable,
        CtlError::Settings(_) | CtlError::Outcome(_) | CtlError::Local { .. } | CtlError::Answer(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use novacron_common::api::Problem;

    #[test]
    fn keys_differ_and_are_printable() {
        let (one, two) = (key().unwrap(), key().unwrap());
        assert_ne!(one, two);
        assert!(one.len() == 32 && one.bytes().all(|b| b.is_ascii_hexdigit()));
    }

    #[test]
    fn a_refusal_is_final_and_a_missing_quorum_is_not() {
        let problem = |code| CtlError::Problem(Box::new(Problem::new(code, "x")));
        assert!(may_pass(&problem(ProblemCode::Unavailable)));
        assert!(!may_pass(&problem(ProblemCode::Conflict)));
        assert!(!may_pass(&problem(ProblemCode::IdempotencyKeyReused)));
    }
}
