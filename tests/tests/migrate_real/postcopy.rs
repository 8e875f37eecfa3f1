//! A guest that outruns the link goes over before its memory has, if its machine allows that.

use anyhow::{Result, ensure};
use novacron_common::record::{Rung, Strategy};
use novacron_tests::cluster::{Cluster, Machine};
use novacron_tests::require;

use crate::limits::{busy_guest, check_there, travel};
use crate::live::two_hosts;

fn moves(cluster: &Cluster, machine: &Machine) -> Result<()> {
    let over = travel(cluster, machine, "h2", &["--strategy", "postcopy"])?;
    ensure!(over.limits.strategy == Strategy::Postcopy, "{over:?}");
    check_there(cluster, machine, &over, Rung::Postcopy)?;
    let source = cluster.leftovers_on("h1", machine)?;
    ensure!(source.is_empty(), "{source:?}");
    // With a link that carries it the same machine converges, and is handed over as any other.
    cluster.members.iter().try_for_each(|member| cluster.lab.unshape(&member.host))?;
    let back = travel(cluster, machine, "h1", &[])?;
    check_there(cluster, machine, &back, Rung::Precopy)?;
    cluster.delete(machine)
}

#[test]
fn a_guest_that_outruns_the_link_goes_over_if_it_may_and_its_memory_follows() -> Result<()> {
    require!(root, libvirt, qemu, apt);
    let cluster = two_hosts("mv-over")?;
    let machine = busy_guest(&cluster, &["--post-copy"])?;
    cluster.explain(&machine, moves(&cluster, &machine))
}
