//! A layer's members, put where they belong, within limits. What they are put into is a [`Tree`]: the real one is
//! [`OnDisk`](super::tree::OnDisk), tests and the fuzzer have one that only remembers.

use super::{
    member::{Attributes, BadMember, LayerPath, Member, shown},
    stream::{Members, StreamFault},
};
use std::{
    io::{self, Read},
    path::Path,
};

/// Where members are put. A parent that is missing is made; one that is a link is refused.
pub trait Tree {
    /// Makes a folder, or gives one that is there these attributes.
    fn folder(&mut self, path: &LayerPath, attributes: &Attributes) -> io::Result<()>;
    /// Makes a file in place of whatever file is there.
    fn file(&mut self, path: &LayerPath, attributes: &Attributes, content: &mut dyn Read) -> io::Result<()>;
    /// Makes a symbolic link.
    fn symlink(&mut self, path: &LayerPath, attributes: &Attributes, target: &Path) -> io::Result<()>;
    /// Gives a file of this layer another name.
    fn hard_link(&mut self, path: &LayerPath, target: &LayerPath) -> io::Result<()>;
    /// Makes a named pipe.
    fn pipe(&mut self, path: &LayerPath, attributes: &Attributes) -> io::Result<()>;
    /// Hides what the layers below have there.
    fn whiteout(&mut self, path: &LayerPath) -> io::Result<()>;
    /// Hides everything that the layers below have in this folder.
    fn opaque(&mut self, path: &LayerPath) -> io::Result<()>;
}

/// How much a layer may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the stream, uncompressed: headers, padding and content.
    pub bytes: u64,
    /// Members.
    pub members: u64,
}

/// What a layer held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Applied {
    /// Members.
    pub members: u64,
    /// Device nodes, which were left out.
    pub left_out: u64,
}

/// Why a layer was refused.
#[derive(Debug, thiserror::Error)]
pub enum LayerFault {
    /// The stream.
    #[error(transparent)]
    Stream(#[from] StreamFault),
    /// One of its members.
    #[error(transparent)]
    Member(#[from] BadMember),
    /// More than a layer may hold.
    #[error("it has more than {0} files and folders")]
    Members(u64),
    /// One of its members cannot be made.
    #[error("{name:?} could not be put in its place")]
    Put {
        /// Which.
        name: String,
        /// Why.
        #[source]
        cause: io::Error,
    },
}

/// More bytes than allowed: the error that a [`Bounded`] stream ends with, whatever wraps it.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("unpacked it has more than the {0} bytes allowed")]
pub struct TooMuch(pub u64);

/// A stream that fails once it gave more than its bound: a bomb must neither fill the disk nor seem to end.
pub struct Bounded<R> {
    stream: R,
    bound: u64,
    left: u64,
}

impl<R> Bounded<R> {
    /// At most `bound` bytes.
    pub fn new(stream: R, bound: u64) -> Self {
        Self { stream, bound, left: bound }
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.stream.read(buffer)?;
        match self.left.checked_sub(length as u64) {
            Some(left) => self.left = left,
            None => return Err(io::Error::other(TooMuch(self.bound))),
        }
        Ok(length)
    }
}

/// Puts all members of a layer into a tree, and reads the stream to its end.
///
/// # Errors
/// [`LayerFault`]; what was put into the tree stays there.
pub fn apply(stream: impl Read, limits: Limits, tree: &mut impl Tree) -> Result<Applied, LayerFault> {
    let mut members = Members::new(Bounded::new(stream, limits.bytes));
    let mut applied = Applied::default();
    while let Some(next) = members.advance()? {
        applied.members += 1;
        if applied.members > limits.members {
            return Err(LayerFault::Members(limits.members));
        }
        let member = next.said.judge()?;
        let put = match &member {
            Member::Folder(path, attributes) => tree.folder(path, attributes),
            Member::File(path, attributes) => tree.file(path, attributes, &mut members.content()),
            Member::Symlink(path, attributes, target) => tree.symlink(path, attributes, target),
            Member::HardLink(path, target) => tree.hard_link(path, target),
            Member::Pipe(path, attributes) => tree.pipe(path, attributes),
            Member::Whiteout(path) => tree.whiteout(path),
            Member::Opaque(path) => tree.opaque(path),
            Member::Device(_) => {
                applied.left_out += 1;
                Ok(())
            }
        };
        put.map_err(|cause| LayerFault::Put { name: shown(&next.said.name), cause })?;
    }
    // Archives are padded to a whole record; a digest is over that, too.
    io::copy(&mut members.into_inner(), &mut io::sink()).map_err(StreamFault::Io)?;
    Ok(applied)
}

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;
