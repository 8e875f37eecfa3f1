//! From what an agent reports to what is proposed: only what differs from the ledger, and figures at a pace that
//! the log can bear. What counts as news is decided in `novacron_core`; this keeps what it needs between reports.

use novacron_common::{
    ids::{HostId, MigrationId, VmId},
    record::{AttemptReport, HostStatus, OutboundState, SideState, VmObservation, VmState},
    units::UnixMillis,
};
use novacron_core::{
    CommandBody, State,
    command::{MigrationObserve, VmObserve},
    hosts, vms,
};
use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, Instant},
};

/// A migration's figures are committed this often at most.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// What is remembered of a session's earlier reports.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Machines that the last report did not list although it should have.
    unlisted: BTreeSet<VmId>,
    /// Number of the last report; older ones are dropped.
    sequence: Option<u64>,
}

impl Memory {
    /// The commands that a status report is worth.
    pub fn differences(
        &mut self,
        state: &State,
        host: HostId,
        status: &HostStatus,
        now: UnixMillis,
    ) -> Vec<CommandBody> {
        if self.sequence.is_some_and(|last| status.sequence <= last) {
            return Vec::new();
        }
        self.sequence = Some(status.sequence);
        let mut commands = Vec::new();
        commands.extend(hosts::news(state, host, status).map(CommandBody::HostSeen));
        let observations = self.settled(vms::news(state, host, &status.vms, now));
        if !observations.is_empty() {
            commands.push(CommandBody::VmObserve(VmObserve { host, observations }));
        }
        commands
    }

    /// A machine is missing only if two reports in a row do not list it: the first may have been written before
    /// the agent took the machine on, and read after.
    fn settled(&mut self, news: Vec<VmObservation>) -> Vec<VmObservation> {
        let unlisted: BTreeSet<_> =
            news.iter().filter(|seen| seen.state == VmState::Missing).map(|seen| seen.vm).collect();
        let before = std::mem::replace(&mut self.unlisted, unlisted);
        let sure = |seen: &VmObservation| seen.state != VmState::Missing || before.contains(&seen.vm);
        news.into_iter().filter(sure).collect()
    }
}

/// The command for one machine's change, if it is news.
pub(super) fn vm_change(
    state: &State,
    host: HostId,
    seen: VmObservation,
    now: UnixMillis,
) -> Option<CommandBody> {
    // The report of one machine says nothing of the others, so what `news` finds missing is not meant.
    let news = vms::news(state, host, std::slice::from_ref(&seen), now);
    let found = news.into_iter().any(|item| item == seen);
    found.then(|| CommandBody::VmObserve(VmObserve { host, observations: vec![seen] }))
}

/// The command for an attempt's end: only the host that was given the attempt may report it.
pub(super) fn attempt_end(state: &State, host: HostId, report: AttemptReport) -> Option<CommandBody> {
    let given_to = state.attempt(report.attempt).and_then(|attempt| attempt.host);
    (given_to == Some(host)).then(|| CommandBody::AttemptEnd(Box::new(report)))
}

/// Paces the figures of migrations.
#[derive(Debug, Default)]
pub struct ProgressPace(HashMap<MigrationId, Instant>);

impl ProgressPace {
    /// The command for what one side says of a migration, unless it says nothing new or is only figures that come
    /// too soon after the last. `asked_at_step` as in [`MigrationObserve`].
    pub fn command(&mut self, state: &State, observe: MigrationObserve, now: Instant) -> Option<CommandBody> {
        let record = state.migration(observe.id).filter(|m| !m.is_final())?;
        let figures = |side: &OutboundState| {
            use OutboundState::{Copying, Poised, Split};
            let pair = (side, &record.outbound);
            matches!(pair, (Copying(_), Copying(_)) | (Poised(_), Poised(_)) | (Split(_), Split(_)))
        };
        match &observe.side {
            SideState::Outbound(side) if figures(side) => {
                self.0.retain(|_, last| now.duration_since(*last) < PROGRESS_EVERY);
                if self.0.contains_key(&observe.id) || *side == record.outbound {
                    return None;
                }
                self.0.insert(observe.id, now);
            }
            SideState::Outbound(_) | SideState::Inbound(_) => {}
        }
        Some(CommandBody::MigrationObserve(Box::new(observe)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use novacron_common::units::{ByteCount, Epoch, Generation};

    fn seen(vm: u128, state: VmState) -> VmObservation {
        VmObservation {
            vm: VmId::from_u128(vm),
            epoch: Epoch(1),
            generation: Generation(1),
            state,
            health: None,
            message: None,
            progress: None,
            addresses: Vec::new(),
            restarted: 0,
            ran: false,
            cpu_ms: 0,
            memory: ByteCount(0),
            since: UnixMillis(0),
        }
    }

    #[test]
    fn a_machine_is_missing_only_after_two_reports_without_it() {
        let mut memory = Memory::default();
        let report = vec![seen(1, VmState::Missing), seen(2, VmState::Running)];
        assert_eq!(memory.settled(report.clone()), vec![seen(2, VmState::Running)]);
        assert_eq!(memory.settled(report.clone()), report);
        assert_eq!(memory.settled(Vec::new()), Vec::new());
        assert_eq!(memory.settled(vec![seen(1, VmState::Missing)]), Vec::new(), "seen again in between");
    }
}
