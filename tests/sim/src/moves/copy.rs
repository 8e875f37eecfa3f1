//! One copy of a guest as the source's libvirtd carries it out, and what it says to the target's.

use super::{
    metal::{Job, Metal, Power},
    truth::{Disk, Memory},
};
use crate::os::SECOND;
use novacron_common::ids::VmId;
use novacron_runtime::time::{sleep, timeout};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};
use tokio::sync::{mpsc, oneshot};

/// Milliseconds, in nanoseconds.
const MILLI: u64 = 1_000_000;
/// Passes over memory.
const PASSES: (u64, u64) = (1, 7);
/// How long one takes.
const PASS: (u64, u64) = (5 * MILLI, 500 * MILLI);
/// How long the rest takes.
const REST: (u64, u64) = (MILLI, 40 * MILLI);
/// How soon a process that is told to end does.
const END: (u64, u64) = (MILLI, 150 * MILLI);
/// When libvirt looks whether it has.
const LOOK: Duration = Duration::from_millis(200);
/// libvirt's own keep-alive.
const KEEP_ALIVE: Duration = Duration::from_nanos(30 * SECOND);

/// What the source's side says on a lane.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Said {
    /// A running machine comes.
    Prepare,
    /// It is all there: make it complete.
    Finish(Memory, Option<Disk>),
    /// A stopped machine's disk.
    Disk(Option<Disk>, bool),
}

/// What the target's side answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Heard {
    /// Go on.
    Prepared,
    /// It is complete.
    Finished,
    /// The disk is on stable storage.
    Taken,
    /// No.
    Failed(String),
}

/// What a source's libvirtd has in place of a socket.
pub struct Conduit {
    /// To the target's.
    pub to: mpsc::Sender<Said>,
    /// From there.
    pub from: mpsc::Receiver<Heard>,
}

impl Conduit {
    async fn ask(&mut self, said: Said) -> Result<Heard, String> {
        let broken = || "Broken pipe".to_owned();
        self.to.send(said).await.map_err(|_| broken())?;
        let answer = timeout(KEEP_ALIVE, self.from.recv()).await;
        answer.map_err(|_| "keep-alive: no answer".to_owned())?.ok_or_else(broken)
    }
}

/// Carries out a copy where libvirtd runs: it goes on whatever becomes of the agent.
pub fn start(metal: &Arc<Metal>, vm: VmId, conduit: Conduit) -> oneshot::Receiver<Result<(), String>> {
    let (done, outcome) = oneshot::channel();
    let (there, machine) = (Arc::clone(metal), metal.machine);
    metal.set(vm, |domain| domain.job = Some(Job::default()));
    let job = async move {
        let ended = tokio::select! {
            biased;
            () = there.daemon_gone() => Err("libvirtd is gone".to_owned()),
            ended = carry_out(&there, vm, conduit) => {
                end(&there, vm, ended.is_err());
                ended
            }
        };
        let _ = done.send(ended); // the agent may be gone
    };
    metal.executor.spawn_on(machine, Box::pin(job));
    outcome
}

/// A copy that failed leaves its guest as it was: it runs on, unless somebody else holds it.
fn end(metal: &Metal, vm: VmId, failed: bool) {
    let job = metal.domain(vm).and_then(|domain| domain.job);
    metal.set(vm, |domain| domain.job = None);
    if failed && job.is_some_and(|job| job.switched && !job.held) {
        metal.resume(vm);
    }
}

async fn carry_out(metal: &Metal, vm: VmId, mut conduit: Conduit) -> Result<(), String> {
    match conduit.ask(Said::Prepare).await? {
        Heard::Prepared => {}
        other => return Err(format!("{other:?}")),
    }
    let passes = metal.executor.draw(|rng| rng.between(PASSES.0, PASSES.1));
    for pass in 1..=passes {
        sleep(metal.draw(PASS)).await;
        goes_on(metal, vm, &conduit)?;
        metal.set(vm, |domain| domain.job.iter_mut().for_each(|job| job.passes = pass));
    }
    metal.set(vm, |domain| domain.job.iter_mut().for_each(|job| job.switched = true));
    metal.hold(vm);
    sleep(metal.draw(REST)).await;
    goes_on(metal, vm, &conduit)?;
    let now = metal.executor.elapsed();
    let (memory, disk) = metal.truth.holds(metal.host, vm, now).ok_or("the guest is gone")?;
    metal.set(vm, |domain| domain.job.iter_mut().for_each(|job| job.finishing = true));
    match conduit.ask(Said::Finish(memory, disk)).await? {
        Heard::Finished => {}
        other => return Err(format!("{other:?}")),
    }
    sleep(metal.draw(END)).await;
    metal.set(vm, |domain| domain.job = None);
    metal.end(vm);
    sleep(LOOK).await;
    metal.undefine(vm);
    Ok(())
}

fn goes_on(metal: &Metal, vm: VmId, conduit: &Conduit) -> Result<(), String> {
    let domain = metal.domain(vm).ok_or("the domain is gone")?;
    match domain.job {
        Some(Job { aborted: true, .. }) => Err("operation aborted".to_owned()),
        _ if domain.power == Power::Off => Err("the guest ended".to_owned()),
        _ if conduit.to.is_closed() => Err("Broken pipe".to_owned()),
        _ => Ok(()),
    }
}
