//! What a fake agent holds, and what it does with a command.

use super::capacity;
use novacron_common::{
    ids::{AttemptKey, HostId, MigrationId, VmId},
    record::{
        AttemptEnd, AttemptOutcome, AttemptReport, Climb, DirtyRate, GuestMeasure, GuestTraits, HostStatus,
        InboundState, LinkMeasure, MemoryTraffic, MigrationReport, OutboundState, Output, PreflightFault,
        SentPages, SideState, TransferCounts, VmAction, VmAssignment, VmObservation, VmState, VmStatistics,
        VolumeSeen,
    },
    spec::JobTarget,
    units::{ByteCount, Epoch, Generation, Incarnation, UnixMillis},
    wire::{
        AgentCommand, AgentReply, AttemptStart, ControlRequest, Denial, DenialCode, Directory, LogChunk,
        StreamKind, VmAct,
    },
};
use novacron_coordinator::identity::now;
use novacron_transport::{Link, Stream};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::sync::watch;

/// What the agent holds.
pub struct World {
    pub host: HostId,
    pub state: Mutex<State>,
    pub changed: watch::Sender<u64>,
    pub directory: watch::Sender<Directory>,
    pub link: watch::Sender<Option<Link>>,
}

#[derive(Default)]
pub struct State {
    pub vms: BTreeMap<VmId, VmObservation>,
    pub sides: BTreeMap<MigrationId, SideState>,
    pub attempts: Vec<AttemptKey>,
    pub log: Vec<String>,
    pub volumes: Vec<VolumeSeen>,
    /// Where the source sends to.
    pub peers: BTreeMap<HostId, Arc<World>>,
    /// The target says that it is not ready until this is cleared.
    pub hold_inbound: bool,
    /// Attempts end only once this is cleared.
    pub hold_attempts: bool,
    /// What speaks against a machine's arrival here.
    pub faults: Vec<PreflightFault>,
    /// So many more attempts are told that there is no room.
    pub full_for: u32,
}

impl World {
    pub fn new(host: HostId) -> Self {
        Self {
            host,
            state: Mutex::default(),
            changed: watch::Sender::new(0),
            directory: watch::Sender::default(),
            link: watch::Sender::new(None),
        }
    }

    pub fn status(&self, sequence: u64) -> HostStatus {
        HostStatus {
            incarnation: Incarnation(1),
            sequence,
            capacity: capacity(),
            load_millis: 0,
            memory_available: ByteCount::gib(8),
            vms: self.state.lock().unwrap().vms.values().cloned().collect(),
            foreign_domains: Vec::new(),
        }
    }

    fn note(&self, text: String) {
        self.state.lock().unwrap().log.push(text);
        self.changed.send_modify(|n| *n += 1);
    }

