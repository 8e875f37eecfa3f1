//! Machines that move together take turns.

use crate::world::World;
use novacron_common::{
    api::MigrationState,
    ids::{GangId, HostId, MigrationId, VmId},
    record::{InboundState, MigrationReport, OutboundState, SideState},
};
use novacron_core::{
    CommandBody,
    command::{Handover, HostRemove, MigrationAsk, MigrationObserve},
    migration::saga::{self, SagaAction},
    record::MigrationRecord,
    views,
};
use std::time::Duration;

const GANG: GangId = GangId::from_u128(5);
const FIRST: MigrationId = MigrationId::from_u128(1);
const SECOND: MigrationId = MigrationId::from_u128(2);
const THIRD: MigrationId = MigrationId::from_u128(3);

/// Machines on one host, and another host.
struct Gang {
    world: World,
    vms: Vec<VmId>,
    source: HostId,
    target: HostId,
}

impl Gang {
    fn assembled(count: usize) -> Self {
        let mut world = World::new();
        let source = world.host("a");
        let vms = (0..count).map(|n| world.running_vm(&format!("web-{n}")).0).collect();
        let target = world.host("b");
        Self { world, vms, source, target }
    }

    /// They are all to move there: `FIRST` and so on, asked for a second apart.
    fn of(count: usize) -> Self {
        let mut gang = Self::assembled(count);
        for number in 0..count {
            gang.world.now = gang.world.now.plus(Duration::from_secs(1));
            gang.ask(number, Some(GANG));
        }
        gang
    }

    fn ask(&mut self, number: usize, gang: Option<GangId>) {
        let asked = self.world.ask(1 + number as u128, self.vms[number], self.target, true);
        let CommandBody::MigrationAsk(ask) = asked else { panic!("no ask") };
        self.world.ok(CommandBody::MigrationAsk(Box::new(MigrationAsk { gang, ..*ask })));
    }

    fn record(&self, id: MigrationId) -> &MigrationRecord {
        self.world.state.migration(id).unwrap()
    }

    fn waits(&self, id: MigrationId) -> bool {
        saga::next(self.record(id)) == [SagaAction::AwaitTurn]
    }

    fn say(&mut self, id: MigrationId, side: SideState) {
        let host = if matches!(side, SideState::Outbound(_)) { self.source } else { self.target };
        let asked_at_step = Some(self.record(id).step);
        let observe = MigrationObserve { id, host, side, asked_at_step };
        self.world.ok(CommandBody::MigrationObserve(Box::new(observe)));
    }

    fn complete(&mut self, id: MigrationId) {
        self.say(id, SideState::Inbound(InboundState::Ready));
        self.say(id, SideState::Outbound(OutboundState::Gone(MigrationReport::default())));
        self.say(id, SideState::Inbound(InboundState::Arrived));
        let MigrationRecord { vm, target: to, epoch: expect_epoch, .. } = *self.record(id);
        self.world.ok(CommandBody::Handover(Handover { migration: id, vm, to, expect_epoch }));
        self.say(id, SideState::Inbound(InboundState::Running));
        self.say(id, SideState::Outbound(OutboundState::Released));
        assert_eq!(self.record(id).state, MigrationState::Completed);
    }
}

#[test]
fn they_go_one_after_the_other_in_the_order_in_which_they_were_asked_for() {
    let mut gang = Gang::of(3);
    assert_eq!([FIRST, SECOND, THIRD].map(|id| gang.waits(id)), [false, true, true]);
    let message = views::migration(&gang.world.state, gang.record(SECOND)).status.message;
    assert_eq!(message, "waiting for its turn in its gang");
    // They wait for longer than a ticket lives: it counts from their turn on.
    gang.world.now = gang.world.now.plus(Duration::from_secs(7200));
    gang.complete(FIRST);
    assert_eq!([SECOND, THIRD].map(|id| gang.waits(id)), [false, true]);
    let ticket = gang.record(SECOND).ticket();
    assert!(ticket.gang == Some(GANG) && ticket.expires_at > gang.world.now, "{ticket:?}");
    gang.complete(SECOND);
    gang.complete(THIRD);
    gang.world.assert_reloads();
}

#[test]
fn one_that_stays_lets_the_next_go_and_one_that_is_cancelled_while_it_waits_is_not_missed() {
    let mut gang = Gang::of(3);
    gang.world.ok(CommandBody::MigrationCancel { id: SECOND });
    assert_eq!(gang.record(SECOND).state, MigrationState::Cancelled);
    assert!(gang.waits(THIRD), "the first one still goes");
    gang.say(FIRST, SideState::Inbound(InboundState::Discarded { reason: "no room".into() }));
    assert_eq!((gang.record(FIRST).state, gang.waits(THIRD)), (MigrationState::Failed, false));
    gang.complete(THIRD);
}

#[test]
fn a_host_that_is_removed_leaves_nobody_waiting() {
    let mut gang = Gang::of(3);
    gang.world.down(gang.target);
    gang.world.ok(CommandBody::HostRemove(HostRemove { host: gang.target, force: true }));
    assert!([FIRST, SECOND, THIRD].iter().all(|id| gang.record(*id).is_final()));
}

#[test]
fn moves_of_other_gangs_and_of_none_wait_for_nobody() {
    let mut gang = Gang::assembled(3);
    [Some(GANG), None, Some(GangId::from_u128(6))]
        .into_iter()
        .enumerate()
        .for_each(|(number, of)| gang.ask(number, of));
    assert_eq!([FIRST, SECOND, THIRD].map(|id| gang.waits(id)), [false; 3]);
}
