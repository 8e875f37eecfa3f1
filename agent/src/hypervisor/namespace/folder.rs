//! The folder through which an agent and one supervisor speak, and which outlives both.
//!
//! | file      | written by | says                                                    |
//! |-----------|------------|---------------------------------------------------------|
//! | `request` | agent      | what to run; durable before the supervisor is started    |
//! | `lock`    | agent      | locked (`flock(2)`) by agent, then supervisor, while it lives |
//! | `pid`     | supervisor | whom to signal                                          |
//! | `started` | supervisor | the walls stand, the command runs                       |
//! | `kill`    | agent      | end it, on these terms; looked for at each SIGTERM       |
//! | `cut`     | supervisor | it did not end in the grace, or could not hear           |
//! | `lease`   | agent      | until when it may run (see [`lease`](super::lease))      |
//! | `spool`   | supervisor | what it prints (see [`spool`](super::spool))             |
//! | `outcome` | supervisor | how it ended; an attempt's durable. Written by the agent where the supervisor is gone |
//! | `log`     | supervisor | what it has to complain of                              |
//!
//! The lock is the truth about whether a supervisor lives: the kernel drops it with its last holder, whatever
//! happens, and no other process is ever taken for it (as could happen with a process id).

use super::{
    disk::Attached,
    observe,
    request::{BadRecord, Request, decode, encode},
};
use crate::hypervisor::Halt;
use novacron_common::{record::AttemptEnd, spec::StopTerms, wire::codec};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    fs::{File, TryLockError},
    io::{ErrorKind, Read, Write},
    path::{Path, PathBuf},
};

/// Longest file that is read: a request with the largest environment that a job may have stays far below.
const FILE_MAX: u64 = codec::FRAME_MAX as u64 + 1;

/// A file of a folder that could not be written, read or understood.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// The file system refused.
    #[error("could not {doing} {path}")]
    Io {
        /// "read", "write", "lock".
        doing: &'static str,
        /// What.
        path: PathBuf,
        /// Its reason.
        #[source]
        cause: std::io::Error,
    },
    /// It is not what a file of this name should be.
    #[error("{path} cannot be used")]
    Bad {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        cause: BadRecord,
    },
    /// It would be too long.
    #[error("could not encode {path}")]
    Encode {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        cause: codec::CodecError,
    },
}

