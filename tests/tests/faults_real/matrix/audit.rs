//! Looks at everything after a cell: hosts, ledger, guest, disk.

use std::time::{Duration, Instant};

use anyhow::Result;
use novacron_common::api::MigrationView;
use novacron_tests::cluster::Cluster;
use novacron_tests::matrix::{Place, Seen};
use novacron_tests::serial::{self, Verdict};

use super::stage::{PATIENCE, Sides, Stage};

/// Ticks after which a guest is known to run on.
const TICKS_AFTER: u64 = 25;
/// Walks over the whole of its memory.
const PASSES: u64 = 2;

/// Waits until ledger and hosts agree and nothing is left over, or for as long as that may take; and says what is so.
pub fn look(stage: &Stage, sides: Sides, migration: &MigrationView, mark: usize) -> Result<Seen> {
    let deadline = Instant::now() + PATIENCE;
    let mut seen = loop {
        let seen = glance(stage, sides, migration);
        let settled = seen.as_ref().is_ok_and(is_settled);
        if settled || Instant::now() > deadline {
            break seen?;
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    let runs = seen.state == "running" && seen.qemus.0 + seen.qemus.1 == 1;
    if runs {
        work_on(stage)?;
        seen.disk = Some(compare_disk(stage, sides, seen.placed)?);
    }
    // Once more at the very end: a second copy may come late.
    let last = glance(stage, sides, migration)?;
    Ok(Seen { disk: seen.disk, ticks: verdict(stage, mark), ..last })
}

fn glance(stage: &Stage, sides: Sides, migration: &MigrationView) -> Result<Seen> {
    let (cluster, machine) = (&stage.cluster, &stage.machine);
    let host = |side: usize| &cluster.members[side].host;
    let (home, state) = cluster.place_of(machine)?;
    let placed = if home == host(sides.source).name() { Place::Source } else { Place::Target };
    let empty = if placed == Place::Source { sides.target } else { sides.source };
    let mut left = cluster.leftovers_on(host(empty).name(), machine)?;
    left.extend(cluster.idle_reservations_and_sockets()?);
    Ok(Seen {
        migration: migration.status.state,
        placed,
        state,
        qemus: (host(sides.source).qemu_pids()?.len(), host(sides.target).qemu_pids()?.len()),
        running: (running(cluster, sides.source)?, running(cluster, sides.target)?),
        ticks: Verdict::default(),
        left,
        disk: None,
    })
}

fn running(cluster: &Cluster, side: usize) -> Result<usize> {
    let listed = cluster.members[side].host.virsh(&["list", "--state-running", "--name"])?;
    Ok(listed.split_whitespace().count())
}

/// Whether looking again would show nothing else, as far as one can tell.
fn is_settled(seen: &Seen) -> bool {
    let one = match seen.placed {
        Place::Source => (1, 0),
        Place::Target => (0, 1),
    };
    let agrees = match seen.state.as_str() {
        "running" => seen.qemus == one && seen.running == one,
        "stopped" => seen.qemus == (0, 0),
        _ => false,
    };
    agrees && seen.left.is_empty()
}

fn verdict(stage: &Stage, mark: usize) -> Verdict {
    let chunks = stage.machine.recorder.chunks();
    serial::judge(&chunks[mark..])
}

/// The guest ticks on and finds all of its memory as it must be.
fn work_on(stage: &Stage) -> Result<()> {
    let recorder = &stage.machine.recorder;
    recorder.wait_for_ticks(TICKS_AFTER, PATIENCE)?;
    let passes = recorder.judge().last.passes;
    stage.cluster.wait_until(PATIENCE, "all memory is checked after the move", |_| {
        Ok(recorder.judge().last.passes >= passes + PASSES)
    })
}

/// The disk's hash by the guest, whose writing rests meanwhile, and by the host.
fn compare_disk(stage: &Stage, sides: Sides, placed: Place) -> Result<(u64, u64)> {
    let (cluster, machine) = (&stage.cluster, &stage.machine);
    let side = if placed == Place::Source { sides.source } else { sides.target };
    let by_guest = cluster.settle_disk(machine)?;
    let by_host = cluster.hash_of_image(machine, cluster.members[side].host.name())?;
    let writes = machine.recorder.judge().last.disk_writes;
    let mut console = cluster.console(machine)?;
    console.type_line("go")?;
    cluster.wait_until(PATIENCE, "the guest writes to its disk again", |_| {
        Ok(machine.recorder.judge().last.disk_writes > writes)
    })?;
    console.leave()?;
    Ok((by_guest, by_host))
}
