//! What the coordinators do to machines for a fire: begun by a command, ended by what is observed.

use super::{
    World,
    driver::{Reconciler, Verdict},
};
use crate::identity::now;
use novacron_common::{
    ids::{FireKey, MigrationId},
    record::{AttemptEnd, AttemptOutcome, AttemptReport, MoveLimits, Output},
    spec::{JobTarget, Name, VmVerb, VmVerbTarget},
    units::UnixMillis,
};
use novacron_core::{
    CommandBody, State, TableId, attempts,
    command::{MigrationAsk, VerbBegin, VerbStep},
    forecast::Measures,
    placement::{self, Constraints},
    record::{AttemptRecord, FireRecord, VerbWatch, VmRecord},
    verbs,
};
use std::time::Duration;

/// Pause between looks at time-outs while something is under way.
const WATCH: Duration = Duration::from_millis(500);

/// The command that begins what a fire does to a machine.
pub fn begin(world: &World, fire: FireKey) -> Option<CommandBody> {
    let step = world.ledger.read(|state| {
        let work = attempts::work_of(state, fire)?;
        let JobTarget::Vm(target) = work.target else { return None };
        Some(verbs::step(state, target).unwrap_or_else(|| migration(state, target)))
    })?;
    Some(CommandBody::VerbBegin(Box::new(VerbBegin { fire, step })))
}

/// The target of a move is chosen here, and its secret made: both are for the proposer.
fn migration(state: &State, target: &VmVerbTarget) -> VerbStep {
    let Some((vm, VmVerb::Migrate { target, live })) =
        verbs::find_vm(state, &target.vm).zip(Some(&target.verb))
    else {
        return VerbStep::Impossible(format!("there is no machine {:?}", target.vm));
    };
    let mut secret = [0; 32];
    if aws_lc_rs::rand::fill(&mut secret).is_err() {
        return VerbStep::Impossible("the system gives no random bits".to_owned());
    }
    match destination(state, vm, target.as_deref()) {
        Ok((target, placement)) => VerbStep::Migrate(MigrationAsk {
            id: MigrationId::generate(),
            vm: vm.id,
            target,
            live: *live,
            limits: MoveLimits::default(),
            gang: None,
            secret,
            placement,
            measures: Measures::default(),
        }),
        Err(reason) => VerbStep::Impossible(reason),
    }
}

type Destination = (novacron_common::ids::HostId, Option<placement::Placement>);

fn destination(state: &State, vm: &VmRecord, wanted: Option<&str>) -> Result<Destination, String> {
    let Some(key) = wanted else {
        let elsewhere = Constraints { source: vm.placed_on, only: None };
        let offer = placement::plan(state, &vm.spec, elsewhere).map_err(|none| none.to_string())?;
        return Ok((offer.placement.host, Some(offer.placement)));
    };
    let by_name = || key.parse::<Name>().ok().and_then(|name| state.index().host_named(&name));
    let host = key.parse().ok().filter(|id| state.host(*id).is_some()).or_else(by_name);
    host.map(|host| (host, None)).ok_or_else(|| format!("there is no host {key:?}"))
}

/// Watches what was begun.
pub struct Verbs {
    world: World,
}

impl Verbs {
    pub fn new(world: World) -> Self {
        Self { world }
    }
}

/// What is to be said of an attempt that the coordinators are at.
fn verdict(state: &State, fire: &FireRecord, at: UnixMillis) -> Option<CommandBody> {
    let attempt = state.attempt(fire.attempt()?)?;
    let ended = |outcome| {
        let started_at = Some(attempt.placed_at);
        let end = AttemptEnd { outcome, started_at, ended_at: at, output: Output::default(), result: None };
        Some(CommandBody::AttemptEnd(Box::new(AttemptReport {
            attempt: attempt.key,
            epoch: fire.epoch,
            end,
        })))
    };
    if let Some(outcome) = verbs::outcome(state, attempt) {
        return ended(outcome);
    }
    let late = is_late(state, fire, attempt, at);
    match attempt.verb {
        // Its own end is waited for: a move that is past return has happened, whoever wants it cancelled.
        Some(VerbWatch::Moved(id)) if late || fire.cancel_requested => {
            let asked = state.migration(id).is_some_and(|migration| migration.cancel_requested);
            (!asked).then_some(CommandBody::MigrationCancel { id })
        }
        _ if fire.cancel_requested => ended(AttemptOutcome::Killed),
        _ if late => ended(AttemptOutcome::TimedOut),
        _ => None,
    }
}

fn is_late(state: &State, fire: &FireRecord, attempt: &AttemptRecord, at: UnixMillis) -> bool {
    let timeout = attempts::work_of(state, fire.key).map_or(0, |work| work.timeout_ms);
    at.since(attempt.placed_at) >= Duration::from_millis(timeout)
}

impl Reconciler for Verbs {
    const NAME: &'static str = "verbs";
    const TABLES: &'static [TableId] = &[TableId::Fires, TableId::Vms, TableId::Migrations];
    const PERIOD: Duration = Duration::from_secs(10);

    async fn activate(&mut self) -> Verdict {
        let at = now();
        let (any, bodies) = self.world.ledger.read(|state| {
            let fires: Vec<_> = state.index().fires().unhosted().filter_map(|key| state.fire(key)).collect();
            let bodies: Vec<_> = fires.iter().filter_map(|fire| verdict(state, fire, at)).collect();
            (!fires.is_empty(), bodies)
        });
        if !bodies.is_empty()
            && let Err(error) = self.world.ledger.propose(CommandBody::Batch(bodies)).await
        {
            tracing::warn!(%error, "could not commit the end of what was done to machines");
        }
        if any { Verdict::again_in(WATCH) } else { Verdict::DONE }
    }
}
