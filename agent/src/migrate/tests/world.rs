//! Two hosts on loopback, and what their agents' migrations need.

use super::libvirt::{FakeLibvirt, Faults, PlayedHypervisor};
use crate::{
    handover,
    hypervisor::MachineFiles,
    migrate::{
        Directory, Migrations, MigrationsParts, Pacer, QemuProcesses, QuicRoads, SocketRoom,
        channels::Channels,
        checkpoint::{Checkpoints, Limits},
        journal::Record,
        legacy::Inheritance,
        ports::{Failure, Journal, Landing, Residents, Standing},
    },
};
use async_trait::async_trait;
use novacron_common::{
    ids::{ClusterId, HostId, MigrationId, VmId},
    record::{MoveLimits, SideState, Strategy, Ticket, VmAction, VmAssignment},
    spec::{
        BootSource, HealthSpec, ImageFormat, ImageRef, ImageSource, MachineKind, Mobility, NetworkSpec,
        RestartPolicy, Sha256Digest, TemplateSpec, VmSpec,
    },
    units::{ByteCount, Epoch, Generation, UnixMillis},
    wire::{Denial, StreamKind},
};
use novacron_transport::{CertificateAuthority, Endpoint, Identity, IdentityCell, Role, certificate_request};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::sync::mpsc;

pub const CLUSTER: ClusterId = ClusterId::from_u128(1);
pub const A: HostId = HostId::from_u128(0xa);
pub const B: HostId = HostId::from_u128(0xb);
/// The machine of the recorded domain document.
pub const VM: VmId = VmId::from_u128(0x11);
pub const DOCUMENT: &str = include_str!("../filter/fixtures/expected.xml");
/// Short, so that what waits it out ends soon.
pub const GRACE: Duration = Duration::from_secs(3);
/// Longer than several ways that are quiet for too long, one after the other, as on a machine that has other things to do.
pub const PATIENCE: Duration = Duration::from_secs(150);

/// A CA and the endpoints under it.
pub struct Net(CertificateAuthority);

impl Net {
    pub fn new() -> Self {
        Self(CertificateAuthority::generate(CLUSTER, crate::clock::now()).unwrap())
    }

    pub fn endpoint(&self, host: HostId) -> Endpoint {
        self.endpoint_at(host, SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    pub fn endpoint_at(&self, host: HostId, address: SocketAddr) -> Endpoint {
        let (key, csr) = certificate_request().unwrap();
        let (role, validity) = (Role::Agent { host }, Duration::from_secs(600));
        let certificate = self.0.issue(&csr, &role, validity, crate::clock::now()).unwrap();
        let identity = Identity::new(CLUSTER, self.0.certificate_der(), &certificate, &key).unwrap();
        Endpoint::bind(address, Arc::new(IdentityCell::new(identity))).unwrap()
    }
}

/// Keeps records in memory; what is in it survives an agent.
#[derive(Default, Clone)]
pub struct MemoryJournal(Arc<Mutex<BTreeMap<MigrationId, Record>>>);

impl Journal for MemoryJournal {
    fn put(&self, migration: MigrationId, record: &Record) -> Result<(), Failure> {
        self.0.lock().unwrap().insert(migration, record.clone());
        Ok(())
    }
    fn remove(&self, migration: MigrationId) -> Result<(), Failure> {
        self.0.lock().unwrap().remove(&migration);
        Ok(())
    }
    fn list(&self) -> Result<Vec<(MigrationId, Record)>, Failure> {
        Ok(self.0.lock().unwrap().clone().into_iter().collect())
    }
}

/// A folder with a disk file.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn disk(&self) -> PathBuf {
        self.0.join("vm/disk.qcow2")
    }

    /// What lies below the disk, if anything does.
    pub fn image(&self) -> PathBuf {
        self.0.join("image.raw")
    }
}

#[async_trait]
impl Landing for Folder {
    async fn prepare(&self, _vm: VmId, _spec: &VmSpec) -> Result<MachineFiles, Failure> {
        let folder = self.0.join("vm");
        std::fs::create_dir_all(&folder)?;
        if !self.disk().exists() {
            std::fs::write(self.disk(), b"")?;
        }
        let backing = Some((self.image(), ImageFormat::Raw)).filter(|(image, _)| image.exists());
        Ok(MachineFiles { disk: Some(self.disk()), backing, ..MachineFiles::bare(folder) })
    }
    async fn remove(&self, _vm: VmId) -> Result<(), Failure> {
        let _ = std::fs::remove_dir_all(self.0.join("vm"));
        Ok(())
    }
}

