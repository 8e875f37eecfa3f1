//! The supervisor's half: a staging file system, the overlay, the masks.

use super::{
    INODES_MAX, Place, STAGE, bind, device, inert, lower::Opened, mask, mount_new, new_root,
    own::making_files_as, resolv_conf, restrict, volumes,
};
use crate::hypervisor::namespace::{
    checkpoint::reaper,
    ids::IdMap,
    request::{Lower, Origin, Volume},
    step::{Doing, StepError},
};
use nix::{
    errno::Errno,
    fcntl::{OFlag, open, openat},
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::stat::{Mode, mkdirat},
};
use novacron_common::units::ByteCount;
use std::{
    fs::{File, create_dir, metadata, set_permissions},
    net::IpAddr,
    os::{fd::OwnedFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
};

/// What is mounted over in every root.
const MOUNT_POINTS: &[&str] = &["dev", "proc", "sys", "tmp"];

/// What the root depends on.
pub struct Plan<'a> {
    /// What it is made of.
    pub lower: &'a Lower,
    /// Its ids.
    pub map: IdMap,
    /// What may be written to its temporary folders, and to a layer that is in memory.
    pub scratch_max: ByteCount,
    /// Paths to mask, beside those that always are.
    pub masked: &'a [PathBuf],
    /// Whom it asks for names; without any, what it has in its files counts.
    pub resolvers: &'a [IpAddr],
    /// What else is in it.
    pub volumes: &'a [Volume],
    /// Whether what runs in it is to be saved: then it has the [`reaper`], and its init makes the temporary folders, as file
    /// systems of their own, whose content CRIU saves.
    pub origin: Option<Origin>,
}

/// Gives this process a mount namespace of its own and builds the new root in it.
///
/// # Errors
/// [`StepError`]; nothing needs undoing then, as the namespace goes with the process.
pub fn build(plan: &Plan<'_>) -> Result<(), StepError> {
    leave_the_hosts_mounts()?;
    // The stage may cover the folder: from here on it goes by its descriptor.
    let lower = Opened::new(plan.lower, plan.map)?;
    let volumes = volumes::open_all(plan.volumes, plan.map)?;
    let owner = plan.map.root_outside();
    let size = format!("mode=0755,size={},nr_inodes={INODES_MAX}", plan.scratch_max.0);
    mount_new("tmpfs", Path::new(STAGE), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, &size)
        .doing("mount the stage")?;
    create_dir(new_root()).doing("make the new root's folder")?;
    lower.mount_at(&new_root(), owner)?;
    if plan.origin == Some(Origin::Saved) {
        return stage_for_criu(plan.resolvers);
    }
    let can_be_saved = plan.origin.is_some();
    let root = open(&new_root(), OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
        .doing("open the new root")?;
    match lower {
        Opened::Folder(_) => mask_secrets(&root, &mask::secrets(plan.masked))?,
        // What an image has is no secret of the host's.
        Opened::Image { .. } => making_files_as(owner, || make_mount_points(&root))?,
    }
    if !plan.resolvers.is_empty() {
        making_files_as(owner, || resolv_conf::put(&root, plan.resolvers))?;
    }
    let devices = device::build()?;
    if can_be_saved {
        create_dir(devices.join("novacron")).doing("make a place for init")?;
    }
    // The stage has no devices, and CRIU cannot take that back; the nodes are mounts of their own.
    let own = if can_be_saved { MsFlags::MS_NODEV } else { MsFlags::empty() };
    put(&root, &devices, "/dev", own | MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_RDONLY)?;
    if can_be_saved {
        put(
            &root,
            &reaper_folder()?,
            reaper::FOLDER,
            MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_RDONLY,
        )?;
    }
    let places = match lower {
        Opened::Folder(_) => ["/tmp", "/dev/shm", "/var/tmp"].as_slice(),
        // What is in /var/tmp is to outlive a restart (hier(7)).
        Opened::Image { .. } => &["/tmp", "/dev/shm"],
    };
    for place in places.iter().filter(|_| !can_be_saved) {
        put(&root, &temporary(place)?, place, MsFlags::MS_NOSUID | MsFlags::MS_NODEV)?;
    }
    volumes.into_iter().enumerate().try_for_each(|(number, volume)| volume.put(&root, number, plan.map))
}

/// Slave, not private: a file system that the host unmounts must go from here too, or it stays busy.
fn leave_the_hosts_mounts() -> Result<(), StepError> {
    unshare(CloneFlags::CLONE_NEWNS).doing("make a mount namespace")?;
    let flags = MsFlags::MS_REC | MsFlags::MS_SLAVE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).doing("detach from the host's mounts")
}

