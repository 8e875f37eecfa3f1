//! A small ledger for tests: hosts, machines and jobs in a line each.

use novacron_common::{
    api::{HostState, JobCreate},
    ids::{ClusterId, HostId, JobId, MigrationId, TokenId, VmId},
    record::{Accel, HostAddresses, HostCapacity, HostHello, MoveLimits, VmObservation, VmState},
    spec::{
        BootSource, CommandTarget, HealthSpec, JobSpec, JobTarget, MachineKind, Mobility, Name, NetworkSpec,
        Program, RestartPolicy, Root, Sha256Digest, TemplateSpec, VmSpec,
    },
    units::{ByteCount, Epoch, Generation, Incarnation, UnixMillis},
    wire::JoinPurpose,
};
use novacron_core::{
    Applied, Command, CommandBody, Refusal, State,
    command::{ClusterInit, HostDown, JobPut, JoinTokenPut, JoinTokenUse, MigrationAsk, VmCreate, VmObserve},
    forecast::Measures,
};

pub const NOON: UnixMillis = UnixMillis(1_790_000_000_000);

pub struct World {
    pub state: State,
    pub now: UnixMillis,
    index: u64,
}

pub fn name(text: &str) -> Name {
    text.parse().expect("a good name")
}

pub fn capacity() -> HostCapacity {
    HostCapacity { cpus: 8, memory: ByteCount::gib(16), storage: ByteCount::gib(100) }
}

pub fn hello(host: HostId, host_name: &str) -> HostHello {
    HostHello {
        host,
        name: name(host_name),
        incarnation: Incarnation(1),
        version: "0.1.0".into(),
        addresses: HostAddresses { quic: "10.0.0.1:8092".parse().unwrap() },
        capacity: capacity(),
        accel: Accel::Tcg,
        can_kvm: true,
        can_namespace: true,
        features: Vec::new(),
    }
}

pub fn template_spec(template: &str) -> TemplateSpec {
    TemplateSpec { name: name(template), boot: BootSource::Disk, disk: None }
}

pub fn vm_spec(vm: &str) -> VmSpec {
    VmSpec {
        name: name(vm),
        kind: MachineKind::Kvm,
        cpus: 2,
        memory: ByteCount::gib(4),
        storage: ByteCount::gib(10),
        template: template_spec("debian"),
        cmdline: None,
        network: NetworkSpec::default(),
        cloud_init: None,
        restart: RestartPolicy::Never,
        mobility: Mobility::Usual,
        health: HealthSpec::default(),
        volumes: Vec::new(),
    }
}

pub fn job_spec(job: &str, schedule: &str) -> JobSpec {
    let body = JobCreate { name: job.into(), schedule: schedule.into(), ..JobCreate::default() };
    let spec = JobSpec::try_from(&body).expect("a good job");
    JobSpec { timeout_ms: 30_000, ..spec }
}

pub fn command_target() -> JobTarget {
    JobTarget::Command(CommandTarget {
        program: Program::new(["/bin/true"]),
        memory_max: ByteCount::mib(64),
        pids_max: 16,
        cpu_millis: 1000,
        root: Root::Host,
    })
}

pub fn vm_create(id: u128, spec: VmSpec) -> CommandBody {
    CommandBody::VmCreate(Box::new(VmCreate {
        id: VmId::from_u128(id),
        spec,
        host: None,
        offer: None,
        start: true,
    }))
}

pub fn seen(vm: VmId, epoch: u64, state: VmState) -> VmObservation {
    VmObservation {
        vm,
        epoch: Epoch(epoch),
        generation: Generation(1),
        state,
        health: None,
        message: None,
        progress: None,
        addresses: Vec::new(),
        restarted: 0,
        ran: state == VmState::Running,
        cpu_ms: 0,
        memory: ByteCount(0),
        since: NOON,
    }
}

/// Of an answer that has to be a refusal.
pub fn refusal(applied: Applied) -> Refusal {
    match applied {
        Applied::Refused(refusal) => refusal,
        other => panic!("was not refused: {other:?}"),
    }
}

impl World {
    pub fn new() -> Self {
        let mut world = Self { state: State::default(), now: NOON, index: 0 };
        let init = ClusterInit { cluster: ClusterId::from_u128(1), ca_cert: vec![1], sealed_ca_key: vec![2] };
        assert_eq!(world.apply(CommandBody::ClusterInit(init)), Applied::Done);
        world
    }

    /// With hosts `a`, `b`, … of 8 processors, 16 GiB of RAM and 100 GiB of disk, up.
    pub fn with_hosts(count: u8) -> (Self, Vec<HostId>) {
        let mut world = Self::new();
        let hosts = (0..count).map(|n| world.host(&char::from(b'a' + n).to_string())).collect();
        (world, hosts)
    }

