//! Copies of files with holes: what has no data is not copied, and takes no room.

use nix::{
    errno::Errno,
    unistd::{Whence, lseek},
};
use std::{
    fs::File,
    io::{self, ErrorKind, Read, Seek, SeekFrom},
    path::Path,
};

/// To a file that must not be there yet, of the same length.
///
/// # Errors
/// Those of the file systems.
pub fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let (mut source, mut copy) = (File::open(from)?, File::create_new(to)?);
    copy.set_len(source.metadata()?.len())?;
    let mut at = 0;
    loop {
        let begin = match lseek(&source, at, Whence::SeekData) {
            Err(Errno::ENXIO) => return Ok(()),
            found => found?,
        };
        at = lseek(&source, begin, Whence::SeekHole)?;
        let (start, length) = (begin.cast_unsigned(), (at - begin).cast_unsigned());
        source.seek(SeekFrom::Start(start))?;
        copy.seek(SeekFrom::Start(start))?;
        // By copy_file_range(2), where it can.
        if io::copy(&mut (&mut source).take(length), &mut copy)? != length {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, io::Write, os::unix::fs::MetadataExt};
    use tempfile::TempDir;

    #[test]
    fn holes_stay_holes() {
        let folder = TempDir::new().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        let mut file = File::create(&from).unwrap();
        file.set_len(64 << 20).unwrap();
        file.seek(SeekFrom::Start(32 << 20)).unwrap();
        file.write_all(&[7; 4096]).unwrap();
        copy(&from, &to).unwrap();
        assert_eq!(fs::read(&from).unwrap(), fs::read(&to).unwrap());
        assert!(fs::metadata(&to).unwrap().blocks() * 512 < 16 << 20);
        assert!(copy(&from, &to).is_err(), "it is there");
    }
}