    pub fn obey(self: &Arc<Self>, command: AgentCommand) -> AgentReply {
        match command {
            AgentCommand::AssignVm(assignment) => self.assign(assignment),
            AgentCommand::ObserveVm(vm) => AgentReply::Vm(self.state.lock().unwrap().vms.get(&vm).cloned()),
            AgentCommand::ConsoleLog { .. } => AgentReply::Bytes(b"login: ".to_vec()),
            AgentCommand::StartAttempt(start) => self.attempt(start),
            AgentCommand::AttemptLog { .. } | AgentCommand::MachineLog { .. } => AgentReply::Accepted,
            AgentCommand::ActOnVm { vm, act, .. } => {
                let state = match act {
                    VmAct::Pause | VmAct::Checkpoint { leave_running: false } => VmState::Paused,
                    VmAct::Resume | VmAct::Restore | VmAct::Checkpoint { leave_running: true } => {
                        VmState::Running
                    }
                    VmAct::Signal(_) => VmState::Stopped,
                };
                self.state.lock().unwrap().vms.entry(vm).and_modify(|seen| seen.state = state);
                self.note(format!("{act:?}"));
                AgentReply::AlreadySo
            }
            AgentCommand::CountVm(_) => AgentReply::Counted(VmStatistics {
                cpu_ms: 1500,
                processes: Some(3),
                ..VmStatistics::none(UnixMillis(7))
            }),
            AgentCommand::ListVolumes => AgentReply::Volumes(self.state.lock().unwrap().volumes.clone()),
            AgentCommand::RemoveVolume(name) => {
                let volumes = &mut self.state.lock().unwrap().volumes;
                let before = volumes.len();
                volumes.retain(|volume| volume.name != name);
                if volumes.len() < before { AgentReply::Accepted } else { AgentReply::AlreadySo }
            }
            AgentCommand::PrepareInbound { ticket, .. } => {
                self.note("prepare".into());
                let hold = self.state.lock().unwrap().hold_inbound;
                let state = if hold { InboundState::Preparing } else { InboundState::Ready };
                self.side(ticket.migration, SideState::Inbound(state))
            }
            AgentCommand::StartOutbound { ticket, limits, .. } => {
                self.note("start".into());
                self.note(format!("{limits:?}"));
                self.send_guest(ticket.migration, ticket.vm, ticket.target)
            }
            AgentCommand::ResumeInbound { migration, vm, epoch, .. } => {
                self.note("resume".into());
                self.put(vm, (epoch, Generation(0)), VmState::Running, 0);
                self.side(migration, SideState::Inbound(InboundState::Running))
            }
            AgentCommand::OpenInbound { .. } => AgentReply::Accepted,
            AgentCommand::SplitOutbound { migration, .. } => {
                self.note("split".into());
                self.side(migration, SideState::Outbound(OutboundState::Split(Default::default())))
            }
            AgentCommand::AbandonInbound { migration, reason } => {
                self.side(migration, SideState::Inbound(InboundState::Lost { reason }))
            }
            AgentCommand::ReleaseOutbound { migration, .. } => {
                self.note("release".into());
                self.side(migration, SideState::Outbound(OutboundState::Released))
            }
            AgentCommand::CancelOutbound { migration, reason } => {
                self.note("cancel".into());
                let back = OutboundState::Back { reason, cancelled: true, climb: Climb::default() };
                self.side(migration, SideState::Outbound(back))
            }
            AgentCommand::DiscardInbound { migration, reason, .. } => {
                self.note("discard".into());
                self.side(migration, SideState::Inbound(InboundState::Discarded { reason }))
            }
            AgentCommand::ObserveMigration(migration) => AgentReply::Migration(
                self.state.lock().unwrap().sides.get(&migration).cloned().into_iter().collect(),
            ),
            AgentCommand::MeasureGuest { candidates, .. } => {
                self.note("measure".into());
                self.measured(&candidates)
            }
            AgentCommand::CheckInbound { traits, .. } => {
                self.note(format!("check {}", traits.is_some()));
                AgentReply::Checked(self.state.lock().unwrap().faults.clone())
            }
            AgentCommand::FetchImages(_) | AgentCommand::KillAttempt { .. } | AgentCommand::Directory(_) => {
                AgentReply::Accepted
            }
        }
    }

    /// A guest that writes to 1 MiB a second of 16, over ways of 100 MB/s.
    fn measured(&self, candidates: &[HostId]) -> AgentReply {
        let guest = GuestMeasure {
            in_use_bytes: Some(64 << 20),
            disk_bytes: 1 << 20,
            dirty: Some(DirtyRate { bytes_per_second: 1 << 20, working_set_bytes: 16 << 20 }),
            traits: Some(GuestTraits {
                virt_type: "kvm".into(),
                arch: "x86_64".into(),
                machine: "pc-q35-10.0".into(),
                cpu_xml: "<cpu/>".into(),
            }),
            notes: Vec::new(),
        };
        let way = |host: &HostId| LinkMeasure {
            host: *host,
            rate: Some(100_000_000),
            round_trip_us: Some(200),
            note: None,
        };
        AgentReply::Measured(Box::new(guest), candidates.iter().map(way).collect())
    }

    fn assign(&self, assignment: VmAssignment) -> AgentReply {
        let VmAssignment { vm, epoch, generation, action, .. } = assignment;
        let under = (epoch, generation);
        match action {
            VmAction::Run => self.put(vm, under, VmState::Running, 0),
            VmAction::Stop { .. } => self.put(vm, under, VmState::Stopped, 0),
            VmAction::Restart { request, .. } => self.put(vm, under, VmState::Running, request),
            VmAction::Delete => drop(self.state.lock().unwrap().vms.remove(&vm)),
        }
        self.note(format!("{action:?}"));
        AgentReply::Accepted
    }

