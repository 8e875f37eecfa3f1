//! Machines over an image: its layers, its owners, its command, and nothing of the host.

use crate::world::{eventually, exe, groups, libraries};
use novacron_agent::{
    hypervisor::{Definition, Hypervisor, MachineFiles, RootImage, namespace::Namespace},
    image::rootfs::LayerStore,
};
use novacron_common::{
    ids::VmId,
    record::VmState,
    spec::{
        BootSource, ImageFormat, MachineKind, NetworkSpec, RestartPolicy, Sha256Digest, TemplateSpec, VmSpec,
    },
    units::ByteCount,
};
use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use tempfile::TempDir;

/// What the machine does: it tells what it sees into a file of its own, and waits.
const TELL: &str = "#!/bin/sh
{
  read motto </etc/motto; echo MOTTO $motto
  test -e /etc/old && echo OLD
  for seen in /usr/sbin /etc/passwd /root /home; do test -e $seen && echo HOST $seen; done
  test -O /etc/motto && echo MINE
  test -O /srv/other && echo NOT-MINE
  (: >/srv/new) && echo CREATED
  (: >/srv/other) && echo OTHERS-WRITTEN
  (: >/tmp/new) && test -e /proc/self/status && echo MOUNTED
  test -u /bin/setuid && echo SETUID
  test -e /dev/disk && echo DEVICE
  while read line; do case $line in CapEff*|CapBnd*|NoNewPrivs*) echo $line;; esac; done </proc/self/status
  echo END
} >/srv/told 2>&1
trap 'exit 0' TERM
while :; do sleep 1; done
";

struct Place {
    folder: TempDir,
    image: RootImage,
}

