//! One member of a layer: where it lies, what it is. Pure; everything that a hostile name could say is refused here,
//! before any of it reaches a file system.
//!
//! Whiteouts are the OCI image specification's (`layer.md`): `.wh.NAME` takes NAME of the layers below away, and
//! `.wh..wh..opq` everything that they have in its folder.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Component, Path, PathBuf},
};

/// Longest path (`PATH_MAX` without its end).
pub const PATH_MAX: usize = 4095;
/// Longest name of one folder or file (`NAME_MAX`).
const NAME_MAX: usize = 255;
/// Most folders above one member.
const DEPTH_MAX: usize = 256;
/// Ids that exist in a machine: 0 to this.
const ID_MAX: u64 = 65_535;
/// What is kept of a file's mode: neither set-user-id nor set-group-id, which would mean nothing within a machine and
/// must not lie about on its host.
const FILE_MODE: u32 = 0o0777;
/// A folder's may also be sticky, or hand its group down.
const FOLDER_MODE: u32 = 0o3777;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// A place in a layer: relative, without `.`, `..` or links in what it says. Empty for the root itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LayerPath(PathBuf);

/// Why a member is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadMember {
    /// It names a place outside.
    #[error("the name {0:?} leads out of the root")]
    Outside(String),
    /// Longer or deeper than a file system takes.
    #[error("the name {0:?}… is too long or too deep")]
    TooLong(String),
    /// No file can be called that.
    #[error("the name {0:?} is none that a file can have")]
    Name(String),
    /// A whiteout that hides nothing, or `..`.
    #[error("the whiteout {0:?} names no file")]
    Whiteout(String),
    /// A link to nothing.
    #[error("the link {0:?} has no usable target")]
    Target(String),
    /// Beyond a machine's range.
    #[error("{name:?} belongs to the id {id}, and a machine has the ids 0 to {ID_MAX}")]
    Id {
        /// Whose.
        name: String,
        /// As written.
        id: u64,
    },
    /// Not of the kinds that a root file system is made of.
    #[error("{name:?} is of the kind {kind:?}, which is not supported")]
    Kind {
        /// Whose.
        name: String,
        /// The tar header's type flag.
        kind: char,
    },
}

impl LayerPath {
    /// Reads a member's name.
    ///
    /// # Errors
    /// [`BadMember`] if it is absolute, leads upwards, or could be no file's.
    pub fn parse(name: &[u8]) -> Result<Self, BadMember> {
        if name.is_empty() || name.contains(&0) {
            return Err(BadMember::Name(shown(name)));
        }
        let mut path = PathBuf::new();
        for component in Path::new(OsStr::from_bytes(name)).components() {
            match component {
                Component::CurDir => {}
                Component::Normal(part) if part.len() <= NAME_MAX => path.push(part),
                Component::Normal(_) => return Err(BadMember::TooLong(shown(name))),
                Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                    return Err(BadMember::Outside(shown(name)));
                }
            }
        }
        match path.as_os_str().len() <= PATH_MAX && path.components().count() <= DEPTH_MAX {
            true => Ok(Self(path)),
            false => Err(BadMember::TooLong(shown(name))),
        }
    }

    /// As a relative path; empty for the root.
    pub fn as_path(&self) -> &Path {
        &self.0
    }

    /// Its last name; `None` for the root.
    pub fn name(&self) -> Option<&OsStr> {
        self.0.file_name()
    }

    /// The folder that it lies in; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        self.0.parent().map(|parent| Self(parent.to_owned()))
    }

    fn beside(&self, name: &[u8]) -> Self {
        Self(self.0.with_file_name(OsStr::from_bytes(name)))
    }
}

/// What a file system keeps beside content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    /// Permission bits.
    pub mode: u32,
    /// The owner within a machine.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Seconds since 1970.
    pub modified: i64,
}

