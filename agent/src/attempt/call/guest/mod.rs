//! A command inside a machine, through the agent that runs in it.
//!
//! ```text
//! reach (ping until it answers) ─▶ relays for its output ─▶ exec (its number) ─▶ status and output, … ─▶ its end
//! ```
//!
//! The guest agent tells what a command printed only with its end, and no more than libvirt carries: so relays in the
//! machine take it, and it is read from them while it runs ([`relay`], [`stream`]). In a machine that lacks what they need
//! the guest agent keeps it. Nor has it a word to end a command: that is done by another one. A machine that leaves this
//! host, or restarts its guest agent, takes the end with it.

mod asking;
mod followed;
#[cfg(test)]
mod local;
#[cfg(test)]
mod local_tests;
mod protocol;
mod relay;
mod stream;
#[cfg(test)]
mod tests;

use super::{Answer, Printer};
use crate::{
    hypervisor::libvirt::guest::{Channel, GuestChannel, NoAnswer},
    text::describe,
};
use asking::{Guest, LOOK, Unfinished};
use followed::Followed;
use novacron_common::{
    ids::VmId,
    record::{AttemptEnd, AttemptOutcome},
    spec::Program,
};
use protocol::Ended;
use relay::Relay;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// How long the end of a command that is to end is waited for.
const END_MAX: Duration = Duration::from_secs(10);
/// How long the rest of the output is waited for, once the command has ended.
const REST_MAX: Duration = Duration::from_secs(30);

/// A command for a machine, and the way there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestCall {
    /// Of the libvirtd that runs the machine.
    pub libvirt_uri: String,
    /// Which machine.
    pub vm: VmId,
    /// What runs in it, with its whole environment.
    pub command: Program,
}

/// Opens channels to one machine.
type Opener<'a> = &'a dyn Fn() -> Box<dyn Channel>;

/// Runs the command to its end, or until it is to end, and as what.
pub(super) async fn attend(
    call: &GuestCall,
    printer: &mut Printer<'_>,
    to_end: impl Future<Output = AttemptOutcome>,
) -> Answer {
    let open = || Box::new(GuestChannel::new(&call.libvirt_uri, call.vm)) as Box<dyn Channel>;
    run(&open, &call.command, printer, to_end).await
}

async fn run(
    open: Opener<'_>,
    command: &Program,
    printer: &mut Printer<'_>,
    to_end: impl Future<Output = AttemptOutcome>,
) -> Answer {
    tokio::pin!(to_end);
    let guest = Guest::new(open());
    let reached = tokio::select! {
        reached = guest.reach() => reached,
        outcome = &mut to_end => return Answer { outcome, result: None },
    };
    if let Err(error) = reached {
        return Answer { outcome: not_started(&error), result: None };
    }
    // Not broken off: who does not hear the number of what was started cannot end it.
    let (pid, mut output) = match start(&guest, command).await {
        Ok(started) => started,
        Err(error) => return Answer { outcome: perhaps_started(&error), result: None },
    };
    tokio::select! {
        ended = attended(&guest, pid, &mut output, printer) => match ended {
            Ok(ended) => output.rest(&guest, ended, printer, REST_MAX).await,
            Err(error) => Answer { outcome: lost(&error), result: None },
        },
        outcome = &mut to_end => {
            // On a channel of its own: the other one may be waiting for an answer.
            let guest = Guest::new(open());
            match timeout(END_MAX, end(&guest, pid)).await {
                Ok(Ok(ended)) => drop(output.rest(&guest, ended, printer, END_MAX).await),
                Ok(Err(error)) => may_run_on(printer, pid, &describe(&error)),
                Err(_) => may_run_on(printer, pid, "it was not seen to end in time"),
            }
            Answer { outcome, result: None }
        }
    }
}

/// What becomes of the output.
enum Output {
    /// The guest agent keeps it to the end.
    Kept,
    /// It is read as it comes.
    Followed(Box<Followed>),
}

