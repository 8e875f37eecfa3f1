//! Certificates that are good for a minute: they are renewed under a move, and nothing of it breaks.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use novacron_common::api::MigrationState;
use novacron_tests::cluster::{Cluster, ClusterOptions, GuestOptions, TemplateOptions};
use novacron_tests::require;

use crate::live::SOON;

const GOOD_FOR: Duration = Duration::from_secs(60);
/// The guest's 100 MiB take most of a minute: longer than half of a certificate's life, after which it is renewed.
const SLOW_MBIT: u32 = 16;

/// What each agent has as its certificate.
fn certificates(cluster: &Cluster) -> Result<Vec<Vec<u8>>> {
    let file = Path::new("/var/lib/novacron/agent/identity/certificate.der");
    let read = |host: &novacron_tests::lab::Host| {
        let path = host.outside_path(file).context("the agent's identity is not the host's own")?;
        fs::read(&path).with_context(|| format!("reading {}", path.display()))
    };
    cluster.members.iter().map(|member| read(&member.host)).collect()
}

#[test]
fn certificates_of_a_minute_are_renewed_under_a_move_and_the_cluster_outlives_them() -> Result<()> {
    require!(root, libvirt, qemu, apt);
    let seconds = Some(u32::try_from(GOOD_FOR.as_secs())?);
    let cluster = Cluster::start(&ClusterOptions {
        certificate_seconds: seconds,
        ..ClusterOptions::two_hosts("renew")
    })?;
    let began = Instant::now();
    cluster.make_template(&TemplateOptions { name: "guest".to_owned(), disk: None })?;
    let machine = cluster.boot_guest(&GuestOptions::small("vm", "guest", "h1"))?;
    let source = &cluster.members[0].host;
    cluster.lab.shape(source, SLOW_MBIT)?;
    let id = cluster.ask_to_migrate(&machine, "h2", &[])?.id.to_string();
    cluster.follow_to_copying(&id)?;
    let before = certificates(&cluster)?;
    cluster.wait_until(GOOD_FOR, "both agents have a new certificate", |cluster| {
        // In the middle of an exchange there is no file.
        let new = |now: Vec<Vec<u8>>| now.iter().zip(&before).all(|(now, then)| now != then);
        Ok(certificates(cluster).is_ok_and(new))
    })?;
    let state = cluster.migration(&id)?.status.state;
    ensure!(state == MigrationState::Copying, "the move ended before the renewal: {state:?}");
    cluster.lab.unshape(source)?;
    let ended = cluster.follow_to_end(&id, SOON)?;
    ensure!(ended.status.state == MigrationState::Completed, "{ended:?}");
    // Longer than any certificate of the beginning was good for.
    std::thread::sleep((GOOD_FOR * 3 / 2).saturating_sub(began.elapsed()));
    cluster.wait_for_hosts()?;
    cluster.migrate(&machine, "h1")?;
    machine.recorder.wait_for_ticks(25, SOON)?;
    let verdict = machine.recorder.judge();
    ensure!(verdict.is_continuous(), "{verdict:?}");
    cluster.delete(&machine)
}
