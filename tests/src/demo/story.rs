//! What happens in the demo, in order. Each step says what it does; nothing is judged here.

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, ensure};
use novacron_common::api::{FireState, FireView, MigrationView};

use super::Settings;
use super::evidence::{Evidence, Move, Window};
use super::fires;
use crate::cluster::{AGENT_PORT, Cluster, ClusterOptions, Echo, GuestOptions, Machine, TemplateOptions};
use crate::guest_image::GuestImage;
use crate::lab::{Counts, Node, Watch};

const VM: &str = "ticker";
const JOB: &str = "every-five-seconds";
/// The job's command fails unless it sees the walls of a namespace VM around it.
const JOB_SCRIPT: &str = "test \"$(cat /proc/sys/kernel/hostname)\" = novacron-job && ! grep -q root: /etc/shadow 2>/dev/null \
                          && echo \"fire $NOVACRON_SCHEDULED_AT\"";
/// Instants of the schedule that the job must at least live through.
const FIRES_MIN: i64 = 4;
/// How long the guest may take for something that it does all the time.
const SOON: Duration = Duration::from_secs(60);

/// A cluster that was left up.
pub struct Kept {
    /// Its folder.
    pub folder: PathBuf,
    /// How to reach and how to end it, for a person to read.
    pub hints: Vec<String>,
}

/// What the story leaves behind.
pub struct Told {
    /// What was seen.
    pub evidence: Evidence,
    /// What was still there after the machine and the job had been deleted; empty: nothing.
    pub leftovers: Vec<String>,
    /// The cluster, if it was to be kept.
    pub kept: Option<Kept>,
}

/// Lets it happen.
pub fn tell(settings: Settings, say: &dyn Fn(&str)) -> Result<Told> {
    say("building the guest: a kernel and one static program that ticks, works and checks itself");
    GuestImage::build()?;
    say("starting one coordinator and two hosts, each with its own libvirtd and agent");
    let cluster = Cluster::start(&ClusterOptions::two_hosts("demo"))?;
    let story = Story { cluster: &cluster, say };
    let (evidence, machine) = story.run().with_context(|| story.last_words())?;
    if settings.keep {
        let kept = keep(cluster)?;
        return Ok(Told { evidence, leftovers: Vec::new(), kept: Some(kept) });
    }
    let leftovers = story.clear(&machine)?;
    say("stopping everything");
    drop(cluster);
    Ok(Told { evidence, leftovers, kept: None })
}

struct Story<'a> {
    cluster: &'a Cluster,
    say: &'a dyn Fn(&str),
}

/// What the two moves showed.
struct Moved {
    moves: Vec<Move>,
    wire: Counts,
}

