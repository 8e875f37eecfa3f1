//! The migration saga against every interleaving of a small world: both agents, a copy that may end in any of
//! libvirt's ways, lost and late calls, a leader that forgets, a target host that crashes, an impatient user.

use crate::world::World;
use novacron_common::{
    api::MigrationState,
    ids::{HostId, MigrationId, VmId},
    record::{Climb, InboundState, MigrationReport, OutboundState, SideState},
    wire::codec,
};
use novacron_core::{
    Applied, Command, CommandBody, State,
    command::{Handover, MigrationObserve},
    migration::saga::{SagaAction, next},
    record::MigrationRecord,
};
use std::collections::{BTreeSet, VecDeque};

const MIGRATION: MigrationId = MigrationId::from_u128(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Idle,
    Copying,
    Gone,
    Back,
    Released,
}

impl Source {
    /// Whether the guest is here, running.
    fn has_guest(self) -> bool {
        matches!(self, Self::Idle | Self::Copying | Self::Back)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    Idle,
    Ready,
    Receiving,
    Arrived,
    Running,
    Discarded,
}

#[derive(Debug, Clone, PartialEq)]
struct Seen {
    host: HostId,
    side: SideState,
    asked_at_step: Option<u64>,
}

/// Two hosts, one guest, one ledger.
#[derive(Clone)]
struct Node {
    state: State,
    vm: VmId,
    source_host: HostId,
    target_host: HostId,
    source: Source,
    target: Target,
    /// The target's libvirtd said "finished", so the source's may hear it.
    finished: bool,
    crashed: bool,
    late_call: Option<SagaAction>,
    answers: Vec<Seen>,
    faults_left: u8,
    may_cancel: bool,
    /// Agents write down a cancel of what they do not know (the contract); without it a late start slips through.
    tombstones: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Event {
    /// The reconciler acts; the first `delivered` calls arrive, the next one is late if `late`, the rest is lost.
    Act {
        delivered: usize,
        late: bool,
    },
    Commit(usize),
    LateArrives,
    LeaderForgets,
    TargetComplete,
    SourceHears,
    CopyFails,
    TargetCrashes,
    Cancel,
}

#[derive(Debug)]
struct Violation(String);

impl Node {
    fn new(faults: u8, tombstones: bool) -> Self {
        let (mut world, hosts) = World::with_hosts(2);
        let (vm, source_host) = world.running_vm("guest");
        let target_host = hosts.into_iter().find(|h| *h != source_host).unwrap();
        let ask = world.ask(1, vm, target_host, true);
        world.ok(ask);
        world.state.take_changes();
        Self {
            state: world.state,
            vm,
            source_host,
            target_host,
            source: Source::Idle,
            target: Target::Idle,
            finished: false,
            crashed: false,
            late_call: None,
            answers: Vec::new(),
            faults_left: faults,
            may_cancel: true,
            tombstones,
        }
    }

    fn record(&self) -> &MigrationRecord {
        self.state.migration(MIGRATION).unwrap()
    }

    fn key(&self) -> Vec<u8> {
        let vm = self.state.vm(self.vm).unwrap();
        let world = format!(
            "{:?}",
            (
                self.source,
                self.target,
                self.finished,
                self.crashed,
                self.late_call,
                &self.answers,
                self.faults_left
            )
        );
        let rest = (self.may_cancel, vm.placed_on, vm.epoch, world);
        codec::encode(&(self.record(), rest)).unwrap()
    }

    fn events(&self) -> Vec<Event> {
        const ANSWERS_MAX: usize = 2;
        let calls = next(self.record()).len();
        let mut events = Vec::new();
        if self.answers.len() < ANSWERS_MAX {
            events.extend((1..=calls).map(|delivered| Event::Act { delivered, late: false }));
        }
        if self.faults_left > 0 {
            if self.late_call.is_none() {
                events.extend((0..calls).map(|delivered| Event::Act { delivered, late: true }));
            }
            events.extend([Event::CopyFails, Event::TargetCrashes, Event::LeaderForgets]);
        }
        events.extend((0..self.answers.len()).map(Event::Commit));
        events.extend([Event::LateArrives, Event::TargetComplete, Event::SourceHears, Event::Cancel]);
        events.retain(|event| self.can(*event));
        events
    }

    fn can(&self, event: Event) -> bool {
        match event {
            Event::LateArrives => self.late_call.is_some(),
            Event::LeaderForgets => !self.answers.is_empty(),
            Event::TargetComplete => (self.source, self.target) == (Source::Copying, Target::Receiving),
            Event::SourceHears => self.source == Source::Copying && self.finished,
            Event::CopyFails => self.source == Source::Copying,
            Event::TargetCrashes => {
                matches!(self.target, Target::Ready | Target::Receiving | Target::Arrived)
            }
            Event::Cancel => self.may_cancel,
            Event::Act { .. } | Event::Commit(_) => true,
        }
    }

