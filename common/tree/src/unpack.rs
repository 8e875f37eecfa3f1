//! From a stream into the file system.

use crate::{PERMISSIONS, pack::at};
use std::{
    fs::{self, File, FileTimes, Permissions},
    io::{self, ErrorKind, Read},
    os::unix::fs::{PermissionsExt, symlink},
    path::{Component, Path, PathBuf},
    time::{Duration, SystemTime},
};
use tar::{Archive, Entry, EntryType};

/// Where something of this name goes that is copied to `wanted`: into a folder that is there, else it gets that name itself.
///
/// # Errors
/// The folder that it is to be in is not there.
pub fn destination(wanted: &Path, name: &str) -> io::Result<PathBuf> {
    if wanted.is_dir() {
        return Ok(wanted.join(name));
    }
    let ends_as_folder = wanted.as_os_str().as_encoded_bytes().ends_with(b"/");
    let folder = if ends_as_folder { Some(wanted) } else { wanted.parent() };
    match folder.map(|folder| if folder == Path::new("") { Path::new(".") } else { folder }) {
        Some(folder) if folder.is_dir() => Ok(wanted.to_owned()),
        Some(folder) => Err(at(folder, io::Error::new(ErrorKind::NotFound, "there is no such folder"))),
        None => Err(at(wanted, io::Error::new(ErrorKind::InvalidInput, "it has no name"))),
    }
}

/// Makes `to` what the archive's top is. Files that are there are replaced, folders are merged. Nothing is made or changed
/// outside of `to`, whatever the archive says; but nobody else may change what is in it meanwhile.
///
/// # Errors
/// An archive that is cut short, names a place outside, or holds what is neither file, folder nor symbolic link; what
/// cannot be written. What came before that is there. (An archive that ends between two entries is taken for whole: that
/// all of it came is for the channel to say.)
pub fn unpack(from: impl Read, to: &Path) -> io::Result<()> {
    let mut archive = Archive::new(from);
    let mut folders = Vec::new();
    let mut has_top = false;
    for entry in archive.entries()? {
        let mut entry = entry?;
        let place = place(to, &entry.path()?)?;
        has_top |= place == to;
        if !has_top {
            return Err(refused(&place, "comes before the folder that it is in"));
        }
        match entry.header().entry_type() {
            EntryType::Directory => {
                make_folder(&place)?;
                // At the end: one that may not be written to can still be filled.
                folders.push((place, permissions(&entry)?));
            }
            EntryType::Regular | EntryType::Continuous => {
                write_file(&mut entry, &place).map_err(|cause| at(&place, cause))?;
            }
            EntryType::Symlink => {
                let target = entry.link_name()?.ok_or_else(|| refused(&place, "leads nowhere"))?;
                clear(&place)?;
                symlink(target, &place).map_err(|cause| at(&place, cause))?;
            }
            _ => return Err(refused(&place, "is neither file, folder nor symbolic link")),
        }
    }
    if !has_top {
        return Err(io::Error::new(ErrorKind::UnexpectedEof, "the archive is empty"));
    }
    for (folder, permissions) in folders.into_iter().rev() {
        fs::set_permissions(&folder, permissions).map_err(|cause| at(&folder, cause))?;
    }
    Ok(())
}

/// The entry's place: `to` and what comes behind the archive's top. Every folder on the way is one, and no link to one.
fn place(to: &Path, name: &Path) -> io::Result<PathBuf> {
    let mut components = name.components();
    let mut place = to.to_owned();
    if !matches!(components.next(), Some(Component::Normal(_))) {
        return Err(refused(name, "is no place in the archive"));
    }
    for component in components {
        let Component::Normal(component) = component else {
            return Err(refused(name, "is no place in the archive"));
        };
        let is_folder = fs::symlink_metadata(&place).is_ok_and(|what| what.is_dir());
        if !is_folder {
            return Err(refused(&place, "is no folder: nothing can be in it"));
        }
        place.push(component);
    }
    Ok(place)
}

fn refused(path: &Path, why: &str) -> io::Error {
    at(path, io::Error::new(ErrorKind::InvalidData, why))
}

fn permissions<R: Read>(entry: &Entry<'_, R>) -> io::Result<Permissions> {
    Ok(Permissions::from_mode(entry.header().mode()? & PERMISSIONS))
}

fn make_folder(place: &Path) -> io::Result<()> {
    if fs::symlink_metadata(place).is_ok_and(|what| what.is_dir()) {
        return Ok(());
    }
    clear(place)?;
    fs::create_dir(place).map_err(|cause| at(place, cause))
}

/// A new file, whoever else had the old one open or linked.
fn write_file<R: Read>(entry: &mut Entry<'_, R>, place: &Path) -> io::Result<()> {
    clear(place)?;
    let mut file = File::create_new(place)?;
    let (length, written) = (entry.size(), io::copy(entry, &mut file)?);
    if written < length {
        return Err(io::Error::new(ErrorKind::UnexpectedEof, "the archive ends in the middle of it"));
    }
    file.set_permissions(permissions(entry)?)?;
    let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(entry.header().mtime()?);
    file.set_times(FileTimes::new().set_modified(modified))
}

/// A link goes, not what it leads to; a folder stays, and refuses what is to take its place.
fn clear(place: &Path) -> io::Result<()> {
    match fs::remove_file(place) {
        Err(cause) if cause.kind() != ErrorKind::NotFound => Err(at(place, cause)),
        _ => Ok(()),
    }
}
