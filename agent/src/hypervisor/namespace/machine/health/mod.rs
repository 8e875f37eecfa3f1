//! Asking a machine whether it is well, again and again for as long as it runs: by a command within its walls, as `vm exec` runs
//! one. What the answers mean is [`judge`]'s.

mod judge;

use super::life::{Live, Shared};
use crate::{
    hypervisor::{ConsoleStream, Health, HypervisorEvent},
    text::describe,
};
use judge::Judge;
use novacron_common::{
    ids::VmId,
    record::{HealthState, VmState},
    spec::HealthCheck,
    wire::{
        ExecCommand, ExecEnd, ExecOutput,
        codec::{self, CodecError, LENGTH_BYTES},
    },
};
use std::{
    convert::Infallible,
    io,
    pin::Pin,
    sync::{Mutex, PoisonError},
};
use tokio::{
    io::AsyncReadExt as _,
    time::{Instant, sleep, timeout},
};

/// Machines of one host that are asked at the same moment: each takes a process, and after a start of the agent all are due.
pub(super) const ASKED_AT_ONCE: usize = 8;

/// What is kept of what a check printed: its end, bytes.
const SAID_MAX: usize = 200;

/// What is known of one run's health; nothing where nobody asks.
#[derive(Debug, Default)]
pub(super) struct Bulletin(Mutex<Option<Health>>);

impl Bulletin {
    pub(super) fn read(&self) -> Option<Health> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn write(&self, health: Health) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(health);
    }
}

/// Why a check told nothing.
#[derive(Debug, thiserror::Error)]
enum Silent {
    #[error("its channel broke")]
    Broken(#[from] io::Error),
    #[error("its channel carries nonsense")]
    Nonsense(#[from] CodecError),
}

impl Shared {
    /// For as long as it is polled. A machine that nobody asks costs nothing but this future.
    pub(super) async fn attend(&self, vm: VmId, machine: &Live) -> Infallible {
        match self.defined(vm).ok().and_then(|defined| defined.health_check()) {
            Some(check) => Box::pin(self.ask_for_ever(vm, machine, check)).await,
            None => std::future::pending().await,
        }
    }

    async fn ask_for_ever(&self, vm: VmId, machine: &Live, check: HealthCheck) -> Infallible {
        let began = Instant::now();
        let mut judge = Judge::new(check.clone());
        self.publish(vm, machine, Health { state: HealthState::Starting, word: None });
        loop {
            sleep(judge.pause(began.elapsed())).await;
            // What is held cannot answer; nor could it, if it was held meanwhile.
            if self.state(vm) != VmState::Running {
                continue;
            }
            let answer = self.ask(vm, &check).await;
            if self.state(vm) != VmState::Running {
                continue;
            }
            if let Some(health) = judge.heed(began.elapsed(), answer) {
                tracing::info!(%vm, ?health, "another health");
                self.publish(vm, machine, health);
            }
        }
    }

    fn publish(&self, vm: VmId, machine: &Live, health: Health) {
        machine.health.write(health);
        let _nobody_listens = self.events.send(HypervisorEvent::Changed(vm));
    }

    /// The command is ended with the answer, or when that is waited for no longer.
    async fn ask(&self, vm: VmId, check: &HealthCheck) -> Result<(), String> {
        // Never closed.
        let _turn = self.asked.acquire().await;
        let command = ExecCommand { argv: check.argv.clone(), ..ExecCommand::default() };
        let answer = timeout(check.timeout, async {
            let stream = self.exec(vm, &command).await.map_err(|error| describe(&error))?;
            verdict(stream).await.unwrap_or_else(|error| Err(describe(&error)))
        });
        answer.await.unwrap_or_else(|_| Err(format!("no answer within {:?}", check.timeout)))
    }
}

/// Reads a command to its end.
async fn verdict(mut stream: Pin<Box<dyn ConsoleStream>>) -> Result<Result<(), String>, Silent> {
    let mut said = Vec::new();
    loop {
        let mut prefix = [0; LENGTH_BYTES];
        stream.read_exact(&mut prefix).await?;
        let mut frame = vec![0; codec::frame_length(prefix)?];
        stream.read_exact(&mut frame).await?;
        match codec::decode(&frame)? {
            ExecOutput::Started => {}
            ExecOutput::Output(bytes) | ExecOutput::Errors(bytes) => {
                said.extend(bytes);
                said.drain(..said.len().saturating_sub(SAID_MAX));
            }
            ExecOutput::Ended(ExecEnd::Exited(0)) => return Ok(Ok(())),
            ExecOutput::Ended(ExecEnd::Exited(code)) => {
                return Ok(Err(reason(&format!("exit code {code}"), &said)));
            }
            ExecOutput::Ended(ExecEnd::Killed(signal)) => {
                return Ok(Err(reason(&format!("signal {signal}"), &said)));
            }
            ExecOutput::Failed(why) => return Ok(Err(why)),
        }
    }
}

/// One line: how it ended, and what it said last.
fn reason(end: &str, said: &[u8]) -> String {
    let said = String::from_utf8_lossy(said);
    let words: Vec<&str> =
        said.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()).collect();
    if words.is_empty() { end.to_owned() } else { format!("{end}: {}", words.join(" ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_check_said_becomes_one_line() {
        assert_eq!(reason("exit code 7", b""), "exit code 7");
        assert_eq!(reason("exit code 1", b"curl: (7)\n\trefused\x1b\n"), "exit code 1: curl: (7) refused");
        assert!(reason("signal 9", b"\xff\xfe ").starts_with("signal 9: "));
    }
}
