//! What is done to machines for a fire: with which command it begins, and how its end is told from what is observed.

use crate::{
    command::{VerbStep, VmDesire, VmRestart},
    record::{AttemptRecord, VerbWatch, VmRecord},
    state::State,
    vms,
};
use novacron_common::{
    api::{MigrationState, VmDesired},
    ids::{HostId, VmId},
    record::{AttemptOutcome, VmState},
    spec::{MachineKind, Name, StopTerms, VmVerb, VmVerbTarget},
};

/// A machine by its id or name.
pub fn find_vm<'a>(state: &'a State, key: &str) -> Option<&'a VmRecord> {
    let by_id = key.parse::<VmId>().ok().and_then(|id| state.vm(id));
    by_id.or_else(|| {
        let id = state.index().vm_named(&key.parse::<Name>().ok()?)?;
        state.vm(id)
    })
}

/// The host with the machine in which a command is to run; `None` while the machine is on its way to running, or to
/// another host: its guest agent is reached from one host only.
///
/// # Errors
/// Why no command can run in it.
pub fn host_of_guest(state: &State, key: &str) -> Result<Option<HostId>, String> {
    let vm = find_vm(state, key).ok_or_else(|| format!("there is no machine {key:?}"))?;
    let name = &vm.spec.name;
    if vm.spec.kind != MachineKind::Kvm {
        return Err(format!("{name} is a namespace machine, which has no guest agent"));
    }
    let comes = vm.desired == VmDesired::Running;
    match vm.state {
        VmState::Running if vm.migration.is_none() => Ok(vm.placed_on),
        VmState::Unknown => Err(format!("the host of {name} is not heard from")),
        VmState::Paused if vm.migration.is_none() => Err(format!("{name} is paused")),
        VmState::Failed => Err(format!("{name} has failed: see its message")),
        _ if vm.migration.is_some() || comes => Ok(None),
        VmState::Pending
        | VmState::Preparing
        | VmState::Running
        | VmState::Paused
        | VmState::Stopping
        | VmState::Stopped
        | VmState::Missing => Err(format!("{name} does not run: start it first")),
    }
}

/// With what `target` begins. `None` for a migration, for which the shell has to choose a target and a secret.
pub fn step(state: &State, target: &VmVerbTarget) -> Option<VerbStep> {
    let Some(vm) = find_vm(state, &target.vm) else {
        return Some(VerbStep::Impossible(format!("there is no machine {:?}", target.vm)));
    };
    if target.verb == VmVerb::Start && vms::is_held(vm) {
        return Some(VerbStep::Impossible(format!("{} is paused: resume it", vm.spec.name)));
    }
    let (vm, stop) = (vm.id, vm.stop);
    Some(match target.verb {
        VmVerb::Start => VerbStep::Desire(VmDesire { vm, desired: VmDesired::Running, stop }),
        VmVerb::Stop { grace_ms } => {
            let stop = StopTerms::within_ms(grace_ms);
            VerbStep::Desire(VmDesire { vm, desired: VmDesired::Stopped, stop })
        }
        VmVerb::Restart => VerbStep::Restart(VmRestart { vm, stop }),
        VmVerb::Migrate { .. } => return None,
    })
}

/// How the attempt has ended, if it has.
pub fn outcome(state: &State, attempt: &AttemptRecord) -> Option<AttemptOutcome> {
    let failed = |reason: &str| Some(AttemptOutcome::Failed { reason: reason.to_owned() });
    let vm = |id: VmId| state.vm(id);
    match attempt.verb? {
        VerbWatch::Runs(id) => match vm(id) {
            None => failed("the machine was deleted"),
            Some(vm) if vm.desired != VmDesired::Running => failed("somebody else wants it stopped"),
            Some(vm) if vm.state == VmState::Running && vm.is_heard() => Some(AttemptOutcome::Done),
            Some(vm) => failure_of(vm),
        },
        VerbWatch::Stopped(id) => match vm(id) {
            None => Some(AttemptOutcome::Done),
            Some(vm) if vm.desired == VmDesired::Running => failed("somebody else wants it running"),
            Some(vm) if is_down(vm) => Some(AttemptOutcome::Done),
            Some(vm) => failure_of(vm),
        },
        VerbWatch::Restarted { vm: id, request } => match vm(id) {
            None => failed("the machine was deleted"),
            Some(vm) if vm.desired != VmDesired::Running => failed("somebody else wants it stopped"),
            Some(vm) if vm.restarts_done >= request && vm.state == VmState::Running => {
                Some(AttemptOutcome::Done)
            }
            Some(vm) => failure_of(vm),
        },
        VerbWatch::Moved(id) => {
            let Some(migration) = state.migration(id) else { return failed("its record is gone") };
            match migration.state {
                MigrationState::Completed => Some(AttemptOutcome::Done),
                _ if migration.is_final() => failed(&migration.message),
                _ => None,
            }
        }
    }
}

/// Whether it stands still, and its host knows that it is to.
fn is_down(vm: &VmRecord) -> bool {
    matches!(vm.state, VmState::Stopped | VmState::Missing) && vm.is_heard()
}

fn failure_of(vm: &VmRecord) -> Option<AttemptOutcome> {
    let message = vm.observed.as_ref().and_then(|seen| seen.observation.message.clone());
    (vm.state == VmState::Failed).then(|| AttemptOutcome::Failed {
        reason: message.unwrap_or_else(|| "the machine failed".to_owned()),
    })
}