    fn step(&mut self, event: Event) -> Result<(), Violation> {
        match event {
            Event::Act { delivered, late } => self.act(delivered, late)?,
            Event::Commit(n) => {
                let seen = self.answers.remove(n);
                self.commit(seen);
            }
            Event::LateArrives => {
                if let Some(action) = self.late_call.take() {
                    self.deliver(action)?;
                }
            }
            Event::LeaderForgets => {
                self.faults_left -= 1;
                self.answers.clear();
            }
            Event::TargetComplete => {
                self.target = Target::Arrived;
                self.finished = true;
            }
            Event::SourceHears => self.source = Source::Gone,
            Event::CopyFails => {
                self.faults_left -= 1;
                self.source = Source::Back;
            }
            Event::TargetCrashes => {
                self.faults_left -= 1;
                self.crashed = true;
                self.target = Target::Discarded;
            }
            Event::Cancel => {
                self.may_cancel = false;
                self.apply(CommandBody::MigrationCancel { id: MIGRATION });
            }
        }
        self.check()
    }

    fn apply(&mut self, body: CommandBody) -> Applied {
        let at = self.state.now();
        let applied = self.state.apply(1, Command { at, body });
        self.state.take_changes();
        applied
    }

    fn commit(&mut self, seen: Seen) {
        let Seen { host, side, asked_at_step } = seen;
        self.apply(CommandBody::MigrationObserve(Box::new(MigrationObserve {
            id: MIGRATION,
            host,
            side,
            asked_at_step,
        })));
    }

    fn act(&mut self, delivered: usize, late: bool) -> Result<(), Violation> {
        let step = self.record().step;
        let actions = next(self.record());
        for action in &actions[..delivered] {
            match action {
                SagaAction::ObserveSource => self.answers.push(self.ask_source(step)),
                SagaAction::ObserveTarget => self.answers.push(self.ask_target(step)),
                call => self.deliver(*call)?,
            }
        }
        if late {
            self.faults_left -= 1;
            self.late_call = Some(actions[delivered]);
        }
        Ok(())
    }

    fn ask_source(&self, step: u64) -> Seen {
        let side = match self.source {
            Source::Idle => OutboundState::Unknown,
            Source::Copying => OutboundState::Connecting,
            Source::Gone => OutboundState::Gone(MigrationReport::default()),
            Source::Back => {
                OutboundState::Back { reason: "back".into(), cancelled: false, climb: Climb::default() }
            }
            Source::Released => OutboundState::Released,
        };
        Seen { host: self.source_host, side: SideState::Outbound(side), asked_at_step: Some(step) }
    }

    fn ask_target(&self, step: u64) -> Seen {
        let side = match self.target {
            Target::Idle => InboundState::Unknown,
            Target::Ready => InboundState::Ready,
            Target::Receiving => InboundState::Receiving,
            Target::Arrived => InboundState::Arrived,
            Target::Running => InboundState::Running,
            Target::Discarded => InboundState::Discarded { reason: "discarded".into() },
        };
        Seen { host: self.target_host, side: SideState::Inbound(side), asked_at_step: Some(step) }
    }

    /// A call arrives at its agent, possibly late.
    fn deliver(&mut self, action: SagaAction) -> Result<(), Violation> {
        match action {
            SagaAction::AwaitTurn
            | SagaAction::AwaitStop
            | SagaAction::ObserveSource
            | SagaAction::ObserveTarget => (),
            SagaAction::Handover => return self.hand_over(),
            SagaAction::PrepareInbound if self.target == Target::Idle => self.target = Target::Ready,
            SagaAction::StartOutbound if self.source == Source::Idle => self.start(),
            SagaAction::ResumeInbound if self.target == Target::Arrived => self.target = Target::Running,
            SagaAction::ReleaseOutbound if self.source == Source::Gone => self.source = Source::Released,
            SagaAction::CancelOutbound if self.source == Source::Copying => self.source = Source::Back,
            SagaAction::CancelOutbound if self.source == Source::Idle && self.tombstones => {
                self.source = Source::Back;
            }
            SagaAction::DiscardInbound => return self.discard(),
            SagaAction::PrepareInbound
            | SagaAction::StartOutbound
            | SagaAction::ResumeInbound
            | SagaAction::ReleaseOutbound
            | SagaAction::CancelOutbound => (),
        }
        Ok(())
    }

    fn start(&mut self) {
        (self.source, self.target) = match self.target {
            Target::Ready => (Source::Copying, Target::Receiving),
            refused => (Source::Back, refused),
        };
    }

    fn discard(&mut self) -> Result<(), Violation> {
        if self.target == Target::Arrived && !self.source.has_guest() {
            return Err(Violation("the only copy of the guest was discarded".into()));
        }
        if self.target != Target::Running {
            self.target = Target::Discarded;
        }
        Ok(())
    }

