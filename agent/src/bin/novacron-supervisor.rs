//! The supervisor of one attempt or namespace machine as a program of its own.
//!
//! `novacron-agent supervise FOLDER` does the same, but the agent links libvirt and some fifty libraries that it
//! pulls in: loading them costs more than everything else between a start command and the job's first instruction.

use novacron_agent::attempt::supervisor;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1).peekable();
    // The agent calls both programs alike.
    words.next_if(|word| word == "supervise");
    supervisor::main(&words.collect::<Vec<_>>(), None)
}
