//! What of its host a machine is shown: it outlives the machine, belongs to whom the machine says, and leads nowhere else.

use crate::{
    machine::definition,
    place::{Place, place},
    upper::devices,
    world::{eventually, exe},
};
use novacron_agent::hypervisor::{
    Definition, Hypervisor,
    namespace::{Namespace, Volumes},
};
use novacron_common::{ids::VmId, units::ByteCount, wire::ExecCommand};
use novacron_tests::talk::Talk;
use std::{
    error::Error,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::Path,
    time::Duration,
};
use tempfile::TempDir;

const PROGRAMS: &[&str] =
    &["/bin/sh", "/bin/sleep", "/bin/cat", "/usr/bin/stat", "/bin/ln", "/bin/chown", "/bin/dd"];

pub fn sleeper() -> Place {
    place("#!/bin/sh\nsleep 600\n", PROGRAMS)
}

/// A machine with these.
pub fn with(place: &Place, volumes: &[&str]) -> Definition {
    let mut wanted = place.definition();
    wanted.spec.volumes = volumes.iter().map(|text| text.parse().unwrap()).collect();
    wanted
}

pub async fn open(place: &Place, folders: &[&Path]) -> Namespace {
    let folders = folders.iter().map(|folder| folder.to_path_buf()).collect();
    let volumes = Volumes::new(place.folder.path(), folders, ByteCount::mib(16));
    Namespace::open_with(place.folder.path(), exe(), volumes).await.unwrap()
}

pub async fn start(host: &Namespace, wanted: &Definition) {
    host.define(wanted).await.unwrap();
    host.start(wanted.vm).await.unwrap_or_else(|error| panic!("{error:?}"));
}

/// Why it does not start.
pub async fn refused(host: &Namespace, wanted: &Definition) -> String {
    host.define(wanted).await.unwrap();
    let Err(error) = host.start(wanted.vm).await else { panic!("{:?} were let in", wanted.spec.volumes) };
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

pub async fn sh(host: &Namespace, vm: VmId, script: &str) -> String {
    let argv = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    let session = host.exec(vm, &ExecCommand { argv, ..ExecCommand::default() }).await.unwrap();
    let said = Talk::begun(session).await.unwrap().to_end().await.unwrap();
    said.output + &said.errors
}

/// Those of a mount within the machine (proc_pid_mountinfo(5)), without how it treats times.
pub async fn flags_of(host: &Namespace, vm: VmId, at: &str) -> String {
    let mounts = sh(host, vm, "cat /proc/self/mountinfo").await;
    let mut found = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let found = found.find(|fields| fields[4] == at).unwrap_or_else(|| panic!("{at}: {mounts}"));
    found[5].split(',').filter(|flag| !flag.ends_with("atime")).collect::<Vec<_>>().join(",")
}

#[tokio::test]
async fn a_named_volume_outlives_its_machines_with_its_owners_and_its_bound() {
    novacron_tests::require!(root);
    let place = sleeper();
    let host = open(&place, &[]).await;
    let (first, neighbour) = (with(&place, &["data:/var/lib/data"]), place.definition());
    start(&host, &first).await;
    let made = "cd /var/lib/data && echo kept >file && chown 33:34 file && echo ok";
    assert_eq!(sh(&host, first.vm, made).await, "ok\n");
    host.stop(first.vm, Duration::ZERO.into()).await.unwrap();
    host.start(first.vm).await.unwrap();
    assert_eq!(sh(&host, first.vm, "cat /var/lib/data/file").await, "kept\n");
    let full = sh(&host, first.vm, "dd if=/dev/zero of=/var/lib/data/big bs=1M count=20 2>&1").await;
    assert!(full.contains("No space left"), "{full}");
    // One machine at a time.
    let second = with(&place, &["data:/srv:ro", "data2:/data2"]);
    let busy = refused(&host, &second).await;
    assert!(busy.contains(&first.vm.to_string()) && busy.contains("stop that one first"), "{busy}");
    host.undefine(first.vm).await.unwrap();

    // Takes the first range of ids, so that the second has another.
    start(&host, &neighbour).await;
    start(&host, &second).await;
    let seen = sh(&host, second.vm, "cat /srv/file; stat -c %u:%g /srv/file; echo x >/srv/file").await;
    assert!(seen.starts_with("kept\n33:34\n") && seen.contains("Read-only"), "{seen}");
    for (at, flags) in [("/srv", "ro,nosuid,nodev,idmapped"), ("/data2", "rw,nosuid,nodev,idmapped")] {
        assert_eq!(flags_of(&host, second.vm, at).await, flags);
    }
    // A new one is as the folder that it covers, or root's.
    assert_eq!(sh(&host, second.vm, "stat -c %u:%g:%a /data2").await, "0:0:755\n");
    for vm in [neighbour.vm, second.vm] {
        host.undefine(vm).await.unwrap();
    }
    eventually("no device is left", || devices(&place).is_empty()).await;
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(place.folder.path().to_str().unwrap()), "{mounts}");
    assert!(place.folder.path().join("volumes/data/disk.ext4").exists());
}

