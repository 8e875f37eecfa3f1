//! The small world: what both hosts hold, what is on its way, what can happen next, and what must never be.

use crate::world::World;
use novacron_common::{
    api::MigrationState,
    ids::{HostId, MigrationId, VmId},
    record::{Climb, InboundState, MigrationProgress, MigrationReport, OutboundState, SideState},
    wire::codec,
};
use novacron_core::{
    Applied, Command, CommandBody, State,
    command::{Handover, MigrationObserve},
    migration::saga::{SagaAction, next},
    record::MigrationRecord,
};

const MIGRATION: MigrationId = MigrationId::from_u128(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Idle,
    Copying,
    Poised,
    /// It was told to let the guest go over, and has not done so yet.
    Going,
    Split,
    Stranded,
    Lost,
    Gone,
    Back,
    /// Back, after the guest had stopped to go over.
    Dead,
    Released,
}

impl Source {
    /// Whether the guest is here, running.
    fn has_guest(self) -> bool {
        matches!(self, Self::Idle | Self::Copying | Self::Poised | Self::Going | Self::Back)
    }

    /// Whether a copy is under way that can still end by itself.
    fn copies(self) -> bool {
        matches!(self, Self::Copying | Self::Poised | Self::Going)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    Idle,
    Ready,
    Receiving,
    /// Receiving, and told of the hand-over.
    Open,
    Arrived,
    Split,
    Stranded,
    Lost,
    Running,
    Discarded,
}

impl Target {
    fn runs(self) -> bool {
        matches!(self, Self::Split | Self::Stranded | Self::Running)
    }
}

#[derive(Debug, Clone, PartialEq)]
struct Seen {
    host: HostId,
    side: SideState,
    asked_at_step: Option<u64>,
}

/// Two hosts, one guest, one ledger.
#[derive(Clone)]
pub struct Node {
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
    may_give_up: bool,
    /// Agents write down a cancel of what they do not know (the contract); without it a late start slips through.
    tombstones: bool,
    /// The machine allows post-copy.
    post_copy: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Event {
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
    /// It does not converge.
    Poises,
    /// The source's processors stop, and libvirt calls Finish.
    GoesOver,
    MemoryFollows,
    /// The link breaks for good …
    Breaks,
    /// … and is back.
    Mends,
    SourceHalfEnds,
    TargetHalfEnds,
    GiveUp,
}

#[derive(Debug)]
pub struct Violation(pub String);

impl Node {
    pub fn new(faults: u8, tombstones: bool, post_copy: bool) -> Self {
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
            may_give_up: true,
            tombstones,
            post_copy,
        }
    }

    pub fn record(&self) -> &MigrationRecord {
        self.state.migration(MIGRATION).unwrap()
    }

    /// Where the guest is, for people.
    pub fn places(&self) -> String {
        format!("{:?} {:?}", self.source, self.target)
    }

    pub fn key(&self) -> Vec<u8> {
        let vm = self.state.vm(self.vm).unwrap();
        let places = (self.source, self.target, self.finished, self.crashed);
        let world = format!("{:?}", (places, self.late_call, &self.answers, self.faults_left));
        let rest = (self.may_cancel, self.may_give_up, vm.placed_on, vm.epoch, world);
        codec::encode(&(self.record(), rest)).unwrap()
    }

    pub fn events(&self) -> Vec<Event> {
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
            events.extend([Event::Breaks, Event::SourceHalfEnds, Event::TargetHalfEnds]);
        }
        events.extend((0..self.answers.len()).map(Event::Commit));
        events.extend([Event::LateArrives, Event::TargetComplete, Event::SourceHears]);
        events.extend([Event::Cancel, Event::GiveUp]);
        events.extend([Event::Poises, Event::GoesOver, Event::MemoryFollows, Event::Mends]);
        events.retain(|event| self.can(*event));
        events
    }

    pub fn can(&self, event: Event) -> bool {
        match event {
            Event::LateArrives => self.late_call.is_some(),
            Event::LeaderForgets => !self.answers.is_empty(),
            Event::TargetComplete => {
                self.source.copies() && matches!(self.target, Target::Receiving | Target::Open)
            }
            Event::SourceHears => self.source.copies() && self.finished,
            Event::CopyFails => self.source.copies(),
            Event::TargetCrashes => {
                matches!(self.target, Target::Ready | Target::Receiving | Target::Open | Target::Arrived)
            }
            Event::Poises => self.post_copy && self.source == Source::Copying && !self.finished,
            Event::GoesOver => self.source == Source::Going && !self.finished,
            Event::MemoryFollows | Event::Breaks => {
                (self.source, self.target) == (Source::Split, Target::Split)
            }
            Event::Mends => (self.source, self.target) == (Source::Stranded, Target::Stranded),
            Event::SourceHalfEnds => matches!(self.source, Source::Split | Source::Stranded),
            Event::TargetHalfEnds => matches!(self.target, Target::Split | Target::Stranded),
            Event::Cancel => self.may_cancel,
            Event::GiveUp => self.may_give_up && self.record().state == MigrationState::Stranded,
            Event::Act { .. } | Event::Commit(_) => true,
        }
    }

