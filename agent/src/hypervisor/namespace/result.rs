//! The file by which a command hands on a result (`NOVACRON_OUTPUT`), read by its init, which has no more rights than
//! the command itself: whatever the command puts there in its place, nothing is read that it could not read.

use super::{request::Isolated, spawn::Word};
use nix::fcntl::OFlag;
use novacron_common::record::AttemptEnd;
use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// The variable that names the file.
pub const VARIABLE: &str = "NOVACRON_OUTPUT";

/// Where it is, in the command's own shared memory, which is always there to be written to. Nobody makes it: a command without a result leaves none.
pub const PATH: &str = "/dev/shm/novacron-output";

/// What to say of the command's result.
pub fn left_by(isolated: &Isolated) -> Option<Word> {
    let path = isolated.program.variable(VARIABLE)?;
    match read(Path::new(path)) {
        Ok(None) => None,
        Ok(Some(text)) => Some(Word::Result(text)),
        Err(reason) => Some(Word::Note(format!("\n[{VARIABLE} was not kept: {reason}]\n"))),
    }
}

fn read(path: &Path) -> Result<Option<String>, String> {
    // A pipe in its place must not hold us up.
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).bits();
    let file = match File::options().read(true).custom_flags(flags).open(path) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|cause| cause.to_string())?,
    };
    if !file.metadata().map_err(|cause| cause.to_string())?.is_file() {
        return Err("it is not a plain file".into());
    }
    let mut bytes = Vec::new();
    file.take(AttemptEnd::RESULT_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|cause| cause.to_string())?;
    if bytes.len() > AttemptEnd::RESULT_MAX {
        return Err(format!("it is longer than {} bytes", AttemptEnd::RESULT_MAX));
    }
    String::from_utf8(bytes).map(Some).map_err(|_| "it is not UTF-8".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::{sys::stat::Mode, unistd::mkfifo};

    #[test]
    fn a_small_plain_file_of_text_is_a_result_and_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("output");
        assert_eq!(read(&path), Ok(None));
        std::fs::write(&path, "{\"rows\": 7}").unwrap();
        assert_eq!(read(&path), Ok(Some("{\"rows\": 7}".into())));
        std::fs::write(&path, vec![b'x'; AttemptEnd::RESULT_MAX]).unwrap();
        assert!(matches!(read(&path), Ok(Some(_))));
        std::fs::write(&path, vec![b'x'; AttemptEnd::RESULT_MAX + 1]).unwrap();
        assert!(read(&path).unwrap_err().contains("16384"));
        std::fs::write(&path, [0xff]).unwrap();
        assert!(read(&path).unwrap_err().contains("UTF-8"));

        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/etc/hostname", &link).unwrap();
        assert!(read(&link).is_err());
        let pipe = folder.path().join("pipe");
        mkfifo(&pipe, Mode::S_IRWXU).unwrap();
        assert!(read(&pipe).unwrap_err().contains("plain file"));
        assert!(read(folder.path()).unwrap_err().contains("plain file"));
    }
}
