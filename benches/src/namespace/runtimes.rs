//! runc and crun, each run as its users run it: one process for one container, from a bundle that is ready.

use super::{Instant, ours::Then, stage::Stage};
use anyhow::{Context, Result, bail, ensure};
use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};
use serde_json::{Value, json};
use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
    sync::atomic::{AtomicU64, Ordering},
};

/// Which, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// With the same limits as ours.
    Runc,
    /// Without cgroups.
    Crun,
}

impl Kind {
    const fn program(self) -> &'static str {
        match self {
            Self::Runc => "runc",
            Self::Crun => "crun",
        }
    }

    /// What rows call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Runc => "runc",
            Self::Crun => "crun, no cgroup",
        }
    }

    fn command(self) -> Command {
        let mut command = Command::new(self.program());
        if self == Self::Crun {
            command.arg("--cgroup-manager=disabled");
        }
        command
    }

    /// What its own `spec` writes, changed by what the comparison needs.
    fn configure(self, config: &mut Value, root: &str, then: Then) {
        config["root"] = json!({"path": root, "readonly": true});
        config["process"]["args"] = json!(then.argv());
        config["process"]["terminal"] = json!(false);
        if self == Self::Crun {
            config["linux"]["resources"] = json!({});
            if let Some(mounts) = config["mounts"].as_array_mut() {
                mounts.retain(|mount| mount["type"] != "cgroup");
            }
        } else {
            config["linux"]["resources"]["memory"] = json!({"limit": 64 << 20});
            config["linux"]["resources"]["pids"] = json!({"limit": 4096});
            config["linux"]["resources"]["cpu"] = json!({"quota": 100_000, "period": 100_000});
        }
    }
}

/// A runtime with its bundle.
pub struct Runtime {
    /// Which.
    pub kind: Kind,
    bundle: PathBuf,
    next: AtomicU64,
}

impl Runtime {
    /// Writes the bundle.
    pub fn set(kind: Kind, stage: &Stage, then: Then) -> Result<Self> {
        let bundle = stage.bundle(&format!("{}-{then:?}", kind.program()))?;
        let spec = Command::new(kind.program()).arg("spec").current_dir(&bundle).status();
        let spec =
            spec.with_context(|| format!("no {}: `packaging/deps.sh --bench` gets it", kind.program()))?;
        ensure!(spec.success(), "{} could not write a configuration", kind.program());
        let path = bundle.join("config.json");
        let mut config: Value = serde_json::from_slice(&fs::read(&path)?)?;
        kind.configure(&mut config, &stage.root()?.display().to_string(), then);
        fs::write(path, serde_json::to_vec(&config)?)?;
        Ok(Self { kind, bundle, next: AtomicU64::new(0) })
    }

    /// Runs a container to its end; from the start of the runtime to the container's first instruction, milliseconds.
    pub fn create(&self) -> Result<f64> {
        match self.kind {
            Kind::Runc => self.run(),
            // On a thread of its own, whose mounts are its own from then on.
            Kind::Crun => std::thread::scope(|scope| {
                let thread = scope.spawn(|| hide_the_unified_hierarchy().and_then(|()| self.run()));
                thread.join().unwrap_or_else(|_| bail!("crun's thread ended"))
            }),
        }
    }

    /// Starts a container that sleeps until it is removed, by its name.
    pub fn stay(&self) -> Result<String> {
        let name = self.name();
        let mut command = self.kind.command();
        command.args(["run", "--detach", "--bundle"]).arg(&self.bundle).arg(&name);
        // What it prints is nobody's: a pipe would be held open by the container.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        ensure!(command.status()?.success(), "{command:?} failed");
        Ok(name)
    }

    /// Ends and removes it.
    pub fn remove(&self, name: &str) -> Result<()> {
        let done = self.kind.command().args(["delete", "--force", name]).output()?;
        ensure!(done.status.success(), "removing {name}: {}", String::from_utf8_lossy(&done.stderr).trim());
        Ok(())
    }

    fn name(&self) -> String {
        format!("bench-{}-{}", std::process::id(), self.next.fetch_add(1, Ordering::Relaxed))
    }

    fn run(&self) -> Result<f64> {
        let name = self.name();
        let mut command = self.kind.command();
        command.arg("run").arg("--bundle").arg(&self.bundle).arg(name);
        let asked = Instant::now()?;
        let done = command.output()?;
        let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        let ran = Instant::told_in(&out).with_context(|| format!("{command:?} failed: {}", err.trim()))?;
        ran.ms_since(asked)
    }
}

/// crun refuses hosts that have cgroup v1 with a controller on v2 beside it, even where it is to use neither.
fn hide_the_unified_hierarchy() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("a mount namespace for crun")?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    match umount2("/sys/fs/cgroup/unified", MntFlags::MNT_DETACH) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => Ok(()),
        Err(cause) => Err(cause).context("hide the unified cgroup hierarchy from crun"),
    }
}
