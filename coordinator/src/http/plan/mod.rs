//! A move that is only thought of: candidates, pre-flight, measurements and forecast. Nothing is committed.

mod kept;
mod survey;

pub use kept::Kept;

use super::{
    App, lookup,
    problem::{ApiError, ApiResult},
};
use crate::identity::now;
use novacron_common::{
    api::{Candidate, MigrateRequest, MigrationPlan, PlannedGuest, PlannedLink, Problem, ProblemCode},
    ids::HostId,
    record::{LinkMeasure, MoveLimits, PreflightFault, PreflightKind, VmState},
    spec::{Fault, VmSpec},
};
use novacron_core::{
    State, check_move_source, check_move_strategy,
    command::MigrationAsk,
    forecast::{self, Measures, Trip},
    placement::{self, Constraints},
    record::{HostRecord, VmRecord},
};
use std::{cmp::Reverse, time::Duration};
use tokio::time::timeout;

/// A move waits so long at most for what its target says against it.
const OBJECTIONS_MAX: Duration = Duration::from_secs(2);

/// What is asked.
struct Question {
    vm: VmRecord,
    source: HostId,
    live: bool,
    limits: MoveLimits,
    candidates: Vec<Choice>,
}

/// A host, as the placement sees it.
struct Choice {
    host: HostId,
    name: String,
    chosen: bool,
    faults: Vec<PreflightFault>,
}

/// What the move that `body` asks for would take.
pub async fn plan(app: &App, key: &str, body: &MigrateRequest) -> ApiResult<MigrationPlan> {
    let limits = body.limits()?;
    let mut question = app.read(|state| question(state, key, body, limits)).await??;
    let seen = survey::take(&app.agents, &mut question).await;
    for link in &seen.links {
        app.kept.put(
            question.vm.id,
            link.host,
            now(),
            Measures { guest: seen.guest.clone(), link: Some(link.clone()) },
        );
    }
    app.read(|state| answer(state, question, &seen)).await
}

/// Refuses a real move if its target certainly cannot take the machine. What the machine needs is known from a dry run, of
/// the last minutes; without one nobody is asked and nothing waits, and the target's libvirt says it when it gets ready.
pub async fn check(app: &App, ask: &MigrationAsk, spec: &VmSpec) -> ApiResult<()> {
    let traits = ask.measures.guest.as_ref().and_then(|guest| guest.traits.as_ref());
    let Some(traits) = traits.filter(|_| ask.live) else { return Ok(()) };
    let asked = survey::check(&app.agents, ask.target, (ask.vm, spec, &ask.limits), Some(traits));
    let faults = timeout(OBJECTIONS_MAX, asked).await.unwrap_or_default();
    // A repeated request may find its own machine there already: that is the saga's to judge.
    let counts = |fault: &&PreflightFault| fault.certain && fault.kind != PreflightKind::Conflict;
    let certain: Vec<_> = faults.iter().filter(counts).collect();
    let Some(first) = certain.first() else { return Ok(()) };
    let line = |fault: &&PreflightFault| Fault::new("target_host", fault.to_string());
    let problem =
        Problem::new(ProblemCode::NoPlacement, format!("the target cannot take it: {}", first.text));
    Err(problem.fix(first.remedy.clone()).details(certain.iter().map(line).collect()).into())
}

fn question(state: &State, key: &str, body: &MigrateRequest, limits: MoveLimits) -> ApiResult<Question> {
    let vm = lookup::vm(state, key)?;
    let nowhere = || ApiError::new(ProblemCode::Conflict, format!("{} has no place yet", vm.spec.name));
    let source = vm.placed_on.ok_or_else(nowhere)?;
    check_move_source(state, vm, source, body.live)?;
    check_move_strategy(vm, &limits)?;
    let wanted = body
        .target_host
        .as_deref()
        .map(|key| lookup::host_in_field(state, "target_host", key))
        .transpose()?;
    if wanted == Some(source) {
        return Err(ApiError::field(
            "target_host",
            format!("{} is there already: name another host", vm.spec.name),
        ));
    }
    let candidates = choices(state, vm, source, wanted);
    Ok(Question { vm: vm.clone(), source, live: body.live, limits, candidates })
}

