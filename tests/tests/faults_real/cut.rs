//! The control lane is cut around Finish, where libvirt alone can leave two running guests (design decision 4).

use anyhow::{Result, ensure};
use novacron_tests::cluster::{Cluster, ClusterOptions, Machine};
use novacron_tests::require;

use crate::after::{SOON, cluster_with_machine, fully_there_or_back};
use crate::control_relay::{Cut, relay_before, with_relay};

fn cut_the_lane(lab: &str, cut: Cut) -> Result<()> {
    let (cluster, machine) = cluster_with_machine(&with_relay(ClusterOptions::two_hosts(lab)))?;
    cluster.explain(&machine, move_through_the_cut(&cluster, &machine, cut))
}

fn move_through_the_cut(cluster: &Cluster, machine: &Machine, cut: Cut) -> Result<()> {
    let relay = relay_before(&cluster.members[1].host, cut)?;
    let migration = cluster.ask_to_migrate(machine, "h2", &[])?;
    let home = fully_there_or_back(cluster, machine, &migration)?;
    ensure!(relay.has_come_by(), "the lane was never cut");
    // A machine that came back is as good as before: it moves when nobody cuts.
    if home == "h1" {
        cluster.migrate(machine, "h2")?;
        machine.recorder.wait_for_ticks(25, SOON)?;
        ensure!(machine.recorder.judge().is_continuous(), "{:?}", machine.recorder.judge());
    }
    Ok(())
}

#[test]
fn the_reply_to_finish_is_lost() -> Result<()> {
    require!(root, libvirt, qemu, apt);
    cut_the_lane("cut-rep", Cut::BeforeTheReply)
}

#[test]
fn the_lane_is_cut_between_the_reply_to_finish_and_confirm() -> Result<()> {
    require!(root, libvirt, qemu, apt);
    cut_the_lane("cut-conf", Cut::AfterTheReply)
}
