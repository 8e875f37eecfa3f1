//! Forecasts: the model by examples that were computed by hand and by what must always hold, and what moves teach it.

use crate::world::{World, seen};
use novacron_common::{
    api::MigrationState,
    ids::{HostId, MigrationId, VmId},
    record::{
        Forecast, InboundState, Limit, MigrationReport, MoveLimits, OutboundState, Rung, SideState, Strategy,
        TransferCounts, VmState,
    },
    units::ByteCount,
};
use novacron_core::{
    CommandBody,
    command::{Handover, MigrationObserve},
    forecast::{
        self, Measures, Trip,
        model::{Inputs, Outcome, run},
    },
};
use proptest::{
    prelude::{Just, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest},
    strategy::Strategy as Arbitrary,
};
use std::{num::NonZeroU32, time::Duration};

/// A thousand bytes over a link of a thousand bytes a second, and nothing besides.
const INPUTS: Inputs = Inputs {
    live: true,
    post_copy: false,
    memory: 1000,
    disk: 0,
    dirty_rate: 0,
    working_set: 1000,
    wire_ppm: 1_000_000,
    rate: 1000,
    engine: u64::MAX,
    overhead_ms: 0,
    handover_ms: 0,
};

/// It works on 800 bytes and rewrites all of them in each pass.
const BUSY: Inputs = Inputs { dirty_rate: 2000, working_set: 800, ..INPUTS };

const GENTLE: MoveLimits = MoveLimits {
    strategy: Strategy::Auto,
    max_downtime_ms: None,
    max_slowdown_pct: 0,
    deadline_ms: None,
    bandwidth_mbit: None,
    verify_disk: false,
};

/// One pause from the beginning: with a short one first, a faster link may be worth another pass.
const AT_ONCE: MoveLimits = MoveLimits { strategy: Strategy::Precopy, ..GENTLE };

fn times(outcome: &Outcome) -> (u64, u64, u64) {
    (outcome.total_ms, outcome.blackout_ms, outcome.guest_bytes)
}

#[test]
fn passes_shrink_until_the_rest_fits_into_the_pause() {
    // One second for all, a tenth of it was written to meanwhile, and of that again a tenth: 10 ms, which is less than 40.
    let inputs = Inputs { dirty_rate: 100, overhead_ms: 500, handover_ms: 40, ..INPUTS };
    let outcome = run(&inputs, &GENTLE);
    assert_eq!(times(&outcome), (1000 + 100 + 10 + 500 + 40, 50, 1110));
    assert_eq!((outcome.passes, outcome.rung, outcome.limit), (2, Rung::Precopy, None));
    // 1000, then 500, 250, 125, 62, then the last 31 in a pause of 31 ms.
    let outcome = run(&Inputs { dirty_rate: 500, ..INPUTS }, &GENTLE);
    assert_eq!((times(&outcome), outcome.passes), ((1968, 31, 1968), 5));
    // However fast it writes, it works on 200 bytes only: a second pass does not help, and the usual pause does.
    let outcome = run(&Inputs { dirty_rate: 10_000, working_set: 200, ..INPUTS }, &GENTLE);
    assert_eq!(times(&outcome), (1400, 200, 1400));
    // The disk goes first, and the codec halves all of it.
    let outcome = run(&Inputs { disk: 2000, wire_ppm: 500_000, ..INPUTS }, &GENTLE);
    assert_eq!((times(&outcome), outcome.wire_bytes), ((1500, 0, 3000), 1500));
    // The hosts read no faster than this.
    let outcome = run(&Inputs { engine: 100, ..INPUTS }, &GENTLE);
    assert_eq!(times(&outcome), (10_000, 0, 1000));
}

