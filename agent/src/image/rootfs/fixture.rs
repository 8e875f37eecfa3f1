//! Archives as honest tools and hostile strangers write them, and a tree that only remembers.

use super::{
    apply::Tree,
    member::{Attributes, LayerPath},
};
use std::{
    collections::BTreeMap,
    io::{self, Read},
    path::{Path, PathBuf},
};
use tar::{Builder, EntryType, Header};

/// What a [`Remembered`] tree has at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Thing {
    Folder(u32),
    File(u32, Vec<u8>),
    Symlink(PathBuf),
    HardLink(PathBuf),
    Pipe,
    Whiteout,
    Opaque,
}

#[derive(Debug, Default)]
pub struct Remembered(pub BTreeMap<PathBuf, Thing>);

impl Remembered {
    fn note(&mut self, path: &LayerPath, thing: Thing) -> io::Result<()> {
        self.0.insert(path.as_path().to_owned(), thing);
        Ok(())
    }
}

impl Tree for Remembered {
    fn folder(&mut self, path: &LayerPath, attributes: &Attributes) -> io::Result<()> {
        self.note(path, Thing::Folder(attributes.mode))
    }
    fn file(&mut self, path: &LayerPath, attributes: &Attributes, content: &mut dyn Read) -> io::Result<()> {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes)?;
        self.note(path, Thing::File(attributes.mode, bytes))
    }
    fn symlink(&mut self, path: &LayerPath, _: &Attributes, target: &Path) -> io::Result<()> {
        self.note(path, Thing::Symlink(target.to_owned()))
    }
    fn hard_link(&mut self, path: &LayerPath, target: &LayerPath) -> io::Result<()> {
        self.note(path, Thing::HardLink(target.as_path().to_owned()))
    }
    fn pipe(&mut self, path: &LayerPath, _: &Attributes) -> io::Result<()> {
        self.note(path, Thing::Pipe)
    }
    fn whiteout(&mut self, path: &LayerPath) -> io::Result<()> {
        self.note(path, Thing::Whiteout)
    }
    fn opaque(&mut self, path: &LayerPath) -> io::Result<()> {
        self.note(path, Thing::Opaque)
    }
}

/// A tar archive that is written member by member, whatever their names.
pub struct Tar(Builder<Vec<u8>>);

impl Tar {
    pub fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    pub fn folder(self, name: &str) -> Self {
        self.member(EntryType::Directory, name, 0o755, "", b"")
    }

    pub fn file(self, name: &str, content: &[u8]) -> Self {
        self.member(EntryType::Regular, name, 0o644, "", content)
    }

    pub fn symlink(self, name: &str, target: &str) -> Self {
        self.member(EntryType::Symlink, name, 0o777, target, b"")
    }

    pub fn hard_link(self, name: &str, target: &str) -> Self {
        self.member(EntryType::Link, name, 0o644, target, b"")
    }

    /// Names go into the header as they are: `Builder`'s own methods refuse what a stranger would write.
    pub fn member(mut self, kind: EntryType, name: &str, mode: u32, target: &str, content: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        header.set_size(content.len() as u64);
        let old = header.as_old_mut();
        old.name[..name.len()].copy_from_slice(name.as_bytes());
        old.linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    /// A PAX record for the member that follows.
    pub fn pax(self, key: &str, value: &str) -> Self {
        let rest = key.len() + value.len() + 3;
        let length = (rest + 1..).find(|length| length.to_string().len() + rest == *length).unwrap();
        let record = format!("{length} {key}={value}\n");
        self.member(EntryType::XHeader, "pax", 0o644, "", record.as_bytes())
    }

    pub fn end(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}
