//! One of our programs on a node: it can be killed and started again with the same arguments.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;

use crate::lab::{Node, Process};

/// How long a program may take to stop when asked to.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// A program and, while it runs, its process.
pub struct Program {
    path: PathBuf,
    args: Vec<String>,
    process: Option<Process>,
}

impl Program {
    /// A program that does not run yet.
    #[must_use]
    pub fn new(path: PathBuf, args: &[&str]) -> Self {
        Self { path, args: args.iter().map(|&arg| arg.to_owned()).collect(), process: None }
    }

    /// Starts it on `node`.
    ///
    /// # Errors
    /// When it already runs or cannot be started.
    pub fn start(&mut self, node: &Node) -> Result<()> {
        ensure!(!self.is_running(), "{} already runs", self.path.display());
        let args: Vec<&str> = self.args.iter().map(String::as_str).collect();
        let env = [("RUST_BACKTRACE", "1"), ("NO_COLOR", "1")];
        self.process = Some(node.spawn(&self.path, &args, &env)?);
        Ok(())
    }

    /// Whether it runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.ended().is_none())
    }

    /// The process, running or ended.
    ///
    /// # Errors
    /// When it was never started, or has been killed.
    pub fn process(&self) -> Result<&Process> {
        self.process.as_ref().with_context(|| format!("{} does not run", self.path.display()))
    }

    /// The last lines that it printed; empty if it does not run.
    #[must_use]
    pub fn last_lines(&self, count: usize) -> String {
        let printed = self.process.as_ref().map(Process::printed).unwrap_or_default();
        let lines: Vec<&str> = printed.lines().collect();
        lines[lines.len().saturating_sub(count)..].join("\n")
    }

    /// Kills it with SIGKILL.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill9(&mut self) -> Result<()> {
        self.process()?.kill9()?;
        self.process = None;
        Ok(())
    }

    /// Asks it to stop (SIGTERM) and waits.
    ///
    /// # Errors
    /// When it does not run, does not stop in time, or ends with a fault; the error carries what it printed.
    pub fn stop(&mut self) -> Result<()> {
        let process = self.process()?;
        process.kill(Signal::SIGTERM)?;
        let status = process.wait_for(STOP_LIMIT).with_context(|| format!("no end within {STOP_LIMIT:?}"))?;
        ensure!(status.success(), "{} ended with {status}: {}", self.path.display(), process.printed());
        self.process = None;
        Ok(())
    }

    /// Leaves it running until its node ends.
    pub fn detach(&mut self) {
        if let Some(process) = self.process.take() {
            process.detach();
        }
    }
}
