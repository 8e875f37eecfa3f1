//! Telling a host what is wanted of a machine, and remembering that it was told.

use super::World;
use crate::{agents::SessionNumber, identity::now};
use novacron_common::{
    ids::{HostId, VmId},
    record::{VmAction, VmAssignment, VmObservation, VmState},
    units::ByteCount,
    wire::{AgentCommand, AgentReply, Denial, DenialCode, codec},
};
use novacron_core::{CommandBody, command::VmObserve};
use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hasher},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// What was said last of a machine.
#[derive(Debug, Clone, Copy)]
struct Said {
    session: Option<SessionNumber>,
    digest: u64,
    at: Instant,
}

/// What hosts were told. Forgotten with the term: being told twice is harmless.
#[derive(Debug, Clone, Default)]
pub struct Told(Arc<Mutex<HashMap<VmId, Said>>>);

impl Told {
    /// How long ago exactly this was said in this session.
    pub fn ago(&self, wanted: &VmAssignment, session: SessionNumber) -> Option<Duration> {
        let said = self.lock().get(&wanted.vm).copied()?;
        (said.session == Some(session) && said.digest == digest(wanted)).then(|| said.at.elapsed())
    }

    /// The machine is gone.
    pub fn forget(&self, vm: VmId) {
        self.lock().remove(&vm);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<VmId, Said>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is compared to know whether an assignment was sent before.
fn digest(assignment: &VmAssignment) -> u64 {
    let mut hasher = DefaultHasher::new();
    // An assignment that cannot be encoded cannot be sent either.
    hasher.write(&codec::encode(assignment).unwrap_or_default());
    hasher.finish()
}

/// Sends one assignment; `None` if the host cannot be asked now.
pub async fn tell(world: &World, host: HostId, assignment: VmAssignment, told: &Told) -> Option<()> {
    let session = world.agents.sessions().current(host);
    let (vm, deletes) = (assignment.vm, assignment.action == VmAction::Delete);
    let said = Said { session, digest: digest(&assignment), at: Instant::now() };
    let seen = observation(&assignment);
    match world.agents.call(host, &AgentCommand::AssignVm(assignment)).await {
        Ok(AgentReply::Denied(denial)) => denied(world, host, seen.clone(), &denial).await,
        Ok(_) => {}
        Err(error) => {
            tracing::debug!(%vm, %host, %error, "could not send an assignment");
            return None;
        }
    }
    told.lock().insert(vm, said);
    if deletes {
        confirm_gone(world, host, seen).await;
    }
    Some(())
}

/// A refusal that will not pass by itself is shown as the machine's state.
async fn denied(world: &World, host: HostId, seen: VmObservation, denial: &Denial) {
    tracing::warn!(vm = %seen.vm, %host, %denial, "the agent refused an assignment");
    match denial.code {
        // The host knows more than we: its next report says what.
        DenialCode::StaleEpoch | DenialCode::Unknown | DenialCode::Conflict => {}
        DenialCode::NoRoom
        | DenialCode::Unsupported
        | DenialCode::Invalid
        | DenialCode::Image
        | DenialCode::Failed => {
            let message = Some(denial.text.clone());
            observe(world, host, VmObservation { state: VmState::Failed, message, ..seen }).await;
        }
    }
}

/// A deleted machine shows its end by its absence: the agent is asked, and "nothing" is what is committed.
async fn confirm_gone(world: &World, host: HostId, seen: VmObservation) {
    match world.agents.call(host, &AgentCommand::ObserveVm(seen.vm)).await {
        Ok(AgentReply::Vm(None)) => observe(world, host, seen).await,
        Ok(_) => {}
        Err(error) => tracing::debug!(vm = %seen.vm, %host, %error, "could not ask after a deleted machine"),
    }
}

async fn observe(world: &World, host: HostId, seen: VmObservation) {
    let vm = seen.vm;
    let observe = CommandBody::VmObserve(VmObserve { host, observations: vec![seen] });
    if let Err(error) = world.ledger.propose(observe).await {
        tracing::debug!(%vm, %error, "could not commit what a host says of a machine");
    }
}

/// "It is not there", which is what is seen of a machine before anything is known.
fn observation(assignment: &VmAssignment) -> VmObservation {
    VmObservation {
        vm: assignment.vm,
        epoch: assignment.epoch,
        generation: assignment.generation,
        state: VmState::Missing,
        health: None,
        message: None,
        progress: None,
        addresses: Vec::new(),
        restarted: 0,
        ran: false,
        cpu_ms: 0,
        memory: ByteCount(0),
        since: now(),
    }
}
