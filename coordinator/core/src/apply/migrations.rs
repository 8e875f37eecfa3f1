//! Migrations: asked for, observed, cancelled. What an observation leads to is the saga's to say.

use super::{Outcome, turn};
use crate::{
    applied::{Applied, Refusal},
    command::{MigrationAsk, MigrationDenied, MigrationObserve},
    forecast::{self, Trip},
    migration::{observe::speaks_for, saga},
    placement::{self, Constraints, NoPlacement, Placement, Rejected, Shortfall},
    record::{HostRecord, MigrationRecord, VmRecord},
    state::State,
};
use novacron_common::{
    api::{MigrationState, ProblemCode, VmDesired},
    ids::{HostId, MigrationId},
    record::{InboundState, MigrationProgress, MoveLimits, OutboundState, SideState, Strategy, VmState},
};
use std::time::Duration;

/// A ticket is good for so long from the request: images are fetched within it, and every lane opened.
pub(super) const TICKET_LIFE: Duration = Duration::from_secs(3600);
/// Migrations on record; the oldest that has ended goes when another comes.
const MIGRATIONS_KEPT: usize = 10_000;

pub(super) fn ask(state: &mut State, c: MigrationAsk) -> Outcome {
    if let Some(old) = state.migration(c.id) {
        let asked = (c.vm, c.target, c.live, c.limits, c.gang);
        let same = (old.vm, old.target, old.live, old.limits, old.gang) == asked;
        return match same {
            true => Ok(Applied::MigrationAsked(c.id)),
            false => Err(Refusal::conflict(format!("there is another migration {}", c.id))),
        };
    }
    let vm = super::vms::find_still(state, c.vm)?;
    let source =
        vm.placed_on.ok_or_else(|| Refusal::conflict(format!("{} has no place yet", vm.spec.name)))?;
    check_source(state, &vm, source, c.live)?;
    check_strategy(&vm, &c.limits)?;
    check_target(state, &vm, source, c.target)?;
    let halts = !c.live && (vm.state, vm.desired) != (VmState::Stopped, VmDesired::Stopped);
    let vm = if halts { vm.wished_anew() } else { vm };
    let mut record = new_migration(state, c, &vm, source);
    record.awaits_stop = halts;
    record.awaits_turn = turn::is_taken(state, &record);
    let migration = record.id;
    state.write(VmRecord { migration: Some(migration), hold_stopped: halts, ..vm });
    state.write(record);
    drop_oldest(state);
    Ok(Applied::MigrationAsked(migration))
}

/// Whether the machine can be taken away from `source`.
///
/// # Errors
/// [`Refusal`] says why not, and what to do about it.
pub fn check_source(state: &State, vm: &VmRecord, source: HostId, live: bool) -> Result<(), Refusal> {
    let host = super::hosts::find(state, source)?;
    if !host.is_up() {
        return Err(Refusal::new(ProblemCode::HostUnavailable, format!("its host {} is down", host.name)));
    }
    let running = vm.state == VmState::Running && vm.desired == VmDesired::Running;
    let made = matches!(vm.state, VmState::Running | VmState::Stopped);
    match live {
        _ if vm.state == VmState::Paused => {
            Err(Refusal::conflict(format!("{} is paused", vm.spec.name)).fix("resume it first"))
        }
        true if !running => Err(Refusal::conflict(format!("{} is not running", vm.spec.name))
            .fix("start it, or move it with \"live\": false")),
        false if !made => Err(Refusal::conflict(format!("{} is neither running nor stopped", vm.spec.name))
            .fix("wait until it is, or see its message")),
        _ => Ok(()),
    }
}

/// Whether the machine may be moved by these means.
///
/// # Errors
/// [`Refusal`] says why not, and what to do about it.
pub fn check_strategy(vm: &VmRecord, limits: &MoveLimits) -> Result<(), Refusal> {
    if limits.strategy != Strategy::Postcopy || vm.spec.mobility.allows_post_copy() {
        return Ok(());
    }
    Err(Refusal::conflict(format!(
        "{} does not allow post-copy, which can strand or lose a running guest",
        vm.spec.name
    ))
    .fix("allow it (\"post_copy\": true, by PUT on the machine), or choose another strategy"))
}

fn check_target(state: &State, vm: &VmRecord, source: HostId, target: HostId) -> Result<(), Refusal> {
    let host = super::hosts::find(state, target)?;
    let constraints = Constraints { only: None, source: Some(source) };
    let lacks = placement::check_host(state, host, &vm.spec, constraints);
    match lacks.first() {
        None => Ok(()),
        Some(Shortfall::Source) => {
            Err(Refusal::conflict(format!("{} is on {} already", vm.spec.name, host.name))
                .fix("name another host"))
        }
        Some(Shortfall::Down) => Err(unavailable(host, "down")),
        Some(Shortfall::Cordoned) => Err(unavailable(host, "cordoned")),
        Some(_) => {
            let rejected = vec![Rejected { host: host.id, name: host.name.clone(), lacks }];
            Err(NoPlacement { rejected }.into())
        }
    }
}