    pub fn step(&mut self, event: Event) -> Result<(), Violation> {
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
            Event::GiveUp => {
                self.may_give_up = false;
                self.apply(CommandBody::MigrationGiveUp { id: MIGRATION });
            }
            Event::Poises => self.source = Source::Poised,
            Event::GoesOver => self.go_over(),
            Event::MemoryFollows => (self.source, self.target) = (Source::Gone, Target::Running),
            Event::Mends => (self.source, self.target) = (Source::Split, Target::Split),
            Event::Breaks => self.strand(Source::Stranded, Target::Stranded),
            Event::SourceHalfEnds => {
                let other = if self.target == Target::Split { Target::Stranded } else { self.target };
                self.strand(Source::Lost, other);
            }
            Event::TargetHalfEnds => {
                let other = if self.source == Source::Split { Source::Stranded } else { self.source };
                self.strand(other, Target::Lost);
            }
        }
        self.check()
    }

    /// The target's filter lets nothing run that it was not told of; then what is left here cannot run on.
    fn go_over(&mut self) {
        (self.source, self.target) = match self.target {
            Target::Open => (Source::Split, Target::Split),
            _ => (Source::Stranded, Target::Discarded),
        };
    }

    fn strand(&mut self, source: Source, target: Target) {
        self.faults_left -= 1;
        (self.source, self.target) = (source, target);
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
            Source::Poised | Source::Going => OutboundState::Poised(MigrationProgress::default()),
            Source::Split => OutboundState::Split(MigrationProgress::default()),
            Source::Stranded => OutboundState::Stranded { reason: "stranded".into() },
            Source::Lost => OutboundState::Lost { reason: "lost".into() },
            Source::Gone => OutboundState::Gone(MigrationReport::default()),
            Source::Back | Source::Dead => {
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
            Target::Receiving | Target::Open => InboundState::Receiving,
            Target::Split => InboundState::Split,
            Target::Stranded => InboundState::Stranded { reason: "stranded".into() },
            Target::Lost => InboundState::Lost { reason: "lost".into() },
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
            SagaAction::OpenInbound if self.target == Target::Receiving => self.target = Target::Open,
            SagaAction::SplitOutbound if self.source == Source::Poised => self.source = Source::Going,
            SagaAction::AbandonInbound if matches!(self.target, Target::Split | Target::Stranded) => {
                self.target = Target::Lost;
                if self.source == Source::Split {
                    self.source = Source::Stranded;
                }
            }
            SagaAction::ReleaseOutbound
                if matches!(self.source, Source::Gone | Source::Stranded | Source::Lost) =>
            {
                if self.target.runs() && self.target != Target::Running {
                    return Err(Violation("half of a guest was thrown away".into()));
                }
                self.source = Source::Released;
            }
            SagaAction::CancelOutbound if self.source.copies() => self.source = Source::Back,
            SagaAction::CancelOutbound if matches!(self.source, Source::Stranded | Source::Lost) => {
                self.source = Source::Dead;
            }
            SagaAction::CancelOutbound if self.source == Source::Idle && self.tombstones => {
                self.source = Source::Back;
            }
            SagaAction::DiscardInbound => return self.discard(),
            SagaAction::PrepareInbound
            | SagaAction::StartOutbound
            | SagaAction::ResumeInbound
            | SagaAction::OpenInbound
            | SagaAction::SplitOutbound
            | SagaAction::AbandonInbound
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
        if !self.target.runs() && self.target != Target::Lost {
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
        let was_poised = matches!(self.record().outbound, OutboundState::Poised(_));
        let gone = self.source == Source::Gone && (self.target == Target::Arrived || self.crashed);
        let fair = gone || was_poised;
        match self.record().handed_over && !before && !fair {
            true => Err(Violation(format!("handed over from {:?} to {:?}", self.source, self.target))),
            false => Ok(()),
        }
    }

    fn check(&self) -> Result<(), Violation> {
        let fail = |text: &str| Err(Violation(format!("{text}: {:?} {:?}", self.source, self.target)));
        let vm = self.state.vm(self.vm).unwrap();
        if self.source.has_guest() && self.target.runs() {
            return fail("the guest runs twice");
        }
        if self.target.runs() && vm.placed_on != Some(self.target_host) {
            return fail("the guest runs where the ledger does not have it");
        }
        match self.record().state {
            MigrationState::Completed
                if self.target != Target::Running || self.source != Source::Released =>
            {
                fail("completed, but not fully there")
            }
            MigrationState::Lost
                if self.target != Target::Lost
                    || self.source != Source::Released
                    || vm.placed_on != Some(self.target_host) =>
            {
                fail("lost, but a half is left")
            }
            MigrationState::Failed | MigrationState::Cancelled => self.check_back(),
            _ => Ok(()),
        }
    }

    fn check_back(&self) -> Result<(), Violation> {
        let vm = self.state.vm(self.vm).unwrap();
        let clean = matches!(self.target, Target::Idle | Target::Ready | Target::Discarded);
        let here = (self.source.has_guest() || self.source == Source::Dead)
            && vm.placed_on == Some(self.source_host);
        let lost_with_target = self.source == Source::Gone && self.crashed;
        let free = self.state.index().usage(self.target_host).claims == 0;
        match clean && (here || lost_with_target) && free && vm.migration.is_none() {
            true => Ok(()),
            false => {
                Err(Violation(format!("ended, but not fully back: {:?} {:?}", self.source, self.target)))
            }
        }
    }

    /// One round without faults: what is on its way arrives, the copy goes well, the reconciler acts.
    pub fn fair_round(&mut self) -> Result<(), Violation> {
        self.step(Event::LateArrives)?;
        while !self.answers.is_empty() {
            self.step(Event::Commit(0))?;
        }
        for event in
            [Event::TargetComplete, Event::SourceHears, Event::GoesOver, Event::Mends, Event::MemoryFollows]
        {
            if self.can(event) {
                self.step(event)?;
            }
        }
        let delivered = next(self.record()).len();
        self.step(Event::Act { delivered, late: false })
    }
}
