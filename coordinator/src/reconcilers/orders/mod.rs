//! Tells hosts to start what they were given, to kill what is no longer wanted, and to kill what was declared over
//! while they were out of sight. Each order once a session.

mod rules;

use super::{World, lanes::Lanes};
use crate::identity::now;
use novacron_common::{
    ids::HostId,
    wire::{AgentCommand, AgentReply, Lease},
};
use rules::{Errand, Meaning, Order, Told};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Pause after a host could not be asked or has put an order off, before anything else is tried with it.
const PAUSE: Duration = Duration::from_millis(500);

/// What hosts have been told. Cheap to clone.
pub type Sent = Arc<Mutex<Told>>;

/// What became of an order.
enum Outcome {
    /// The host has it, or has said for good that it will not do it.
    Done,
    /// The host cannot do it yet: it is to be told again.
    NotYet,
    /// The host cannot be asked now, or what it said cannot be committed.
    Interrupted,
}

/// What hosts with a session have not been told in it.
pub fn errands(world: &World, sent: &Sent) -> BTreeMap<HostId, Vec<Errand>> {
    let lease = Lease { duration_ms: u64::try_from(world.jobs.lease.as_millis()).unwrap_or(u64::MAX) };
    let sessions = world.agents.sessions();
    let wanted = world.ledger.read(|state| rules::wanted(state, |host| sessions.current(host), lease));
    lock(sent).owed(wanted)
}

/// Runs a host's errands one after the other, if its lane is free.
pub fn run(world: &World, lanes: &mut Lanes<HostId>, sent: &Sent, host: HostId, errands: Vec<Errand>) {
    let (world, sent) = (world.clone(), sent.clone());
    lanes.start(host, async move {
        let mut put_off = false;
        for errand in errands {
            let mark = errand.mark();
            match tell(&world, host, errand).await {
                Outcome::Done => lock(&sent).note(mark),
                Outcome::NotYet => put_off = true,
                Outcome::Interrupted => {
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

fn lock(sent: &Sent) -> MutexGuard<'_, Told> {
    sent.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn tell(world: &World, host: HostId, errand: Errand) -> Outcome {
    let Errand { attempt, epoch, order, .. } = errand;
    let kind = order.kind();
    let command = match order {
        Order::Start(start) => AgentCommand::StartAttempt(*start),
        Order::Kill | Order::KillOrphan => AgentCommand::KillAttempt { attempt, epoch },
    };
    match world.agents.call(host, &command).await {
        Ok(AgentReply::Denied(denial)) => {
            tracing::warn!(%attempt, %host, %denial, ?kind, "the agent refused an attempt");
            match rules::meaning(kind, (attempt, epoch), &denial, now()) {
                Meaning::NotYet => Outcome::NotYet,
                Meaning::Nothing => Outcome::Done,
                Meaning::News(news) => match world.ledger.propose(news).await {
                    Ok(_) => Outcome::Done,
                    Err(_) => Outcome::Interrupted,
                },
            }
        }
        Ok(_) => Outcome::Done,
        Err(error) => {
            tracing::debug!(%attempt, %host, %error, "could not send an attempt");
            Outcome::Interrupted
        }
    }
}
