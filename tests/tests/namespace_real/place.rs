//! An image of the test's own: a root with a shell below, a layer above that changes it, and the machines made of it.

use crate::world::{groups, libraries};
use novacron_agent::{
    hypervisor::{Definition, MachineFiles, RootImage},
    image::rootfs::LayerStore,
};
use novacron_common::{
    ids::VmId,
    spec::{
        BootSource, HealthSpec, ImageFormat, ImageRun, MachineKind, Mobility, NetworkSpec, Program,
        RestartPolicy, Sha256Digest, TemplateSpec, VmSpec,
    },
    units::ByteCount,
};
use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use tempfile::TempDir;

/// Where a machine of this image tells what it sees. Its last line is `END`.
const TOLD: &str = "tmp/told";

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nwww:x:33:34:www:/srv/www:/bin/sh\n";
const GROUP: &str = "root:x:0:\nwww:x:34:\nlog:x:4:www\n";

pub struct Place {
    pub folder: TempDir,
    pub image: RootImage,
}

/// An image with these programs of the host, in which `/bin/tell` runs.
pub fn place(tell: &str, programs: &[&str]) -> Place {
    let folder = TempDir::new().unwrap();
    let base = folder.path().join("base");
    for name in ["bin", "etc", "srv"] {
        fs::create_dir_all(base.join(name)).unwrap();
    }
    let libraries = programs.iter().flat_map(|program| libraries(program));
    for file in libraries.chain(programs.iter().map(PathBuf::from)) {
        let to = base.join(file.strip_prefix("/").unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(&file, to).unwrap();
    }
    write(&base.join("bin/tell"), tell, 0o755);
    write(&base.join("bin/setuid"), "#!/bin/sh\n", 0o4755);
    write(&base.join("etc/motto"), "small\n", 0o644);
    write(&base.join("etc/old"), "old\n", 0o644);
    write(&base.join("etc/group"), GROUP, 0o644);
    write(&base.join("srv/other"), "33's\n", 0o600);
    chown(base.join("srv/other"), Some(33), Some(33)).unwrap();
    fs::set_permissions(base.join("srv"), PermissionsExt::from_mode(0o777)).unwrap();
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
    write(&upper.join("etc/passwd"), PASSWD, 0o644);
    let store = LayerStore::open(at.join("layers"), ByteCount::gib(1)).unwrap();
    let mut layers = Vec::new();
    for (number, part) in [folder, &upper].into_iter().enumerate() {
        let packed = Command::new("tar").arg("-C").arg(part).arg("-czf").arg(&archive).arg(".").status();
        assert!(packed.unwrap().success());
        let id = Sha256Digest([u8::try_from(number).unwrap(); 32]);
        layers.extend(store.ensure(&archive, id, ImageFormat::Rootfs).unwrap().layers);
    }
    RootImage { layers, run: ImageRun { program: Program::new(["/bin/tell"]), ..ImageRun::default() } }
}

impl Place {
    pub fn definition(&self) -> Definition {
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
                network: NetworkSpec::default(),
                cloud_init: None,
                restart: RestartPolicy::Never,
                mobility: Mobility::Usual,
                health: HealthSpec::default(),
                volumes: Vec::new(),
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
    pub fn layers(&self) -> Vec<(PathBuf, u32, u64)> {
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

    /// What the machine told, looked for in its root by way of its init's process.
    pub async fn told(&self, vm: VmId) -> String {
        let mut text = String::new();
        for _ in 0..500 {
            text = self.told_file(vm).and_then(|file| fs::read_to_string(file).ok()).unwrap_or(text);
            if text.ends_with("END\n") {
                return text;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the machine ended, or told no more than:\n{text}");
    }

    pub fn told_file(&self, vm: VmId) -> Option<PathBuf> {
        let home = self.folder.path().join("machines");
        let lists = groups(&home).into_iter().map(|group| group.join(vm.to_string()).join("cgroup.procs"));
        let pids = lists.filter_map(|list| fs::read_to_string(list).ok());
        let init = pids.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).min()?;
        Some(PathBuf::from(format!("/proc/{init}/root")).join(TOLD))
    }
}
