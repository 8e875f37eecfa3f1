//! From the file system into a stream.

use crate::PERMISSIONS;
use std::{
    fmt,
    fs::{self, File, Metadata},
    io::{self, Read, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};
use tar::{Builder, EntryType, Header};

/// Something that is neither file nor folder nor symbolic link, and was left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped(pub PathBuf);

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "left out {}: it is no file, folder or symbolic link", self.0.display())
    }
}

/// Writes `from` and all that is below it. A symbolic link is followed where it is `from` itself, and carried as one elsewhere.
///
/// # Errors
/// What cannot be read, and also a file that got shorter meanwhile; the writer's.
pub fn pack(from: &Path, into: impl Write) -> io::Result<Vec<Skipped>> {
    let mut archive = Builder::new(into);
    let top = fs::canonicalize(from).map_err(|cause| at(from, cause))?;
    let (mut to_do, mut skipped) = (vec![(top, PathBuf::from("top"))], Vec::new());
    while let Some((path, name)) = to_do.pop() {
        let what = fs::symlink_metadata(&path).map_err(|cause| at(&path, cause))?;
        if what.is_dir() {
            archive.append_data(&mut header(&what, EntryType::Directory, 0), &name, io::empty())?;
            for entry in fs::read_dir(&path).map_err(|cause| at(&path, cause))? {
                let entry = entry.map_err(|cause| at(&path, cause))?;
                to_do.push((entry.path(), name.join(entry.file_name())));
            }
        } else if what.is_symlink() {
            let target = fs::read_link(&path).map_err(|cause| at(&path, cause))?;
            archive.append_link(&mut header(&what, EntryType::Symlink, 0), &name, target)?;
        } else if what.is_file() {
            let file = File::open(&path).map_err(|cause| at(&path, cause))?;
            let length = file.metadata()?.len();
            let content = Exactly { file: file.take(length), path: &path };
            archive.append_data(&mut header(&what, EntryType::Regular, length), &name, content)?;
        } else {
            skipped.push(Skipped(path));
        }
    }
    archive.into_inner()?.flush()?;
    Ok(skipped)
}

fn header(what: &Metadata, kind: EntryType, length: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(what.mode() & PERMISSIONS);
    header.set_mtime(u64::try_from(what.mtime()).unwrap_or_default());
    header.set_size(length);
    header
}

/// A file's first bytes, which it has promised to have.
struct Exactly<'a> {
    file: io::Take<File>,
    path: &'a Path,
}

impl Read for Exactly<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.file.read(into).map_err(|cause| at(self.path, cause))? {
            0 if self.file.limit() > 0 && !into.is_empty() => {
                Err(at(self.path, io::Error::other("it got shorter while it was read")))
            }
            length => Ok(length),
        }
    }
}

pub(crate) fn at(path: &Path, cause: io::Error) -> io::Error {
    io::Error::new(cause.kind(), format!("{}: {cause}", path.display()))
}
