//! The guest's kernel: Debian's cloud kernel, downloaded with apt from the machine's own sources and unpacked aside.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::run;

/// The package that always depends on the newest cloud kernel.
const META_PACKAGE: &str = "linux-image-cloud-amd64";

/// Drivers that the guest loads, without `.ko`.
const DRIVERS: [&str; 12] = [
    "virtio",
    "virtio_ring",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "virtio_blk",
    "virtio_console",
    "failover",
    "net_failover",
    "virtio_net",
    "button",
    "evdev",
];

/// An unpacked kernel.
#[derive(Debug)]
pub struct Kernel {
    /// `boot/vmlinuz-…`.
    pub image: PathBuf,
    /// The driver files.
    pub modules: Vec<PathBuf>,
}

impl Kernel {
    /// Finds the kernel in `cache`, or downloads and unpacks it there.
    pub fn fetch(cache: &Path) -> Result<Self> {
        let unpacked = cache.join("unpacked");
        if !unpacked.is_dir() {
            download(cache, &unpacked)?;
        }
        Self::find(&unpacked)
    }

    fn find(unpacked: &Path) -> Result<Self> {
        let boot = fs::read_dir(unpacked.join("boot"))?.flatten().map(|entry| entry.path());
        let image = boot.into_iter().find(|path| path.to_string_lossy().contains("vmlinuz"));
        let image = image.context("the kernel package holds no vmlinuz")?;
        let mut modules = Vec::new();
        collect_modules(unpacked, &mut modules)?;
        ensure!(modules.len() == DRIVERS.len(), "expected the drivers {DRIVERS:?}, found {modules:?}");
        modules.sort();
        Ok(Self { image, modules })
    }
}

fn download(cache: &Path, unpacked: &Path) -> Result<()> {
    let packages = cache.join("packages");
    fs::create_dir_all(&packages)?;
    let package = match fetch_newest(&packages) {
        Ok(package) => package,
        // The machine's lists may be missing, or so old that the version they name is gone.
        Err(_) => {
            run(Command::new("apt-get").args(["-q", "update"]))?;
            fetch_newest(&packages)?
        }
    };
    let mut files = fs::read_dir(&packages)?.flatten().map(|entry| entry.path());
    let file =
        files.find(|path| path.to_string_lossy().contains(&package)).context("apt-get left no package")?;
    let half = cache.join("half");
    let _ = fs::remove_dir_all(&half);
    run(Command::new("dpkg").arg("-x").arg(file).arg(&half))?;
    fs::rename(half, unpacked).context("keeping the unpacked kernel")
}

/// Downloads the package that the machine's lists call the newest, and returns its name.
fn fetch_newest(to: &Path) -> Result<String> {
    let listing = run(Command::new("apt-cache").args(["depends", META_PACKAGE]))?;
    let depends = listing.lines().find_map(|line| line.trim().strip_prefix("Depends: linux-image"));
    let package = format!("linux-image{}", depends.with_context(|| format!("apt knows no {META_PACKAGE}"))?);
    // Root's download is otherwise handed to a user who cannot enter this folder, and apt warns about it.
    let mut fetch = Command::new("apt-get");
    run(fetch.args(["-q", "-o", "APT::Sandbox::User=root", "download", &package]).current_dir(to))?;
    Ok(package)
}

fn collect_modules(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)?.flatten() {
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            // `lib` may be a link to `usr/lib` or the other way round: links are not followed, so nothing is found twice.
            collect_modules(&path, found)?;
        } else if is_wanted(&path) {
            found.push(path);
        }
    }
    Ok(())
}

fn is_wanted(path: &Path) -> bool {
    let is_module = path.extension().is_some_and(|extension| extension == "ko");
    is_module && path.file_stem().and_then(|stem| stem.to_str()).is_some_and(|stem| DRIVERS.contains(&stem))
}
