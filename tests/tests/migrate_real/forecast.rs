//! A real guest is measured, its move forecast, and then made: the record has both.

use anyhow::{Context as _, Result, ensure};
use novacron_common::api::{MigrationPlan, MigrationState};
use novacron_tests::cluster::{Cluster, GuestOptions, Machine};
use novacron_tests::require;
use serde_json::Value;

use crate::live::{SOON, two_hosts};

/// Fast enough that a sample of its pages finds some that changed within a second or two.
const REWRITE_MIB: u32 = 6;
/// It arrives however slow the machine is on which all this runs.
const LIMITS: &[&str] = &["--strategy", "stop_and_copy"];

fn plan(cluster: &Cluster, machine: &Machine) -> Result<MigrationPlan> {
    let view = cluster.novactl(&[&["vm", "migrate", &machine.name, "--plan"], LIMITS].concat())?;
    serde_json::from_value(view).context("reading the plan")
}

#[test]
fn a_real_guest_is_measured_and_its_move_is_held_against_the_forecast() -> Result<()> {
    require!(root, libvirt, qemu, apt);
    let cluster = two_hosts("mv-plan")?;
    let small = GuestOptions::small("vm", "guest", "h1");
    let machine = cluster.boot_guest(&GuestOptions { rewrite_mib: REWRITE_MIB, ..small })?;
    let thought = plan(&cluster, &machine)?;
    let guest = &thought.guest;
    ensure!(guest.notes.is_empty(), "everything can be measured: {guest:?}");
    let dirty = guest.dirty.context("no dirty rate")?;
    ensure!(dirty.bytes_per_second > 0 && dirty.working_set_bytes > 0, "it rewrites its memory: {dirty:?}");
    ensure!(guest.in_use_bytes.is_some_and(|bytes| bytes > 8 << 20), "{guest:?}");
    let [candidate] = &thought.candidates[..] else { anyhow::bail!("one other host: {thought:?}") };
    ensure!(candidate.possible && candidate.chosen && candidate.name == "h2", "{candidate:?}");
    ensure!(candidate.link.rate.is_some() && candidate.link.round_trip_us.is_some(), "{candidate:?}");
    let forecast = candidate.forecast.context("no forecast")?;
    ensure!(forecast.basis.measured && forecast.wire_bytes.expected > 0, "{forecast:?}");
    let none = cluster.novactl(&["migration", "list"])?;
    ensure!(none.as_array().is_some_and(Vec::is_empty), "thinking of a move makes none: {none}");
    let other = cluster.leftovers_on("h2", &machine)?;
    ensure!(other.is_empty(), "{other:?}");

    let asked = cluster.ask_to_migrate(&machine, "h2", LIMITS)?;
    let ended = cluster.follow_to_end(&asked.id.to_string(), SOON)?;
    ensure!(ended.status.state == MigrationState::Completed, "{ended:?}");
    ensure!(ended.forecast == Some(forecast), "the record keeps it: {:?}", ended.forecast);
    let actual = ended.actual.context("no figures of what it took")?;
    ensure!(actual.wire_bytes == ended.total_bytes && actual.blackout_ms.is_some(), "{actual:?}");
    eprintln!("forecast {forecast:?}, actual {actual:?}");
    machine.recorder.wait_for_ticks(25, SOON)?;

    let back = plan(&cluster, &machine)?;
    let learned = back.candidates.first().and_then(|candidate| candidate.forecast).context("no way back")?;
    ensure!(learned.basis.moves == 1, "it learned from the move: {learned:?}");
    let said: Value = cluster.novactl(&["vm", "show", "vm"])?;
    ensure!(said["host_name"] == "h2", "{said}");
    let verdict = machine.recorder.judge();
    ensure!(verdict.is_continuous(), "{verdict:?}");
    cluster.delete(&machine)
}
