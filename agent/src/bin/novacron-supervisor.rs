//! The supervisor of one attempt or namespace machine, and one more command in such a machine, as a program of its own.
//!
//! `novacron-agent supervise FOLDER` and `novacron-agent exec FOLDER` do the same, but the agent links libvirt and some fifty libraries that it
//! pulls in: loading them costs more than everything else between a start command and the job's first instruction.

use novacron_agent::{
    attempt::supervisor,
    hypervisor::namespace::{checkpoint::hook, exec},
};
use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(code) = hook::called() {
        return code;
    }
    let mut words = std::env::args_os().skip(1).peekable();
    if words.next_if(|word| word == "exec").is_some() {
        return exec::main(&words.collect::<Vec<_>>());
    }
    // The agent calls both programs alike.
    words.next_if(|word| word == "supervise");
    supervisor::main(&words.collect::<Vec<_>>(), None)
}