fn unavailable(host: &HostRecord, how: &str) -> Refusal {
    Refusal::new(ProblemCode::HostUnavailable, format!("{} is {how}", host.name)).fix("name another host")
}

fn new_migration(state: &State, c: MigrationAsk, vm: &VmRecord, source: HostId) -> MigrationRecord {
    let trip = Trip { vm, source, target: c.target, live: c.live, limits: &c.limits, measures: &c.measures };
    let forecast = forecast::of(state, &trip);
    MigrationRecord {
        id: c.id,
        vm: c.vm,
        source,
        target: c.target,
        live: c.live,
        limits: c.limits,
        gang: c.gang,
        epoch: vm.epoch,
        generation: vm.generation,
        secret: c.secret,
        ticket_expires_at: state.now().plus(TICKET_LIFE),
        claim: vm.claim(),
        state: MigrationState::Pending,
        step: 0,
        awaits_stop: false,
        awaits_turn: false,
        outbound: OutboundState::Unknown,
        outbound_unknown_at: None,
        inbound: InboundState::Unknown,
        inbound_unknown_at: None,
        started: false,
        handed_over: false,
        cancel_requested: false,
        abandoned: false,
        message: String::new(),
        progress: MigrationProgress::default(),
        report: None,
        placement: c.placement.map(Placement::bounded),
        forecast: Some(forecast),
        started_at: state.now(),
        ended_at: None,
    }
}

fn drop_oldest(state: &mut State) {
    if state.migrations().len() <= MIGRATIONS_KEPT {
        return;
    }
    let oldest = state.migrations().iter().find(|m| m.is_final()).map(|m| m.id);
    if let Some(oldest) = oldest {
        state.erase::<MigrationRecord>(&oldest);
    }
}

pub(super) fn observe(state: &mut State, c: MigrationObserve) -> Outcome {
    let mut record = find(state, c.id)?.clone();
    if record.is_final() {
        return Ok(Applied::AlreadySo);
    }
    if !speaks_for(&record, c.host, &c.side) {
        return Err(Refusal::new(ProblemCode::Forbidden, format!("{} does not speak for that side", c.host)));
    }
    if !saga::step(&mut record, c.side, c.asked_at_step) {
        return Ok(Applied::AlreadySo);
    }
    store(state, record);
    Ok(Applied::Done)
}

pub(super) fn denied(state: &mut State, c: &MigrationDenied) -> Outcome {
    let mut record = find(state, c.id)?.clone();
    if record.is_final() || record.step != c.step {
        return Ok(Applied::AlreadySo);
    }
    let before =
        matches!(record.state, MigrationState::Pending | MigrationState::Preparing | MigrationState::Copying);
    let message = saga::short(&c.reason);
    if record.message == message && (record.abandoned || !before) {
        return Ok(Applied::AlreadySo);
    }
    record.abandoned |= before;
    record.message = message;
    saga::advance(&mut record);
    store(state, record);
    Ok(Applied::Done)
}

pub(super) fn cancel(state: &mut State, id: MigrationId) -> Outcome {
    let mut record = find(state, id)?.clone();
    match record.state {
        state if state.is_final() => return Err(Refusal::conflict("the migration has ended")),
        MigrationState::HandingOver | MigrationState::Finishing => {
            return Err(Refusal::conflict("it is too late to cancel: the guest has left the source")
                .fix("let it finish, and move the machine back"));
        }
        MigrationState::Stranded => {
            return Err(Refusal::conflict("it is too late to cancel: a half of the guest is on each host")
                .fix("let them meet again, or give the guest up: `novactl migration give-up`"));
        }
        _ if record.cancel_requested => return Ok(Applied::AlreadySo),
        _ => (),
    }
    record.cancel_requested = true;
    record.message = "cancelled on request".to_owned();
    saga::advance(&mut record);
    store(state, record);
    Ok(Applied::Done)
}

