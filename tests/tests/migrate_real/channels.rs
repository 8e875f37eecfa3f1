//! Memory that crosses on several of QEMU's channels (multifd), each on a connection of its own.

use anyhow::{Result, ensure};
use novacron_tests::cluster::{Cluster, ClusterOptions, Echo, GuestOptions, TemplateOptions};
use novacron_tests::require;

use crate::live::{SOON, cancel_in_the_copy};
use crate::returns::completed;

const CHANNELS: u8 = 3;

#[test]
fn a_machine_moves_on_several_channels_comes_back_by_what_it_left_and_stays_when_cancelled() -> Result<()> {
    require!(root, libvirt, qemu, apt);
    let options = ClusterOptions { channels: Some(CHANNELS), ..ClusterOptions::two_hosts("mv-chan") };
    let cluster = Cluster::start(&options)?;
    cluster.make_template(&TemplateOptions { name: "guest".to_owned(), disk: None })?;
    let machine = cluster.boot_guest(&GuestOptions::small("vm", "guest", "h1"))?;
    let echo = Echo::start(cluster.lab.outside(), machine.address)?;
    // Slower than the codec, so that it has something to gain.
    for member in &cluster.members {
        cluster.lab.shape(&member.host, 400)?;
    }
    for (to, returns) in [("h2", false), ("h1", true)] {
        let ended = completed(&cluster, &machine, to, &[])?;
        ensure!(ended.memory_channels.is_some_and(|channels| channels.get() == CHANNELS), "{ended:?}");
        // Contents are known for pages on these channels as on the main one, where there are none now.
        ensure!(
            ended.memory.raw.pages > 0 && ended.memory.wire_bytes < ended.memory.written_bytes,
            "{ended:?}"
        );
        ensure!((ended.memory.held.pages > 0) == returns, "{ended:?}");
        println!("to {to}: {:?} in {:?} ms", ended.memory, ended.actual);
        machine.recorder.wait_for_ticks(25, SOON)?;
        echo.wait_for_answers(5, SOON)?;
        cluster.wait_until(SOON, "its pages are kept where it was", |cluster| {
            let from = if returns { "h2" } else { "h1" };
            Ok(crate::returns::kept_on(cluster, from)? == 2)
        })?;
    }
    cancel_in_the_copy(&cluster, &machine)?;
    cluster.check_memory(&machine, SOON)?;
    let connection = echo.finish()?;
    ensure!(connection.fault.is_none(), "{connection:?}");
    let verdict = machine.recorder.judge();
    ensure!(verdict.is_continuous(), "{verdict:?}");
    cluster.delete(&machine)?;
    let remains = cluster.remains_of(&machine)?;
    ensure!(remains.is_empty(), "{remains:?}");
    Ok(())
}
