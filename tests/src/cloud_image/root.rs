//! The image's files: a minimal Debian from debootstrap, and the few that a cloud image has beside its packages.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::guest_image::run;

const SUITE: &str = "bookworm";

/// What the image has beside debootstrap's `minbase`. `python3-cffi-backend` provides what `python3-cryptography` depends on
/// by virtual names, which debootstrap does not follow.
const PACKAGES: &str = "linux-image-cloud-amd64,initramfs-tools,grub-pc-bin,grub-common,systemd-sysv,\
                        cloud-init,openssh-server,ifupdown,iproute2,netbase,python3-cffi-backend";

/// Files and what is in them. Only this disk's drivers go into the initramfs: firmware reads it slowly when emulated.
const FILES: [(&str, &str); 4] = [
    ("etc/fstab", "LABEL=root / ext4 defaults 0 1\n"),
    ("etc/initramfs-tools/conf.d/lab", "MODULES=list\n"),
    ("etc/initramfs-tools/modules", "virtio_pci\nvirtio_blk\next4\ncrc32c_generic\n"),
    (
        "etc/cloud/cloud.cfg.d/90_lab.cfg",
        "datasource_list: [NoCloud, None]\nlocale: false\nssh_genkeytypes: [ed25519]\napt_preserve_sources_list: true\n",
    ),
];

/// Folders that a running guest does not need.
const WITHOUT: [&str; 5] =
    ["var/cache/apt/archives", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale"];

/// Makes a root at `root`. Packages stay in `packages`, so that a second attempt need not fetch them.
pub fn debootstrap(root: &Path, packages: &Path) -> Result<()> {
    fs::create_dir_all(packages)?;
    let mirror = mirror()?;
    let mut make = Command::new("debootstrap");
    make.arg(format!("--cache-dir={}", packages.display()))
        .args(["--variant=minbase", &format!("--include={PACKAGES}"), SUITE])
        .arg(root)
        .arg(mirror);
    run(&mut make).map(drop)
}

/// Where the machine's own apt takes this suite from.
fn mirror() -> Result<String> {
    let targets = run(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(CODENAME) $(SITE)",
        "Identifier: Packages",
    ]))?;
    let site = targets.lines().find_map(|line| line.strip_prefix(SUITE)?.strip_prefix(' '));
    site.map(str::to_owned).with_context(|| format!("this machine's apt has no source for {SUITE}"))
}

/// Writes what the packages do not, and makes the initramfs.
pub fn settle(root: &Path) -> Result<()> {
    for (path, content) in FILES {
        fs::write(root.join(path), content).with_context(|| format!("writing {path}"))?;
    }
    run(Command::new("chroot").arg(root).args(["update-initramfs", "-u"]))?;
    for folder in WITHOUT {
        let folder = root.join(folder);
        fs::remove_dir_all(&folder).and_then(|()| fs::create_dir(&folder))?;
    }
    Ok(())
}
