//! A machine's own folder: its disk, seed, kernel and console log.
//!
//! ```text
//! vms/<vm id>/  disk.qcow2   copy-on-write over the shared image, or blank
//!               seed.img     NoCloud
//!               kernel, initramfs
//!               console.log
//!               monitor/qmp    of a machine that allows post-copy
//! ```
//!
//! Kernel and initramfs are copies: libvirt hands them to QEMU's user while the machine runs, and one machine's
//! QEMU must not own a file that others boot from. Every step can be repeated; a file gets its name when it is
//! complete. The same calls with the same spec on another host make the chain that a move copies onto.

pub use super::store::LocalImages;

use super::qcow2::{self, Qcow2Fault};
use super::seed;
use crate::hypervisor::MachineFiles;
use nix::unistd::{Gid, Uid, User};
use novacron_common::{
    ids::VmId,
    spec::{ImageFormat, MachineKind, VmSpec},
    units::ByteCount,
};
use std::{
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process::Stdio,
};
use tokio::{io::AsyncReadExt, process::Command};

const QEMU_IMG: &str = "qemu-img";
const SECTOR: u64 = 512;

/// Why a machine's folder could not be made or removed.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The disk would cut off the image's end.
    #[error("storage is {asked}, and the template's image is {image}: ask for at least as much")]
    TooSmall {
        /// In the spec.
        asked: ByteCount,
        /// The image's virtual size.
        image: ByteCount,
    },
    /// The image is not what its format says.
    #[error("could not read the header of {}", path.display())]
    Header {
        /// The image.
        path: PathBuf,
        /// What is wrong.
        #[source]
        cause: Qcow2Fault,
    },
    /// An archive, which is unpacked and never read as a disk.
    #[error("{} is no disk: its format is {}", path.display(), format.name())]
    NoDisk {
        /// The archive.
        path: PathBuf,
        /// Its format.
        format: ImageFormat,
    },
    /// `qemu-img` refused.
    #[error("qemu-img {what} failed: {said}")]
    QemuImg {
        /// Its subcommand.
        what: &'static str,
        /// What it printed, the first kilobyte.
        said: String,
    },
    /// `hypervisor.qemu_user` in agent.toml does not exist on this host.
    #[error("hypervisor.qemu_user {0:?} does not exist")]
    NoUser(String),
    /// The kernel refused.
    #[error("could not {doing} {}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// The kernel's error.
        #[source]
        cause: io::Error,
    },
}

fn at<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> DiskError + 'a {
    move |cause| DiskError::Io { doing, path: path.to_owned(), cause }
}

/// The folders of all machines of this host.
#[derive(Debug, Clone)]
pub struct Disks {
    folder: PathBuf,
    owner: Option<(Uid, Gid)>,
}

impl Disks {
    /// Folders below `folder`. `qemu_user` is whom QEMU runs as, if not as root.
    ///
    /// # Errors
    /// If there is no such user or the folder cannot be made.
    pub fn open(folder: PathBuf, qemu_user: Option<&str>) -> Result<Self, DiskError> {
        make_folder(&folder)?;
        Ok(Self { folder, owner: qemu_user.map(user).transpose()? })
    }

    /// The names of a machine's files, whether or not they are there.
    pub fn files(&self, vm: VmId, spec: &VmSpec, images: &LocalImages) -> MachineFiles {
        let folder = self.folder.join(vm.to_string());
        let kernel = images.kernel.as_ref().map(|_| {
            let initramfs = images.initramfs.as_ref().map(|_| folder.join("initramfs"));
            (folder.join("kernel"), initramfs)
        });
        MachineFiles {
            root: images.root.clone(),
            disk: has_disk(spec).then(|| folder.join("disk.qcow2")),
            backing: images.disk.clone(),
            seed: spec.cloud_init.is_some().then(|| folder.join("seed.img")),
            kernel,
            console_log: self.console_log(vm),
            monitor: spec.mobility.allows_post_copy().then(|| folder.join("monitor").join("qmp")),
            folder,
        }
    }

    /// Where the machine's console is logged, whether or not it has written anything.
    pub fn console_log(&self, vm: VmId) -> PathBuf {
        self.folder.join(vm.to_string()).join("console.log")
    }

