//! Tells hosts to start what they were given, to kill what is no longer wanted, and to kill what was declared over
//! while they were out of sight. Each order once a session.

use super::{World, lanes::Lanes};
use crate::{agents::SessionNumber, identity::now};
use novacron_common::{
    ids::{AttemptKey, HostId},
    record::{AttemptEnd, AttemptOutcome, AttemptReport, Output},
    units::{Epoch, UnixMillis},
    wire::{AgentCommand, AgentReply, AttemptStart, Denial, DenialCode, Lease},
};
use novacron_core::{CommandBody, State, attempts, command::AttemptSettled};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Pause after a host could not be asked or has put an order off, before anything else is tried with it.
const PAUSE: Duration = Duration::from_millis(500);

/// What was sent in which session; a new session is told everything again.
pub type Sent = Arc<Mutex<HashMap<(AttemptKey, Kind), SessionNumber>>>;

/// What is ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Run it.
    Start,
    /// End it.
    Kill,
    /// End it, should it still run: it was declared over.
    KillOrphan,
}

/// What one host is to be told.
#[derive(Debug)]
pub struct Errand {
    attempt: AttemptKey,
    epoch: Epoch,
    /// What to run; `None` to end it.
    start: Option<Box<AttemptStart>>,
    kind: Kind,
    session: SessionNumber,
}

/// What became of an order.
enum Told {
    /// The host has it, or has said for good that it will not do it.
    Done,
    /// The host cannot do it yet: it is to be told again.
    NotYet,
    /// The host cannot be asked now, or what it said cannot be committed.
    Interrupted,
}

/// What hosts with a session have not been told in it.
pub fn errands(world: &World, sent: &Sent) -> BTreeMap<HostId, Vec<Errand>> {
    let mut sent = lock(sent);
    let mut live = HashSet::new();
    let mut errands: BTreeMap<HostId, Vec<Errand>> = BTreeMap::new();
    world.ledger.read(|state| {
        for (host, errand) in wanted(world, state) {
            live.insert(errand.attempt);
            if sent.get(&(errand.attempt, errand.kind)) != Some(&errand.session) {
                errands.entry(host).or_default().push(errand);
            }
        }
    });
    sent.retain(|(attempt, _), _| live.contains(attempt));
    errands
}

fn wanted(world: &World, state: &State) -> Vec<(HostId, Errand)> {
    let sessions = world.agents.sessions();
    let lease = Lease { duration_ms: u64::try_from(world.jobs.lease.as_millis()).unwrap_or(u64::MAX) };
    let index = state.index().fires();
    let current = index.running().filter_map(|(host, key)| {
        let session = sessions.current(host)?;
        let (fire, (_, start)) = state.fire(key).zip(attempts::start(state, key, lease))?;
        let kill = attempts::is_to_be_killed(fire);
        let kind = if kill { Kind::Kill } else { Kind::Start };
        let (attempt, epoch) = (start.attempt, start.epoch);
        let start = (!kill).then(|| Box::new(start));
        Some((host, Errand { attempt, epoch, start, kind, session }))
    });
    let orphans = index.orphans().filter_map(|(host, attempt)| {
        let session = sessions.current(host)?;
        let epoch = state.attempt(attempt)?.epoch;
        Some((host, Errand { attempt, epoch, start: None, kind: Kind::KillOrphan, session }))
    });
    current.chain(orphans).collect()
}

/// Runs a host's errands one after the other, if its lane is free.
pub fn run(world: &World, lanes: &mut Lanes<HostId>, sent: &Sent, host: HostId, errands: Vec<Errand>) {
    let (world, sent) = (world.clone(), sent.clone());
    lanes.start(host, async move {
        let mut put_off = false;
        for errand in errands {
            let key = (errand.attempt, errand.kind);
            let session = errand.session;
            match tell(&world, host, errand).await {
                Told::Done => drop(lock(&sent).insert(key, session)),
                Told::NotYet => put_off = true,
                Told::Interrupted => {
                    put_off = true;
                    break;
                }
            }
        }
        if put_off {
            novacron_runtime::time::sleep(PAUSE).await;
        }
    });
}

fn lock(sent: &Sent) -> MutexGuard<'_, HashMap<(AttemptKey, Kind), SessionNumber>> {
    sent.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn tell(world: &World, host: HostId, errand: Errand) -> Told {
    let (attempt, epoch, kind) = (errand.attempt, errand.epoch, errand.kind);
    let command = match errand.start {
        Some(start) => AgentCommand::StartAttempt(*start),
        None => AgentCommand::KillAttempt { attempt, epoch },
    };
    match world.agents.call(host, &command).await {
        Ok(AgentReply::Denied(denial)) => {
            tracing::warn!(%attempt, %host, %denial, ?kind, "the agent refused an attempt");
            if is_put_off(kind, &denial) {
                return Told::NotYet;
            }
            let Some(news) = what_it_means(kind, attempt, epoch, &denial) else { return Told::Done };
            let committed = world.ledger.propose(news).await;
            if committed.is_ok() { Told::Done } else { Told::Interrupted }
        }
        Ok(_) => Told::Done,
        Err(error) => {
            tracing::debug!(%attempt, %host, %error, "could not send an attempt");
            Told::Interrupted
        }
    }
}

/// Whether the host will take the same order later: an earlier attempt of the fire, which was declared over while the
/// host was out of sight, still lives there, and ends by itself when its lease does.
fn is_put_off(kind: Kind, denial: &Denial) -> bool {
    kind == Kind::Start && denial.code == DenialCode::Conflict
}

/// What is known of an attempt whose host refused an order.
fn what_it_means(kind: Kind, attempt: AttemptKey, epoch: Epoch, denial: &Denial) -> Option<CommandBody> {
    let ended = |outcome| {
        let end = never_ran(outcome, now());
        Some(CommandBody::AttemptEnd(Box::new(AttemptReport { attempt, epoch, end })))
    };
    match kind {
        Kind::Start if denial.code == DenialCode::NoRoom => {
            ended(AttemptOutcome::Declined { reason: denial.text.clone() })
        }
        Kind::Start if is_final(denial) => {
            ended(AttemptOutcome::FailedToStart { reason: denial.text.clone() })
        }
        // Orders go one after the other: a start that was sent before has arrived, or never will.
        Kind::Kill if denial.code == DenialCode::Unknown => ended(AttemptOutcome::Killed),
        Kind::Start | Kind::Kill => None,
        Kind::KillOrphan => Some(CommandBody::AttemptSettled(AttemptSettled { attempt })),
    }
}

/// Whether the host will never run it. A stale epoch means that the host knows more than we: its own report says how
/// it ended.
fn is_final(denial: &Denial) -> bool {
    match denial.code {
        DenialCode::NoRoom
        | DenialCode::Unsupported
        | DenialCode::Invalid
        | DenialCode::Image
        | DenialCode::Failed => true,
        DenialCode::StaleEpoch | DenialCode::Unknown | DenialCode::Conflict => false,
    }
}

fn never_ran(outcome: AttemptOutcome, at: UnixMillis) -> AttemptEnd {
    AttemptEnd { outcome, started_at: None, ended_at: at, output: Output::default(), result: None }
}
