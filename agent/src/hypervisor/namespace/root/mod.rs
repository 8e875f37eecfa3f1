//! The root file system of an isolated command: the host's own or another folder of it, read-only below a throw-away
//! layer in memory, or an image's layers below the machine's [`own`].
//!
//! The supervisor builds it in its private mount namespace, as the host's root ([`build`]); so every mount is gone
//! with the last process of that namespace, however it ends, and what is masked is locked for whoever comes after
//! with fewer rights (`mount_namespaces(7)`, "locked together"). Init then moves into it ([`enter`]).
//!
//! Files of the host belong to nobody inside: the host's ids are not mapped, so only what everybody may read can be
//! read. The masks of [`mask`] come on top. An image's files belong to whom the image says ([`idmap`]).

mod build;
mod device;
mod enter;
mod fsmount;
mod idmap;
mod loopback;
mod lower;
mod mask;
mod own;
mod resolv_conf;
mod volumes;

pub use build::{Plan, build};
pub use enter::enter;

use super::{
    disk::Attached,
    step::{Doing, StepError},
};
use nix::{
    fcntl::{OFlag, OpenHow, ResolveFlag, openat2},
    mount::{MsFlags, mount},
    sys::statvfs::statvfs,
};
use std::{
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

/// Where the new root is built. Any folder that exists everywhere does: it is covered in our namespace only.
const STAGE: &str = "/tmp";

/// Where what the root is made of is built. Only for the process that built the root, and those that it begins.
pub fn stage() -> &'static Path {
    Path::new(STAGE)
}

/// The new root, before it is one.
pub fn new_root() -> PathBuf {
    Path::new(STAGE).join("root")
}

/// Where the layer is that outlives the tree. Only for the process that built the root, and those that it begins.
pub fn own_place() -> PathBuf {
    own::place()
}

/// Less is no room: a file system keeps a few blocks that nobody can have.
const ROOM_MIN: u64 = 64 << 10;

/// Whether no room is left for what is written, in memory or in a layer that outlives the tree. Only for the process that
/// built the root.
pub fn is_full() -> bool {
    let stage = Path::new(STAGE);
    [stage.to_owned(), own::place()].iter().filter_map(|place| statvfs(place).ok()).any(|system| {
        let room = system.blocks_available().saturating_mul(system.fragment_size());
        room < ROOM_MIN || system.files_available() == 0
    })
}

/// The device of the layer that outlives the tree, if there is one. Only for the process that built the root.
pub fn disk() -> Option<Attached> {
    Attached::at(&own::place()).ok()
}

/// Most files in memory: each costs kernel memory whatever its size.
const INODES_MAX: u32 = 100_000;

/// A place inside the new root. A symbolic link in it leads to a place inside it too, never to the host's
/// (`openat2(2)`, `RESOLVE_IN_ROOT`).
struct Place(OwnedFd);

impl Place {
    fn find(root: &OwnedFd, path: &Path) -> nix::Result<Self> {
        let inside = path.strip_prefix("/").unwrap_or(path);
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        openat2(root, inside, how).map(Self)
    }

    /// A name for it that `mount(2)` takes.
    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }

    fn is_folder(&self) -> Result<bool, StepError> {
        let what = nix::sys::stat::fstat(&self.0).doing("look at a masked path")?;
        Ok(what.st_mode & libc::S_IFMT == libc::S_IFDIR)
    }
}

/// A mount of a file system without a device behind it.
fn mount_new(kind: &str, at: &Path, flags: MsFlags, options: &str) -> nix::Result<()> {
    mount(Some(kind), at, Some(kind), flags, Some(options))
}

fn bind(from: &Path, to: &Path) -> nix::Result<()> {
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>)
}

/// Changes the flags of one mount, not of the file system behind it.
fn restrict(at: &Path, flags: MsFlags) -> nix::Result<()> {
    mount(None::<&str>, at, None::<&str>, MsFlags::MS_REMOUNT | MsFlags::MS_BIND | flags, None::<&str>)
}

/// No set-user-id programs, no devices, no programs at all.
fn inert() -> MsFlags {
    MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC
}
