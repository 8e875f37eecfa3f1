//! Between the saga and the agents: what to call for an action, and what an answer says.

use super::saga::SagaAction;
use crate::{
    record::{MigrationRecord, VmRecord},
    state::State,
};
use novacron_common::{
    ids::HostId,
    record::{InboundState, OutboundState, SideState},
    wire::AgentCommand,
};

/// The call that an action stands for: to whom, and what. `None` for what is not a call (waiting, and
/// [`SagaAction::Handover`]), or if the target's address is not known.
pub fn call(state: &State, record: &MigrationRecord, action: SagaAction) -> Option<(HostId, AgentCommand)> {
    let vm = state.vm(record.vm)?;
    match action {
        SagaAction::AwaitTurn | SagaAction::AwaitStop | SagaAction::Handover => None,
        SagaAction::ObserveSource => Some((record.source, AgentCommand::ObserveMigration(record.id))),
        SagaAction::ObserveTarget => Some((record.target, AgentCommand::ObserveMigration(record.id))),
        SagaAction::StartOutbound => start(state, record, vm),
        SagaAction::PrepareInbound
        | SagaAction::OpenInbound
        | SagaAction::ResumeInbound
        | SagaAction::AbandonInbound
        | SagaAction::DiscardInbound => Some((record.target, to_target(record, vm, action))),
        SagaAction::ReleaseOutbound => {
            let release =
                AgentCommand::ReleaseOutbound { migration: record.id, vm: record.vm, epoch: vm.epoch };
            Some((record.source, release))
        }
        SagaAction::SplitOutbound => {
            Some((record.source, AgentCommand::SplitOutbound { migration: record.id, epoch: vm.epoch }))
        }
        SagaAction::CancelOutbound => {
            let cancel =
                AgentCommand::CancelOutbound { migration: record.id, reason: record.message.clone() };
            Some((record.source, cancel))
        }
    }
}

fn start(state: &State, record: &MigrationRecord, vm: &VmRecord) -> Option<(HostId, AgentCommand)> {
    let target = state.host(record.target)?.hello.as_ref()?.addresses.quic;
    let (ticket, spec, limits) = (record.ticket(), vm.spec.clone(), record.limits);
    let start = AgentCommand::StartOutbound { ticket, spec, target, limits };
    Some((record.source, start))
}

fn to_target(record: &MigrationRecord, vm: &VmRecord, action: SagaAction) -> AgentCommand {
    match action {
        SagaAction::ResumeInbound => AgentCommand::ResumeInbound {
            migration: record.id,
            vm: record.vm,
            epoch: vm.epoch,
            spec: vm.spec.clone(),
            disk: record.report.as_ref().and_then(|report| report.disk),
        },
        SagaAction::DiscardInbound => AgentCommand::DiscardInbound {
            migration: record.id,
            vm: record.vm,
            reason: record.message.clone(),
        },
        SagaAction::OpenInbound => AgentCommand::OpenInbound { migration: record.id, epoch: vm.epoch },
        SagaAction::AbandonInbound => {
            AgentCommand::AbandonInbound { migration: record.id, reason: record.message.clone() }
        }
        _ => {
            let post_copy = vm.spec.mobility.allows_post_copy() && record.limits.may_split();
            AgentCommand::PrepareInbound { ticket: record.ticket(), spec: vm.spec.clone(), post_copy }
        }
    }
}

/// What the answer of `host` to `ObserveMigration` says of its side: an empty answer is "unknown", and what it says
/// of the other side is not its to say.
pub fn answers(record: &MigrationRecord, host: HostId, answer: Vec<SideState>) -> Vec<SideState> {
    let own: Vec<_> = answer.into_iter().filter(|side| speaks_for(record, host, side)).collect();
    match own.is_empty() {
        false => own,
        true if host == record.source => vec![SideState::Outbound(OutboundState::Unknown)],
        true if host == record.target => vec![SideState::Inbound(InboundState::Unknown)],
        true => Vec::new(),
    }
}

/// Whether a side may be spoken for by this host.
pub fn speaks_for(record: &MigrationRecord, host: HostId, side: &SideState) -> bool {
    match side {
        SideState::Outbound(_) => host == record.source,
        SideState::Inbound(_) => host == record.target,
    }
}
