//! What a thousand machines that sleep cost: the agent's memory and processor time, and the kernel's memory, beside runc's.
//!
//! The agent is a process of its own with the parts that every machine has one of: its record in the ledger, the task that looks
//! at it every few seconds, its supervisor's descriptor. Gossip, links and metrics, of which an agent has one, are not in it: a whole
//! agent would have its machines placed, and no coordinator places a thousand of them on a host with two processors.

use super::{
    ours::{Then, spec},
    runtimes::{Kind, Runtime},
    stage::Stage,
};
use crate::{
    process::{cpu_seconds, status_mib},
    report::Row,
};
use anyhow::{Context, Result, bail, ensure};
use async_trait::async_trait;
use novacron_agent::{
    attempt::supervisor,
    hypervisor::{MachineFiles, RootImage, namespace::Namespace},
    ledger::AgentLedger,
    vm::{Files, FilesError, Hypervisors, Machines, MachinesParts, SHELF},
};
use novacron_common::{
    ids::VmId,
    record::{VmAction, VmAssignment, VmState},
    spec::{NetworkSpec, VmSpec},
    units::{Epoch, Generation},
    wire::AgentReply,
};
use novacron_tests::bins;
use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

/// The word by which this program is that agent.
pub const AGENT: &str = "idle-agent";

const MACHINES: u32 = 1000;
/// How long machines are left alone before they are measured: blank disks are written, caches settle.
const SETTLING: Duration = Duration::from_secs(15);
/// Over which time processors are counted.
const IDLE: Duration = Duration::from_secs(60);
/// How long any of it may take to come up, or to be gone.
const PATIENCE: Duration = Duration::from_secs(600);
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// What the agent prints when all machines run.
const READY: &str = "ready";

/// What was found with all machines there.
#[derive(Debug, Clone, Copy)]
struct Found {
    agent_mib: f64,
    agent_cpu_per_cent: f64,
    ours: Memory,
    runc: Memory,
}

/// Memory of the host that is taken, KiB.
#[derive(Debug, Clone, Copy)]
struct Memory {
    /// By the kernel, for itself: slabs that it cannot drop, stacks, page tables, what each processor has.
    kernel: f64,
    /// By anybody, for what cannot be dropped.
    all: f64,
}

pub fn rows(stage: &Stage) -> Result<Vec<Row>> {
    let (agent_mib, agent_cpu_per_cent, ours) = ours(stage)?;
    let runc = runc(stage)?;
    Ok(rows_of(Found { agent_mib, agent_cpu_per_cent, ours, runc }))
}

fn rows_of(Found { agent_mib, agent_cpu_per_cent, ours, runc }: Found) -> Vec<Row> {
    let name = |what: &str| format!("{MACHINES} idle machines, {what}");
    let peer = |kib| (Kind::Runc.name(), kib);
    vec![
        Row::at_most(&name("memory of the agent"), "MiB", agent_mib, 150.0),
        Row::at_most(&name("processor time of the agent"), "%", agent_cpu_per_cent, 2.0),
        Row::at_most(&name("the kernel's memory each"), "KiB", ours.kernel, 700.0),
        Row::beside(&name("the kernel's memory each vs runc"), "KiB", ours.kernel, peer(runc.kernel), None),
        Row::beside(&name("all memory each vs runc"), "KiB", ours.all, peer(runc.all), None),
    ]
}

impl Memory {
    /// As it is now, without what can be dropped.
    fn now() -> Result<Self> {
        fs::write("/proc/sys/vm/drop_caches", "3").context("dropping caches")?;
        Self::of(&fs::read_to_string("/proc/meminfo")?)
    }

    /// Of the text of `/proc/meminfo` (proc_meminfo(5)).
    fn of(meminfo: &str) -> Result<Self> {
        let field = |name: &str| {
            let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
            kib.with_context(|| format!("no {name} in /proc/meminfo"))
        };
        let kernel =
            ["Slab", "KernelStack", "PageTables", "Percpu"].into_iter().map(field).sum::<Result<_>>()?;
        Ok(Self { kernel, all: field("MemTotal")? - field("MemAvailable")? })
    }

    /// What of it came since, for each machine.
    fn each_since(self, before: Self) -> Self {
        let each = |now: f64, before: f64| (now - before) / f64::from(MACHINES);
        Self { kernel: each(self.kernel, before.kernel), all: each(self.all, before.all) }
    }
}

fn ours(stage: &Stage) -> Result<(f64, f64, Memory)> {
    let before = Memory::now()?;
    let mut agent = Command::new(std::env::current_exe()?)
        .arg(AGENT)
        .arg(stage.data_dir())
        .arg(serde_json::to_string(&stage.image)?)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let found = measured(&mut agent, before);
    // Its standard input is closed: it ends them all, and itself.
    let ended = agent.wait()?;
    let found = found?;
    ensure!(ended.success(), "the agent could not end its machines: {ended}");
    Ok(found)
}