/// Who lives here, under which epoch.
#[derive(Default, Clone)]
pub struct Owner {
    pub here: Arc<Mutex<BTreeMap<VmId, Epoch>>>,
    pub lent: Arc<Mutex<BTreeSet<VmId>>>,
    /// Of what arrived, what is to run.
    pub to_run: Arc<Mutex<BTreeMap<VmId, bool>>>,
}

#[async_trait]
impl Residents for Owner {
    async fn lend(&self, vm: VmId, _: MigrationId, epoch: Epoch) -> Result<(), Denial> {
        assert_eq!(self.here.lock().unwrap().get(&vm), Some(&epoch));
        self.lent.lock().unwrap().insert(vm);
        Ok(())
    }
    async fn give_back(&self, vm: VmId, _: MigrationId, _: bool) -> Result<(), Denial> {
        self.lent.lock().unwrap().remove(&vm);
        Ok(())
    }
    async fn arrived(&self, assignment: VmAssignment) -> Result<(), Denial> {
        let VmAssignment { vm, epoch, action, .. } = assignment;
        self.to_run.lock().unwrap().insert(vm, action == VmAction::Run);
        self.here.lock().unwrap().insert(vm, epoch);
        Ok(())
    }
    async fn settled(&self, vm: VmId, _: MigrationId) -> Result<(), Denial> {
        while self.lent.lock().unwrap().contains(&vm) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        Ok(())
    }
    async fn left(&self, vm: VmId, _: Epoch) -> Result<(), Denial> {
        self.here.lock().unwrap().remove(&vm);
        Ok(())
    }
    async fn holds(&self, vm: VmId) -> Result<bool, Denial> {
        Ok(self.here.lock().unwrap().contains_key(&vm))
    }
}

/// One host: what outlives its agent.
pub struct Host {
    pub id: HostId,
    pub folder: PathBuf,
    pub endpoint: Endpoint,
    pub journal: MemoryJournal,
    pub owner: Owner,
    pub hypervisor: Arc<PlayedHypervisor>,
    /// What its agent is told.
    pub channels: Channels,
    directory: Directory,
}

impl Host {
    fn new(
        id: HostId,
        folder: PathBuf,
        net: &Net,
        hypervisor: PlayedHypervisor,
        directory: Directory,
    ) -> Self {
        std::fs::create_dir_all(&folder).unwrap();
        Self {
            id,
            endpoint: net.endpoint(id),
            journal: MemoryJournal::default(),
            owner: Owner::default(),
            hypervisor: Arc::new(hypervisor),
            channels: Channels::Always(None),
            folder,
            directory,
        }
    }

    pub fn files(&self) -> Folder {
        Folder(self.folder.clone())
    }

    pub fn address(&self) -> SocketAddr {
        self.endpoint.local_addr().unwrap()
    }

    /// As its agent finds them when it starts.
    pub fn checkpoints(&self) -> Checkpoints {
        let (total, age) = (ByteCount::mib(64), Duration::from_secs(3600));
        let limits = Limits { total, age, reserve: ByteCount(0) };
        Checkpoints::open(self.folder.join("checkpoints"), limits, crate::clock::now).unwrap()
    }

    /// Ends its agent as a planned restart does, and starts the next one in its place.
    pub async fn restart(&mut self, net: &Net, agent: Agent) -> Agent {
        self.restart_with(net, agent, |image| image).await
    }

    /// As [`Host::restart`], with another image than was left.
    pub async fn restart_with(
        &mut self,
        net: &Net,
        agent: Agent,
        other: impl FnOnce(Vec<u8>) -> Vec<u8>,
    ) -> Agent {
        let left = agent.migrations.leave().await;
        assert_eq!(left.len(), 1, "the copy is left");
        let (image, sockets) = handover::image_of(left).unwrap();
        let left = handover::inheritances(&other(image), sockets).unwrap_or_default();
        self.endpoint.close_for_restart().await;
        drop(agent);
        self.endpoint = net.endpoint(self.id);
        self.agent_after(left)
    }

    /// Starts its agent's migrations, and serves lanes.
    pub fn agent(&self) -> Agent {
        self.agent_after(Vec::new())
    }

