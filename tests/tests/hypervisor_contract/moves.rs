//! What the agents' moves stand on: libvirt's peer-to-peer migration over UNIX sockets, started, watched and
//! aborted through the adapter. No relay here: both hosts of the lab see the same sockets.

use anyhow::{Context as _, Result, ensure};
use novacron_agent::hypervisor::{
    Definition, Hypervisor as _, MachineFiles,
    libvirt::{
        AccelSetting, Libvirt,
        migration::{DiskCopy, JobOutcome, MigrateCall, Presence},
        xml::DISK_TARGET,
    },
};
use novacron_common::{
    ids::VmId,
    record::VmState,
    spec::{
        BootSource, HealthSpec, ImageFormat, ImageRef, ImageSource, MachineKind, Mobility, NetworkSpec,
        RestartPolicy, Sha256Digest, TemplateSpec, VmSpec,
    },
    units::ByteCount,
};
use novacron_tests::{
    guest_image::GuestImage,
    lab::{Host, HostOptions, Lab},
    require,
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// Both hosts have a folder of their own there.
const FOLDER: &str = "/var/lib/novacron/machine";
const VM: VmId = VmId::from_u128(0x77);

struct Pair {
    source: Arc<Libvirt>,
    target: Libvirt,
    sockets: PathBuf,
    target_control: PathBuf,
    // Dropped in this order: the hosts before the lab.
    hosts: [Host; 2],
    _lab: Lab,
}

impl Pair {
    async fn new(name: &str) -> Result<Self> {
        let guest = GuestImage::build()?;
        let mut lab = Lab::new(name)?;
        let hosts = [lab.host("h1", HostOptions::default())?, lab.host("h2", HostOptions::default())?];
        hosts.iter().try_for_each(|host| furnish(host, &guest))?;
        let sockets = lab.root().join("sockets");
        std::fs::create_dir(&sockets)?;
        let source = Arc::new(Libvirt::connect(&hosts[0].libvirt_uri(), AccelSetting::Tcg).await?);
        let target = Libvirt::connect(&hosts[1].libvirt_uri(), AccelSetting::Tcg).await?;
        let target_control = hosts[1].libvirt_socket();
        let pair = Self { source, target, sockets, target_control, hosts, _lab: lab };
        pair.source.define(&definition()?).await?;
        pair.source.start(VM).await?;
        Ok(pair)
    }

    fn call(&self, bandwidth_mib: Option<u64>) -> MigrateCall {
        let socket = |name: &str| format!("unix://{}", self.sockets.join(name).display());
        MigrateCall {
            dconn_uri: format!("qemu+unix:///system?socket={}", self.target_control.display()),
            migrate_uri: socket("memory"),
            disks_uri: Some(socket("disks")),
            disk_copy: DiskCopy::Top,
            disks: vec![DISK_TARGET.to_owned()],
            paused: true,
            post_copy: false,
            parallel: None,
            bandwidth_mib,
            target_xml: None,
            throttle: None,
        }
    }

    /// The console log of a host, once it holds `word`.
    async fn hear(&self, host: usize, word: &str) -> Result<()> {
        let inside = Path::new(FOLDER).join("console.log");
        let log = self.hosts[host].outside_path(&inside).context("the log lies in no state folder")?;
        for _ in 0..300 {
            if std::fs::read_to_string(&log).is_ok_and(|text| text.contains(word)) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        anyhow::bail!("the guest never said {word:?}: {}", std::fs::read_to_string(&log)?)
    }
}

/// The same files on each host: kernel, initramfs, base image, and an overlay with nothing in it.
fn furnish(host: &Host, guest: &GuestImage) -> Result<()> {
    host.exec("mkdir", &["-p", FOLDER])?;
    let file = |name: &str| format!("{FOLDER}/{name}");
    for (from, name) in [(&guest.kernel.path, "kernel"), (&guest.initramfs.path, "initramfs")] {
        host.exec("cp", &[&from.display().to_string(), &file(name)])?;
    }
    host.exec("truncate", &["-s", "16M", &file("base.raw")])?;
    let (base, disk) = (file("base.raw"), file("disk.qcow2"));
    host.exec("qemu-img", &["create", "-q", "-f", "qcow2", "-F", "raw", "-b", &base, &disk])?;
    Ok(())
}

fn definition() -> Result<Definition> {
    let image = ImageRef {
        sha256: Sha256Digest([0; 32]),
        source: ImageSource::Path("/unused".to_owned()),
        format: ImageFormat::Raw,
    };
    let cmdline =
        "console=ttyS0 quiet panic=-1 nova.mb=32 nova.tick=100 nova.disk=1 nova.disk_mb=8".to_owned();
    let boot = BootSource::Kernel { kernel: image.clone(), initramfs: Some(image.clone()), cmdline };
    let spec = VmSpec {
        name: "mover".parse()?,
        kind: MachineKind::Kvm,
        cpus: 1,
        memory: ByteCount::mib(160),
        storage: ByteCount::mib(16),
        template: TemplateSpec { name: "guest".parse()?, boot, disk: Some(image) },
        cmdline: None,
        network: NetworkSpec::default(),
        cloud_init: None,
        restart: RestartPolicy::Never,
        mobility: Mobility::Usual,
        health: HealthSpec::default(),
        volumes: Vec::new(),
    };
    let folder = PathBuf::from(FOLDER);
    let files = MachineFiles {
        disk: Some(folder.join("disk.qcow2")),
        backing: Some((folder.join("base.raw"), ImageFormat::Raw)),
        kernel: Some((folder.join("kernel"), Some(folder.join("initramfs")))),
        ..MachineFiles::bare(folder)
    };
    Ok(Definition { vm: VM, spec, files, bridge: None })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_with_its_disk_arrives_paused_and_is_resumed() -> Result<()> {
    require!(root, libvirt, qemu, apt);
    let pair = Pair::new("moves").await?;
    pair.hear(0, "READY").await?;
    pair.source.migrate_p2p(VM, pair.call(None)).await?;
    ensure!(pair.source.presence(VM).await? == Presence::Absent);
    let arrived = Presence::Here { state: VmState::Paused, persistent: true, split: None };
    ensure!(pair.target.presence(VM).await? == arrived, "{:?}", pair.target.presence(VM).await?);
    pair.target.resume(VM).await?;
    ensure!(pair.target.state(VM).await? == VmState::Running);
    // Defining what has arrived changes nothing: the mark travelled with it.
    pair.target.define(&definition()?).await?;
    pair.hear(1, "\n").await.context("the guest is silent on the target")?;
    let job = pair.target.completed_job(VM).await?.context("no figures of the move")?;
    ensure!(job.outcome == JobOutcome::Completed && job.memory.total > 0, "{job:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aborted_move_leaves_the_guest_where_it_was() -> Result<()> {
    require!(root, libvirt, qemu, apt);
    let pair = Pair::new("abort").await?;
    pair.hear(0, "READY").await?;
    ensure!(pair.source.job_progress(VM).await?.is_none());
    pair.source.abort_job(VM).await.context("aborting nothing")?;
    let (source, call) = (Arc::clone(&pair.source), pair.call(Some(1)));
    let migration = tokio::spawn(async move { source.migrate_p2p(VM, call).await });
    let moving = async {
        loop {
            match pair.source.job_progress(VM).await? {
                Some(job) if job.data.processed > 0 => return Ok::<_, anyhow::Error>(job),
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    let job = tokio::time::timeout(Duration::from_secs(30), moving).await.context("no progress")??;
    ensure!(job.outcome == JobOutcome::Running && job.data.remaining > 0, "{job:?}");
    pair.source.abort_job(VM).await?;
    ensure!(tokio::time::timeout(Duration::from_secs(30), migration).await??.is_err(), "it was not aborted");
    ensure!(pair.source.state(VM).await? == VmState::Running);
    ensure!(pair.target.presence(VM).await? == Presence::Absent);
    Ok(())
}