    /// Makes what is missing.
    ///
    /// # Errors
    /// [`DiskError`]; what was made stays and is taken up by the next try.
    pub async fn create(
        &self,
        vm: VmId,
        spec: &VmSpec,
        images: &LocalImages,
    ) -> Result<MachineFiles, DiskError> {
        let files = self.files(vm, spec, images);
        make_folder(&files.folder)?;
        if let Some(disk) = files.disk.as_deref().filter(|disk| !disk.exists()) {
            make_disk(disk, spec.storage, images.disk.as_ref()).await?;
        }
        if let Some(path) = &files.seed {
            make_seed(path, vm, spec)?;
        }
        if let (Some((kernel, initramfs)), Some(shared)) = (&files.kernel, &images.kernel) {
            copy(shared, kernel).await?;
            if let (Some(initramfs), Some(shared)) = (initramfs, &images.initramfs) {
                copy(shared, initramfs).await?;
            }
        }
        self.make_console_log(&files.console_log)?;
        if let Some(folder) = files.monitor.as_deref().and_then(Path::parent) {
            self.make_monitor_folder(folder)?;
        }
        Ok(files)
    }

    /// Removes a machine's folder. One that is not there is no error.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn remove(&self, vm: VmId) -> Result<(), DiskError> {
        let folder = self.folder.join(vm.to_string());
        match tokio::fs::remove_dir_all(&folder).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at("remove", &folder)(error)),
            _ => Ok(()),
        }
    }

    /// The machines that have a folder here.
    ///
    /// # Errors
    /// The kernel's.
    pub fn list(&self) -> Result<Vec<VmId>, DiskError> {
        let entries = fs::read_dir(&self.folder).map_err(at("list", &self.folder))?;
        Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
    }

    /// Made beforehand: without virtlogd QEMU opens it itself, under its own user.
    fn make_console_log(&self, path: &Path) -> Result<(), DiskError> {
        let open = fs::OpenOptions::new().append(true).create(true).mode(0o640).open(path);
        open.map_err(at("make", path))?;
        self.hand_over(path)
    }

    /// For QEMU to make its socket in, and for nobody else but root.
    fn make_monitor_folder(&self, path: &Path) -> Result<(), DiskError> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(at("make", path))?;
        self.hand_over(path)
    }

    fn hand_over(&self, path: &Path) -> Result<(), DiskError> {
        let Some((user, group)) = self.owner else { return Ok(()) };
        std::os::unix::fs::chown(path, Some(user.as_raw()), Some(group.as_raw()))
            .map_err(at("hand over", path))
    }
}

/// A virtual machine has a disk if it asks for storage or its template has an image. A namespace machine has none.
fn has_disk(spec: &VmSpec) -> bool {
    spec.kind == MachineKind::Kvm && (spec.storage > ByteCount(0) || spec.template.disk.is_some())
}

fn user(name: &str) -> Result<(Uid, Gid), DiskError> {
    let found = User::from_name(name).ok().flatten();
    found.map(|user| (user.uid, user.gid)).ok_or_else(|| DiskError::NoUser(name.to_owned()))
}

/// Passable for QEMU's user, listable for root alone.
fn make_folder(path: &Path) -> Result<(), DiskError> {
    fs::DirBuilder::new().recursive(true).mode(0o711).create(path).map_err(at("make", path))
}

fn fresh(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".new");
    PathBuf::from(name)
}

async fn make_disk(
    path: &Path,
    storage: ByteCount,
    image: Option<&(PathBuf, ImageFormat)>,
) -> Result<(), DiskError> {
    let size = match image {
        Some((image, format)) => disk_size(storage, virtual_size(image, *format).await?)?,
        None => storage,
    };
    let new = fresh(path);
    let mut arguments: Vec<&OsStr> = ["create", "-q", "-f", "qcow2"].map(OsStr::new).to_vec();
    if let Some((image, format)) = image {
        arguments.extend(["-F", format.name(), "-b"].map(OsStr::new));
        arguments.push(image.as_os_str());
    }
    let bytes = size.0.to_string();
    arguments.extend([new.as_os_str(), OsStr::new(&bytes)]);
    qemu_img("create", &arguments).await?;
    fs::rename(&new, path).map_err(at("name", path))
}

/// The image's size if no other is asked for; never less.
fn disk_size(asked: ByteCount, image: ByteCount) -> Result<ByteCount, DiskError> {
    match asked {
        ByteCount(0) => Ok(image),
        asked if asked < image => Err(DiskError::TooSmall { asked, image }),
        asked => Ok(asked),
    }
}

