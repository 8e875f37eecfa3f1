//! A command inside a machine, through the agent that runs in it.
//!
//! ```text
//! reach (ping until it answers) ─▶ exec (its number) ─▶ status, status, … ─▶ its end, with what it printed
//! ```
//!
//! The guest agent tells what a command printed only with its end, and has no word to end one: that is done by another
//! command. A machine that leaves this host, or restarts its guest agent, takes the end with it.

mod protocol;
#[cfg(test)]
mod tests;

use super::{Answer, Printer};
use crate::{
    hypervisor::libvirt::guest::{Channel, GuestChannel, NoAnswer},
    text::describe,
};
use novacron_common::{
    ids::VmId,
    record::{AttemptEnd, AttemptOutcome},
    spec::Program,
};
use protocol::{BadAnswer, Ended};
use serde::{Deserialize, Serialize};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, sleep, timeout};

/// How long a guest agent is waited for: the machine may only just have been started.
const REACH_MAX: Duration = Duration::from_secs(30);
/// Pause before it is asked again.
const REACH_PAUSE: Duration = Duration::from_millis(500);
/// How long it may take to answer. An emulated guest under load is slow.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// Pauses between two looks at a command: the first, and the longest.
const LOOK: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// How long the end of a command that is to end is waited for.
const END_MAX: Duration = Duration::from_secs(10);

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

/// Why a command did not come to an end that is known.
#[derive(Debug, thiserror::Error)]
enum Unfinished {
    #[error(transparent)]
    NoAnswer(#[from] NoAnswer),
    #[error(transparent)]
    Bad(#[from] BadAnswer),
    #[error("the call into libvirt was broken off")]
    BrokenOff(#[source] tokio::task::JoinError),
}

/// Opens channels to one machine.
type Opener<'a> = &'a dyn Fn() -> Box<dyn Channel>;

/// A channel, for calls that block on another thread.
#[derive(Clone)]
struct Guest(Arc<Mutex<Box<dyn Channel>>>);

impl Guest {
    fn new(channel: Box<dyn Channel>) -> Self {
        Self(Arc::new(Mutex::new(channel)))
    }

    async fn ask(&self, command: String) -> Result<String, Unfinished> {
        let channel = Arc::clone(&self.0);
        let asked = tokio::task::spawn_blocking(move || {
            channel.lock().unwrap_or_else(PoisonError::into_inner).ask(&command, ANSWER_MAX)
        });
        Ok(asked.await.map_err(Unfinished::BrokenOff)??)
    }

    /// Until it answers, or for [`REACH_MAX`].
    async fn reach(&self) -> Result<(), Unfinished> {
        let until = Instant::now() + REACH_MAX;
        loop {
            match self.ask(protocol::ping()).await {
                Ok(_) => return Ok(()),
                Err(error) if !may_pass(&error) || Instant::now() >= until => return Err(error),
                Err(_) => sleep(REACH_PAUSE).await,
            }
        }
    }

    async fn exec(&self, command: &Program) -> Result<i64, Unfinished> {
        Ok(protocol::started(&self.ask(protocol::exec(command)).await?)?)
    }

    /// Looks at a command until it has ended. libvirtd, or the guest agent, may be silent meanwhile.
    async fn ended(&self, pid: i64) -> Result<Ended, Unfinished> {
        let (mut pause, longest) = LOOK;
        loop {
            match self.ask(protocol::status(pid)).await {
                Ok(answer) => {
                    if let Some(ended) = protocol::ended(&answer)? {
                        return Ok(ended);
                    }
                }
                Err(error) if !may_pass(&error) => return Err(error),
                Err(error) => tracing::debug!(error = describe(&error), "could not look at a command"),
            }
            sleep(pause).await;
            pause = (pause * 2).min(longest);
        }
    }
}

/// Whether to ask again is of any use.
const fn may_pass(error: &Unfinished) -> bool {
    match error {
        Unfinished::NoAnswer(NoAnswer::NoAgent { .. } | NoAnswer::Libvirt { .. }) => true,
        Unfinished::NoAnswer(
            NoAnswer::NotHere { .. } | NoAnswer::NotRunning { .. } | NoAnswer::Refused { .. },
        )
        | Unfinished::Bad(_)
        | Unfinished::BrokenOff(_) => false,
    }
}

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
    let pid = match guest.exec(command).await {
        Ok(pid) => pid,
        Err(error) => return Answer { outcome: perhaps_started(&error), result: None },
    };
    tokio::select! {
        ended = guest.ended(pid) => match ended {
            Ok(ended) => print(printer, ended),
            Err(error) => Answer { outcome: lost(&error), result: None },
        },
        outcome = &mut to_end => {
            let ended = timeout(END_MAX, end(Guest::new(open()), pid)).await;
            told(printer, pid, ended);
            Answer { outcome, result: None }
        }
    }
}

/// On a channel of its own: the other one may be waiting for an answer.
async fn end(guest: Guest, pid: i64) -> Result<Ended, Unfinished> {
    guest.ask(protocol::end(pid)).await?;
    guest.ended(pid).await
}

fn told(
    printer: &mut Printer<'_>,
    pid: i64,
    ended: Result<Result<Ended, Unfinished>, tokio::time::error::Elapsed>,
) {
    let why = match ended {
        Ok(Ok(ended)) => {
            print(printer, ended);
            return;
        }
        Ok(Err(error)) => describe(&error),
        Err(_) => "it was not seen to end in time".to_owned(),
    };
    let note = format!("\n[process {pid} may still run in the machine: {why}]\n");
    printer.print(note.as_bytes());
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
    let mut out = ended.out;
    out.truncate(AttemptEnd::RESULT_MAX);
    Answer { outcome: ended.outcome, result: super::text_of(out).filter(|text| !text.is_empty()) }
}
