//! Commands inside machines, and live moves of those machines: never both at once.
//!
//! Only the host with the machine reaches its guest agent, and the attempt's supervisor is a process of this host. If the
//! machine left under a running command, the command would run on elsewhere and nobody could tell its end. So a live move
//! is refused while one runs, by the name of its fire, and a command that comes while the machine is leaving waits for the
//! end of the move. Whoever asks holds a turn until what it asked for is written down: so of two that come at once one
//! sees the other.

use crate::{attempt::AttemptRunner, migrate::Migrations};
use novacron_common::{
    ids::VmId,
    record::Ticket,
    spec::JobTarget,
    wire::{AttemptStart, Denial, DenialCode},
};
use std::sync::Arc;
use tokio::sync::{Mutex, OwnedMutexGuard};

/// Turns; one at a time.
#[derive(Default)]
pub struct Guests(Arc<Mutex<()>>);

/// Held until what it was given for is written down.
pub type Turn = OwnedMutexGuard<()>;

impl Guests {
    async fn turn(&self) -> Turn {
        Arc::clone(&self.0).lock_owned().await
    }

    /// Whether an attempt may start now.
    ///
    /// # Errors
    /// A conflict, which passes with the move.
    pub async fn may_start(
        &self,
        start: &AttemptStart,
        migrations: &Migrations,
    ) -> Result<Option<Turn>, Denial> {
        let JobTarget::VmCommand(target) = &start.target else { return Ok(None) };
        // What is no machine's id is refused by the attempt itself.
        let Ok(vm) = target.vm.parse::<VmId>() else { return Ok(None) };
        let turn = self.turn().await;
        match migrations.takes_away(vm) {
            false => Ok(Some(turn)),
            true => Err(conflict(format!("{vm} is being moved away from this host"))),
        }
    }

    /// Whether a machine may leave this host.
    ///
    /// # Errors
    /// A conflict that names what runs in it.
    pub async fn may_leave(&self, ticket: &Ticket, attempts: &AttemptRunner) -> Result<Option<Turn>, Denial> {
        // A stopped machine runs nothing.
        if !ticket.live {
            return Ok(None);
        }
        let turn = self.turn().await;
        match attempts.inside(ticket.vm).await {
            None => Ok(Some(turn)),
            Some(attempt) => Err(conflict(format!(
                "the command of {} runs in it through its guest agent, and its end would be lost on the way: \
                 wait for its end, or cancel it",
                attempt.fire
            ))),
        }
    }
}

fn conflict(text: String) -> Denial {
    Denial { code: DenialCode::Conflict, text }
}