/// A root with a shell below, and a layer above it that changes it.
fn place() -> Place {
    let folder = TempDir::new().unwrap();
    let base = folder.path().join("base");
    for name in ["bin", "etc", "srv"] {
        fs::create_dir_all(base.join(name)).unwrap();
    }
    for file in libraries("/bin/sh").into_iter().chain(["/bin/sh".into(), "/bin/sleep".into()]) {
        let to = base.join(file.strip_prefix("/").unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(&file, to).unwrap();
    }
    write(&base.join("bin/tell"), TELL, 0o755);
    write(&base.join("bin/setuid"), "#!/bin/sh\n", 0o4755);
    write(&base.join("etc/motto"), "small\n", 0o644);
    write(&base.join("etc/old"), "old\n", 0o644);
    write(&base.join("srv/other"), "33's\n", 0o600);
    chown(base.join("srv/other"), Some(33), Some(33)).unwrap();
    let image = unpacked(folder.path(), &base);
    Place { folder, image }
}

fn write(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

/// Packs a folder as an administrator would, and has the agent's own code unpack it.
fn unpacked(at: &Path, folder: &Path) -> RootImage {
    let (archive, upper) = (at.join("base.tar"), at.join("upper"));
    fs::create_dir_all(upper.join("etc")).unwrap();
    write(&upper.join("etc/motto"), "small is beautiful\n", 0o644);
    write(&upper.join("etc/.wh.old"), "", 0o644);
    let store = LayerStore::open(at.join("layers"), ByteCount::gib(1)).unwrap();
    let mut layers = Vec::new();
    for (number, part) in [folder, &upper].into_iter().enumerate() {
        let packed = Command::new("tar").arg("-C").arg(part).arg("-czf").arg(&archive).arg(".").status();
        assert!(packed.unwrap().success());
        let id = Sha256Digest([u8::try_from(number).unwrap(); 32]);
        layers.extend(store.ensure(&archive, id, ImageFormat::Rootfs).unwrap().layers);
    }
    let program = novacron_common::spec::Program::new(["/bin/tell"]);
    RootImage { layers, program }
}

impl Place {
    fn definition(&self) -> Definition {
        let folder = self.folder.path().to_owned();
        Definition {
            vm: VmId::generate(),
            spec: VmSpec {
                name: "rooted".parse().unwrap(),
                kind: MachineKind::Namespace,
                cpus: 1,
                memory: ByteCount::mib(64),
                storage: ByteCount(0),
                template: TemplateSpec { name: "tiny".parse().unwrap(), boot: BootSource::Disk, disk: None },
                cmdline: None,
                network: NetworkSpec { bridge: None, address: None, gateway: None, dns: Vec::new() },
                cloud_init: None,
                restart: RestartPolicy::Never,
                post_copy: false,
            },
            files: MachineFiles {
                root: Some(self.image.clone()),
                console_log: folder.join("console"),
                ..MachineFiles::bare(folder)
            },
            bridge: None,
        }
    }

    /// Every file of the layers with its owner and length, to see that none changes.
    fn layers(&self) -> Vec<(PathBuf, u32, u64)> {
        let listed = |layer: &PathBuf| {
            let found = Command::new("find").arg(layer).arg("-print0").output().unwrap().stdout;
            let text = String::from_utf8(found).unwrap();
            text.split_terminator('\0').map(PathBuf::from).collect::<Vec<_>>()
        };
        let files = self.image.layers.iter().flat_map(listed);
        files
            .map(|file| {
                let found = fs::symlink_metadata(&file).unwrap();
                (file, found.uid(), found.len())
            })
            .collect()
    }
}

/// What the machine told, looked for in its root by way of its init's process.
async fn told(vm: VmId, data: &Path) -> String {
    let mut text = String::new();
    eventually("the machine told what it sees", || {
        text = inits(vm, data)
            .iter()
            .filter_map(|root| fs::read_to_string(root.join("srv/told")).ok())
            .collect();
        text.contains("END")
    })
    .await;
    text
}

/// The roots of the processes in the machine's cgroup.
fn inits(vm: VmId, data: &Path) -> Vec<PathBuf> {
    let home = data.join("machines");
    let lists = groups(&home).into_iter().map(|group| group.join(vm.to_string()).join("cgroup.procs"));
    let mut pids: Vec<String> = lists
        .filter_map(|list| fs::read_to_string(list).ok())
        .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    pids.sort_unstable();
    pids.dedup();
    pids.truncate(1);
    pids.iter().map(|pid| PathBuf::from(format!("/proc/{pid}/root"))).collect()
}

#[tokio::test]
async fn a_machine_lives_in_its_image_and_leaves_it_as_it_was() {
    novacron_tests::require!(root);
    let place = place();
    let before = place.layers();
    let host = Namespace::open(place.folder.path(), exe()).await.unwrap();
    let wanted = place.definition();
    let other = Definition { vm: VmId::generate(), ..wanted.clone() };
    for definition in [&wanted, &other] {
        host.define(definition).await.unwrap();
        host.start(definition.vm).await.unwrap();
    }
    for definition in [&wanted, &other] {
        let told = told(definition.vm, place.folder.path()).await;
        let lines: Vec<&str> = told.lines().filter(|line| !line.starts_with("/bin/tell")).collect();
        let none = "0000000000000000";
        let (effective, bounding) = (format!("CapEff: {none}"), format!("CapBnd: {none}"));
        let seen = [
            "MOTTO small is beautiful",
            "MINE",
            "CREATED",
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
    let owner = |vm| fs::metadata(inits(vm, place.folder.path())[0].join("srv/told")).unwrap().uid();
    assert!(owner(wanted.vm) >= 0x7000_0000 && owner(wanted.vm).abs_diff(owner(other.vm)) >= 65_536);

    host.stop(wanted.vm, Duration::from_secs(30)).await.unwrap();
    host.start(wanted.vm).await.unwrap();
    assert!(
        told(wanted.vm, place.folder.path()).await.contains("CREATED"),
        "a new run has a new upper layer"
    );
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
        let place = place();
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
