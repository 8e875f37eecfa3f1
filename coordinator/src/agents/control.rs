//! Requests of agents that must not be lost: an attempt's end, a migration's side, a machine's change. The agent
//! repeats each until the empty answer, and the answer is given only once the report is committed. The renewal of
//! leases, and the question which machines are no more, come the same way and change nothing in the ledger.

use super::{Agents, ingest, serve::StreamError};
use crate::identity::now;
use novacron_common::{
    ids::{AttemptKey, HostId, VmId},
    planted::{self, Mistake},
    units::Epoch,
    wire::{ControlRequest, Departed, LeasesGranted},
};
use novacron_core::{CommandBody, command::MigrationObserve};
use novacron_transport::Stream;
use std::time::{Duration, Instant};

/// How long an agent may take to send its request.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);

impl Agents {
    pub(super) async fn serve_control(&self, mut stream: Stream, host: HostId) -> Result<(), StreamError> {
        let request =
            novacron_runtime::time::timeout(REQUEST_DEADLINE, stream.recv::<ControlRequest>()).await;
        let request = request.map_err(|_| StreamError::Silent(REQUEST_DEADLINE.as_secs()))??;
        self.heard_from(host);
        if let ControlRequest::RenewLeases(asked) = request {
            return self.serve_leases(stream, host, asked).await;
        }
        if let ControlRequest::Checkpoints(asked) = request {
            stream.send(&self.departed(asked)).await?;
            stream.finish();
            return Ok(());
        }
        if planted::is(Mistake::ReportAcknowledgedEarly) {
            stream.send(&()).await?;
        }
        if let Some(command) = self.command(host, request) {
            // A refusal is final too: the ledger knows better, and repeating would not change its mind.
            self.0.ledger.propose(command).await?;
        }
        stream.send(&()).await?;
        stream.finish();
        Ok(())
    }

    /// Answered only by the leader: any other lets the agent wait for nothing, and it asks again elsewhere.
    async fn serve_leases(
        &self,
        mut stream: Stream,
        host: HostId,
        mut asked: Vec<(AttemptKey, Epoch)>,
    ) -> Result<(), StreamError> {
        asked.truncate(LeasesGranted::ASKED_MAX);
        let granted = self.leases().grant(&self.0.ledger, host, &asked).await?;
        stream.send(&granted).await?;
        stream.finish();
        Ok(())
    }

    /// Which of these machines are no more. One that this coordinator has not heard of yet has not left a host either; if
    /// it had, all that is lost is what its return would have saved.
    fn departed(&self, mut asked: Vec<VmId>) -> Departed {
        asked.truncate(Departed::ASKED_MAX);
        self.0.ledger.read(|state| asked.retain(|vm| state.vms().get(vm).is_none()));
        Departed(asked)
    }

    fn command(&self, host: HostId, request: ControlRequest) -> Option<CommandBody> {
        self.0.ledger.read(|state| match request {
            // Answered without a command.
            ControlRequest::RenewLeases(_) | ControlRequest::Checkpoints(_) => None,
            ControlRequest::Vm(seen) => ingest::vm_change(state, host, seen, now()),
            ControlRequest::AttemptEnded(report) => ingest::attempt_end(state, host, report),
            ControlRequest::Migration { migration, state: side } => {
                let observe = MigrationObserve { id: migration, host, side, asked_at_step: None };
                self.pace().command(state, observe, Instant::now())
            }
        })
    }
}
