//! Volumes: opened as the host's while its paths are still in sight, and put in place within the new root, whose own links lead
//! nowhere else. What is in them belongs to whom the machine says, as in its own layer ([`idmap`]).
//!
//! Nothing is looked at by one path and used by another: whoever may write in a folder of the host, or in another volume, may
//! change both at any moment. So each is opened once, through no link, and goes by its descriptor from then on.

use super::{Place, STAGE, fsmount, idmap, loopback::Loopback, own::making_files_as};
use crate::hypervisor::namespace::{
    ids::IdMap,
    request::{Volume, VolumeFrom},
    step::{Doing, StepError},
};
use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, open, openat, openat2, renameat},
    sys::stat::{FileStat, Mode, fchmod, fstat, mkdirat},
    unistd::{Gid, Uid, fchown},
};
use novacron_common::spec::FolderPath;
use std::{
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

/// In the file system of a volume: beside it is what ext4 has of its own.
const DATA: &str = "data";

/// The same before it is whole.
const DATA_BEGUN: &str = "data.begun";

/// A volume, mounted, and not yet anywhere.
pub struct Opened<'a> {
    volume: &'a Volume,
    mount: OwnedFd,
}

/// Opens them for a tree of these ids.
///
/// # Errors
/// [`StepError`] if there is none, it is in use, or it may not be shown.
pub fn open_all(volumes: &[Volume], map: IdMap) -> Result<Vec<Opened<'_>>, StepError> {
    if volumes.is_empty() {
        return Ok(Vec::new());
    }
    let users = idmap::Users::of(map)?;
    volumes.iter().map(|volume| Ok(Opened { volume, mount: mount_of(volume, &users)? })).collect()
}

fn mount_of(volume: &Volume, users: &idmap::Users) -> Result<OwnedFd, StepError> {
    let target = &volume.target;
    match &volume.source {
        VolumeFrom::Disk(file) => {
            let doing = format!("take the volume at {target}, which one machine at a time can have");
            let device = Loopback::over(file).doing(&doing)?;
            let mount = fsmount::ext4(device.path())?;
            // Whoever may only read it: a new one has to be begun first.
            idmap::map(&mount, users, idmap::Access::Write)
                .doing(&format!("show the volume at {target} to the machine's users"))?;
            Ok(mount)
        }
        VolumeFrom::Folder { allowed, below } => {
            let doing = format!(
                "show {} at {target} to the machine's users (each file system in it has to be able to map ids, as ext4, XFS, btrfs and tmpfs are)",
                allowed.join(below).display()
            );
            let mount = fsmount::tree(&folder(allowed, below, volume.read_only)?).doing(&doing)?;
            let access = if volume.read_only { idmap::Access::Read } else { idmap::Access::Write };
            idmap::map(&mount, users, access).doing(&doing)?;
            Ok(mount)
        }
    }
}

/// The folder, got at through no link: whoever may write on the way there must not choose what is shown.
fn folder(allowed: &Path, below: &Path, read_only: bool) -> Result<OwnedFd, StepError> {
    let top = open_below(AT_FDCWD, allowed, ResolveFlag::empty())?;
    let found = fstat(&top).doing(&format!("look at {}", allowed.display()))?;
    if !read_only && !is_roots_alone(&found) {
        let remedy = "to be written to it must belong to root and be closed to all others (chmod 700); or ask for it with :ro";
        return Err(StepError::new(format!("use {}", allowed.display()), remedy));
    }
    match below.as_os_str().is_empty() {
        true => Ok(top),
        false => open_below(&top, below, ResolveFlag::RESOLVE_BENEATH),
    }
}

fn open_below(from: impl AsFd, path: &Path, resolve: ResolveFlag) -> Result<OwnedFd, StepError> {
    let doing = format!("open the folder {} of the host", path.display());
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let how = OpenHow::new().flags(flags).resolve(resolve | ResolveFlag::RESOLVE_NO_SYMLINKS);
    match openat2(from, path, how) {
        Err(Errno::ELOOP) => Err(StepError::new(
            doing,
            "a symbolic link is in the way, and none is followed: name where it leads",
        )),
        found => found.doing(&doing),
    }
}

