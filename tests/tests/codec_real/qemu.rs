//! Two plain QEMUs under software emulation, and what is said to their monitors.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use novacron_tests::guest_image::GuestImage;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::recording::Recording;
use crate::tee;

/// The guest's memory.
pub const GUEST_MIB: u64 = 160;
/// Slow enough that the guest writes to pages that were sent, so that there are several rounds.
const BYTES_PER_SECOND: u64 = 32 << 20;
const GUEST: &str = "console=ttyS0 quiet nova.mb=16 nova.fill=text nova.poke=400 nova.verify=4 nova.tick=50";
const LIMIT: Duration = Duration::from_secs(240);
const POLL: Duration = Duration::from_millis(50);

/// A guest that runs, and another QEMU that waits for it.
pub struct Pair {
    folder: TempDir,
    source: Qemu,
    target: Qemu,
    channels: usize,
}

impl Pair {
    pub fn boot(capabilities: &[&str], parameters: Value) -> Result<Self> {
        let image = GuestImage::build()?;
        let folder = TempDir::new()?;
        let mut source = Qemu::start(folder.path(), "source", &image, &[])?;
        let mut target = Qemu::start(folder.path(), "target", &image, &["-incoming", "defer"])?;
        let on = capabilities.iter().map(|name| json!({ "capability": name, "state": true }));
        let on = json!({ "capabilities": on.collect::<Vec<_>>() });
        for qemu in [&mut source, &mut target] {
            qemu.tell("migrate-set-capabilities", on.clone())?;
            qemu.tell("migrate-set-parameters", parameters.clone())?;
        }
        source.tell("migrate-set-parameters", json!({ "max-bandwidth": BYTES_PER_SECOND }))?;
        let multifd = parameters["multifd-channels"].as_u64().unwrap_or(0);
        let channels =
            1 + usize::try_from(multifd)? + usize::from(capabilities.contains(&"postcopy-preempt"));
        Ok(Self { folder, source, target, channels })
    }

    /// The consoles' logs, source first.
    pub fn consoles(&self) -> Vec<PathBuf> {
        ["source", "target"].map(|name| self.folder.path().join(name).with_extension("log")).into()
    }

    /// Moves the guest, and returns what the channels carried.
    pub fn migrate(&mut self, post_copy: bool) -> Result<Vec<Recording>> {
        let [from, to] = ["tee", "incoming"].map(|name| self.folder.path().join(name));
        self.target.tell("migrate-incoming", json!({ "uri": format!("unix:{}", to.display()) }))?;
        let tee = tee::start(&from, to, self.channels)?;
        self.source.tell("migrate", json!({ "uri": format!("unix:{}", from.display()) }))?;
        if post_copy {
            self.source
                .wait_for("query-migrate", |state| state["ram"]["transferred"].as_u64() > Some(4 << 20))?;
            self.source.tell("migrate-start-postcopy", json!({}))?;
        }
        self.source.wait_for("query-migrate", |state| state["status"] == "completed")?;
        self.target.wait_for("query-status", |state| state["status"] == "running")?;
        // A channel may stay open until its QEMU ends.
        self.source.child.kill()?;
        tee.join().expect("the tee does not panic")
    }
}

/// A process and its monitor.
struct Qemu {
    child: Child,
    monitor: BufReader<UnixStream>,
}

impl Drop for Qemu {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Qemu {
    fn start(folder: &Path, name: &str, image: &GuestImage, more: &[&str]) -> Result<Self> {
        let monitor = folder.join(name).with_extension("qmp");
        let log = folder.join(name).with_extension("log");
        std::fs::write(&log, "")?;
        let child = Command::new("qemu-system-x86_64")
            .args(["-M", "q35", "-accel", "tcg", "-display", "none", "-nodefaults", "-no-user-config"])
            .args(["-m", &format!("{GUEST_MIB}M"), "-append", GUEST])
            .arg("-kernel")
            .arg(&image.kernel.path)
            .arg("-initrd")
            .arg(&image.initramfs.path)
            .args(["-serial", &format!("file:{}", log.display())])
            .args(["-qmp", &format!("unix:{},server=on,wait=off", monitor.display())])
            .args(more)
            .stdin(Stdio::null())
            .spawn()
            .context("starting QEMU")?;
        let mut qemu = Self { child, monitor: BufReader::new(connect(&monitor)?) };
        qemu.line().context("the monitor's greeting")?;
        qemu.tell("qmp_capabilities", json!({}))?;
        Ok(qemu)
    }

    fn line(&mut self) -> Result<Value> {
        let mut line = String::new();
        self.monitor.read_line(&mut line).context("reading from the monitor")?;
        ensure!(!line.is_empty(), "QEMU has ended: {:?}", self.child.try_wait());
        Ok(serde_json::from_str(&line)?)
    }

    /// One command and its answer, events passed over.
    fn tell(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let message = json!({ "execute": command, "arguments": arguments });
        writeln!(self.monitor.get_mut(), "{message}").with_context(|| format!("sending {command}"))?;
        loop {
            let mut answer = self.line()?;
            if let Some(error) = answer.get("error") {
                bail!("{command}: {error}");
            }
            if let Some(returned) = answer.get_mut("return") {
                return Ok(returned.take());
            }
        }
    }

    fn wait_for(&mut self, query: &str, wanted: impl Fn(&Value) -> bool) -> Result<()> {
        let start = Instant::now();
        loop {
            let state = self.tell(query, json!({}))?;
            if wanted(&state) {
                return Ok(());
            }
            ensure!(state["status"] != "failed" && start.elapsed() < LIMIT, "{query}: {state}");
            thread::sleep(POLL);
        }
    }
}

fn connect(path: &Path) -> Result<UnixStream> {
    let start = Instant::now();
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => return Ok(stream),
            Err(cause) if start.elapsed() > LIMIT => return Err(cause).context("connecting to the monitor"),
            Err(_) => thread::sleep(POLL),
        }
    }
}
