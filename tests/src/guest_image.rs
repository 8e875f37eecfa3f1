//! Makes what the lab's guest boots from: a Debian kernel, an initramfs around `novacron-guest`, and empty disks.
//!
//! The kernel is unpacked from its package and never installed. All of it is cached under the target folder, because a
//! download and a build per test would be most of the test.

mod agent;
mod cpio;
mod kernel;
mod vmlinux;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use aws_lc_rs::digest;

use crate::bins;
use cpio::Archive;
use kernel::Kernel;

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// A file and what it must hash to.
#[derive(Debug, Clone)]
pub struct Checked {
    /// Where it is.
    pub path: PathBuf,
    /// SHA-256 in lower-case hex.
    pub sha256: String,
}

impl Checked {
    /// Reads and hashes a file.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn of(path: PathBuf) -> Result<Self> {
        let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        let sha256 = hex::encode(digest::digest(&digest::SHA256, &bytes));
        Ok(Self { path, sha256 })
    }
}

/// Everything for a direct kernel boot.
#[derive(Debug, Clone)]
pub struct GuestImage {
    /// The uncompressed-header kernel image (`vmlinuz`).
    pub kernel: Checked,
    /// Initramfs with `/init` and the virtio, button and evdev drivers.
    pub initramfs: Checked,
}

/// How a disk image is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskFormat {
    /// A sparse file.
    Raw,
    /// QEMU's copy-on-write format.
    Qcow2,
}

impl DiskFormat {
    /// The name that `qemu-img` and libvirt use.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        }
    }
}

impl GuestImage {
    /// Builds it, or finds it built. Safe to call from several processes at once: the work is behind a file lock.
    ///
    /// # Errors
    /// When the kernel cannot be downloaded or the guest cannot be built.
    pub fn build() -> Result<Self> {
        let cache = bins::lab_dir()?;
        let lock = fs::File::create(cache.join("lock")).context("creating the cache's lock")?;
        lock.lock().context("waiting for another build of the guest image")?;
        let kernel = Kernel::fetch(&cache.join("kernel"))?;
        let initramfs = cache.join("initramfs.cpio");
        let init = build_static("novacron-guest", &cache.join("guest-build"))?;
        write_initramfs(&initramfs, &init, &kernel)?;
        Ok(Self { kernel: Checked::of(kernel.image)?, initramfs: Checked::of(initramfs)? })
    }

    /// The same with QEMU's own guest agent in it, and a shell and a few programs for what that runs.
    ///
    /// # Errors
    /// As [`Self::build`], and when the guest agent's package cannot be had.
    pub fn with_agent() -> Result<Self> {
        let plain = Self::build()?;
        let cache = bins::lab_dir()?;
        let lock = fs::File::create(cache.join("lock")).context("creating the cache's lock")?;
        lock.lock().context("waiting for another build of the guest image")?;
        let path = cache.join("initramfs-agent.cpio");
        let mut bytes = fs::read(&plain.initramfs.path)?;
        bytes.extend(agent::archive(&cache.join("agent"))?);
        let half = path.with_extension("half");
        fs::write(&half, bytes)?;
        fs::rename(&half, &path).with_context(|| format!("writing {}", path.display()))?;
        Ok(Self { initramfs: Checked::of(path)?, ..plain })
    }

    /// The same kernel unpacked (`vmlinux`), for a template that boots fast.
    ///
    /// # Errors
    /// When it cannot be unpacked.
    pub fn unpacked_kernel(&self) -> Result<Checked> {
        let vmlinux = bins::lab_dir()?.join("vmlinux");
        vmlinux::extract(&self.kernel.path, &vmlinux)?;
        Checked::of(vmlinux)
    }

    /// An empty disk at `path`.
    ///
    /// # Errors
    /// When `qemu-img` fails.
    pub fn empty_disk(path: &Path, format: DiskFormat, mib: u64) -> Result<Checked> {
        let size = format!("{mib}M");
        let mut create = Command::new("qemu-img");
        create.args(["create", "-q", "-f", format.name()]).arg(path).arg(size);
        run(&mut create)?;
        Checked::of(path.to_path_buf())
    }
}

/// A program of the guest's crate that needs nothing of a root file system. Safe to call from several processes at once.
///
/// # Errors
/// When it cannot be built.
pub fn static_program(name: &str) -> Result<PathBuf> {
    let cache = bins::lab_dir()?;
    let lock = fs::File::create(cache.join("lock")).context("creating the cache's lock")?;
    lock.lock().context("waiting for another build of the guest's programs")?;
    build_static(name, &cache.join("guest-build"))
}

/// Builds one in a target folder of its own: its flags would otherwise rebuild everybody's dependencies.
fn build_static(name: &str, target_dir: &Path) -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("guest/Cargo.toml");
    let mut build = Command::new(cargo);
    build
        .args(["build", "--quiet", "--release", "--bin", name, "--target", TARGET, "--manifest-path"])
        .arg(manifest)
        .env("CARGO_TARGET_DIR", target_dir)
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    run(&mut build).with_context(|| format!("building the guest's program {name}"))?;
    Ok(target_dir.join(TARGET).join("release").join(name))
}

fn write_initramfs(to: &Path, init: &Path, kernel: &Kernel) -> Result<()> {
    let mut archive = Archive::default();
    ["dev", "proc", "sys", "modules"].into_iter().for_each(|name| archive.folder(name));
    archive.console("dev/console");
    archive.program("init", &fs::read(init).with_context(|| format!("reading {}", init.display()))?);
    for module in &kernel.modules {
        let name = module.file_name().and_then(|name| name.to_str()).context("a driver without a name")?;
        archive.file(&format!("modules/{name}"), &fs::read(module)?);
    }
    let half = to.with_extension("half");
    fs::write(&half, archive.finish())?;
    fs::rename(&half, to).with_context(|| format!("writing {}", to.display()))
}

/// Runs a command to its end; the error carries what it said.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("starting {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} failed ({}): {}", output.status, said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
