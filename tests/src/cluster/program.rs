//! One of our programs on a node: it can be killed and started again with the same arguments.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;

use super::manager::{Manager, run_of};
use crate::lab::{Node, Process};

/// How long a program may take to stop when asked to.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// A program and, while it runs, its process.
pub struct Program {
    path: PathBuf,
    args: Vec<String>,
    process: Option<Process>,
    /// Holds what it hands over, from one start to the next.
    manager: Option<Manager>,
}

impl Program {
    /// A program that does not run yet.
    #[must_use]
    pub fn new(path: PathBuf, args: &[&str]) -> Self {
        Self { path, args: args.iter().map(|&arg| arg.to_owned()).collect(), process: None, manager: None }
    }

    /// Starts it on `node`.
    ///
    /// # Errors
    /// When it already runs or cannot be started.
    pub fn start(&mut self, node: &Node) -> Result<()> {
        ensure!(!self.is_running(), "{} already runs", self.path.display());
        if self.process.is_some() {
            self.manager = None; // it was not asked to stop: with its node, its service manager has gone
        }
        if self.manager.is_none() {
            let run = run_of(node).context("the node has no /run of its own")?;
            self.manager = Some(Manager::listen(&run)?);
        }
        let manager = self.manager.as_ref().context("it was just made")?;
        let mut command = manager.command(&self.path, &self.args)?;
        command.envs([("RUST_BACKTRACE", "1"), ("NO_COLOR", "1")]);
        self.process = Some(node.spawn_command(command)?);
        Ok(())
    }

    /// Whether it runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.ended().is_none())
    }

    /// How many descriptors it has handed over, and not taken back.
    #[must_use]
    pub fn handed_over(&self) -> usize {
        self.manager.as_ref().map_or(0, Manager::count)
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
        last_lines(&self.process.as_ref().map(Process::printed).unwrap_or_default(), count)
    }

    /// Kills it with SIGKILL. Its service manager keeps what it was lent.
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

/// The last so many lines of a text.
#[must_use]
pub fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