#[test]
fn what_does_not_converge_climbs_as_far_as_its_limits_allow() {
    // 1 s, 0.8 s with the first pause and 0.8 s with the usual one, then a second each until a minute has passed since the
    // first pass: 59 more.
    let back = run(&BUSY, &GENTLE);
    assert_eq!((times(&back), back.passes), ((61_600, 0, 61_600), 62));
    assert_eq!((back.rung, back.limit), (Rung::Precopy, Some(Limit::MaxDowntime)));
    // One that does not help, and three with the usual pause (0.8 s, 1 s, 1 s), and the guest is held for the last 800 bytes.
    let held = run(&BUSY, &MoveLimits { strategy: Strategy::StopAndCopy, ..GENTLE });
    assert_eq!((times(&held), held.rung, held.limit), ((5400, 800, 5400), Rung::StopAndCopy, None));
    // 600 ms do not do; three more, and a second does.
    let longer = run(&BUSY, &MoveLimits { max_downtime_ms: Some(1000), ..GENTLE });
    assert_eq!((times(&longer), longer.rung), ((8200, 800, 8200), Rung::LongerPause));
    assert_eq!((longer.pause_ms, longer.limit), (1000, None));
    // Precopy takes the whole pause at once.
    let limits = MoveLimits { strategy: Strategy::Precopy, max_downtime_ms: Some(1000), ..GENTLE };
    assert_eq!(times(&run(&BUSY, &limits)), (1800, 800, 1800));
}

#[test]
fn a_guest_is_slowed_as_far_as_it_may_be() {
    let slowed = run(&BUSY, &MoveLimits { max_slowdown_pct: 99, ..GENTLE });
    assert_eq!((slowed.rung, slowed.limit), (Rung::Throttle, None));
    // At 60 percent it writes 640 bytes in the 0.8 s that 800 take: from there on passes shrink.
    assert!((60..=80).contains(&slowed.throttle_pct), "{slowed:?}");
    let bounded = run(&BUSY, &MoveLimits { max_slowdown_pct: 25, ..GENTLE });
    assert_eq!((bounded.throttle_pct, bounded.limit), (25, Some(Limit::MaxDowntime)));
}

#[test]
fn a_deadline_ends_it_in_the_middle_of_a_pass_or_hurries_it_to_the_last_means() {
    let late = run(&BUSY, &MoveLimits { deadline_ms: Some(3500), ..GENTLE });
    assert_eq!((times(&late), late.limit), ((3500, 0, 3500), Some(Limit::Deadline)));
    // After 1.8 s the rest takes 0.8 s: just in time.
    let limits = MoveLimits { deadline_ms: Some(3000), max_downtime_ms: Some(1000), ..GENTLE };
    let hurried = run(&BUSY, &limits);
    assert_eq!((times(&hurried), hurried.rung), ((2600, 800, 2600), Rung::LongerPause));
}

#[test]
fn a_stopped_machine_takes_its_disk_and_stands_still_all_the_time() {
    let outcome = run(&Inputs { live: false, disk: 2000, overhead_ms: 700, ..BUSY }, &GENTLE);
    assert_eq!(times(&outcome), (2700, 2700, 2000));
}

fn inputs() -> impl Arbitrary<Value = Inputs> {
    let size = prop_oneof![0..5000_u64, any::<u64>()];
    (any::<bool>(), size.clone(), size.clone(), size.clone(), size, 1..3_000_000_u64, 0..u64::MAX).prop_map(
        |(live, memory, disk, dirty_rate, working_set, wire_ppm, rate)| Inputs {
            live,
            post_copy: memory % 2 == 1,
            memory,
            disk,
            dirty_rate,
            working_set,
            wire_ppm,
            rate,
            engine: rate.rotate_left(7),
            overhead_ms: rate % 5000,
            handover_ms: rate % 300,
        },
    )
}

fn limits() -> impl Arbitrary<Value = MoveLimits> {
    let strategy = prop_oneof![
        Just(Strategy::Auto),
        Just(Strategy::Precopy),
        Just(Strategy::StopAndCopy),
        Just(Strategy::Postcopy)
    ];
    let pause = prop::option::of(1..MoveLimits::PAUSE_MS_MAX);
    (strategy, pause, 0..100_u8, prop::option::of(1000..700_000_u64)).prop_map(
        |(strategy, max_downtime_ms, max_slowdown_pct, deadline_ms)| MoveLimits {
            strategy,
            max_downtime_ms,
            max_slowdown_pct,
            deadline_ms,
            bandwidth_mbit: None,
            verify_disk: false,
        },
    )
}