    fn hand_over(&mut self) -> Result<(), Violation> {
        let record = self.record();
        let handover =
            Handover { migration: MIGRATION, vm: self.vm, to: self.target_host, expect_epoch: record.epoch };
        let before = record.handed_over;
        self.apply(CommandBody::Handover(handover));
        let fair = self.source == Source::Gone && (self.target == Target::Arrived || self.crashed);
        match self.record().handed_over && !before && !fair {
            true => Err(Violation(format!("handed over from {:?} to {:?}", self.source, self.target))),
            false => Ok(()),
        }
    }

    fn check(&self) -> Result<(), Violation> {
        let fail = |text: &str| Err(Violation(format!("{text}: {:?} {:?}", self.source, self.target)));
        let vm = self.state.vm(self.vm).unwrap();
        if self.source.has_guest() && self.target == Target::Running {
            return fail("the guest runs twice");
        }
        if self.target == Target::Running && vm.placed_on != Some(self.target_host) {
            return fail("the guest runs where the ledger does not have it");
        }
        match self.record().state {
            MigrationState::Completed
                if self.target != Target::Running || self.source != Source::Released =>
            {
                fail("completed, but not fully there")
            }
            MigrationState::Failed | MigrationState::Cancelled => self.check_back(),
            _ => Ok(()),
        }
    }

    fn check_back(&self) -> Result<(), Violation> {
        let vm = self.state.vm(self.vm).unwrap();
        let clean = matches!(self.target, Target::Idle | Target::Ready | Target::Discarded);
        let lost_with_target = self.source == Source::Gone && self.crashed;
        let free = self.state.index().usage(self.target_host).claims == 0;
        match clean && (self.source.has_guest() || lost_with_target) && free && vm.migration.is_none() {
            true => Ok(()),
            false => {
                Err(Violation(format!("ended, but not fully back: {:?} {:?}", self.source, self.target)))
            }
        }
    }

    /// One round without faults: what is on its way arrives, the copy goes well, the reconciler acts.
    fn fair_round(&mut self) -> Result<(), Violation> {
        self.step(Event::LateArrives)?;
        while !self.answers.is_empty() {
            self.step(Event::Commit(0))?;
        }
        for event in [Event::TargetComplete, Event::SourceHears] {
            if self.can(event) {
                self.step(event)?;
            }
        }
        let delivered = next(self.record()).len();
        self.step(Event::Act { delivered, late: false })
    }
}

/// Worlds from which the saga is known to end without further faults, and the ends that were seen.
#[derive(Default)]
struct Ends {
    known: BTreeSet<Vec<u8>>,
    seen: BTreeSet<String>,
}

impl Ends {
    /// Runs on without faults until the end, or a world that is known to get there.
    fn settle(&mut self, mut node: Node) -> Result<(), Violation> {
        const ROUNDS_MAX: usize = 40;
        let mut path = Vec::new();
        while !node.record().is_final() {
            let key = node.key();
            if self.known.contains(&key) {
                break;
            }
            path.push(key);
            if path.len() > ROUNDS_MAX {
                let text = format!("does not end: {:?} {:?} {:?}", node.record(), node.source, node.target);
                return Err(Violation(text));
            }
            node.fair_round()?;
        }
        if node.record().is_final() {
            self.seen.insert(format!("{:?}", node.record().state));
        }
        self.known.extend(path);
        Ok(())
    }
}

struct Explored {
    nodes: usize,
    ends: BTreeSet<String>,
}

fn explore(start: Node) -> Result<Explored, (Violation, Vec<Event>)> {
    let mut known = BTreeSet::from([start.key()]);
    let mut ends = Ends::default();
    let mut queue = VecDeque::from([(start, Vec::new())]);
    while let Some((node, path)) = queue.pop_front() {
        ends.settle(node.clone()).map_err(|violation| (violation, path.clone()))?;
        for event in node.events() {
            let mut after = node.clone();
            let mut path = path.clone();
            path.push(event);
            after.step(event).map_err(|violation| (violation, path.clone()))?;
            if known.insert(after.key()) {
                queue.push_back((after, path));
            }
        }
    }
    Ok(Explored { nodes: known.len(), ends: ends.seen })
}

#[test]
fn every_interleaving_ends_with_one_guest_fully_there_or_fully_back() {
    let explored = explore(Node::new(2, true)).unwrap_or_else(|(violation, path)| {
        panic!("{}\nafter {path:#?}", violation.0);
    });
    println!("{} different worlds, ends {:?}", explored.nodes, explored.ends);
    assert!(explored.nodes > 10_000, "only {} worlds: the exploration lost its reach", explored.nodes);
    let all = ["Cancelled", "Completed", "Failed"].map(String::from);
    assert_eq!(explored.ends, BTreeSet::from(all));
}

#[test]
fn the_exploration_catches_agents_that_forget_a_cancel() {
    let (violation, path) = explore(Node::new(2, false)).err().expect("a late start should have been caught");
    assert!(violation.0.contains("only copy"), "{violation:?} after {path:?}");
}
