//! A command whose output is read while it runs: both streams, in the order in which they are seen to come.

use super::{
    asking::{Guest, LOOK, Unfinished},
    relay::Relay,
    stream::{Step, Stream},
};
use crate::{attempt::call::Printer, text::describe};
use novacron_common::record::{AttemptEnd, AttemptOutcome};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Pieces of one stream that are read before the other one, and the command, are looked at again: more than its relay
/// keeps, so that what is read last of the two was also written last, but for a flood that does not end.
const PIECES: u32 = 64;

/// What a shell says of a program that is not there.
const NO_PROGRAM: AttemptOutcome = AttemptOutcome::Exited(127);

/// Its relays, and how far they have been read.
pub struct Followed {
    relay: Relay,
    out: Stream,
    err: Stream,
    /// The beginning of standard output.
    result: Vec<u8>,
    /// What was to run.
    program: String,
}

impl Followed {
    /// From the beginning.
    pub fn new(relay: Relay, program: String) -> Self {
        let (out, err) = (Stream::new(relay.path("out")), Stream::new(relay.path("err")));
        Self { relay, out, err, result: Vec::new(), program }
    }

    /// Prints what has come. Whether that was anything; a silent guest agent may have more to say later.
    pub async fn look(&mut self, guest: &Guest, printer: &mut Printer<'_>) -> bool {
        match self.try_look(guest, printer).await {
            Ok(came) => came,
            Err(error) => {
                tracing::debug!(error = describe(&error), "could not read a command's output");
                false
            }
        }
    }

    async fn try_look(&mut self, guest: &Guest, printer: &mut Printer<'_>) -> Result<bool, Unfinished> {
        let mut came = false;
        for _ in 0..PIECES {
            let step = self.out.step(guest).await?;
            if let Step::Bytes(bytes) = &step {
                let room = AttemptEnd::RESULT_MAX - self.result.len();
                self.result.extend_from_slice(&bytes[..bytes.len().min(room)]);
            }
            if !show(step, printer) {
                break;
            }
            came = true;
        }
        for _ in 0..PIECES {
            if !show(self.err.step(guest).await?, printer) {
                break;
            }
            came = true;
        }
        Ok(came)
    }

    /// Prints what is still to come, for so long at most, and leaves nothing in the machine. The outcome, and the
    /// beginning of standard output.
    pub async fn rest(
        &mut self,
        guest: &Guest,
        outcome: AttemptOutcome,
        printer: &mut Printer<'_>,
        patience: Duration,
    ) -> (AttemptOutcome, Vec<u8>) {
        let rest = self.drain(guest, printer, Instant::now() + patience).await;
        let is_missing =
            outcome == NO_PROGRAM && matches!(self.relay.found_no_program(guest).await, Ok(true));
        let outcome = match is_missing {
            true => AttemptOutcome::FailedToStart {
                reason: format!("the machine has no program {:?} that can be run", self.program),
            },
            false => outcome,
        };
        let all_ended = matches!(rest, Ok(true));
        match rest {
            Ok(true) => {}
            Ok(false) => {
                printer.print(b"\n[what it has started still holds its output, and is not followed]\n")
            }
            Err(error) => {
                let note = format!("\n[the rest of its output cannot be read: {}]\n", describe(&error));
                printer.print(note.as_bytes());
            }
        }
        if let Err(error) = self.clean(guest, all_ended).await {
            tracing::warn!(error = describe(&error), "could not remove a command's output from its machine");
        }
        (outcome, std::mem::take(&mut self.result))
    }

    /// Whether all of it came before `until`.
    async fn drain(
        &mut self,
        guest: &Guest,
        printer: &mut Printer<'_>,
        until: Instant,
    ) -> Result<bool, Unfinished> {
        loop {
            match self.try_drain(guest, printer, until).await {
                Ok(Some(no_room)) => {
                    if no_room > 0 {
                        printer.leave_out(no_room);
                        printer.print(b"[the machine had no room for all of its output]\n");
                    }
                    return Ok(true);
                }
                Ok(None) if Instant::now() >= until => return Ok(false),
                Err(error) if !error.may_pass() || Instant::now() >= until => return Err(error),
                Ok(None) | Err(_) => sleep(LOOK.0).await,
            }
        }
    }

    /// If all was written before it was read: how many bytes were not, for want of room.
    async fn try_drain(
        &mut self,
        guest: &Guest,
        printer: &mut Printer<'_>,
        until: Instant,
    ) -> Result<Option<u64>, Unfinished> {
        let ends = (self.out.ended(guest).await?, self.err.ended(guest).await?);
        while self.try_look(guest, printer).await? {
            if Instant::now() >= until {
                return Ok(None);
            }
        }
        Ok(ends.0.zip(ends.1).map(|(out, err)| out.saturating_add(err)))
    }

    async fn clean(&mut self, guest: &Guest, all_ended: bool) -> Result<(), Unfinished> {
        self.out.close(guest).await?;
        self.err.close(guest).await?;
        self.relay.remove(guest, all_ended).await
    }
}

/// Whether there was something to show.
fn show(step: Step, printer: &mut Printer<'_>) -> bool {
    match step {
        Step::Bytes(bytes) => printer.print(&bytes),
        Step::LeftOut(bytes) => printer.leave_out(bytes),
        Step::Nothing => return false,
    }
    true
}