/// An image need not have the folders that are mounted over, but where it has something else in their place, that would
/// be mounted over in its stead.
fn make_mount_points(root: &OwnedFd) -> Result<(), StepError> {
    for name in MOUNT_POINTS {
        let doing = format!("use /{name} of the image, which must be a folder and no link");
        match mkdirat(root, *name, Mode::from_bits_truncate(0o755)) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(cause) => return Err(StepError::new(doing, cause)),
        }
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        openat(root, *name, flags, Mode::empty()).doing(&doing)?;
    }
    Ok(())
}

/// Covers each path that exists with something empty that not even its owner may open.
fn mask_secrets(root: &OwnedFd, paths: &[PathBuf]) -> Result<(), StepError> {
    let (folder, file) = blanks()?;
    for path in paths {
        match Place::find(root, path) {
            Ok(place) => {
                let blank = if place.is_folder()? { &folder } else { &file };
                bind(blank, &place.path()).doing(&format!("mask {}", path.display()))?;
            }
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            Err(cause) => return Err(StepError::new(format!("mask {}", path.display()), cause)),
        }
    }
    Ok(())
}

/// An empty folder and an empty file without any permission, on a file system that nobody can write to. A bind
/// takes over the flags of the mount that it is made from.
fn blanks() -> Result<(PathBuf, PathBuf), StepError> {
    let at = Path::new(STAGE).join("blank");
    create_dir(&at).doing("make the blanks' folder")?;
    mount_new("tmpfs", &at, inert(), "mode=0755,size=64k,nr_inodes=8").doing("mount the blanks")?;
    let (folder, file) = (at.join("folder"), at.join("file"));
    create_dir(&folder).doing("make a blank folder")?;
    File::create(&file).doing("make a blank file")?;
    for blank in [&folder, &file] {
        set_permissions(blank, PermissionsExt::from_mode(0o000)).doing("close a blank")?;
    }
    restrict(&at, inert() | MsFlags::MS_RDONLY).doing("make the blanks read-only")?;
    Ok((folder, file))
}

/// What CRIU is to mount within the root, beside it: it cannot bind one that has mounts of ours in it.
fn stage_for_criu(resolvers: &[IpAddr]) -> Result<(), StepError> {
    create_dir(device::places()?.join("novacron")).doing("make a place for init")?;
    reaper_folder()?;
    if !resolvers.is_empty() {
        resolv_conf::stage(resolvers)?;
    }
    Ok(())
}

/// A folder with the program alone. On the `/dev` that it is put into nothing can be run.
fn reaper_folder() -> Result<PathBuf, StepError> {
    let folder = Path::new(STAGE).join("reaper");
    create_dir(&folder).doing("make a folder for init")?;
    let file = folder.join(reaper::NAME);
    std::fs::write(&file, reaper::program()).doing("write init")?;
    set_permissions(&file, PermissionsExt::from_mode(0o555)).doing("let init be run")?;
    Ok(folder)
}

fn temporary(place: &str) -> Result<PathBuf, StepError> {
    let folder = Path::new(STAGE).join(place.trim_start_matches('/').replace('/', "-"));
    create_dir(&folder).doing("make a temporary folder")?;
    set_permissions(&folder, PermissionsExt::from_mode(0o1777)).doing("open a temporary folder to all")?;
    Ok(folder)
}

/// Binds a folder of the stage, with all that is mounted in it, to a place of the new root.
fn put(root: &OwnedFd, folder: &Path, place: &str, flags: MsFlags) -> Result<(), StepError> {
    let doing = format!("put {place} in place");
    let Ok(target) = Place::find(root, Path::new(place)) else {
        return if metadata(place).is_ok() { Err(StepError::new(doing, Errno::ENOENT)) } else { Ok(()) };
    };
    let recursively = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(folder), &target.path(), None::<&str>, recursively, None::<&str>).doing(&doing)?;
    // The place that was found is below the new mount; it has to be looked up again to reach that.
    let covered = Place::find(root, Path::new(place)).doing(&doing)?;
    restrict(&covered.path(), flags).doing(&doing)
}