    pub fn apply(&mut self, body: CommandBody) -> Applied {
        self.index += 1;
        self.state.apply(self.index, Command { at: self.now, body })
    }

    /// Applies what must not be refused.
    pub fn ok(&mut self, body: CommandBody) -> Applied {
        let shown = format!("{body:?}");
        self.apply(body).accepted().unwrap_or_else(|refusal| panic!("{shown} was refused: {refusal:?}"))
    }

    pub fn refused(&mut self, body: CommandBody) -> Refusal {
        let before: Vec<_> = self.state.rows().collect();
        let refusal = refusal(self.apply(body));
        assert_eq!(before, self.state.rows().collect::<Vec<_>>(), "a refusal changed something");
        refusal
    }

    pub fn host(&mut self, host_name: &str) -> HostId {
        let number = self.state.hosts().len() as u128 + 1;
        let (id, token) = (HostId::from_u128(number), TokenId::from_u128(1000 + number));
        let secret_sha256 = Sha256Digest([7; 32]);
        let expires_at = UnixMillis(i64::MAX);
        let role = novacron_common::api::JoinTokenRole::Agent;
        self.ok(CommandBody::JoinTokenPut(JoinTokenPut {
            id: token,
            secret_sha256,
            role,
            expires_at,
            replaces: None,
        }));
        let purpose = JoinPurpose::Agent { name: name(host_name), rejoin: None };
        let joined = self.ok(CommandBody::JoinTokenUse(JoinTokenUse {
            id: token,
            secret_sha256,
            purpose,
            new_host: id,
        }));
        assert_eq!(joined, Applied::Enrolled { host: Some(id), node: None });
        self.up(id, host_name);
        id
    }

    pub fn up(&mut self, host: HostId, host_name: &str) {
        self.ok(CommandBody::HostHello(Box::new(hello(host, host_name))));
        assert_eq!(self.state.host(host).unwrap().state, HostState::Up);
    }

    pub fn down(&mut self, host: HostId) {
        let silent_since = self.now;
        self.ok(CommandBody::HostDown(HostDown { host, silent_since }));
        assert_eq!(self.state.host(host).unwrap().state, HostState::Down);
    }

    /// A machine that is placed by the core.
    pub fn vm(&mut self, vm: &str) -> (VmId, HostId) {
        let number = 100 + self.state.vms().len() as u128;
        match self.ok(vm_create(number, vm_spec(vm))) {
            Applied::VmCreated { vm, host } => (vm, host),
            other => panic!("not created: {other:?}"),
        }
    }

    /// A machine that runs.
    pub fn running_vm(&mut self, vm: &str) -> (VmId, HostId) {
        let (vm, host) = self.vm(vm);
        self.see(host, seen(vm, 1, VmState::Running));
        assert_eq!(self.state.vm(vm).unwrap().state, VmState::Running);
        (vm, host)
    }

    /// A host that has heard the last wish says what it sees.
    pub fn see(&mut self, host: HostId, observation: VmObservation) {
        let generation = self.state.vm(observation.vm).unwrap().generation;
        self.see_late(host, VmObservation { generation, ..observation });
    }

    /// As it says it, whatever wishes it has heard.
    pub fn see_late(&mut self, host: HostId, observation: VmObservation) {
        self.ok(CommandBody::VmObserve(VmObserve { host, observations: vec![observation] }));
    }

    pub fn job(&mut self, spec: JobSpec) -> JobId {
        let id = JobId::from_u128(500 + self.state.jobs().len() as u128);
        let now = self.now;
        self.ok(CommandBody::JobPut(Box::new(JobPut::new(id, spec, now))));
        id
    }

    pub fn ask(&self, number: u128, vm: VmId, target: HostId, live: bool) -> CommandBody {
        let id = MigrationId::from_u128(number);
        CommandBody::MigrationAsk(Box::new(MigrationAsk {
            id,
            vm,
            target,
            live,
            limits: MoveLimits::default(),
            gang: None,
            secret: [9; 32],
            placement: None,
            measures: Measures::default(),
        }))
    }

    /// What a store would give back is what is there: rows and everything derived from them.
    pub fn assert_reloads(&mut self) {
        self.state.take_changes();
        assert!(self.reloaded() == self.state, "a reload gives another state");
    }

    /// The ledger as a store would give it back.
    pub fn reloaded(&self) -> State {
        State::load(self.state.rows()).expect("rows that were just encoded")
    }
}
