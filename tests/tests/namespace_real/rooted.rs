//! Machines over an image: its layers, its owners, its command, and nothing of the host.

use crate::{
    place::place,
    world::{exe, groups},
};
use novacron_agent::hypervisor::{Definition, Hypervisor, namespace::Namespace};
use novacron_common::{ids::VmId, record::VmState};
use std::{
    fs,
    os::unix::fs::{MetadataExt, symlink},
    time::Duration,
};

const PROGRAMS: &[&str] = &["/bin/sh", "/bin/sleep"];

/// What the machine does: it tells what it sees into a file of its own, and waits.
const TELL: &str = "#!/bin/sh
{
  read motto </etc/motto; echo MOTTO $motto
  test -e /etc/old && echo OLD
  for seen in /usr/sbin /etc/shadow /root /home; do test -e $seen && echo HOST $seen; done
  test -O /etc/motto && echo MINE
  test -O /srv/other || echo NOT-MINE
  (: >/srv/new) && echo CREATED
  (: >/srv/other) && echo OTHERS-WRITTEN
  (: >/tmp/new) && test -e /proc/self/status && echo MOUNTED
  test -u /bin/setuid && echo SETUID
  test -e /dev/disk && echo DEVICE
  while read line; do case $line in CapEff*|CapBnd*|NoNewPrivs*) echo $line;; esac; done </proc/self/status
  echo END
} >/tmp/told 2>&1
trap 'exit 0' TERM
while :; do sleep 1; done
";

#[tokio::test]
async fn a_machine_lives_in_its_image_and_leaves_it_as_it_was() {
    novacron_tests::require!(root);
    let place = place(TELL, PROGRAMS);
    let before = place.layers();
    let host = Namespace::open(place.folder.path(), exe()).await.unwrap();
    let wanted = place.definition();
    let other = Definition { vm: VmId::generate(), ..wanted.clone() };
    for definition in [&wanted, &other] {
        host.define(definition).await.unwrap();
        host.start(definition.vm).await.unwrap();
    }
    for definition in [&wanted, &other] {
        let told = place.told(definition.vm).await;
        let lines: Vec<&str> = told.lines().filter(|line| !line.starts_with("/bin/tell")).collect();
        // chown, dac_override, fowner, fsetid, kill, setgid, setuid, setpcap, net_bind_service, audit_write, setfcap
        let kept = "00000000a00005fb";
        let (effective, bounding) = (format!("CapEff: {kept}"), format!("CapBnd: {kept}"));
        let seen = [
            "MOTTO small is beautiful",
            "MINE",
            "NOT-MINE",
            "CREATED",
            "OTHERS-WRITTEN",
            "MOUNTED",
            &effective,
            &bounding,
            "NoNewPrivs: 1",
            "END",
        ];
        let mut sorted: Vec<&str> = lines.clone();
        let mut wanted = seen.to_vec();
        sorted.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(sorted, wanted, "{told}");
    }
    // What it writes belongs to its own range, and no other machine has that.
    let owner = |vm| fs::metadata(place.told_file(vm).unwrap()).unwrap().uid();
    assert!(owner(wanted.vm) >= 0x7000_0000 && owner(wanted.vm).abs_diff(owner(other.vm)) >= 65_536);

    host.stop(wanted.vm, Duration::from_secs(30).into()).await.unwrap();
    host.start(wanted.vm).await.unwrap();
    assert!(place.told(wanted.vm).await.contains("CREATED"), "it does not start again");
    for definition in [&wanted, &other] {
        host.undefine(definition.vm).await.unwrap();
        assert_eq!(host.state(definition.vm).await.unwrap(), VmState::Missing);
    }
    assert_eq!(place.layers(), before, "a layer was changed");
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(place.folder.path().to_str().unwrap()), "left mounts:\n{mounts}");
    assert!(groups(&place.folder.path().join("machines")).is_empty());
}

#[tokio::test]
async fn an_image_whose_proc_is_a_link_is_refused_and_nothing_is_mounted_elsewhere() {
    novacron_tests::require!(root);
    for name in ["proc", "sys", "dev", "tmp"] {
        let place = place(TELL, PROGRAMS);
        let hostile = place.folder.path().join("hostile");
        fs::create_dir(&hostile).unwrap();
        symlink("/etc", hostile.join(name)).unwrap();
        let mut wanted = place.definition();
        if let Some(image) = &mut wanted.files.root {
            image.layers.push(hostile);
        }
        let host = Namespace::open(place.folder.path(), exe()).await.unwrap();
        host.define(&wanted).await.unwrap();
        let error = host.start(wanted.vm).await.unwrap_err();
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        assert!(cause.contains(&format!("/{name}")) && cause.contains("no link"), "{name}: {cause}");
        host.undefine(wanted.vm).await.unwrap();
    }
}
