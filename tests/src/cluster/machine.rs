//! The lab's guest as a machine of the cluster: made with `novactl`, followed on every host's console log.

use std::fs;
use std::io::{PipeWriter, Write as _};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use novacron_guest::disk::area_hash;
use serde_json::{Value, json};

use super::Cluster;
use crate::guest_image::{Checked, DiskFormat, GuestImage};
use crate::lab::{Host, Process, addr};
use crate::serial::Recorder;

/// Where an agent keeps its machines, as its host sees it.
const MACHINES: &str = "/var/lib/novacron/agent/vms";
/// How long a guest may take from the request to its first tick: it boots a real kernel on an emulated processor.
const BOOT_LIMIT: Duration = Duration::from_secs(180);
/// How long the guest may take to answer on its console.
const ANSWER_LIMIT: Duration = Duration::from_secs(90);
/// How long the ledger may take to know what is so.
const PLACE_LIMIT: Duration = Duration::from_secs(60);
/// Leaves `novactl vm console` (Ctrl-]).
const LEAVE: u8 = 0x1d;

/// What a template is made of, beside the guest's kernel and initramfs.
#[derive(Debug, Clone)]
pub struct TemplateOptions {
    /// Its name.
    pub name: String,
    /// An image under each machine's overlay; without one, machines get a blank disk.
    pub disk: Option<(Checked, DiskFormat)>,
}

/// How a guest is set up.
#[derive(Debug, Clone)]
pub struct GuestOptions {
    /// The machine's name.
    pub name: String,
    /// The template's name.
    pub template: String,
    /// The guest's address on the guests' network.
    pub address: Ipv4Addr,
    /// RAM, MiB.
    pub memory_mib: u32,
    /// The disk's size, MiB; 0: no disk.
    pub storage_mib: u32,
    /// How much of the disk the guest writes to, MiB.
    pub area_mib: u32,
    /// Milliseconds between two blocks that it writes there.
    pub disk_ms: u32,
    /// What the guest keeps in memory and rewrites, MiB.
    pub working_set_mib: u32,
    /// How fast it rewrites that with content that nothing compresses, MiB a second.
    pub rewrite_mib: u32,
    /// How much of its disk's end it reads when it starts, MiB.
    pub read_mib: u32,
    /// Milliseconds between ticks.
    pub tick_ms: u32,
    /// The host to start on.
    pub host: Option<String>,
    /// Further arguments of `novactl vm create`.
    pub more: Vec<String>,
}

impl GuestOptions {
    /// A small guest of `template` that writes to memory and disk, on `host`.
    #[must_use]
    pub fn small(name: &str, template: &str, host: &str) -> Self {
        Self {
            name: name.to_owned(),
            template: template.to_owned(),
            address: Ipv4Addr::new(10, 77, 0, 50),
            memory_mib: 160,
            storage_mib: 32,
            area_mib: 16,
            disk_ms: 20,
            read_mib: 0,
            working_set_mib: 24,
            rewrite_mib: 2,
            tick_ms: 20,
            host: Some(host.to_owned()),
            more: Vec::new(),
        }
    }

    fn cmdline(&self) -> String {
        format!(
            "console=ttyS0 quiet nova.mb={} nova.rate={} nova.verify=16 nova.tick={} nova.disk={} nova.disk_mb={} nova.disk_ms={} nova.read={} nova.addr={}/{}",
            self.working_set_mib,
            self.rewrite_mib,
            self.tick_ms,
            u8::from(self.storage_mib > 0),
            self.area_mib,
            self.disk_ms,
            self.read_mib,
            self.address,
            addr::PREFIX,
        )
    }

    fn arguments(&self) -> Vec<String> {
        let mut words: Vec<String> =
            ["vm", "create", &self.name, "--template", &self.template].map(str::to_owned).to_vec();
        words.extend(["--cpu=1".to_owned(), format!("--memory={}M", self.memory_mib)]);
        words.push(format!("--cmdline={}", self.cmdline()));
        if self.storage_mib > 0 {
            words.push(format!("--storage={}M", self.storage_mib));
        }
        words.extend(self.host.iter().map(|host| format!("--host={host}")));
        words.extend(self.more.iter().cloned());
        words
    }
}

/// A machine of the cluster, and the recording of its console on all hosts.
pub struct Machine {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: String,
    /// The guest's address.
    pub address: Ipv4Addr,
    /// How much of its disk the guest writes to, MiB.
    pub area_mib: u32,
    /// Follows its console on every host, in the order of the cluster's members.
    pub recorder: Recorder,
}

