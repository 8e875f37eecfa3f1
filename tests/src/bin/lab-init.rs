//! Process 1 of a lab host. The lab starts it; it is of no use by hand.

use std::process::ExitCode;

fn main() -> ExitCode {
    match novacron_tests::lab::init::main() {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            // The lab reads this from our output and passes it on.
            println!("fault {fault:#}");
            ExitCode::FAILURE
        }
    }
}