impl Output {
    /// Whether something came.
    async fn look(&mut self, guest: &Guest, printer: &mut Printer<'_>) -> bool {
        match self {
            Self::Kept => false,
            Self::Followed(followed) => followed.look(guest, printer).await,
        }
    }

    /// All that is still to come of a command that has ended, and what that makes of it.
    async fn rest(
        &mut self,
        guest: &Guest,
        ended: Ended,
        printer: &mut Printer<'_>,
        patience: Duration,
    ) -> Answer {
        match self {
            Self::Kept => print(printer, ended),
            Self::Followed(followed) => {
                let (outcome, result) = followed.rest(guest, ended.outcome, printer, patience).await;
                Answer { outcome, result: as_result(result) }
            }
        }
    }
}

async fn start(guest: &Guest, command: &Program) -> Result<(i64, Output), Unfinished> {
    match Relay::make(guest).await? {
        None => {
            let pid = protocol::started(&guest.ask(protocol::exec(command)).await?)?;
            Ok((pid, Output::Kept))
        }
        Some(relay) => {
            let said = protocol::exec_by(&relay.wrapper(command.working_dir.as_deref()), command);
            let pid = protocol::started(&guest.ask(said).await?)?;
            let program = command.argv.first().cloned().unwrap_or_default();
            Ok((pid, Output::Followed(Box::new(Followed::new(relay, program)))))
        }
    }
}

/// Looks at a command and its output until it has ended: often while it prints, else ever more seldom.
async fn attended(
    guest: &Guest,
    pid: i64,
    output: &mut Output,
    printer: &mut Printer<'_>,
) -> Result<Ended, Unfinished> {
    let (first, longest) = LOOK;
    let mut pause = first;
    loop {
        if let Some(ended) = guest.look(pid).await? {
            return Ok(ended);
        }
        pause = if output.look(guest, printer).await { first } else { (pause * 2).min(longest) };
        sleep(pause).await;
    }
}

async fn end(guest: &Guest, pid: i64) -> Result<Ended, Unfinished> {
    guest.ask(protocol::end(&[pid])).await?;
    guest.ended(pid).await
}

fn may_run_on(printer: &mut Printer<'_>, pid: i64, why: &str) {
    printer.print(format!("\n[process {pid} may still run in the machine: {why}]\n").as_bytes());
}

/// Nothing was sent.
fn not_started(error: &Unfinished) -> AttemptOutcome {
    let reason = describe(error);
    match error {
        // It has moved since the attempt was given to this host: somebody else can take it.
        Unfinished::NoAnswer(NoAnswer::NotHere { .. }) => AttemptOutcome::Declined { reason },
        _ => AttemptOutcome::FailedToStart { reason },
    }
}

fn perhaps_started(error: &Unfinished) -> AttemptOutcome {
    match error {
        Unfinished::NoAnswer(NoAnswer::Refused { .. }) => not_started(error),
        _ => AttemptOutcome::Failed { reason: format!("it may or may not have begun: {}", describe(error)) },
    }
}

fn lost(error: &Unfinished) -> AttemptOutcome {
    AttemptOutcome::Failed {
        reason: format!("it has begun, and its end cannot be told: {}", describe(error)),
    }
}

/// Standard output first, as the guest agent keeps the two apart.
fn print(printer: &mut Printer<'_>, ended: Ended) -> Answer {
    printer.print(&ended.out);
    printer.print(&ended.err);
    if ended.truncated {
        printer.print(b"\n[the guest agent has left out what came after this]\n");
    }
    Answer { outcome: ended.outcome, result: as_result(ended.out) }
}

/// The beginning of standard output, as far as that is text.
fn as_result(mut out: Vec<u8>) -> Option<String> {
    out.truncate(AttemptEnd::RESULT_MAX);
    super::text_of(out).filter(|text| !text.is_empty())
}
