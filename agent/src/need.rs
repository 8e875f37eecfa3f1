//! What a test needs of the machine that it runs on. `require!` of the test lab, which depends on this crate and so
//! cannot be used in it, says it in the same words.

use std::process::{Command, Stdio};

/// Whether a program that `test` needs cannot be run here, which is told by name.
///
/// # Panics
/// In CI, where a skip is a failure.
pub fn is_missing(program: &str, test: &str) -> bool {
    let mut asked = Command::new(program);
    asked.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let missing = asked.status().is_err();
    if missing {
        let test = test.strip_suffix("::here").unwrap_or(test);
        let test = test.strip_suffix("::{{closure}}").unwrap_or(test);
        println!("SKIPPED {test}: needs {program}");
        let in_ci = std::env::var("CI").is_ok_and(|value| value == "true");
        assert!(!in_ci, "SKIPPED {test}: needs {program}; in CI a skip is a failure");
    }
    missing
}

/// Ends the test with `SKIPPED <test>: needs <program>` unless the program can be run.
macro_rules! require {
    ($program:expr) => {
        if {
            fn here() {}
            $crate::need::is_missing($program, std::any::type_name_of_val(&here))
        } {
            return;
        }
    };
}
pub(crate) use require;

#[test]
fn a_program_that_is_there_is_not_missing() {
    assert!(!is_missing("env", "a test"));
}