impl Story<'_> {
    fn run(&self) -> Result<(Evidence, Machine)> {
        (self.say)("creating the job with novactl: every five seconds, in a namespace VM");
        let from = self.create_job()?;
        (self.say)("creating the VM with novactl on h1, and opening a TCP connection to its guest");
        self.cluster.make_template(&TemplateOptions { name: "ticking-guest".to_owned(), disk: None })?;
        let machine = self.cluster.boot_guest(&GuestOptions::small(VM, "ticking-guest", "h1"))?;
        let echo = Echo::start(self.cluster.lab.outside(), machine.address)?;
        machine.recorder.wait_for_ticks(50, SOON)?;
        let moved = self.move_there_and_back(&machine, &echo)?;
        let passes_after = self.full_checks(&machine)?;
        let connection = echo.finish()?;
        let (disk_by_guest, disk_by_host) = self.compare_disks(&machine)?;
        let (window, fires) = self.close_job(from)?;
        let hosts = self.cluster.members.iter().map(|member| member.host.name().to_owned()).collect();
        let (Moved { moves, wire }, chunks) = (moved, machine.recorder.chunks());
        let evidence = Evidence {
            hosts,
            chunks,
            passes_after,
            moves,
            connection,
            disk_by_guest,
            disk_by_host,
            window,
            fires,
            wire,
        };
        Ok((evidence, machine))
    }

    /// Returns a time at which the job existed.
    fn create_job(&self) -> Result<i64> {
        let create = [
            "job",
            "create",
            JOB,
            "--schedule",
            fires::SCHEDULE.0,
            "--timezone",
            "Europe/Berlin",
            "--timeout=4s",
        ];
        self.cluster.novactl(&[&create[..], &["--", "/bin/sh", "-c", JOB_SCRIPT]].concat())?;
        unix_millis()
    }

    fn move_there_and_back(&self, machine: &Machine, echo: &Echo) -> Result<Moved> {
        let nodes: Vec<&Node> = self.cluster.members.iter().map(|member| member.host.node()).collect();
        let watch = Watch { agent_ports: vec![AGENT_PORT], needle: novacron_guest::content::NEEDLE.to_vec() };
        let capture = self.cluster.lab.capture(&nodes, watch)?;
        let mut moves = Vec::new();
        for (from, to) in [("h1", "h2"), ("h2", "h1")] {
            (self.say)(&format!("moving the VM live from {from} to {to} while it works"));
            moves.push(self.move_once(machine, from, to)?);
            machine.recorder.wait_for_ticks(50, SOON)?;
            echo.wait_for_answers(10, SOON)?;
        }
        Ok(Moved { moves, wire: capture.finish()? })
    }

    fn move_once(&self, machine: &Machine, from: &str, to: &str) -> Result<Move> {
        let began = machine.recorder.now();
        let view: MigrationView = serde_json::from_value(self.cluster.migrate(machine, to)?)?;
        let span = began..machine.recorder.now();
        let (host, state) = self.cluster.place_of(machine)?;
        ensure!(
            (host.as_str(), state.as_str()) == (to, "running"),
            "after the move the VM is {state} on {host}, not running on {to}"
        );
        let end = view.status.end_time.context("a migration that ended has no end time")?;
        let seconds = end.since(view.status.start_time).as_secs_f64();
        Ok(Move { from: from.to_owned(), to: to.to_owned(), span, bytes: view.total_bytes, seconds })
    }

    /// Waits until the guest has verified its whole memory, from its first page to its last, since now.
    fn full_checks(&self, machine: &Machine) -> Result<u64> {
        (self.say)("letting the guest check all of its memory once more");
        let before = machine.recorder.judge().last.passes;
        let deadline = Instant::now() + SOON;
        // The pass that is under way began before.
        while machine.recorder.judge().last.passes < before + 2 {
            ensure!(Instant::now() < deadline, "the guest did not check its memory within {SOON:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(machine.recorder.judge().last.passes - before - 1)
    }

    fn compare_disks(&self, machine: &Machine) -> Result<(u64, u64)> {
        (self.say)("asking the guest what its disk holds, stopping it, and reading the image on the host");
        let by_guest = self.cluster.settle_disk(machine)?;
        self.cluster.novactl(&["vm", "stop", VM, "--wait"])?;
        Ok((by_guest, self.cluster.hash_of_image(machine, "h1")?))
    }

    /// Lets the job fire often enough, ends it, and waits until each of its fires is settled.
    fn close_job(&self, from: i64) -> Result<(Window, Vec<FireView>)> {
        let period = fires::SCHEDULE.1;
        let enough = (from / period + FIRES_MIN) * period + period / 2;
        std::thread::sleep(Duration::from_millis(u64::try_from(enough - unix_millis()?).unwrap_or(0)));
        let to = unix_millis()?;
        self.cluster.novactl(&["job", "disable", JOB])?;
        (self.say)("waiting for the job's last fire to end");
        let deadline = Instant::now() + SOON;
        loop {
            let fires: Vec<FireView> = serde_json::from_value(self.cluster.novactl(&["job", "fires", JOB])?)?;
            let open =
                fires.iter().filter(|fire| matches!(fire.state, FireState::Waiting | FireState::Running));
            if open.count() == 0 || Instant::now() > deadline {
                return Ok((Window { from, to }, fires));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Deletes what was made and looks for remains of it.
    fn clear(&self, machine: &Machine) -> Result<Vec<String>> {
        (self.say)("deleting the VM and the job, and looking for remains");
        self.cluster.novactl_said(&["job", "delete", JOB])?;
        self.cluster.delete(machine)?;
        self.cluster.remains_of(machine)
    }

    /// What our programs said last, for whoever has to find out why a step failed.
    fn last_words(&self) -> String {
        self.cluster.last_words(12)
    }
}

fn keep(cluster: Cluster) -> Result<Kept> {
    let outside = cluster.lab.outside().init_pid()?;
    let mut inits = vec![outside.to_string()];
    for member in &cluster.members {
        inits.push(member.host.init_pid()?.to_string());
    }
    let novactl = crate::bins::path("novactl")?;
    let config = cluster.lab.outside().dir().join("novactl.toml");
    cluster.novactl_said(&["login", "--config", &config.display().to_string()])?;
    let folder = cluster.keep();
    let reach =
        format!("nsenter --net --target {outside} {} --config {}", novactl.display(), config.display());
    let hints = vec![
        format!("to look:       {reach} vm list"),
        format!("a host's shell: nsenter --all --target {} /bin/bash", inits[1]),
        format!("to end it:     kill -9 {}", inits.join(" ")),
    ];
    Ok(Kept { folder, hints })
}

fn unix_millis() -> Result<i64> {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).context("reading the clock")?;
    i64::try_from(since.as_millis()).context("a clock beyond i64")
}