    fn agent_after(&self, left: Vec<Inheritance>) -> Agent {
        let go_on: Vec<_> = left.iter().map(Inheritance::migration).collect();
        let (changes, seen) = mpsc::channel(64);
        let uid = nix::unistd::Uid::current();
        let parts = MigrationsParts {
            host: self.id,
            roads: Arc::new(QuicRoads {
                endpoint: self.endpoint.clone(),
                sockets: SocketRoom::for_uid(&self.folder, uid, &go_on).unwrap(),
                libvirt_socket: self.folder.join("libvirt"),
                link_grace: GRACE,
                pacer: Pacer::default(),
                channels: self.channels,
                directory: self.directory.clone(),
            }),
            processes: Arc::new(QemuProcesses { libvirt_socket: self.folder.join("libvirt") }),
            mover: Some(Arc::new(self.hypervisor.clone())),
            files: Arc::new(self.files()),
            residents: Arc::new(self.owner.clone()),
            journal: Arc::new(self.journal.clone()),
            bridge: "novabr0".into(),
            checkpoints: self.checkpoints(),
            now: crate::clock::now,
            changes,
        };
        let migrations = Migrations::inherit(parts, left).unwrap();
        let serving = tokio::spawn(serve(self.endpoint.clone(), migrations.clone()));
        Agent { migrations, _changes: seen, serving }
    }
}

async fn serve(endpoint: Endpoint, migrations: Migrations) {
    while let Some(link) = endpoint.accept().await {
        let migrations = migrations.clone();
        tokio::spawn(async move {
            let Some(Role::Agent { host }) = link.peer().copied() else { return };
            while let Ok((kind, stream)) = link.accept().await {
                assert_eq!(kind, StreamKind::Lane);
                let migrations = migrations.clone();
                tokio::spawn(async move { migrations.accept_lane(host, stream).await });
            }
        });
    }
}

/// A running agent.
pub struct Agent {
    pub migrations: Migrations,
    _changes: mpsc::Receiver<(MigrationId, SideState)>,
    serving: tokio::task::JoinHandle<()>,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Agent {
    /// The state once it is one that `wanted` takes.
    pub async fn until(&self, id: MigrationId, wanted: impl Fn(&SideState) -> bool) -> SideState {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let states = self.migrations.observe(id).await;
            if let Some(state) = states.iter().find(|state| wanted(state)) {
                return state.clone();
            }
            assert!(tokio::time::Instant::now() < deadline, "it stayed at {states:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Two hosts; the machine runs on the first.
pub struct World {
    pub a: Host,
    pub b: Host,
    pub faults: Arc<Faults>,
    pub net: Net,
    _folder: tempfile::TempDir,
}

impl World {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (net, faults) = (Net::new(), Arc::new(Faults::default()));
        let (at_a, at_b) = (folder.path().join("a"), folder.path().join("b"));
        let played = |own: &Path, other: &Path| PlayedHypervisor::new(own, other, faults.clone());
        let b = Host::new(B, at_b.clone(), &net, played(&at_b, &at_a), Arc::new(|_| None));
        let address = b.address();
        let directory = Arc::new(move |host| (host == B).then_some(address));
        let a = Host::new(A, at_a.clone(), &net, played(&at_a, &at_b), directory);
        a.hypervisor.set(Standing::Running);
        a.owner.here.lock().unwrap().insert(VM, Epoch(1));
        for host in [&a, &b] {
            let (socket, hypervisor) = (host.folder.join("libvirt"), host.hypervisor.clone());
            FakeLibvirt { socket, hypervisor, faults: faults.clone() }.serve();
        }
        Self { a, b, faults, net, _folder: folder }
    }

    /// A machine must not run, or be about to run, in two places.
    pub fn check_one_runner(&self) {
        let running = [self.a.hypervisor.get() == Standing::Running, self.b.hypervisor.runs_as_target()];
        assert_ne!(running, [true, true], "two guests run");
    }
}

pub fn ticket(live: bool) -> Ticket {
    Ticket {
        migration: MigrationId::generate(),
        vm: VM,
        source: A,
        target: B,
        epoch: Epoch(1),
        generation: Generation(1),
        live,
        gang: None,
        secret: [7; 32],
        expires_at: UnixMillis(crate::clock::now().0 + 60_000),
    }
}

/// Limits of this strategy and no others.
pub fn by(strategy: Strategy) -> MoveLimits {
    MoveLimits { strategy, ..MoveLimits::default() }
}

pub fn spec() -> VmSpec {
    let image = |byte| ImageRef {
        sha256: Sha256Digest([byte; 32]),
        source: ImageSource::Path("/x".into()),
        format: ImageFormat::Raw,
    };
    let boot = BootSource::Kernel { kernel: image(1), initramfs: None, cmdline: String::new() };
    VmSpec {
        name: "web-1".parse().unwrap(),
        kind: MachineKind::Kvm,
        cpus: 2,
        memory: ByteCount::mib(256),
        storage: ByteCount::mib(64),
        template: TemplateSpec { name: "t".parse().unwrap(), boot, disk: None },
        cmdline: None,
        network: NetworkSpec::default(),
        cloud_init: None,
        restart: RestartPolicy::Never,
        mobility: Mobility::Usual,
        health: HealthSpec::default(),
        volumes: Vec::new(),
    }
}
