//! Asks the agents: the machine's host to measure, each candidate what speaks against the machine.

use super::Question;
use crate::agents::{Agents, CallError};
use futures_util::future::join_all;
use novacron_common::{
    ids::{HostId, VmId},
    record::{GuestMeasure, GuestTraits, LinkMeasure, MoveLimits, PreflightFault, PreflightKind},
    spec::VmSpec,
    wire::{AgentCommand, AgentReply},
};

/// What came back.
#[derive(Default)]
pub struct Seen {
    /// Of the guest.
    pub guest: Option<GuestMeasure>,
    /// Of the ways.
    pub links: Vec<LinkMeasure>,
    /// What went wrong.
    pub notes: Vec<String>,
}

/// Asks, and adds what the candidates say to their faults.
pub async fn take(agents: &Agents, question: &mut Question) -> Seen {
    let possible: Vec<_> = question
        .candidates
        .iter()
        .filter(|choice| choice.faults.is_empty())
        .map(|choice| choice.host)
        .collect();
    let seen = measure(agents, question, &possible).await;
    let traits = seen.guest.as_ref().and_then(|guest| guest.traits.clone()).filter(|_| question.live);
    let (vm, spec) = (question.vm.id, &question.vm.spec);
    let limits = &question.limits;
    let asked = possible.iter().map(|host| check(agents, *host, (vm, spec, limits), traits.as_ref()));
    for (host, faults) in possible.iter().zip(join_all(asked).await) {
        if let Some(choice) = question.candidates.iter_mut().find(|choice| choice.host == *host) {
            choice.faults = faults;
        }
    }
    seen
}

async fn measure(agents: &Agents, question: &Question, possible: &[HostId]) -> Seen {
    let candidates = possible.iter().take(AgentCommand::CANDIDATES_MAX).copied().collect();
    let (vm, spec) = (question.vm.id, question.vm.spec.clone());
    let command = AgentCommand::MeasureGuest { vm, spec, candidates };
    let failed = |why: String| Seen {
        notes: vec![format!("the machine's host measured nothing: {why}")],
        ..Seen::default()
    };
    match agents.call(question.source, &command).await {
        Ok(AgentReply::Measured(guest, links)) => Seen { guest: Some(*guest), links, notes: Vec::new() },
        Ok(AgentReply::Denied(denial)) => failed(denial.text),
        Ok(_) => failed("its answer does not fit".to_owned()),
        Err(error) => failed(told(error)),
    }
}

/// An error with its causes.
fn told(error: CallError) -> String {
    format!("{:#}", anyhow::Error::from(error))
}

/// What speaks against the machine at this host.
pub async fn check(
    agents: &Agents,
    host: HostId,
    (vm, spec, limits): (VmId, &VmSpec, &MoveLimits),
    traits: Option<&GuestTraits>,
) -> Vec<PreflightFault> {
    let post_copy = spec.mobility.allows_post_copy() && limits.may_split();
    let command = AgentCommand::CheckInbound { vm, spec: spec.clone(), post_copy, traits: traits.cloned() };
    let reason = match agents.call(host, &command).await {
        Ok(AgentReply::Checked(faults)) => return faults,
        Ok(AgentReply::Denied(denial)) => denial.text,
        Ok(_) => "its answer does not fit".to_owned(),
        Err(error) => told(error),
    };
    vec![PreflightFault::warning(
        PreflightKind::Unreachable,
        format!("the host could not be asked: {reason}"),
        "see whether its agent runs and can be reached",
    )]
}
