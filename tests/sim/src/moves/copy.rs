//! One copy of a guest as the source's libvirtd carries it out, and what it says to the target's. A guest that writes too fast
//! goes over, if it may, before all of its memory has (post-copy): then its QEMU sends the rest, over the same way or a later one.

use super::{
    metal::{Job, Metal, Power, Split},
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
/// Per cent of the guests that may go over which do not leave otherwise.
const STUBBORN: u64 = 75;
/// How much of its memory follows a guest that went over, in pieces.
const PIECES: (u64, u64) = (1, 20);
/// How long a piece takes.
const PIECE: (u64, u64) = (MILLI, 200 * MILLI);
/// How soon a process that is told to end does.
const END: (u64, u64) = (MILLI, 150 * MILLI);
/// How often libvirt sees a guest whose process was killed end before it has ended it itself, per cent.
const UNEXPECTED: u64 = 30;
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
    /// As before, and it is to run at once (it may go over): it all is there, or a rest is to follow.
    Run(Memory, Option<Disk>, Extent),
    /// Some of the rest.
    Piece,
    /// The last of it.
    Rest,
    /// A stopped machine's disk.
    Disk(Option<Disk>, bool),
}

/// How much of a guest's memory has crossed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Extent {
    /// All of it.
    Whole,
    /// A half.
    Half,
}

/// What the target's side answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Heard {
    /// Go on.
    Prepared,
    /// It is complete.
    Finished,
    /// It runs, and more of its memory is to follow.
    More,
    /// The disk is on stable storage.
    Taken,
    /// The guest's process there has ended.
    Ended,
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
pub fn start(
    metal: &Arc<Metal>,
    vm: VmId,
    conduit: Conduit,
    post_copy: bool,
) -> oneshot::Receiver<Result<(), String>> {
    let (done, outcome) = oneshot::channel();
    let (there, machine) = (Arc::clone(metal), metal.machine);
    let stubborn = post_copy && metal.executor.draw(|rng| rng.percent(STUBBORN));
    metal.set(vm, |domain| domain.job = Some(Job { stubborn, ..Job::default() }));
    if post_copy {
        metal.truth.may_go_over(metal.host, vm);
    }
    let job = async move {
        let ended = tokio::select! {
            biased;
            () = there.daemon_gone() => Err("libvirtd is gone".to_owned()),
            ended = carry_out(&there, vm, conduit, post_copy) => {
                end(&there, vm, ended.is_err());
                ended
            }
        };
        let _ = done.send(ended); // the agent may be gone
    };
    metal.executor.spawn_on(machine, Box::pin(job));
    outcome
}

/// QEMU sends on what could not follow a guest that went over. libvirtd takes no part.
pub fn send_on(metal: &Arc<Metal>, vm: VmId, mut conduit: Conduit) {
    metal.flow(vm);
    let there = Arc::clone(metal);
    let rest = async move {
        match follow(&there, vm, &mut conduit).await {
            Ok(()) => there.leave(vm),
            Err(_) => there.part_ways(vm),
        }
    };
    metal.executor.spawn_on(metal.machine, Box::pin(rest));
}

/// A copy that failed leaves its guest as it was: it runs on, unless somebody else holds it, or it went over.
fn end(metal: &Metal, vm: VmId, failed: bool) {
    let domain = metal.domain(vm);
    metal.set(vm, |domain| domain.job = None);
    let Some((domain, job)) = domain.and_then(|domain| Some((domain, domain.job?))).filter(|_| failed) else {
        return;
    };
    match domain.split {
        Some(_) => metal.part_ways(vm),
        None if job.switched && !job.held => drop(metal.resume(vm)),
        None => {}
    }
}