/// An open serial console, with somebody at the keyboard.
pub struct Console {
    process: Process,
    keyboard: PipeWriter,
}

impl Console {
    /// Types a line.
    ///
    /// # Errors
    /// When the console was closed.
    pub fn type_line(&mut self, line: &str) -> Result<()> {
        self.keyboard.write_all(format!("{line}\n").as_bytes()).context("typing on the console")
    }

    /// Leaves it as a person would, and waits for its end.
    ///
    /// # Errors
    /// When it does not end well.
    pub fn leave(mut self) -> Result<()> {
        self.keyboard.write_all(&[LEAVE]).context("leaving the console")?;
        let status = self.process.wait_for(ANSWER_LIMIT);
        ensure!(
            status.is_some_and(|status| status.success()),
            "novactl vm console: {status:?}: {}",
            self.process.printed()
        );
        Ok(())
    }
}

impl Cluster {
    /// Makes a template of the lab's guest, as an administrator would: from a JSON file.
    ///
    /// # Errors
    /// When the guest cannot be built or the template is refused.
    pub fn make_template(&self, options: &TemplateOptions) -> Result<Value> {
        let image = GuestImage::build()?;
        self.make_template_of(options, &image.kernel, &image.initramfs)
    }

    /// Makes a template of these files.
    ///
    /// # Errors
    /// When it is refused.
    pub fn make_template_of(
        &self,
        options: &TemplateOptions,
        kernel: &Checked,
        initramfs: &Checked,
    ) -> Result<Value> {
        let body = json!({
            "name": options.name,
            "disk": options.disk.as_ref().map(|(disk, format)| file_of(disk, *format)),
            "boot": {
                "kernel": file_of(kernel, DiskFormat::Raw),
                "initramfs": file_of(initramfs, DiskFormat::Raw),
                "cmdline": "console=ttyS0 quiet",
            },
        });
        let path = self.lab.outside().dir().join(format!("{}.json", options.name));
        fs::write(&path, serde_json::to_vec_pretty(&body)?)
            .with_context(|| format!("writing {}", path.display()))?;
        self.novactl(&["template", "create", &path.display().to_string()])
    }

    /// Makes a machine and waits until its guest says that it is ready.
    ///
    /// # Errors
    /// When it is refused or does not boot; the error carries what its console said last.
    pub fn boot_guest(&self, options: &GuestOptions) -> Result<Machine> {
        let machine = self.make_guest(options)?;
        machine
            .recorder
            .wait_for(Duration::ZERO, BOOT_LIMIT, |line| line.starts_with("READY"))
            .with_context(|| {
                format!("{} did not boot: {:?}", options.name, self.novactl(&["vm", "show", &options.name]))
            })?;
        Ok(machine)
    }

    /// Makes a machine and follows its consoles, but does not wait for it.
    ///
    /// # Errors
    /// When it is refused.
    pub fn make_guest(&self, options: &GuestOptions) -> Result<Machine> {
        let arguments = options.arguments();
        let view = self.novactl(&arguments.iter().map(String::as_str).collect::<Vec<_>>())?;
        let id = view["id"].as_str().with_context(|| format!("no id in {view}"))?.to_owned();
        let logs = self.members.iter().map(|member| machine_path(&member.host, &id, "console.log"));
        let recorder = Recorder::start(logs.collect::<Result<_>>()?);
        Ok(Machine {
            name: options.name.clone(),
            id,
            address: options.address,
            area_mib: options.area_mib,
            recorder,
        })
    }