/// What a member is to become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Member {
    /// A folder.
    Folder(LayerPath, Attributes),
    /// A file; its content follows in the archive.
    File(LayerPath, Attributes),
    /// A symbolic link to any text: it is followed inside machines only.
    Symlink(LayerPath, Attributes, PathBuf),
    /// Another name for a file of this layer.
    HardLink(LayerPath, LayerPath),
    /// A named pipe.
    Pipe(LayerPath, Attributes),
    /// Nothing, where the layers below may have something.
    Whiteout(LayerPath),
    /// A folder that shows nothing of the layers below.
    Opaque(LayerPath),
    /// A device node: machines have a `/dev` of their own, and nothing may bring in others.
    Device(LayerPath),
}

/// What the archive says of a member.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    /// The header's type flag.
    pub kind: u8,
    /// Its name, whole.
    pub name: Vec<u8>,
    /// A link's target, whole.
    pub target: Vec<u8>,
    /// Mode.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Seconds since 1970.
    pub modified: i64,
}

impl Said {
    /// What it is to become.
    ///
    /// # Errors
    /// [`BadMember`].
    pub fn judge(&self) -> Result<Member, BadMember> {
        let path = LayerPath::parse(&self.name)?;
        if let Some(hidden) = hidden(&path)? {
            return Ok(hidden);
        }
        match self.kind {
            b'5' => Ok(Member::Folder(path, self.attributes(FOLDER_MODE)?)),
            // "directory" is what an old tar meant by a file whose name ends in a slash.
            0 | b'0' | b'7' if self.name.ends_with(b"/") => {
                Ok(Member::Folder(path, self.attributes(FOLDER_MODE)?))
            }
            _ if path.name().is_none() => Err(BadMember::Name(shown(&self.name))),
            0 | b'0' | b'7' => Ok(Member::File(path, self.attributes(FILE_MODE)?)),
            b'1' => {
                let target = LayerPath::parse(&self.target)?;
                match target.name().is_some() && target != path {
                    true => Ok(Member::HardLink(path, target)),
                    false => Err(BadMember::Target(shown(&self.name))),
                }
            }
            b'2' => Ok(Member::Symlink(path, self.attributes(FILE_MODE)?, self.link_text()?)),
            b'3' | b'4' => Ok(Member::Device(path)),
            b'6' => Ok(Member::Pipe(path, self.attributes(FILE_MODE)?)),
            kind => Err(BadMember::Kind { name: shown(&self.name), kind: kind.into() }),
        }
    }

    fn link_text(&self) -> Result<PathBuf, BadMember> {
        match !self.target.is_empty() && self.target.len() <= PATH_MAX && !self.target.contains(&0) {
            true => Ok(PathBuf::from(OsStr::from_bytes(&self.target))),
            false => Err(BadMember::Target(shown(&self.name))),
        }
    }

    fn attributes(&self, mask: u32) -> Result<Attributes, BadMember> {
        let id = |id: u64| match u32::try_from(id) {
            Ok(small) if id <= ID_MAX => Ok(small),
            _ => Err(BadMember::Id { name: shown(&self.name), id }),
        };
        let (uid, gid) = (id(self.uid)?, id(self.gid)?);
        Ok(Attributes { mode: self.mode & mask, uid, gid, modified: self.modified })
    }
}

/// What a name of the whiteouts' own kind stands for. No folder can have such a name.
fn hidden(path: &LayerPath) -> Result<Option<Member>, BadMember> {
    let is_reserved = |part: &OsStr| part.as_bytes().starts_with(WHITEOUT);
    let bad = || BadMember::Whiteout(shown(path.0.as_os_str().as_bytes()));
    let (Some(parent), Some(name)) = (path.parent(), path.name()) else { return Ok(None) };
    if parent.0.iter().any(is_reserved) {
        return Err(bad());
    }
    match name.as_bytes() {
        OPAQUE => Ok(Some(Member::Opaque(parent))),
        name => match name.strip_prefix(WHITEOUT) {
            None => Ok(None),
            Some(b"" | b"." | b"..") => Err(bad()),
            // What AUFS kept for itself (".wh..wh.plnk") hides nothing.
            Some(rest) if rest.starts_with(WHITEOUT) => Err(bad()),
            Some(rest) => Ok(Some(Member::Whiteout(path.beside(rest)))),
        },
    }
}

/// The beginning of a foreign name, for a message.
pub fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(&name[..name.len().min(80)]).into_owned()
}

#[cfg(test)]
#[path = "member_tests.rs"]
mod tests;
