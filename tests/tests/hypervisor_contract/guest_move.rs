//! Live moves of a machine and commands in it: a command's end is told once and as it was, whatever is asked meanwhile.

use super::guest_job::{PATIENCE, boot_with_agent, end_of, make_job, wait_for_fire};
use anyhow::{Context as _, Result, ensure};
use novacron_common::api::MigrationState;
use novacron_tests::{
    cluster::{Cluster, ClusterOptions, Machine, items},
    require,
};
use serde_json::Value;

/// So slow that what is done during a move is done during it.
const SLOW_MBIT: u32 = 20;

#[test]
fn a_machine_does_not_leave_under_a_command_and_a_command_waits_for_the_end_of_a_move() -> Result<()> {
    require!(root, libvirt, qemu, apt);
    let cluster = Cluster::start(&ClusterOptions::two_hosts("vm-cmd-mv"))?;
    let machine = boot_with_agent(&cluster)?;
    make_job(&cluster, "gate", "@yearly", ": >/gate")?;
    let told = a_move_is_refused_while_a_command_runs(&cluster, &machine)
        .and_then(|()| a_command_waits_for_the_end_of_a_move(&cluster, &machine));
    cluster.explain(&machine, told)?;
    cluster.delete(&machine)?;
    let remains = cluster.remains_of(&machine)?;
    ensure!(remains.is_empty(), "{remains:?}");
    Ok(())
}

fn fire_id(fire: &Value) -> Result<&str> {
    fire["id"].as_str().context("a fire without an id")
}

fn a_move_is_refused_while_a_command_runs(cluster: &Cluster, machine: &Machine) -> Result<()> {
    make_job(
        cluster,
        "long",
        "@yearly",
        "echo begun; while [ ! -e /gate ]; do sleep 0.2; done; echo over; exit 7",
    )?;
    cluster.novactl_said(&["job", "execute", "long"])?;
    let fire = wait_for_fire(cluster, "long", "running")?;
    let id = fire_id(&fire)?;
    cluster.wait_until(PATIENCE, "the command has begun", |cluster| {
        Ok(cluster.novactl_said(&["job", "logs", "long", "--fire", id])?.contains("begun"))
    })?;
    let asked = cluster.ask_to_migrate(machine, "h2", &[])?;
    let ended = cluster.follow_to_end(&asked.id.to_string(), PATIENCE)?;
    ensure!(ended.status.state == MigrationState::Failed, "{ended:?}");
    let message = &ended.status.message;
    ensure!(message.contains(id) && message.contains("through its guest agent"), "{message}");
    cluster.wait_for_place(machine, "h1", "running")?;

    cluster.novactl_said(&["job", "execute", "gate"])?;
    let fire = wait_for_fire(cluster, "long", "failed")?;
    let (exit, _, printed) = end_of(cluster, "long", &fire)?;
    ensure!(exit == 7 && printed == "begun\nover\n", "{fire}: {printed}");
    let tries = fire["attempts"].as_array().map_or(0, Vec::len);
    // Tries before the guest agent answered are among them, and are no runs.
    let runs = fire["attempts"].as_array().into_iter().flatten().filter(|one| one["exit_code"] == 7).count();
    ensure!(runs == 1 && fire["attempts"][tries - 1]["exit_code"] == 7, "{fire}");
    let job = cluster.novactl(&["job", "show", "long"])?;
    ensure!(job["failed"] == 1 && job["succeeded"] == 0, "{job}");
    Ok(())
}

fn a_command_waits_for_the_end_of_a_move(cluster: &Cluster, machine: &Machine) -> Result<()> {
    make_job(cluster, "later", "@yearly", "echo here")?;
    let source = &cluster.members[0].host;
    cluster.lab.shape(source, SLOW_MBIT)?;
    let asked = cluster.ask_to_migrate(machine, "h2", &[])?.id.to_string();
    cluster.follow_to_copying(&asked)?;
    cluster.novactl_said(&["job", "execute", "later"])?;
    let state = cluster.migration(&asked)?.status.state;
    ensure!(state == MigrationState::Copying, "the move ended before the command was asked for: {state:?}");
    cluster.lab.unshape(source)?;
    let ended = cluster.follow_to_end(&asked, PATIENCE)?;
    ensure!(ended.status.state == MigrationState::Completed, "{ended:?}");

    let fire = wait_for_fire(cluster, "later", "succeeded")?;
    let (exit, host, printed) = end_of(cluster, "later", &fire)?;
    let hosts = items(cluster.novactl(&["host", "list"])?);
    let target = hosts.iter().find(|one| one["name"] == "h2").context("h2 is not listed")?;
    ensure!(exit == 0 && host == target["id"] && printed == "here\n", "{fire}: {printed}");
    let job = cluster.novactl(&["job", "show", "later"])?;
    ensure!(job["failed"] == 0 && job["succeeded"] == 1, "{job}");
    Ok(())
}