/// One supervisor's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// The folder at this path, whether or not it exists.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Makes it, with its request, so that neither is lost if the host stops now.
    ///
    /// # Errors
    /// [`FolderError`].
    pub fn create(path: impl Into<PathBuf>, request: &Request) -> Result<Self, FolderError> {
        let folder = Self::at(path);
        std::fs::create_dir_all(&folder.path).map_err(folder.io("make", ""))?;
        observe::taken("make a supervisor's folder");
        folder.write("request", request)?;
        let parent = folder.path.parent().unwrap_or(Path::new("."));
        sync(parent).map_err(|cause| FolderError::Io { doing: "sync", path: parent.into(), cause })?;
        Ok(folder)
    }

    /// Makes it, with its request, for somebody who has a durable record of it elsewhere: if the host stops now, it
    /// may be gone or damaged.
    ///
    /// # Errors
    /// [`FolderError`].
    pub fn create_loosely(path: impl Into<PathBuf>, request: &Request) -> Result<Self, FolderError> {
        let folder = Self::at(path);
        std::fs::create_dir_all(&folder.path).map_err(folder.io("make", ""))?;
        observe::taken("make a supervisor's folder");
        folder.write_loosely("request", request)?;
        Ok(folder)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What to run; `None` if the agent ended before it had written that.
    ///
    /// # Errors
    /// [`FolderError`].
    pub fn request(&self) -> Result<Option<Request>, FolderError> {
        self.read("request")
    }

    /// How it ended, if it did.
    ///
    /// # Errors
    /// [`FolderError`].
    pub fn outcome(&self) -> Result<Option<AttemptEnd>, FolderError> {
        self.read("outcome")
    }

    /// Writes down how it ended.
    ///
    /// # Errors
    /// [`FolderError`].
    pub fn write_outcome(&self, end: &AttemptEnd) -> Result<(), FolderError> {
        self.write("outcome", end)
    }

    /// Writes down how it ended, for a tree of which nobody asks once the host has stopped.
    ///
    /// # Errors
    /// [`FolderError`].
    pub fn write_outcome_loosely(&self, end: &AttemptEnd) -> Result<(), FolderError> {
        self.write_loosely("outcome", end)
    }

    /// Whether, and how, it is asked to end.
    ///
    /// # Errors
    /// [`FolderError`].
    pub fn kill_request(&self) -> Result<Option<StopTerms>, FolderError> {
        self.read("kill")
    }

    /// Writes down that it is to end.
    ///
    /// # Errors
    /// [`FolderError`].
    pub fn write_kill_request(&self, terms: StopTerms) -> Result<(), FolderError> {
        self.write("kill", &terms)
    }

    /// Notes how the request came to be carried out by force.
    ///
    /// # Errors
    /// [`FolderError`].
    pub fn write_cut(&self, halt: Halt) -> Result<(), FolderError> {
        self.write_loosely("cut", &halt)
    }

    /// How the request came to be carried out, if that was by force.
    pub fn cut(&self) -> Option<Halt> {
        self.read("cut").ok().flatten()
    }

    /// Writes down that it is to end, which it has once the host has stopped.
    ///
    /// # Errors
    /// [`FolderError`].
    pub fn write_kill_request_loosely(&self, kill: StopTerms) -> Result<(), FolderError> {
        self.write_loosely("kill", &kill)
    }

    /// The supervisor's id, if it has come so far as to write it.
    pub fn pid(&self) -> Option<i32> {
        std::fs::read_to_string(self.file("pid")).ok()?.trim().parse().ok().filter(|pid| *pid > 1)
    }

    /// Tells who the supervisor is.
    ///
    /// # Errors
    /// [`FolderError`].
    pub fn write_pid(&self) -> Result<(), FolderError> {
        let path = self.file("pid.new");
        std::fs::write(&path, std::process::id().to_string()).map_err(self.io("write", "pid.new"))?;
        std::fs::rename(path, self.file("pid")).map_err(self.io("write", "pid"))?;
        observe::taken("pid");
        Ok(())
    }

    /// The first process of the tree, as the host counts it; `None` before it runs.
    ///
    /// # Errors
    /// [`FolderError`].
    pub fn init(&self) -> Result<Option<i32>, FolderError> {
        self.read("init")
    }

    /// Tells who the first process of the tree is.
    ///
    /// # Errors
    /// [`FolderError`].
    pub fn write_init(&self, pid: i32) -> Result<(), FolderError> {
        self.write_loosely("init", &pid)
    }

    /// The device of its own disk, if it has one.
    ///
    /// # Errors
    /// [`FolderError`].
    pub fn disk(&self) -> Result<Option<Attached>, FolderError> {
        self.read("disk")
    }

    /// Tells what its own disk is.
    ///
    /// # Errors
    /// [`FolderError`].
    pub fn write_disk(&self, disk: &Attached) -> Result<(), FolderError> {
        self.write_loosely("disk", disk)
    }

    /// Whether the command runs, or ran.
    pub fn has_started(&self) -> bool {
        self.file("started").exists()
    }

    /// Notes that it runs.
    ///
    /// # Errors
    /// [`FolderError`].
    pub fn mark_started(&self) -> Result<(), FolderError> {
        File::create(self.file("started")).map_err(self.io("write", "started"))?;
        observe::taken("started");
        Ok(())
    }

    /// Takes the lock, if nobody holds it.
    ///
    /// # Errors
    /// [`FolderError`].
    pub fn try_lock(&self) -> Result<Option<File>, FolderError> {
        let file = File::options().create(true).truncate(false).write(true).open(self.file("lock"));
        let file = file.map_err(self.io("open", "lock"))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(cause)) => Err(self.io("lock", "lock")(cause)),
        }
    }

    /// Where the supervisor complains.
    ///
    /// # Errors
    /// [`FolderError`].
    pub fn log(&self) -> Result<File, FolderError> {
        File::options().create(true).append(true).open(self.file("log")).map_err(self.io("open", "log"))
    }

    /// Removes it with all that is in it. One that does not exist is no error.
    ///
    /// # Errors
    /// [`FolderError`].
    pub fn remove(&self) -> Result<(), FolderError> {
        match std::fs::remove_dir_all(&self.path) {
            Err(cause) if cause.kind() != ErrorKind::NotFound => Err(self.io("remove", "")(cause)),
            _ => {
                observe::taken("remove a folder");
                Ok(())
            }
        }
    }

    /// Its lock file, for a supervisor to check that it was given the right one.
    pub fn lock_path(&self) -> PathBuf {
        self.file("lock")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn io(&self, doing: &'static str, name: &str) -> impl FnOnce(std::io::Error) -> FolderError {
        let path = if name.is_empty() { self.path.clone() } else { self.file(name) };
        move |cause| FolderError::Io { doing, path, cause }
    }

    /// Writes any record, whole or not at all.
    ///
    /// # Errors
    /// [`FolderError`].
    pub(super) fn write<T: Serialize>(&self, name: &str, value: &T) -> Result<(), FolderError> {
        let bytes = encode(value).map_err(|cause| FolderError::Encode { path: self.file(name), cause })?;
        write_durably(&self.path, name, &bytes).map_err(self.io("write", name))?;
        observe::taken(name);
        Ok(())
    }

    /// Writes any record, whole or not at all, but not so that it survives the host.
    ///
    /// # Errors
    /// [`FolderError`].
    pub(super) fn write_loosely<T: Serialize>(&self, name: &str, value: &T) -> Result<(), FolderError> {
        let bytes = encode(value).map_err(|cause| FolderError::Encode { path: self.file(name), cause })?;
        let aside = self.file(&format!("{name}.new"));
        let written = std::fs::write(&aside, bytes).and_then(|()| std::fs::rename(&aside, self.file(name)));
        written.map_err(self.io("write", name))?;
        observe::taken(name);
        Ok(())
    }

    /// Reads any record, if it is there.
    ///
    /// # Errors
    /// [`FolderError`].
    pub(super) fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, FolderError> {
        let file = match File::open(self.file(name)) {
            Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(None),
            other => other.map_err(self.io("read", name))?,
        };
        let mut bytes = Vec::new();
        file.take(FILE_MAX).read_to_end(&mut bytes).map_err(self.io("read", name))?;
        decode(&bytes).map(Some).map_err(|cause| FolderError::Bad { path: self.file(name), cause })
    }
}

/// Whole or not at all, and there after a power cut: written aside, synced, renamed, and the folder synced.
fn write_durably(folder: &Path, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let aside = folder.join(format!("{name}.new"));
    let mut file = File::create(&aside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(aside, folder.join(name))?;
    sync(folder)
}

fn sync(folder: &Path) -> std::io::Result<()> {
    File::open(folder)?.sync_all()
}
