//! A program that runs inside a node, with its output in a file.
//!
//! A thread reaps it as soon as it ends: the kernel lets a node's process 1 go only after every other process of its PID
//! namespace has been reaped, so a crash of the node would otherwise wait for us while we wait for it.

use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{self, Signal};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

/// A running program. Dropped, it is killed; [`Process::detach`] leaves it to the node.
pub struct Process {
    pid: Pid,
    end: Arc<End>,
    log: PathBuf,
    detached: bool,
}

/// How it ended. While the status is `None` its process number is not reused: the reaper reaps under the lock.
#[derive(Default)]
struct End {
    status: Mutex<Option<ExitStatus>>,
    ended: Condvar,
}

impl End {
    fn lock(&self) -> MutexGuard<'_, Option<ExitStatus>> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the end without reaping, then reaps under the lock.
    fn reap(&self, mut child: Child, pid: Pid) {
        let _ = waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
        let mut status = self.lock();
        *status = child.wait().ok();
        self.ended.notify_all();
    }
}

impl Process {
    pub(super) fn new(child: Child, log: PathBuf) -> Result<Self> {
        let pid = Pid::from_raw(i32::try_from(child.id()).context("a process number beyond i32")?);
        let end = Arc::new(End::default());
        let reaper = Arc::clone(&end);
        std::thread::spawn(move || reaper.reap(child, pid));
        Ok(Self { pid, end, log, detached: false })
    }

    /// Its process number as the machine counts (the node counts otherwise).
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid.as_raw().unsigned_abs()
    }

    /// What it prints, on the machine's file system.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// All that it has printed so far; empty if nothing can be read.
    #[must_use]
    pub fn printed(&self) -> String {
        std::fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When it has ended.
    pub fn kill(&self, signal: Signal) -> Result<()> {
        let status = self.end.lock();
        if let Some(status) = *status {
            bail!("process {} has already ended: {status}", self.pid);
        }
        signal::kill(self.pid, signal).with_context(|| format!("sending {signal} to {}", self.pid))
    }

    /// Its exit status, if it has ended.
    #[must_use]
    pub fn ended(&self) -> Option<ExitStatus> {
        *self.end.lock()
    }

    /// Waits for its end, at most `limit`; `None` if it still runs then.
    #[must_use]
    pub fn wait_for(&self, limit: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + limit;
        let mut status = self.end.lock();
        while status.is_none() {
            let left = deadline.checked_duration_since(Instant::now())?;
            status = self.end.ended.wait_timeout(status, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        *status
    }

    /// Sends SIGKILL and waits for the end.
    ///
    /// # Errors
    /// When it had ended before, or does not end.
    pub fn kill9(&self) -> Result<()> {
        const LIMIT: Duration = Duration::from_secs(60);
        self.kill(Signal::SIGKILL)?;
        self.wait_for(LIMIT).map(|_| ()).with_context(|| format!("process {} survived SIGKILL", self.pid))
    }

    /// Leaves it running until its node ends.
    pub fn detach(mut self) {
        self.detached = true;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.detached {
            // Fails only if it has already ended.
            let _ = self.kill9();
        }
    }
}