/// Who comes into question: the one that was asked for, or all but the machine's own.
fn choices(state: &State, vm: &VmRecord, source: HostId, wanted: Option<HostId>) -> Vec<Choice> {
    let constraints = Constraints { only: None, source: Some(source) };
    let planned = placement::plan(state, &vm.spec, constraints).ok().map(|offer| offer.placement.host);
    let chosen = wanted.or(planned);
    let free = |host: &HostRecord| host.capacity.memory.saturating_sub(state.index().usage(host.id).memory);
    let comes = |host: &&HostRecord| host.id != source && wanted.is_none_or(|wanted| wanted == host.id);
    let mut hosts: Vec<_> = state
        .hosts()
        .iter()
        .filter(comes)
        .map(|host| {
            let lacks = placement::check_host(state, host, &vm.spec, constraints);
            let faults: Vec<_> = lacks.iter().map(|lack| lacking(&host.name.to_string(), lack)).collect();
            let order = (Some(host.id) != chosen, !faults.is_empty(), Reverse(free(host)));
            let choice = Choice {
                host: host.id,
                name: host.name.to_string(),
                chosen: Some(host.id) == chosen,
                faults,
            };
            (order, choice)
        })
        .collect();
    hosts.sort_by_key(|(order, _)| *order);
    hosts.into_iter().map(|(_, choice)| choice).collect()
}

fn lacking(name: &str, lack: &placement::Shortfall) -> PreflightFault {
    use placement::Shortfall as S;
    let remedy = match lack {
        S::Down => "see `novactl host show`: its agent is not heard from",
        S::Cordoned => "`novactl host uncordon` lets machines on it again",
        S::NoKvm | S::NoNamespace => "choose a host that can, or switch it on in its agent.toml",
        S::Memory(_) | S::Storage(_) | S::Cpus(_) => "free some there, or choose another host",
        S::Volumes => "it stays on its host: a machine with volumes does not move",
        S::Source | S::NotAsked | S::Port(_) => "choose another host",
    };
    PreflightFault::certain(PreflightKind::Placement, format!("{name} {lack}"), remedy)
}

fn answer(state: &State, question: Question, seen: &survey::Seen) -> MigrationPlan {
    let Question { vm, source, live, limits, candidates } = question;
    let candidates = candidates
        .into_iter()
        .map(|Choice { host, name, chosen, faults }| {
            let link = seen.links.iter().find(|link| link.host == host).cloned();
            let measures = Measures { guest: seen.guest.clone(), link };
            let trip = Trip { vm: &vm, source, target: host, live, limits: &limits, measures: &measures };
            let possible = !faults.iter().any(|fault| fault.certain);
            let forecast = possible.then(|| forecast::of(state, &trip));
            let link = measures.link.map_or_else(PlannedLink::default, shown);
            Candidate { host, name, chosen, possible, faults, link, forecast }
        })
        .collect();
    MigrationPlan {
        vm: vm.id,
        name: vm.spec.name.to_string(),
        source_host: source,
        live,
        limits,
        guest: guest(&vm, seen),
        candidates,
    }
}

fn shown(link: LinkMeasure) -> PlannedLink {
    PlannedLink { rate: link.rate, round_trip_us: link.round_trip_us, note: link.note }
}

fn guest(vm: &VmRecord, seen: &survey::Seen) -> PlannedGuest {
    let measure = seen.guest.clone().unwrap_or_default();
    let running = vm.state == VmState::Running;
    // A guest that writes anew all the time works on all that it uses.
    let most = measure.in_use_bytes.unwrap_or(vm.spec.memory.0).min(vm.spec.memory.0);
    let dirty = measure.dirty.filter(|_| running).map(|mut dirty| {
        dirty.working_set_bytes = dirty.working_set_bytes.min(most);
        dirty
    });
    PlannedGuest {
        memory_bytes: vm.spec.memory.0,
        in_use_bytes: measure.in_use_bytes,
        disk_bytes: measure.disk_bytes,
        dirty,
        notes: [measure.notes, seen.notes.clone()].concat(),
    }
}
