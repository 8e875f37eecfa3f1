//! What of a node exists only while its process 1 does: from its start to a crash or the end of the lab.

use std::fs::{self, File};
use std::io::{BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::cgroup;
use super::init::{Furniture, KEEP};
use super::namespaces::{self, Namespaces};
use super::node::{NodeSpec, STATE};
use crate::bins;

/// What exists only while process 1 does.
pub struct Life {
    /// `lab-init` outside of the PID namespace; it ends when process 1 has ended and all processes with it.
    parent: Child,
    lifeline: ChildStdin,
    /// Process 1, in the machine's count.
    pub init: u32,
    /// The way in.
    pub namespaces: Namespaces,
    kept: bool,
}

impl Life {
    /// Starts process 1 and waits until it has furnished the node.
    pub fn begin(spec: &NodeSpec) -> Result<Self> {
        empty(&spec.dir.join("run"))?;
        let cgroups = cgroup::make(&spec.tag)?;
        let (parent, lifeline, init) =
            Self::launch(spec, &cgroups).with_context(|| format!("starting {}", spec.name))?;
        let namespaces = Namespaces::of(init, &cgroups)?;
        Ok(Self { parent, lifeline, init, namespaces, kept: false })
    }

    fn launch(spec: &NodeSpec, cgroups: &[(PathBuf, PathBuf)]) -> Result<(Child, ChildStdin, u32)> {
        let binds = STATE.iter().map(|(folder, at)| (spec.dir.join(folder), PathBuf::from(at))).collect();
        let furniture = Furniture {
            hostname: spec.name.clone(),
            dir: spec.dir.clone(),
            binds,
            cgroups: cgroups.to_vec(),
        };
        let mut parent = Command::new(bins::path("lab-init")?)
            .arg(serde_json::to_string(&furniture)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(spec.dir.join("logs/init.log"))?)
            .spawn()
            .context("starting lab-init")?;
        let lifeline = parent.stdin.take().context("lab-init without standard input")?;
        let said = BufReader::new(parent.stdout.take().context("lab-init without standard output")?);
        match await_ready(said) {
            Ok(init) => Ok((parent, lifeline, init)),
            Err(fault) => {
                drop(lifeline);
                let _ = parent.wait();
                Err(fault)
            }
        }
    }

    /// Lets the node live on after this process.
    pub fn keep(&mut self) {
        self.kept = self.lifeline.write_all(&[KEEP]).is_ok();
    }

    /// Kills every process of the node and waits until they are gone; not if it is kept.
    pub fn end(mut self) {
        if self.kept {
            return;
        }
        let init = i32::try_from(self.init).map(nix::unistd::Pid::from_raw);
        if let Ok(init) = init
            && namespaces::is_alive(self.init)
        {
            let _ = nix::sys::signal::kill(init, nix::sys::signal::Signal::SIGKILL);
        }
        drop(self.lifeline);
        // Process 1 can be reaped only after the kernel has killed all others of its PID namespace; then its parent, for
        // which we wait, removes the cgroups.
        let _ = self.parent.wait();
    }
}

fn await_ready(said: impl std::io::BufRead) -> Result<u32> {
    let mut init = None;
    for line in said.lines() {
        let line = line.context("listening to lab-init")?;
        match line.split_once(' ') {
            Some(("pid", number)) => init = Some(number.parse().context("reading the number of process 1")?),
            Some(("fault", what)) => bail!("{what}"),
            _ if line == "ready" => return init.context("lab-init named no process"),
            _ => bail!("lab-init said {line:?}"),
        }
    }
    bail!("lab-init ended without a word")
}

/// What lies in `/run` does not survive a boot.
fn empty(folder: &Path) -> Result<()> {
    fs::remove_dir_all(folder).with_context(|| format!("emptying {}", folder.display()))?;
    fs::create_dir_all(folder.join("lock")).with_context(|| format!("making {}", folder.display()))
}
