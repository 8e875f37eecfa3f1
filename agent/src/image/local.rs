//! Opening an image by a path on this host.
//!
//! The path comes from a user. It is opened beneath one of the folders that agent.toml lists, by `openat2(2)` with
//! `RESOLVE_BENEATH`, without symbolic or magic links: the kernel holds the rule while it walks, so nothing can be
//! swapped in between a check and the open.

use super::ImageError;
use nix::{
    fcntl::{OFlag, OpenHow, ResolveFlag, openat2},
    sys::stat::Mode,
};
use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// Opens a regular file beneath one of `folders`.
///
/// # Errors
/// [`ImageError::NotListed`] if no folder is a prefix of the path, [`ImageError::Path`] if it cannot be opened
/// there or is no regular file.
pub fn open_beneath(folders: &[PathBuf], path: &Path) -> Result<File, ImageError> {
    // The longest prefix: a folder within another one may lie behind a link that the outer one must not follow.
    let longest = folders
        .iter()
        .filter_map(|folder| Some((folder, path.strip_prefix(folder).ok()?)))
        .max_by_key(|(folder, _)| folder.components().count());
    let (folder, rest) = longest.ok_or_else(|| ImageError::NotListed { path: path.to_owned() })?;
    let refused = |cause: io::Error| ImageError::Path { path: path.to_owned(), cause };
    let file = open(folder, rest).map_err(refused)?;
    if !file.metadata().map_err(refused)?.is_file() {
        return Err(refused(io::Error::other("it is no regular file")));
    }
    Ok(file)
}

fn open(folder: &Path, rest: &Path) -> io::Result<File> {
    // The folder itself is the administrator's word and may be a link.
    let folder = OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(folder)?;
    let how = OpenHow::new()
        // A named pipe must not make the open wait.
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)
        .mode(Mode::empty())
        .resolve(
            ResolveFlag::RESOLVE_BENEATH
                | ResolveFlag::RESOLVE_NO_SYMLINKS
                | ResolveFlag::RESOLVE_NO_MAGICLINKS,
        );
    Ok(File::from(openat2(&folder, rest, how)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, io::Read, os::unix::fs::symlink};

    struct Place {
        _root: tempfile::TempDir,
        folder: PathBuf,
        outside: PathBuf,
    }

    fn place() -> Place {
        let root = tempfile::tempdir().unwrap();
        let (folder, outside) = (root.path().join("images"), root.path().join("secret"));
        fs::create_dir_all(folder.join("sub")).unwrap();
        fs::write(folder.join("sub/disk.raw"), "disk").unwrap();
        fs::write(&outside, "secret").unwrap();
        Place { _root: root, folder, outside }
    }

    fn open(place: &Place, path: &Path) -> Result<File, ImageError> {
        open_beneath(std::slice::from_ref(&place.folder), path)
    }

    #[test]
    fn a_file_beneath_a_listed_folder_opens() {
        let place = place();
        let mut text = String::new();
        open(&place, &place.folder.join("sub/disk.raw")).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "disk");
    }

    #[test]
    fn no_way_out_of_the_folder_opens() {
        let place = place();
        let inside = |name: &str| place.folder.join(name);
        symlink(&place.outside, inside("link")).unwrap();
        symlink(place.folder.parent().unwrap(), inside("up")).unwrap();
        symlink("sub/disk.raw", inside("harmless")).unwrap();
        let kept = File::open(&place.outside).unwrap();
        let magic = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&kept));
        symlink(&magic, inside("magic")).unwrap();
        for name in ["../secret", "sub/../../secret", "link", "up/secret", "harmless", "magic"] {
            let error = open(&place, &inside(name)).unwrap_err();
            assert!(matches!(error, ImageError::Path { .. }), "{name}: {error}");
        }
    }

    #[test]
    fn magic_links_of_proc_do_not_open_even_if_proc_is_listed() {
        let kept = tempfile::tempfile().unwrap();
        let path = PathBuf::from(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&kept)));
        let error = open_beneath(&[PathBuf::from("/proc/self/fd")], &path).unwrap_err();
        assert!(matches!(error, ImageError::Path { .. }), "{error}");
    }

    #[test]
    fn a_path_outside_every_folder_is_not_listed() {
        let place = place();
        let sibling = PathBuf::from(format!("{}-other/disk.raw", place.folder.display()));
        for path in [Path::new("/etc/passwd"), Path::new("images/disk.raw"), sibling.as_path()] {
            assert!(matches!(open(&place, path), Err(ImageError::NotListed { .. })), "{}", path.display());
        }
        assert!(matches!(open_beneath(&[], &place.outside), Err(ImageError::NotListed { .. })));
    }

    #[test]
    fn what_is_no_regular_file_is_refused_without_waiting() {
        let place = place();
        let pipe = place.folder.join("pipe");
        nix::unistd::mkfifo(&pipe, Mode::S_IRWXU).unwrap();
        for path in [pipe, place.folder.join("sub"), place.folder.clone()] {
            assert!(matches!(open(&place, &path), Err(ImageError::Path { .. })), "{}", path.display());
        }
    }
}