#[test]
fn a_guest_that_may_goes_over_when_passes_do_not_help_and_stands_still_for_the_hand_over_alone() {
    let busy = Inputs { post_copy: true, handover_ms: 40, ..BUSY };
    for strategy in [Strategy::Auto, Strategy::Postcopy] {
        let over = run(&busy, &MoveLimits { strategy, ..GENTLE });
        assert_eq!((over.rung, over.limit, over.blackout_ms), (Rung::Postcopy, None, 40));
        let may_not = Inputs { post_copy: false, ..busy };
        assert_eq!(run(&may_not, &MoveLimits { strategy, ..GENTLE }).limit, Some(Limit::MaxDowntime));
    }
    let held = run(&busy, &MoveLimits { strategy: Strategy::StopAndCopy, ..GENTLE });
    assert_eq!(held.rung, Rung::StopAndCopy, "who asks for another means gets that");
    assert_eq!(run(&Inputs { post_copy: true, ..INPUTS }, &GENTLE).rung, Rung::Precopy, "one that converges");
}

/// Small guests that arrive by passes alone or nearly do.
fn small() -> impl Arbitrary<Value = (Inputs, u64)> {
    (1..100_000_u64, 0..2000_u64, 1..100_000_u64, 1..2000_u64, 0..2000_u64).prop_map(
        |(memory, dirty_rate, working_set, rate, faster)| {
            (Inputs { memory, dirty_rate, working_set, rate, ..INPUTS }, rate + faster)
        },
    )
}

proptest! {
    #[test]
    fn whatever_it_is_told_it_ends_and_keeps_its_limits(inputs in inputs(), limits in limits()) {
        let outcome = run(&inputs, &limits);
        prop_assert!(outcome.total_ms >= inputs.overhead_ms);
        prop_assert!(outcome.throttle_pct <= limits.max_slowdown_pct);
        prop_assert!(outcome.blackout_ms <= outcome.total_ms);
        if inputs.live && outcome.limit.is_none() && outcome.rung != Rung::StopAndCopy {
            prop_assert!(outcome.blackout_ms <= u64::from(limits.pause_ms()) + inputs.handover_ms);
        }
        if inputs.live && outcome.limit.is_some() {
            prop_assert_eq!(outcome.blackout_ms, 0, "what goes back was never paused");
        }
    }

    #[test]
    fn a_faster_link_is_never_slower((slow, faster) in small()) {
        let fast = Inputs { rate: faster, ..slow };
        if run(&slow, &GENTLE).limit.is_none() {
            prop_assert_eq!(run(&fast, &GENTLE).limit, None);
        }
        let (slow, fast) = (run(&slow, &AT_ONCE), run(&fast, &AT_ONCE));
        if slow.limit.is_none() && slow.rung == Rung::Precopy {
            prop_assert_eq!(fast.limit, None);
            prop_assert!(fast.total_ms <= slow.total_ms, "{:?} {:?}", slow, fast);
            prop_assert!(fast.guest_bytes <= slow.guest_bytes, "{:?} {:?}", slow, fast);
        }
    }

    #[test]
    fn more_memory_never_takes_less((inputs, more) in small()) {
        let larger = Inputs { memory: inputs.memory + more, ..inputs };
        let (inputs, larger) = (run(&inputs, &AT_ONCE), run(&larger, &AT_ONCE));
        if larger.limit.is_none() && inputs.limit.is_none() {
            prop_assert!(inputs.guest_bytes <= larger.guest_bytes, "{:?} {:?}", inputs, larger);
        }
    }
}

