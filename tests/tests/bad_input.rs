//! Bad input that only real hosts can refuse. Each answer says what is wrong in words that help, and nothing has changed.
//! What the coordinator refuses by itself is tested beside it (`coordinator/tests/api`).

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use novacron_tests::bins;
use novacron_tests::cluster::{Cluster, ClusterOptions, GuestOptions, Machine, TemplateOptions, items};
use novacron_tests::guest_image::{Checked, DiskFormat};
use novacron_tests::require;

const SOON: Duration = Duration::from_secs(60);

/// A folder below those that the agents may take images from; removed in the end.
fn image_folder() -> Result<tempfile::TempDir> {
    tempfile::Builder::new()
        .prefix("bad-images-")
        .tempdir_in(bins::lab_dir()?)
        .context("making a folder for images")
}

fn qemu_img(args: &[&str]) -> Result<()> {
    let done =
        Command::new("qemu-img").arg("create").arg("-q").args(args).status().context("starting qemu-img")?;
    ensure!(done.success(), "qemu-img create {args:?}: {done}");
    Ok(())
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Makes a machine of a template with this disk and checks that it fails for the given reason, without a trace.
fn is_refused(cluster: &Cluster, name: &str, disk: (Checked, DiskFormat), reason: &str) -> Result<()> {
    cluster.make_template(&TemplateOptions { name: name.to_owned(), disk: Some(disk) })?;
    let machine = cluster.make_guest(&GuestOptions::small(name, name, "h1"))?;
    cluster.wait_for_place(&machine, "h1", "failed")?;
    let shown = cluster.novactl(&["vm", "show", name])?;
    let message = shown["message"].as_str().unwrap_or_default();
    ensure!(message.contains(reason), "expected {reason:?}, got {message:?}");
    cluster.delete(&machine)?;
    let remains = cluster.remains_of(&machine)?;
    ensure!(remains.is_empty(), "{remains:?}");
    Ok(())
}

#[test]
fn images_that_are_not_what_the_template_says_are_refused_by_the_host() -> Result<()> {
    require!(root, libvirt, qemu, apt);
    let cluster = Cluster::start(&ClusterOptions::two_hosts("bad-img"))?;
    let folder = image_folder()?;

    let plain = folder.path().join("plain.raw");
    fs::write(&plain, vec![7; 1 << 20])?;
    let mut wrong = Checked::of(plain.clone())?;
    wrong.sha256 = "0".repeat(64);
    is_refused(&cluster, "wrong-checksum", (wrong, DiskFormat::Raw), "the content is sha256")?;

    let backed = folder.path().join("backed.qcow2");
    qemu_img(&["-f", "qcow2", "-F", "raw", "-b", &text(&plain), &text(&backed)])?;
    is_refused(&cluster, "backed", (Checked::of(backed)?, DiskFormat::Qcow2), "backing file")?;

    let outside = tempfile::NamedTempFile::new()?;
    fs::write(outside.path(), vec![7; 1 << 20])?;
    let not_listed = (Checked::of(outside.path().to_path_buf())?, DiskFormat::Raw);
    is_refused(&cluster, "not-listed", not_listed, "images.folders")
}

/// Asks for a move that must be refused for the given reason; the machine stays where it is.
fn move_is_refused(cluster: &Cluster, machine: &Machine, to: &str, reason: &str) -> Result<()> {
    let before = items(cluster.novactl(&["migration", "list"])?).len();
    let fault = cluster
        .ask_to_migrate(machine, to, &[])
        .err()
        .with_context(|| format!("the move to {to} was taken"))?;
    ensure!(format!("{fault:#}").contains(reason), "expected {reason:?}, got {fault:#}");
    ensure!(
        items(cluster.novactl(&["migration", "list"])?).len() == before,
        "a refused move is in the ledger"
    );
    ensure!(cluster.place_of(machine)? == ("h1".to_owned(), "running".to_owned()));
    Ok(())
}

/// Takes nearly all that is free on `host`, with a machine that is not started.
fn fill(cluster: &Cluster, host: &str) -> Result<()> {
    let hosts = items(cluster.novactl(&["host", "list"])?);
    let shown = hosts.iter().find(|shown| shown["name"] == host).context("no such host")?;
    let number = |field: &str| shown[field].as_u64().with_context(|| format!("no {field} in {shown}"));
    let free_mib = (number("memory")? - number("memory_reserved")?) >> 20;
    let memory = format!("--memory={}M", free_mib - 64);
    let filler =
        ["vm", "create", "filler", "--template=guest", "--no-start", "--host", host, memory.as_str()];
    cluster.novactl(&filler)?;
    cluster.wait_until(SOON, "the filler is placed", |cluster| {
        Ok(cluster.novactl(&["vm", "show", "filler"])?["host_name"] == host)
    })
}

#[test]
fn moves_that_cannot_be_are_refused_and_change_nothing() -> Result<()> {
    require!(root, libvirt, qemu, apt);
    let mut cluster = Cluster::start(&ClusterOptions::two_hosts("bad-move"))?;
    cluster.make_template(&TemplateOptions { name: "guest".to_owned(), disk: None })?;
    let machine = cluster.boot_guest(&GuestOptions::small("vm", "guest", "h1"))?;
    move_is_refused(&cluster, &machine, "h1", "is on h1 already")?;
    move_is_refused(&cluster, &machine, "h9", "h9")?;
    twice_at_once(&cluster, &machine)?;
    fill(&cluster, "h2")?;
    move_is_refused(&cluster, &machine, "h2", "memory")?;
    cluster.novactl_said(&["vm", "delete", "filler", "--wait"])?;
    cluster.kill_agent("h2")?;
    cluster.wait_until(SOON, "h2 is down", |cluster| {
        Ok(cluster.novactl(&["host", "show", "h2"])?["state"] == "down")
    })?;
    move_is_refused(&cluster, &machine, "h2", "h2 is down")?;
    let verdict = machine.recorder.judge();
    ensure!(verdict.is_continuous(), "{verdict:?}");
    Ok(())
}

/// A second move is refused while the first is under way; the first can then be cancelled.
fn twice_at_once(cluster: &Cluster, machine: &Machine) -> Result<()> {
    let source = &cluster.members[0].host;
    cluster.lab.shape(source, 40)?;
    let first = cluster.ask_to_migrate(machine, "h2", &[])?.id.to_string();
    let second = cluster.ask_to_migrate(machine, "h2", &[]).err().context("a second move was taken")?;
    ensure!(format!("{second:#}").contains("migrat") || format!("{second:#}").contains("mov"), "{second:#}");
    cluster.novactl(&["migration", "cancel", &first])?;
    cluster.follow_to_end(&first, SOON)?;
    cluster.lab.unshape(source)?;
    cluster.wait_for_place(machine, "h1", "running")
}
