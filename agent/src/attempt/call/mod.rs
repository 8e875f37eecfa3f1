//! Attempts that run no process of their own but ask something of somebody else: an HTTP server, a guest's agent.
//!
//! Their supervisor is the agent's own program (`novacron-agent supervise FOLDER`), as the small one carries neither
//! TLS nor libvirt. For the rest they are as all others: a process of their own that outlives the agent, a deadline, a
//! lease, a request to end, an outcome on disk. What was asked of somebody else cannot be taken back: an end from
//! outside ends the asking only.

mod guest;
mod http;
mod interrupt;

pub use guest::GuestCall;
pub use http::HttpCall;
pub(super) use http::{BadCall, plan};

use crate::hypervisor::namespace::{
    folder::Folder,
    lease::LeaseHold,
    output::Capture,
    spool::Spool,
    supervise::{failed_to_start, now},
};
use interrupt::Interrupts;
use novacron_common::record::{AttemptEnd, AttemptOutcome};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Of whom.
    pub to: Callee,
    /// Ends the asking.
    pub timeout: Duration,
}

/// Who is asked, and what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Callee {
    /// A server.
    Http(HttpCall),
    /// The agent inside a machine.
    Guest(GuestCall),
}

/// What came of it.
struct Answer {
    outcome: AttemptOutcome,
    result: Option<String>,
}

/// What a call prints: captured for the report, and shown while it goes on.
struct Printer<'a> {
    folder: &'a Folder,
    capture: Capture,
    spool: Spool,
}

impl Printer<'_> {
    fn print(&mut self, bytes: &[u8]) {
        self.capture.push(bytes);
        if let Err(error) = self.spool.push(self.folder, bytes) {
            tracing::debug!(%error, "could not show what a call prints");
        }
    }

    /// So many bytes were printed that nobody has seen.
    fn leave_out(&mut self, bytes: u64) {
        self.capture.leave_out(bytes);
        let note = format!("\n[… {bytes} bytes left out …]\n");
        if let Err(error) = self.spool.push(self.folder, note.as_bytes()) {
            tracing::debug!(%error, "could not show what a call prints");
        }
    }
}

/// Makes the call and waits for its end. Signals have to be held back.
pub fn run(folder: &Folder, call: &Call, lease: Option<LeaseHold>) -> AttemptEnd {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => {
            let end = runtime.block_on(make(folder, call, lease));
            // A name that is still being looked up must not hold us.
            runtime.shutdown_background();
            end
        }
        Err(error) => failed_to_start(format!("could not start a runtime: {error}")),
    }
}

async fn make(folder: &Folder, call: &Call, lease: Option<LeaseHold>) -> AttemptEnd {
    let mut interrupts = match Interrupts::new(folder, lease) {
        Ok(interrupts) => interrupts,
        Err(error) => return failed_to_start(error.chain()),
    };
    let started_at = now();
    if let Err(error) = folder.mark_started() {
        tracing::warn!(%error, "could not note the start");
    }
    let mut printer = Printer { folder, capture: Capture::default(), spool: Spool::default() };
    let to_end = async {
        tokio::select! {
            outcome = interrupts.next() => outcome,
            () = tokio::time::sleep(call.timeout) => AttemptOutcome::TimedOut,
        }
    };
    let answer = match &call.to {
        Callee::Http(http) => tokio::select! {
            answer = http::ask(http, &mut printer) => answer,
            outcome = to_end => Answer { outcome, result: None },
        },
        Callee::Guest(guest) => guest::attend(guest, &mut printer, to_end).await,
    };
    AttemptEnd {
        outcome: answer.outcome,
        started_at: Some(started_at),
        ended_at: now(),
        output: printer.capture.finish(),
        result: answer.result,
    }
}

/// The text that the bytes begin with; `None` if they are something else. A character may be cut at the end.
fn text_of(bytes: Vec<u8>) -> Option<String> {
    match String::from_utf8(bytes) {
        Ok(text) => Some(text),
        Err(error) => {
            let fault = error.utf8_error();
            let sound = fault.error_len().is_none().then(|| fault.valid_up_to())?;
            let mut bytes = error.into_bytes();
            bytes.truncate(sound);
            String::from_utf8(bytes).ok()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_may_be_cut_within_a_character_but_other_bytes_are_no_text() {
        assert_eq!(text_of(b"caf\xc3".to_vec()).as_deref(), Some("caf"));
        assert_eq!(text_of("café".into()).as_deref(), Some("café"));
        assert_eq!(text_of(b"\xff\xfe".to_vec()), None);
    }
}