#[tokio::test]
async fn a_new_volume_begins_as_the_folder_that_it_covers_and_links_lead_to_the_machines_own() {
    novacron_tests::require!(root);
    let place = sleeper();
    let host = open(&place, &[]).await;
    let mut wanted = place.definition();
    start(&host, &wanted).await;
    let prepared = "ln -s /../../../../etc /out; echo mine >/srv/own; echo ok";
    assert_eq!(sh(&host, wanted.vm, prepared).await, "ok\n");
    host.stop(wanted.vm, Duration::ZERO.into()).await.unwrap();
    wanted.spec.volumes =
        ["c:/srv/deep/er", "a:/out/novacron-a", "b:/srv"].map(|text| text.parse().unwrap()).into();
    start(&host, &wanted).await;
    let seen = sh(
        &host,
        wanted.vm,
        "echo here >/etc/novacron-a/file; stat -c %a /srv; echo x >/srv/deep/er/y; echo /srv/*",
    )
    .await;
    // The image's /srv is everybody's, and so is the volume; what was in it is covered.
    assert_eq!(seen, "777\n/srv/deep\n");
    assert!(!Path::new("/etc/novacron-a").exists(), "a link led to the host");
    host.undefine(wanted.vm).await.unwrap();
}

#[tokio::test]
async fn a_folder_of_the_host_is_shown_if_it_may_be_and_with_its_owners() {
    novacron_tests::require!(root);
    let place = sleeper();
    let allowed = place.folder.path().join("allowed");
    for name in ["closed", "open"] {
        fs::create_dir_all(allowed.join(name)).unwrap();
    }
    fs::set_permissions(&allowed, PermissionsExt::from_mode(0o700)).unwrap();
    fs::write(allowed.join("closed/file"), "the host's\n").unwrap();
    chown(allowed.join("closed/file"), Some(33), Some(34)).unwrap();
    let loose = place.folder.path().join("loose");
    fs::create_dir(&loose).unwrap();
    fs::set_permissions(&loose, PermissionsExt::from_mode(0o755)).unwrap();
    let host = open(&place, &[&allowed, &loose]).await;
    let at = |folder: &Path, rest: &str| format!("{}{rest}", folder.display());

    let wanted = with(&place, &[&at(&allowed, "/closed:/shown"), &at(&loose, ":/loose:ro")]);
    start(&host, &wanted).await;
    let seen = sh(
        &host,
        wanted.vm,
        "cat /shown/file; stat -c %u:%g /shown/file; echo new >/shown/new; echo x >/loose/x",
    )
    .await;
    assert!(seen.starts_with("the host's\n33:34\n") && seen.contains("Read-only"), "{seen}");
    assert_eq!(fs::metadata(allowed.join("closed/new")).unwrap().uid(), 0);
    host.undefine(wanted.vm).await.unwrap();
    assert_eq!(fs::read_to_string(allowed.join("closed/new")).unwrap(), "new\n");
}

#[tokio::test]
async fn a_machine_over_the_hosts_root_keeps_what_is_in_its_volume() {
    novacron_tests::require!(root);
    let folder = TempDir::new().unwrap();
    let host = Namespace::open(folder.path(), exe()).await.unwrap();
    let mut wanted = definition(folder.path(), Some("sleep 600"));
    // One is there on the host and root's, which is nobody within; the other is in no root.
    wanted.spec.volumes = ["a:/var/lib", "b:/novacron-b"].map(|text| text.parse().unwrap()).into();
    for life in ["1\n", "1\n2\n"] {
        start(&host, &wanted).await;
        let script = "for v in /var/lib /novacron-b; do echo $(( $(wc -l <$v/lives) + 1 )) >>$v/lives; done 2>/dev/null";
        sh(&host, wanted.vm, script).await;
        let seen = sh(&host, wanted.vm, "cat /var/lib/lives; stat -c %u:%g /var/lib /novacron-b").await;
        assert_eq!(seen, format!("{life}0:0\n0:0\n"));
        assert_eq!(sh(&host, wanted.vm, "cat /novacron-b/lives").await, life);
        host.stop(wanted.vm, Duration::ZERO.into()).await.unwrap();
    }
    host.undefine(wanted.vm).await.unwrap();
    assert!(!Path::new("/novacron-b").exists());
}