/// Ends what is left of a guest whose halves lost each other. The half on the source counts as lost from here on; the target
/// is told to let go of its own, unless all of the guest is there by then.
pub(super) fn give_up(state: &mut State, id: MigrationId) -> Outcome {
    let mut record = find(state, id)?.clone();
    if record.state.is_final() {
        return Err(Refusal::conflict("the migration has ended"));
    }
    if matches!(record.outbound, OutboundState::Lost { .. }) {
        return Ok(Applied::AlreadySo);
    }
    if record.state != MigrationState::Stranded {
        return Err(Refusal::conflict(
            "the halves of its guest have not lost each other: it is not stranded",
        )
        .fix("`novactl migration show` says how far it is; until the hand-over it can be cancelled"));
    }
    let reason = "the guest is lost: it was given up on request".to_owned();
    saga::step(&mut record, SideState::Outbound(OutboundState::Lost { reason }), None);
    store(state, record);
    Ok(Applied::Done)
}

/// The guest of a migration that awaits its stop has stopped.
pub(super) fn guest_stopped(state: &mut State, id: MigrationId) {
    let Some(record) = state.migration(id).filter(|m| m.awaits_stop).cloned() else {
        return;
    };
    if let Some(vm) = state.vm(record.vm).cloned() {
        // It stopped for the move, not by its own wish: it is to run again wherever the move ends.
        state.write(VmRecord { hold_stopped: false, ..vm });
    }
    // A new step: whoever drives the saga looks again at once.
    state.write(MigrationRecord { awaits_stop: false, step: record.step + 1, ..record });
}

/// Whether the right to run the machine goes (back) to the source under a new epoch: the guest had left and the target lost
/// it before it ran there, or the hand-over was committed for post-copy and the guest did not go over.
fn returns_to_source(record: &MigrationRecord) -> bool {
    let back = matches!(record.state, MigrationState::Failed | MigrationState::Cancelled);
    back && (record.handed_over || matches!(record.outbound, OutboundState::Gone(_)))
}

/// Writes a record, and what its new state means for the machine.
pub(super) fn store(state: &mut State, mut record: MigrationRecord) {
    if record.is_final() && record.ended_at.is_none() {
        record.ended_at = Some(state.now());
        if record.state == MigrationState::Completed && record.message != saga::MET_AGAIN {
            record.message = "the machine is on the target".to_owned();
        }
    }
    let Some(mut vm) = state.vm(record.vm).cloned() else {
        return;
    };
    if returns_to_source(&record) {
        // It is the source that has the machine, or what is left of it: an epoch tells its agent so.
        record.handed_over = false;
        vm.placed_on = vm.placed_on.map(|_| record.source);
        vm.epoch = vm.epoch.next();
    }
    if record.is_final() {
        vm.migration = None;
        vm.hold_stopped = false;
        if !record.live {
            // It was halted, or may have been: what was wanted of it before is wanted again.
            vm = vm.wished_anew();
        }
    }
    // The machine's own place first: between the two writes room may be counted twice, never too little.
    state.write(vm);
    let ended = record.is_final().then(|| record.clone());
    state.write(record);
    if let Some(ended) = ended {
        turn::pass_on(state, &ended);
    }
}

/// Whether a guest has left this host and nobody has taken it over yet: removing the host now would lose it.
pub(super) fn hands_over_from(state: &State, host: HostId) -> bool {
    let open = state.index().migrating().filter_map(|id| state.migration(id));
    open.into_iter()
        .any(|m| m.source == host && !m.handed_over && matches!(m.outbound, OutboundState::Gone(_)))
}

/// A host was removed by force: its side of each migration is over, as far as it went.
pub(super) fn host_gone(state: &mut State, host: HostId) {
    let ids: Vec<_> = state.index().migrating().collect();
    for mut record in ids.iter().filter_map(|id| state.migration(*id).cloned()).collect::<Vec<_>>() {
        let (reason, climb) = ("the host was removed".to_owned(), record.climb());
        let is_split = record.handed_over && may_be_split(&record);
        let side = match (record.source == host, record.target == host, record.handed_over) {
            (true, ..) if is_split => SideState::Outbound(OutboundState::Lost { reason }),
            (true, _, true) => SideState::Outbound(OutboundState::Released),
            (true, _, false) => SideState::Outbound(OutboundState::Back { reason, cancelled: false, climb }),
            (_, true, _) if is_split => SideState::Inbound(InboundState::Lost { reason }),
            (_, true, _) => SideState::Inbound(InboundState::Discarded { reason }),
            _ => continue,
        };
        saga::step(&mut record, side, None);
        store(state, record);
    }
}

/// Whether a half of the guest may be on each host, as far as is known.
fn may_be_split(record: &MigrationRecord) -> bool {
    let source = matches!(
        record.outbound,
        OutboundState::Poised(_) | OutboundState::Split(_) | OutboundState::Stranded { .. }
    );
    source && record.inbound != InboundState::Running
}

pub(super) fn find(state: &State, id: MigrationId) -> Result<&MigrationRecord, Refusal> {
    state.migration(id).ok_or_else(|| Refusal::not_found("migration", id))
}
