//! A layer on disk, as overlayfs reads one (`overlayfs.rst`): a whiteout is the character device 0:0, an opaque folder
//! has the attribute `trusted.overlay.opaque`.
//!
//! The kernel holds the rule that nothing leads out: every place is opened beneath the layer's own folder, through no
//! link at all (`openat2(2)`), and every last step is taken relative to the folder that was opened.

use super::{
    apply::Tree,
    member::{Attributes, LayerPath},
};
use nix::{
    dir::Dir,
    errno::Errno,
    fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2},
    sys::{
        stat::{FchmodatFlags, Mode, SFlag, fchmod, fchmodat, futimens, mkdirat, mknodat},
        time::TimeSpec,
    },
    unistd::{Gid, LinkatFlags, Uid, UnlinkatFlags, fchown, fchownat, linkat, symlinkat, unlinkat},
};
use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::Path,
};

/// Mode of folders that no member names.
const IMPLIED: Attributes = Attributes { mode: 0o755, uid: 0, gid: 0, modified: 0 };

/// The folder of one layer.
pub struct OnDisk {
    root: OwnedFd,
}

impl OnDisk {
    /// Opens an empty folder to put a layer into.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let root = nix::fcntl::open(folder, OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        give(&root, &IMPLIED)?;
        Ok(Self { root })
    }

    fn open_folder(&self, path: &Path) -> nix::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let resolve = ResolveFlag::RESOLVE_BENEATH
            | ResolveFlag::RESOLVE_NO_SYMLINKS
            | ResolveFlag::RESOLVE_NO_MAGICLINKS
            | ResolveFlag::RESOLVE_NO_XDEV;
        let how = OpenHow::new().flags(OFlag::O_DIRECTORY | OFlag::O_CLOEXEC).resolve(resolve);
        openat2(&self.root, path, how)
    }

    /// Opens a folder, and makes those on the way that are missing.
    fn make_folder(&self, path: &Path) -> io::Result<OwnedFd> {
        match self.open_folder(path) {
            Err(Errno::ENOENT) => {}
            other => return other.map_err(refusal),
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Errno::ENOENT.into());
        };
        let parent = self.make_folder(parent)?;
        match mkdirat(&parent, name, Mode::S_IRWXU) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(cause) => return Err(cause.into()),
        }
        let made = self.open_folder(path).map_err(refusal)?;
        give(&made, &IMPLIED)?;
        Ok(made)
    }

    /// The folder of a member, and the member's name in it, where nothing but a folder remains.
    fn clear<'a>(&self, path: &'a LayerPath) -> io::Result<(OwnedFd, &'a OsStr)> {
        let (parent, name) = self.place(path)?;
        match unlinkat(&parent, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok((parent, name)),
            Err(Errno::EISDIR) => Err(io::Error::other("the layer has a folder of that name already")),
            Err(cause) => Err(cause.into()),
        }
    }

    fn place<'a>(&self, path: &'a LayerPath) -> io::Result<(OwnedFd, &'a OsStr)> {
        let (Some(parent), Some(name)) = (path.as_path().parent(), path.name()) else {
            return Err(Errno::EISDIR.into());
        };
        Ok((self.make_folder(parent)?, name))
    }
}

impl Tree for OnDisk {
    fn folder(&mut self, path: &LayerPath, attributes: &Attributes) -> io::Result<()> {
        give(&self.make_folder(path.as_path())?, attributes)
    }

    fn file(&mut self, path: &LayerPath, attributes: &Attributes, content: &mut dyn Read) -> io::Result<()> {
        let (parent, name) = self.clear(path)?;
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut file = File::from(openat(&parent, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?);
        io::copy(content, &mut file)?;
        give(&file, attributes)?;
        let modified = TimeSpec::new(attributes.modified, 0);
        // A time that the file system cannot keep is no reason to refuse the file.
        let _as_it_is = futimens(&file, &modified, &modified);
        Ok(())
    }

    fn symlink(&mut self, path: &LayerPath, attributes: &Attributes, target: &Path) -> io::Result<()> {
        let (parent, name) = self.clear(path)?;
        symlinkat(target, &parent, name)?;
        own(&parent, name, attributes)
    }

    fn hard_link(&mut self, path: &LayerPath, target: &LayerPath) -> io::Result<()> {
        let (from, from_name) = self.place(target)?;
        let (parent, name) = self.clear(path)?;
        // Without AT_SYMLINK_FOLLOW: a link to a link is the link, wherever that leads.
        Ok(linkat(&from, from_name, &parent, name, LinkatFlags::empty())?)
    }

    fn pipe(&mut self, path: &LayerPath, attributes: &Attributes) -> io::Result<()> {
        let (parent, name) = self.clear(path)?;
        mknodat(&parent, name, SFlag::S_IFIFO, Mode::S_IRUSR | Mode::S_IWUSR, 0)?;
        let mode = Mode::from_bits_truncate(attributes.mode);
        own(&parent, name, attributes)?;
        Ok(fchmodat(&parent, name, mode, FchmodatFlags::FollowSymlink)?)
    }

    fn whiteout(&mut self, path: &LayerPath) -> io::Result<()> {
        let (parent, name) = self.clear(path)?;
        Ok(mknodat(&parent, name, SFlag::S_IFCHR, Mode::empty(), 0)?)
    }

    fn opaque(&mut self, path: &LayerPath) -> io::Result<()> {
        set_opaque(&self.make_folder(path.as_path())?)
    }
}

/// A link on the way, or something that is no folder.
fn refusal(cause: Errno) -> io::Error {
    match cause {
        Errno::ELOOP => io::Error::other("its path goes through a symbolic link"),
        Errno::ENOTDIR => io::Error::other("its path goes through something that is no folder"),
        other => other.into(),
    }
}

fn give(file: &impl AsFd, attributes: &Attributes) -> io::Result<()> {
    let (user, group) = owner(attributes);
    fchown(file, user, group)?;
    Ok(fchmod(file, Mode::from_bits_truncate(attributes.mode))?)
}

fn own(parent: &OwnedFd, name: &OsStr, attributes: &Attributes) -> io::Result<()> {
    let (user, group) = owner(attributes);
    Ok(fchownat(parent, name, user, group, AtFlags::AT_SYMLINK_NOFOLLOW)?)
}

fn owner(attributes: &Attributes) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(attributes.uid)), Some(Gid::from_raw(attributes.gid)))
}

fn set_opaque(folder: &OwnedFd) -> io::Result<()> {
    let (name, value) = (c"trusted.overlay.opaque", b"y");
    // SAFETY: both texts outlive the call, which reads the name to its NUL and as many bytes of the value as it is told.
    let result =
        unsafe { libc::fsetxattr(folder.as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes everything in a layer durable, before it gets its name.
///
/// # Errors
/// The kernel's.
pub fn sync(folder: &Path) -> io::Result<()> {
    let folder = Dir::open(folder, OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    Ok(nix::unistd::syncfs(&folder)?)
}