/// The size of the disk that a guest sees in an image.
///
/// # Errors
/// [`DiskError::Header`] or the kernel's.
pub async fn virtual_size(path: &Path, format: ImageFormat) -> Result<ByteCount, DiskError> {
    let read = || at("read", path);
    let mut file = tokio::fs::File::open(path).await.map_err(read())?;
    let length = ByteCount(file.metadata().await.map_err(read())?.len());
    match format {
        ImageFormat::Oci | ImageFormat::Rootfs => Err(DiskError::NoDisk { path: path.to_owned(), format }),
        ImageFormat::Raw => Ok(ByteCount(length.0.next_multiple_of(SECTOR))),
        ImageFormat::Qcow2 => {
            let mut head = Vec::with_capacity(qcow2::HEADER_MAX);
            (&mut file).take(qcow2::HEADER_MAX as u64).read_to_end(&mut head).await.map_err(read())?;
            let header = qcow2::parse(&head, length);
            header
                .map(|found| found.virtual_size)
                .map_err(|cause| DiskError::Header { path: path.to_owned(), cause })
        }
    }
}

/// Always written again: the user may have changed keys or user-data, and equal content gives equal bytes.
fn make_seed(path: &Path, vm: VmId, spec: &VmSpec) -> Result<(), DiskError> {
    let Some(volume) = seed::build(vm, spec).map_err(at("build", path))? else { return Ok(()) };
    if fs::read(path).is_ok_and(|present| present == volume) {
        return Ok(());
    }
    let new = fresh(path);
    fs::write(&new, volume).and_then(|()| fs::rename(&new, path)).map_err(at("write", path))
}

async fn copy(from: &Path, to: &Path) -> Result<(), DiskError> {
    if to.exists() {
        return Ok(());
    }
    let new = fresh(to);
    tokio::fs::copy(from, &new).await.map_err(at("copy", from))?; // a reflink where the file system can
    tokio::fs::rename(&new, to).await.map_err(at("name", to))
}

/// Whether two disks show the guest the same bytes (`qemu-img compare`).
///
/// # Errors
/// [`DiskError::QemuImg`] if they cannot be compared.
pub async fn same_content(one: (&Path, ImageFormat), other: (&Path, ImageFormat)) -> Result<bool, DiskError> {
    let mut compare = Command::new(QEMU_IMG);
    compare.args(["compare", "-q", "-U", "-f", one.1.name(), "-F", other.1.name()]);
    let output = compare.arg(one.0).arg(other.0).output().await.map_err(at("run", Path::new(QEMU_IMG)))?;
    match output.status.code() {
        Some(0) => Ok(true),
        Some(1) => Ok(false),
        _ => Err(refused("compare", &output.stderr)),
    }
}

async fn qemu_img(what: &'static str, arguments: &[&OsStr]) -> Result<(), DiskError> {
    let mut command = Command::new(QEMU_IMG);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.map_err(at("run", Path::new(QEMU_IMG)))?;
    if output.status.success() { Ok(()) } else { Err(refused(what, &output.stderr)) }
}

fn refused(what: &'static str, said: &[u8]) -> DiskError {
    let said = String::from_utf8_lossy(&said[..said.len().min(1024)]);
    DiskError::QemuImg { what, said: said.trim().to_owned() }
}

#[cfg(test)]
pub(super) mod fixture {
    //! A spec for the tests of this folder.

    use novacron_common::{
        spec::{
            BootSource, CloudInit, HealthSpec, MachineKind, Mobility, NetworkSpec, RestartPolicy,
            TemplateSpec, VmSpec,
        },
        units::ByteCount,
    };

    pub fn spec() -> VmSpec {
        VmSpec {
            name: "web-1".parse().expect("a good name"),
            kind: MachineKind::Kvm,
            cpus: 1,
            memory: ByteCount::mib(128),
            storage: ByteCount::mib(8),
            template: TemplateSpec {
                name: "debian".parse().expect("a good name"),
                boot: BootSource::Disk,
                disk: None,
            },
            cmdline: None,
            network: NetworkSpec::default(),
            cloud_init: Some(CloudInit::default()),
            restart: RestartPolicy::Never,
            mobility: Mobility::Usual,
            health: HealthSpec::default(),
            volumes: Vec::new(),
        }
    }
}

#[cfg(test)]
#[path = "disks_tests.rs"]
mod tests;
