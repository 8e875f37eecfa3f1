//! Machines that move together: they go one after the other, and what one brought the next refers to.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, ensure};
use novacron_common::api::{MigrationState, MigrationView};
use novacron_tests::cluster::GuestOptions;
use novacron_tests::require;

use super::live::{SOON, two_hosts};

#[test]
fn machines_of_one_template_go_in_turn_and_share_what_they_have_in_common() -> Result<()> {
    require!(root, libvirt, qemu, apt);
    let cluster = two_hosts("mv-gang")?;
    let guest = |number: u8| GuestOptions {
        address: Ipv4Addr::new(10, 77, 0, 50 + number),
        ..GuestOptions::small(&format!("vm-{number}"), "guest", "h1")
    };
    let machines = [cluster.boot_guest(&guest(0))?, cluster.boot_guest(&guest(1))?];
    // Slower than the codec, so that it has something to gain.
    for member in &cluster.members {
        cluster.lab.shape(&member.host, 400)?;
    }
    let asked = cluster.novactl(&["vm", "migrate", "vm-0", "vm-1", "--to", "h2"])?;
    let asked: Vec<MigrationView> = serde_json::from_value(asked).context("reading the migrations")?;
    let [first, second] = &asked[..] else { anyhow::bail!("two were asked for: {asked:?}") };
    ensure!(first.gang.is_some() && first.gang == second.gang, "{asked:?}");
    let first = cluster.follow_to_end(&first.id.to_string(), SOON)?;
    let second = cluster.follow_to_end(&second.id.to_string(), SOON)?;
    println!("first {:?}\nsecond {:?}", first.memory, second.memory);
    for ended in [&first, &second] {
        ensure!(ended.status.state == MigrationState::Completed, "{ended:?}");
    }
    ensure!(first.status.end_time <= second.status.end_time, "the second went first");
    // How many is for the bench: a codec that was built without optimisation may leave most pages alone.
    let (none, some) = (first.memory.held, second.memory.held);
    ensure!(none.pages == 0 && some.pages > 0, "{:?} after {:?}", second.memory, first.memory);
    for machine in &machines {
        cluster.check_memory(machine, SOON)?;
    }
    Ok(())
}