    /// Opens the guest's serial console with `novactl vm console`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn console(&self, machine: &Machine) -> Result<Console> {
        let (keys, keyboard) = std::io::pipe().context("making a keyboard")?;
        let mut command = Command::new(crate::bins::path("novactl")?);
        command.args(self.access.arguments()).args(["vm", "console", &machine.name]).stdin(Stdio::from(keys));
        Ok(Console { process: self.lab.outside().spawn_command(command)?, keyboard })
    }

    /// Stops the guest's writing and asks it what its disk then holds: the hash of its area (see [`area_hash`]).
    ///
    /// # Errors
    /// When it does not answer, or says that a block is wrong.
    pub fn settle_disk(&self, machine: &Machine) -> Result<u64> {
        let since = machine.recorder.now();
        let mut console = self.console(machine)?;
        console.type_line("sync")?;
        let said = machine.recorder.wait_for(since, ANSWER_LIMIT, |line| line.starts_with("SYNC "));
        let said =
            said.with_context(|| format!("novactl vm console said {:?}", console.process.printed()))?;
        console.leave()?;
        let field =
            |name: &str| said.text.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        ensure!(field("bad") == Some("0"), "the guest found its disk wrong: {}", said.text);
        let hash = field("hash").with_context(|| format!("no hash in {:?}", said.text))?;
        u64::from_str_radix(hash, 16).with_context(|| format!("reading {:?}", said.text))
    }

    /// The same hash, computed from the image on the machine's host. The machine is stopped, or its disk settled.
    ///
    /// # Errors
    /// When the image cannot be read.
    pub fn hash_of_image(&self, machine: &Machine, host: &str) -> Result<u64> {
        let bytes = self.image_of(machine, host)?;
        let area = bytes
            .get(..(machine.area_mib as usize) << 20)
            .context("the image is smaller than the guest's area")?;
        Ok(area_hash(area))
    }

    /// What the whole disk of a stopped machine, or of one whose disk is settled, holds through its backing chain.
    ///
    /// # Errors
    /// When the image cannot be read.
    pub fn image_of(&self, machine: &Machine, host: &str) -> Result<Vec<u8>> {
        let host =
            &self.members.iter().find(|member| member.host.name() == host).context("no such host")?.host;
        let raw = host.dir().join("tmp/disk.raw");
        let image = format!("{MACHINES}/{}/disk.qcow2", machine.id);
        host.exec("qemu-img", &["convert", "-U", "-O", "raw", &image, "/var/tmp/disk.raw"])?;
        let bytes = fs::read(&raw).with_context(|| format!("reading {}", raw.display()))?;
        fs::remove_file(raw)?;
        Ok(bytes)
    }

    /// Moves the machine and waits for the end.
    ///
    /// # Errors
    /// When the migration does not complete; the error says what it said.
    pub fn migrate(&self, machine: &Machine, to: &str) -> Result<Value> {
        self.novactl(&["vm", "migrate", &machine.name, "--to", to, "--wait"])
    }

    /// Where the ledger says that the machine runs, and how it is: (host name, state).
    ///
    /// # Errors
    /// When the machine cannot be shown.
    pub fn place_of(&self, machine: &Machine) -> Result<(String, String)> {
        let view = self.novactl(&["vm", "show", &machine.id])?;
        let text = |field: &str| view[field].as_str().unwrap_or_default().to_owned();
        Ok((text("host_name"), text("state")))
    }

    /// Waits until the ledger says that the machine is in `state` on `host`.
    ///
    /// # Errors
    /// When it is not within a minute.
    pub fn wait_for_place(&self, machine: &Machine, host: &str, state: &str) -> Result<()> {
        let wanted = (host.to_owned(), state.to_owned());
        self.wait_until(PLACE_LIMIT, &format!("{} is {state} on {host}", machine.name), |cluster| {
            Ok(cluster.place_of(machine)? == wanted)
        })
    }

    /// Adds to a failure what the ledger says of the machine and what our programs said last.
    ///
    /// # Errors
    /// The failure.
    pub fn explain<T>(&self, machine: &Machine, result: Result<T>) -> Result<T> {
        result.with_context(|| {
            let (shown, moves) =
                (self.novactl(&["vm", "show", &machine.id]), self.novactl(&["migration", "list"]));
            format!("{}\nmachine: {shown:?}\nmigrations: {moves:?}\nfailed", self.last_words(60))
        })
    }

    /// Deletes the machine and waits until it is gone.
    ///
    /// # Errors
    /// When it does not go.
    pub fn delete(&self, machine: &Machine) -> Result<()> {
        self.novactl_said(&["vm", "delete", &machine.name, "--wait"]).map(|_| ())
    }
}

/// A machine's file on the machine that the lab runs on.
///
/// # Errors
/// When the path is none of the host's own.
pub fn machine_path(host: &Host, id: &str, file: &str) -> Result<PathBuf> {
    let inside = Path::new(MACHINES).join(id).join(file);
    host.outside_path(&inside)
        .with_context(|| format!("{} is not in a folder of the host's own", inside.display()))
}

fn file_of(file: &Checked, format: DiskFormat) -> Value {
    json!({ "path": file.path.display().to_string(), "sha256": file.sha256, "format": format.name() })
}