    fn put(&self, vm: VmId, (epoch, generation): (Epoch, Generation), state: VmState, restarted: u64) {
        let mut world = self.state.lock().unwrap();
        let restarted = world.vms.get(&vm).map_or(0, |old| old.restarted).max(restarted);
        let observation = VmObservation {
            vm,
            epoch,
            generation,
            state,
            health: None,
            message: None,
            progress: None,
            addresses: vec!["10.0.0.7".parse().unwrap()],
            restarted,
            ran: state == VmState::Running,
            cpu_ms: 5,
            memory: ByteCount::mib(64),
            since: UnixMillis(1),
        };
        world.vms.insert(vm, observation);
    }

    fn side(&self, migration: MigrationId, side: SideState) -> AgentReply {
        self.state.lock().unwrap().sides.insert(migration, side);
        AgentReply::Accepted
    }

    /// The guest is at once gone here and complete there; both sides say so only when they are asked.
    fn send_guest(&self, migration: MigrationId, vm: VmId, target: HostId) -> AgentReply {
        let peer = self.state.lock().unwrap().peers[&target].clone();
        self.state.lock().unwrap().vms.remove(&vm);
        peer.side(migration, SideState::Inbound(InboundState::Arrived));
        let zero = SentPages { pages: 5, bytes: 0 };
        let memory = MemoryTraffic { written_bytes: 9000, wire_bytes: 40, zero, ..MemoryTraffic::default() };
        let counts = TransferCounts { memory_bytes: 40, memory, ..TransferCounts::default() };
        let report = MigrationReport { counts, copy_ms: 7, iterations: 2, ..MigrationReport::default() };
        self.side(migration, SideState::Outbound(OutboundState::Gone(report)))
    }

    /// It prints its name and succeeds; the end is reported like a real one. `fail` fails, and `result X` leaves X.
    fn attempt(self: &Arc<Self>, start: AttemptStart) -> AgentReply {
        {
            let mut state = self.state.lock().unwrap();
            if state.attempts.contains(&start.attempt) {
                return AgentReply::AlreadySo;
            }
            if let Some(left) = state.full_for.checked_sub(1) {
                state.full_for = left;
                return AgentReply::Denied(Denial {
                    code: DenialCode::NoRoom,
                    text: "it runs 1 of 1".into(),
                });
            }
            state.attempts.push(start.attempt);
        }
        let world = self.clone();
        tokio::spawn(async move {
            while world.state.lock().unwrap().hold_attempts {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            world.report_end(&start).await;
        });
        AgentReply::Accepted
    }

    /// The beginning of what an attempt prints; the rest comes with its end, which follows.
    pub async fn print(&self, stream: &mut Stream) {
        stream.send(&LogChunk { at: 0, bytes: b"hello ".to_vec() }).await.unwrap();
        stream.send(&LogChunk { at: 6, bytes: Vec::new() }).await.unwrap();
        self.state.lock().unwrap().hold_attempts = false;
    }

    async fn report_end(&self, start: &AttemptStart) {
        let argv: &[String] = match &start.target {
            JobTarget::Command(command) => &command.program.argv,
            _ => &[],
        };
        let verb = argv.first().map_or("", String::as_str);
        let end = AttemptEnd {
            outcome: AttemptOutcome::Exited(i32::from(verb == "fail")),
            started_at: Some(now()),
            ended_at: now(),
            output: Output {
                head: format!("hello from {}", self.host).into_bytes(),
                tail: Vec::new(),
                total: 40,
            },
            result: argv.get(1).filter(|_| verb == "result").cloned(),
        };
        let report = AttemptReport { attempt: start.attempt, epoch: start.epoch, end };
        let link = self.link.subscribe().wait_for(Option::is_some).await.unwrap().clone().unwrap();
        let mut stream = link.open(StreamKind::Control).await.unwrap();
        stream.send(&ControlRequest::AttemptEnded(report)).await.unwrap();
        stream.finish();
        stream.recv::<()>().await.expect("the report is acknowledged once it is committed");
    }
}