fn measured(agent: &mut Child, before: Memory) -> Result<(f64, f64, Memory)> {
    let began = Instant::now();
    let said = agent.stdout.take().context("the agent's output")?;
    let said = BufReader::new(said).lines().next().context("the agent ended before its machines ran")??;
    ensure!(said == READY, "the agent said {said:?}");
    println!("{MACHINES} machines were up in {:.1} s", began.elapsed().as_secs_f64());
    std::thread::sleep(SETTLING);
    let pid = agent.id();
    let used = cpu_seconds(&[pid])?;
    std::thread::sleep(IDLE);
    let used = cpu_seconds(&[pid])? - used;
    Ok((status_mib(pid, "VmRSS")?, 100.0 * used / IDLE.as_secs_f64(), Memory::now()?.each_since(before)))
}

fn runc(stage: &Stage) -> Result<Memory> {
    let runc = Runtime::set(Kind::Runc, stage, Then::Stays)?;
    let before = Memory::now()?;
    let mut names = Vec::new();
    let made = (0..MACHINES).try_for_each(|_| runc.stay().map(|name| names.push(name)));
    let found = made.and_then(|()| {
        std::thread::sleep(SETTLING);
        Ok(Memory::now()?.each_since(before))
    });
    names.iter().try_for_each(|name| runc.remove(name))?;
    found
}

/// The agent: has its machines run, says so, and ends them when its standard input is closed.
pub fn agent(data_dir: &Path, image: &str) -> Result<()> {
    let image: RootImage = serde_json::from_str(image)?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let namespace = Namespace::open(data_dir, bins::path(supervisor::PROGRAM)?).await?;
        let parts = MachinesParts {
            shelf: AgentLedger::open(data_dir)?.shelf(SHELF)?,
            hypervisors: Hypervisors { kvm: None, namespace: Some(Arc::new(namespace)) },
            files: Arc::new(Unpacked { image, data_dir: data_dir.to_owned() }),
            board: Arc::default(),
            bridge: "none".into(),
        };
        let machines = Machines::adopt(parts, &BTreeSet::new())?;
        let vms: Vec<VmId> = (0..MACHINES).map(|_| VmId::generate()).collect();
        let ran = all(&machines, &vms, 1, VmAction::Run, VmState::Running).await;
        if ran.is_ok() {
            println!("{READY}");
            tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
        }
        all(&machines, &vms, 2, VmAction::Delete, VmState::Missing).await?;
        ran
    })
}

/// Wants it of all machines, and waits until it has come about.
async fn all(machines: &Machines, vms: &[VmId], wish: u64, action: VmAction, until: VmState) -> Result<()> {
    let spec = spec(NetworkSpec::default(), Then::Stays)?;
    for vm in vms {
        let (epoch, generation) = (Epoch(1), Generation(wish));
        let answer =
            machines.assign(VmAssignment { vm: *vm, epoch, generation, spec: spec.clone(), action }).await;
        ensure!(answer == AgentReply::Accepted, "{action:?} of {vm}: {answer:?}");
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        let seen = machines.board().all();
        let behind = seen.iter().find(|seen| seen.state != until);
        if behind.is_none() && seen.len() == vms.len() {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("of {} machines {} were seen, and not all {until:?}: {behind:?}", vms.len(), seen.len());
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// The image is there already.
struct Unpacked {
    image: RootImage,
    data_dir: PathBuf,
}

#[async_trait]
impl Files for Unpacked {
    async fn prepare(&self, vm: VmId, _: &VmSpec) -> Result<MachineFiles, FilesError> {
        let folder = self.data_dir.join("machines").join(vm.to_string());
        Ok(MachineFiles { root: Some(self.image.clone()), ..MachineFiles::bare(folder) })
    }

    async fn remove(&self, _: VmId) -> Result<(), FilesError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: &str = "MemTotal:  1000 kB\nMemAvailable:  400 kB\nSlab:  10 kB\nKernelStack:  20 kB\nPageTables:  30 kB\nPercpu:  40 kB\n";

    #[test]
    fn the_kernels_memory_is_what_came_since_for_each_machine() {
        let before = Memory::of(MEMINFO).unwrap();
        let after = Memory::of(&MEMINFO.replace("Slab:  10", "Slab:  500010")).unwrap().each_since(before);
        assert!((after.kernel - 500.0).abs() < 1e-9 && after.all.abs() < 1e-9, "{after:?}");
        assert!(Memory::of("MemTotal: 1 kB\n").is_err());
    }

    #[test]
    fn the_goals_are_the_agents_memory_and_time_and_the_kernels_memory() {
        let memory = |kernel| Memory { kernel, all: 2000.0 };
        let found = |agent_mib, agent_cpu_per_cent, kernel| Found {
            agent_mib,
            agent_cpu_per_cent,
            ours: memory(kernel),
            runc: memory(600.0),
        };
        let missed = |found| rows_of(found).iter().filter(|row| !row.holds).count();
        assert_eq!(missed(found(149.0, 1.9, 699.0)), 0);
        assert_eq!(missed(found(151.0, 2.1, 701.0)), 3);
    }
}