/// Two hosts, and a guest that really moves in a certain way, whatever was forecast.
struct Road {
    world: World,
    vm: VmId,
    hosts: [HostId; 2],
    moves: u128,
}

/// What a move of it takes.
const TOOK: Duration = Duration::from_millis(9000);
const COPY_MS: u64 = 8000;
const WIRE: u64 = 320_000_000;

impl Road {
    fn new() -> Self {
        let (mut world, _) = World::with_hosts(2);
        let (vm, source) = world.running_vm("web");
        let mut seen = seen(vm, 1, VmState::Running);
        seen.memory = ByteCount::gib(1);
        world.see(source, seen);
        let hosts: Vec<_> = world.state.hosts().iter().map(|host| host.id).collect();
        Self { world, vm, hosts: hosts.try_into().unwrap(), moves: 0 }
    }

    fn place(&self) -> (HostId, HostId) {
        let source = self.world.state.vm(self.vm).unwrap().placed_on.unwrap();
        let target = *self.hosts.iter().find(|host| **host != source).unwrap();
        (source, target)
    }

    fn say(&mut self, id: MigrationId, host: HostId, side: SideState) {
        let asked_at_step = Some(self.world.state.migration(id).unwrap().step);
        let observe = MigrationObserve { id, host, side, asked_at_step };
        self.world.ok(CommandBody::MigrationObserve(Box::new(observe)));
    }

    /// There, and what was forecast of it.
    fn travel(&mut self) -> Forecast {
        self.travel_within(MoveLimits::default())
    }

    fn travel_within(&mut self, limits: MoveLimits) -> Forecast {
        self.moves += 1;
        let (source, target) = self.place();
        let ask = self.world.ask(self.moves, self.vm, target, true);
        self.world.ok(crate::moves::within(ask, limits));
        let id = MigrationId::from_u128(self.moves);
        let forecast = self.world.state.migration(id).unwrap().forecast.expect("every move has a forecast");
        self.world.now = self.world.now.plus(TOOK);
        self.say(id, target, SideState::Inbound(InboundState::Ready));
        self.say(id, source, SideState::Outbound(OutboundState::Copying(Default::default())));
        self.say(id, target, SideState::Inbound(InboundState::Arrived));
        let counts = TransferCounts { memory_bytes: WIRE, ..TransferCounts::default() };
        let report = MigrationReport {
            counts,
            copy_ms: COPY_MS,
            qemu_downtime_ms: Some(25),
            iterations: 3,
            ..MigrationReport::default()
        };
        self.say(id, source, SideState::Outbound(OutboundState::Gone(report)));
        let vm = self.world.state.vm(self.vm).unwrap();
        let handover = Handover { migration: id, vm: self.vm, to: target, expect_epoch: vm.epoch };
        self.world.ok(CommandBody::Handover(handover));
        self.say(id, target, SideState::Inbound(InboundState::Running));
        self.say(id, source, SideState::Outbound(OutboundState::Released));
        assert_eq!(self.world.state.migration(id).unwrap().state, MigrationState::Completed);
        let epoch = self.world.state.vm(self.vm).unwrap().epoch.0;
        let mut seen = seen(self.vm, epoch, VmState::Running);
        seen.memory = ByteCount::gib(1);
        self.world.see(target, seen);
        forecast
    }
}

