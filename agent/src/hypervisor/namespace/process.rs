//! A supervisor as the agent sees it: started, found again after a restart, signalled, awaited.

use super::{
    folder::{Folder, FolderError},
    observe,
};
use crate::pidfd::PidFd;
use nix::{
    sys::wait::{WaitPidFlag, waitpid},
    unistd::Pid,
};
use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

/// How often a supervisor that has not yet said who it is is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(5);

/// How often it is asked: about ten seconds in all.
const ASKS_MAX: u32 = 2000;

/// Why a supervisor could not be started or found.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// Its folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// Its program did not start.
    #[error("could not start the supervisor {exe}")]
    Start {
        /// The program.
        exe: PathBuf,
        /// Why.
        #[source]
        cause: std::io::Error,
    },
    /// It could not be watched.
    #[error("could not watch the supervisor")]
    Watch(#[source] std::io::Error),
    /// Somebody else runs this folder.
    #[error("{path} is already being supervised")]
    Taken {
        /// The folder.
        path: PathBuf,
    },
}

/// A living supervisor.
#[derive(Debug)]
pub struct Supervisor {
    pid: Pid,
    pidfd: PidFd,
}

impl Supervisor {
    /// Starts one for a folder that holds a request.
    ///
    /// It inherits the lock as its standard input, so there is no moment at which nobody holds it.
    ///
    /// # Errors
    /// [`ProcessError`].
    pub fn start(exe: &Path, folder: &Folder) -> Result<Self, ProcessError> {
        let lock = folder.try_lock()?.ok_or_else(|| ProcessError::Taken { path: folder.path().into() })?;
        let pid = spawn(exe, folder, lock)?;
        Self::watch(pid)
    }

    /// The supervisor that holds this folder's lock; `None` if nobody does.
    ///
    /// # Errors
    /// [`ProcessError`].
    pub async fn adopt(folder: &Folder) -> Result<Option<Self>, ProcessError> {
        for _ in 0..ASKS_MAX {
            if folder.try_lock()?.is_some() {
                return Ok(None);
            }
            // It wrote its id while it held the lock. If the lock is still held once we hold a descriptor of that
            // process, and it has not ended, then the descriptor is of the holder.
            if let Some(found) = folder.pid().and_then(|pid| Self::watch(Pid::from_raw(pid)).ok())
                && folder.try_lock()?.is_none()
            {
                return Ok(Some(found));
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
        Err(ProcessError::Taken { path: folder.path().into() })
    }

    fn watch(pid: Pid) -> Result<Self, ProcessError> {
        let pidfd = PidFd::open(pid).map_err(ProcessError::Watch)?;
        Ok(Self { pid, pidfd })
    }

    /// Has it look whether it is asked to end its tree, once that request is written.
    ///
    /// One that has not yet said who it is does not yet hold back signals, and would die of this one. It looks for
    /// the request after that anyway. One that has ended needs no signal.
    pub fn nudge(&self, folder: &Folder) {
        if folder.pid().is_none() {
            return;
        }
        let _already_ended = self.pidfd.signal(libc::SIGTERM);
    }

    /// Waits until it has ended, and collects it if it was our child.
    pub async fn ended(&self) {
        self.pidfd.ended().await;
        let _not_ours = waitpid(self.pid, Some(WaitPidFlag::WNOHANG));
    }
}

fn spawn(exe: &Path, folder: &Folder, lock: File) -> Result<Pid, ProcessError> {
    let child = Command::new(exe)
        .arg("supervise")
        .arg(folder.path())
        .env_clear()
        .stdin(Stdio::from(lock))
        .stdout(Stdio::null())
        .stderr(folder.log()?)
        .spawn()
        .map_err(|cause| ProcessError::Start { exe: exe.into(), cause })?;
    observe::taken("start the supervisor");
    // Dropping a `std::process::Child` neither ends nor collects it; `Supervisor::ended` collects.
    Ok(Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX)))
}