async fn carry_out(metal: &Metal, vm: VmId, mut conduit: Conduit, post_copy: bool) -> Result<(), String> {
    match conduit.ask(Said::Prepare).await? {
        Heard::Prepared => {}
        other => return Err(format!("{other:?}")),
    }
    let passes = metal.executor.draw(|rng| rng.between(PASSES.0, PASSES.1));
    let mut pass = 0;
    loop {
        sleep(metal.draw(PASS)).await;
        let job = goes_on(metal, vm, &conduit)?;
        pass += 1;
        metal.set(vm, |domain| domain.job.iter_mut().for_each(|job| job.passes = pass));
        match job {
            Job { goes_over: true, .. } => return go_over(metal, vm, conduit).await,
            Job { stubborn: false, .. } if pass >= passes => break,
            _ => {}
        }
    }
    metal.set(vm, |domain| domain.job.iter_mut().for_each(|job| job.switched = true));
    metal.hold(vm);
    sleep(metal.draw(REST)).await;
    goes_on(metal, vm, &conduit)?;
    let now = metal.executor.elapsed();
    let (memory, disk) = metal.truth.holds(metal.host, vm, now).ok_or("the guest is gone")?;
    metal.set(vm, |domain| domain.job.iter_mut().for_each(|job| job.finishing = true));
    // Who may go over is not to be held at the other end, for all that libvirt knows.
    let last = match post_copy {
        true => Said::Run(memory, disk, Extent::Whole),
        false => Said::Finish(memory, disk),
    };
    match conduit.ask(last).await? {
        Heard::Finished => {}
        other => return Err(format!("{other:?}")),
    }
    sleep(metal.draw(END)).await;
    metal.set(vm, |domain| domain.job = None);
    let killed = metal.domain(vm).is_some_and(|domain| domain.power == Power::Off);
    if killed && metal.executor.draw(|rng| rng.percent(UNEXPECTED)) {
        return Err("the guest has ended unexpectedly".to_owned());
    }
    metal.end(vm);
    sleep(LOOK).await;
    metal.undefine(vm);
    Ok(())
}

/// The guest is held here for good, runs there, and the rest of its memory follows.
async fn go_over(metal: &Metal, vm: VmId, mut conduit: Conduit) -> Result<(), String> {
    metal.part(vm);
    let now = metal.executor.elapsed();
    let (memory, disk) = metal.truth.holds(metal.host, vm, now).ok_or("the guest is gone")?;
    metal.set(vm, |domain| domain.job.iter_mut().for_each(|job| job.finishing = true));
    let heard = conduit.ask(Said::Run(memory, disk, Extent::Half)).await.inspect_err(|_| {
        // Nobody knows whether it runs there. If it does not, no QEMU takes it back: that is post-copy's price.
        metal.truth.excuses(vm);
    });
    match heard? {
        Heard::More => follow(metal, vm, &mut conduit).await?,
        // The agents made it a call that holds the guest: there it is, all of it.
        Heard::Finished => {}
        other => {
            if other == Heard::Ended {
                metal.truth.excuses(vm);
            }
            return Err(format!("{other:?}"));
        }
    }
    sleep(metal.draw(END)).await;
    metal.set(vm, |domain| domain.job = None);
    metal.leave(vm);
    sleep(LOOK).await;
    metal.undefine(vm);
    Ok(())
}

async fn follow(metal: &Metal, vm: VmId, conduit: &mut Conduit) -> Result<(), String> {
    for left in (0..metal.executor.draw(|rng| rng.between(PIECES.0, PIECES.1))).rev() {
        sleep(metal.draw(PIECE)).await;
        if metal.split(vm) != Some(Split::Flows) {
            return Err("the guest ended".to_owned());
        }
        let (said, expected) = match left {
            0 => (Said::Rest, Heard::Finished),
            _ => (Said::Piece, Heard::More),
        };
        let heard = conduit.ask(said).await?;
        if heard != expected {
            return Err(format!("{heard:?}"));
        }
    }
    Ok(())
}

fn goes_on(metal: &Metal, vm: VmId, conduit: &Conduit) -> Result<Job, String> {
    let domain = metal.domain(vm).ok_or("the domain is gone")?;
    match domain.job {
        Some(Job { aborted: true, .. }) => Err("operation aborted".to_owned()),
        _ if domain.power == Power::Off => Err("the guest ended".to_owned()),
        _ if conduit.to.is_closed() || !conduit.from.is_empty() => Err("Broken pipe".to_owned()),
        job => job.ok_or_else(|| "there is no such job".to_owned()),
    }
}