#[test]
fn every_move_teaches_the_next_forecast_and_narrows_it() {
    let mut road = Road::new();
    let forecasts: Vec<Forecast> = (0..8).map(|_| road.travel()).collect();
    let took = u64::try_from(TOOK.as_millis()).unwrap();
    assert_eq!((forecasts[0].basis.moves, forecasts[7].basis.moves), (0, 7));
    assert!(forecasts.iter().all(|forecast| forecast.limit.is_none()), "{forecasts:?}");
    for forecast in &forecasts[1..] {
        assert!(forecast.total_ms.contains(took), "{forecast:?}");
        assert!(forecast.total_ms.expected.abs_diff(took) * 5 <= took, "within 20 %: {forecast:?}");
        assert!(forecast.wire_bytes.contains(WIRE), "{forecast:?}");
        assert!(forecast.blackout_ms.contains(25), "{forecast:?}");
    }
    let width = |forecast: &Forecast| forecast.total_ms.high - forecast.total_ms.low;
    let widths: Vec<_> = forecasts.iter().map(width).collect();
    assert!(
        widths.windows(2).skip(1).all(|pair| pair[1] <= pair[0]) && widths[7] * 2 < widths[1],
        "{widths:?}"
    );
    let last = road.world.state.migration(MigrationId::from_u128(8)).unwrap();
    let actual = last.actual().unwrap();
    assert_eq!((actual.total_ms, actual.wire_bytes, actual.blackout_ms), (took, WIRE, Some(25)));
}

#[test]
fn a_command_carries_figures_and_no_texts() {
    let traits = novacron_common::record::GuestTraits {
        virt_type: "kvm".into(),
        arch: "x86_64".into(),
        machine: "q35".into(),
        cpu_xml: "x".repeat(60_000),
    };
    let guest = novacron_common::record::GuestMeasure {
        in_use_bytes: Some(1),
        disk_bytes: 2,
        dirty: None,
        traits: Some(traits),
        notes: vec!["n".repeat(60_000)],
    };
    let link = novacron_common::record::LinkMeasure {
        host: HostId::from_u128(1),
        rate: Some(3),
        round_trip_us: Some(4),
        note: Some("n".repeat(60_000)),
    };
    let figures = Measures { guest: Some(guest), link: Some(link) }.figures();
    assert!(novacron_common::wire::codec::encode(&figures).unwrap().len() < 100, "{figures:?}");
    assert_eq!(figures.guest.and_then(|guest| guest.in_use_bytes), Some(1));
    assert_eq!(figures.link.and_then(|link| link.rate), Some(3));
}

#[test]
fn a_budget_of_its_own_bounds_a_move_and_says_nothing_of_the_link() {
    let mut road = Road::new();
    let budget = MoveLimits { bandwidth_mbit: NonZeroU32::new(8), ..GENTLE };
    let rate = |road: &Road, limits: &MoveLimits| {
        let (source, target) = road.place();
        let vm = road.world.state.vm(road.vm).unwrap();
        let measures = Measures::default();
        forecast::of(&road.world.state, &Trip { vm, source, target, live: true, limits, measures: &measures })
    };
    let unknown = rate(&road, &GENTLE).basis.rate;
    (0..4).for_each(|_| {
        road.travel_within(budget);
    });
    let free = rate(&road, &GENTLE);
    assert_eq!(free.basis.rate, unknown, "a link is not as slow as a move on it was told to be");
    let bound = rate(&road, &budget);
    assert_eq!(bound.basis.rate, 1_000_000, "8 Mbit/s are a million bytes");
    assert!(bound.total_ms.low > free.total_ms.low && bound.total_ms.expected > free.total_ms.expected);
}

#[test]
fn a_link_that_was_found_slower_than_it_was_is_believed() {
    let mut road = Road::new();
    (0..4).for_each(|_| {
        road.travel();
    });
    let (source, target) = road.place();
    let vm = road.world.state.vm(road.vm).unwrap();
    let of = |rate| {
        let link =
            novacron_common::record::LinkMeasure { host: target, rate, round_trip_us: Some(90), note: None };
        let measures = Measures { guest: None, link: Some(link) };
        forecast::of(
            &road.world.state,
            &Trip { vm, source, target, live: true, limits: &GENTLE, measures: &measures },
        )
    };
    let (known, faster, slower) = (of(None), of(Some(u64::MAX)), of(Some(4_000_000)));
    assert_eq!((known.total_ms, known.basis.rate), (faster.total_ms, faster.basis.rate));
    assert!(slower.total_ms.low > known.total_ms.high, "{slower:?} {known:?}");
    assert_eq!(slower.basis.round_trip_us, 90);
}