/// User 0 of a machine is user 0 of the host in the files that it leaves there, set-user-id programs among them: nobody else may get
/// at those.
fn is_roots_alone(found: &FileStat) -> bool {
    found.st_uid == 0 && found.st_mode & 0o077 == 0
}

impl Opened<'_> {
    /// Puts it where it belongs in the new root of a tree of these ids, the `number`th of all.
    ///
    /// # Errors
    /// [`StepError`].
    pub fn put(self, root: &OwnedFd, number: usize, map: IdMap) -> Result<(), StepError> {
        let owner = map.root_outside();
        let target = making_files_as(owner, || folder_within(root, &self.volume.target))?;
        let doing = format!("put a volume at {}", self.volume.target);
        let mount = match &self.volume.source {
            VolumeFrom::Folder { .. } => self.mount,
            VolumeFrom::Disk(_) => {
                making_files_as(owner, || begin(&self.mount, &target, map).doing(&doing))?;
                let whole = idmap::attach(&self.mount, Path::new(STAGE).join(format!("volume{number}")))?;
                let whole = open(&whole, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).doing(&doing)?;
                open_folder(&whole, DATA).and_then(|data| fsmount::tree(&data)).doing(&doing)?
            }
        };
        if self.volume.read_only {
            fsmount::restrict(&mount, libc::MOUNT_ATTR_RDONLY, None).doing(&doing)?;
        }
        fsmount::put_over(&mount, &target.0).doing(&doing)
    }
}

/// The folder of this path within the root, made where it is missing. Links in it lead to places of the root.
fn folder_within(root: &OwnedFd, path: &FolderPath) -> Result<Place, StepError> {
    let doing = format!("find the folder {path} in the machine");
    let mut reached = PathBuf::from(".");
    let mut place = Place::find(root, &reached).doing(&doing)?;
    for part in path.parts() {
        reached.push(part);
        place = match Place::find(root, &reached) {
            Err(Errno::ENOENT) => {
                make_folder(&place, part).doing(&doing)?;
                Place::find(root, &reached).doing(&doing)?
            }
            found => found.doing(&doing)?,
        };
    }
    // A volume over the whole root would be in place of all that was put there, /proc and its masks among it.
    match is_same(&place.0, root).doing(&doing)? {
        true => Err(StepError::new(doing, "it leads to the machine's root")),
        false => Ok(place),
    }
}

fn is_same(one: &OwnedFd, other: &OwnedFd) -> nix::Result<bool> {
    let (one, other) = (fstat(one)?, fstat(other)?);
    Ok((one.st_dev, one.st_ino) == (other.st_dev, other.st_ino))
}

/// For everybody to enter, whatever the umask of this process. It is opened before it is changed, through no link: where it is in
/// another volume, somebody else may have put one in its place.
fn make_folder(place: &Place, name: &str) -> nix::Result<()> {
    let mode = Mode::from_bits_truncate(0o755);
    match mkdirat(&place.0, name, mode) {
        Err(Errno::EEXIST) => return Ok(()),
        made => made?,
    }
    fchmod(open_folder(&place.0, name)?, mode)
}

/// A new volume begins as the folder that it covers: a program that may write there may write in it. What nobody inside owns becomes
/// user 0's. It gets its name when it is whole.
fn begin(whole: &OwnedFd, covered: &Place, map: IdMap) -> nix::Result<()> {
    match open_folder(whole, DATA) {
        Err(Errno::ENOENT) => {}
        found => return found.map(drop),
    }
    match mkdirat(whole, DATA_BEGUN, Mode::empty()) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(cause) => return Err(cause),
    }
    let data = open_folder(whole, DATA_BEGUN)?;
    let like = fstat(&covered.0)?;
    let known = |id: u32| if map.has(id) { id } else { map.root_outside() };
    let (user, group) = (Uid::from_raw(known(like.st_uid)), Gid::from_raw(known(like.st_gid)));
    fchown(&data, Some(user), Some(group))?;
    fchmod(data, Mode::from_bits_truncate(like.st_mode & 0o1777))?;
    renameat(whole, DATA_BEGUN, whole, DATA)
}

fn open_folder(folder: &OwnedFd, name: &str) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(folder, name, flags, Mode::empty())
}
