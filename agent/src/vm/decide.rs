//! What a machine's task does next. Pure: from what is wanted and what is seen.

use super::record::VmRecord;
use novacron_common::{
    api::VmStop,
    planted::{self, Mistake},
    record::{HealthState, VmAction, VmState},
    spec::{RestartPolicy, StopTerms},
};

/// What a machine is given to end that is stopped because it is unhealthy, milliseconds.
const UNHEALTHY_GRACE_MS: u64 = VmStop::GRACE_SECONDS_DEFAULT as u64 * 1000;

/// The next thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// All is as it should be, or not ours to change.
    Rest,
    /// Make its files and define it.
    Define,
    /// Start it.
    Start,
    /// Stop it.
    Stop(StopTerms),
    /// Write down that this restart request was carried out.
    MarkRestarted(u64),
    /// Stop it and remove all of it.
    Remove,
}

/// `health` is that of a machine that is seen running and has a health check.
pub(super) fn next(record: &VmRecord, seen: VmState, health: Option<HealthState>) -> Step {
    if record.lent.is_some() && !planted::is(Mistake::LentMachineTouched) {
        return Step::Rest;
    }
    match record.assignment.action {
        VmAction::Delete => Step::Remove,
        VmAction::Stop(terms) => stop(seen, terms),
        VmAction::Restart { request, stop } if request > record.restarted => restart(seen, request, stop),
        VmAction::Restart { .. } | VmAction::Run => run(record, seen, health),
    }
}

/// Whether the run that is wanted has begun without a step of ours: the guest ran when it was ordered, or came with a move.
pub(super) fn is_under_way(record: &VmRecord, seen: VmState) -> bool {
    let wanted = matches!(record.assignment.action, VmAction::Run | VmAction::Restart { .. });
    wanted && !record.ran && seen == VmState::Running && record.lent.is_none()
}

fn run(record: &VmRecord, seen: VmState, health: Option<HealthState>) -> Step {
    let is_kept_up = record.assignment.spec.restart == RestartPolicy::Always;
    match seen {
        VmState::Missing => Step::Define,
        VmState::Stopped if !record.ran || is_kept_up => Step::Start,
        // It is started again when it is down.
        VmState::Running if is_kept_up && health == Some(HealthState::Unhealthy) => {
            Step::Stop(StopTerms::within_ms(UNHEALTHY_GRACE_MS))
        }
        // A paused guest may be the unfinished end of a migration: whether it runs on is the coordinator's word.
        _ => Step::Rest,
    }
}

fn stop(seen: VmState, terms: StopTerms) -> Step {
    match seen {
        VmState::Missing => Step::Define,
        VmState::Running | VmState::Paused | VmState::Stopping => Step::Stop(terms),
        _ => Step::Rest,
    }
}

/// A restart is a stop, the note that it was done, and then a run like any other.
fn restart(seen: VmState, request: u64, terms: StopTerms) -> Step {
    match seen {
        VmState::Running | VmState::Paused | VmState::Stopping => Step::Stop(terms),
        _ => Step::MarkRestarted(request),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use novacron_common::{
        ids::{MigrationId, VmId},
        record::VmAssignment,
        spec::{BootSource, HealthSpec, MachineKind, Mobility, NetworkSpec, TemplateSpec, VmSpec},
        units::{ByteCount, Epoch, Generation},
    };

    pub(in crate::vm) fn assignment(action: VmAction) -> VmAssignment {
        let template = TemplateSpec { name: "t".parse().unwrap(), boot: BootSource::Disk, disk: None };
        let spec = VmSpec {
            name: "vm".parse().unwrap(),
            kind: MachineKind::Kvm,
            cpus: 1,
            memory: ByteCount::mib(64),
            storage: ByteCount(0),
            template,
            cmdline: None,
            network: NetworkSpec::default(),
            cloud_init: None,
            restart: RestartPolicy::Never,
            mobility: Mobility::Usual,
            health: HealthSpec::default(),
            volumes: Vec::new(),
        };
        VmAssignment { vm: VmId::from_u128(1), epoch: Epoch(1), generation: Generation(1), spec, action }
    }

    fn record(action: VmAction) -> VmRecord {
        VmRecord::new(assignment(action))
    }

    fn next(record: &VmRecord, seen: VmState) -> Step {
        super::next(record, seen, None)
    }

    #[test]
    fn one_that_is_unhealthy_is_stopped_and_started_if_its_policy_keeps_it_up() {
        use HealthState::{Healthy, Starting, Unhealthy};
        let stop = Step::Stop(StopTerms::within_ms(30_000));
        let run = VmAction::Run;
        for (action, policy, seen, health, step) in [
            (run, RestartPolicy::Always, VmState::Running, Some(Unhealthy), stop),
            (run, RestartPolicy::Always, VmState::Running, Some(Healthy), Step::Rest),
            (run, RestartPolicy::Always, VmState::Running, Some(Starting), Step::Rest),
            (run, RestartPolicy::Always, VmState::Paused, Some(Unhealthy), Step::Rest),
            (run, RestartPolicy::Never, VmState::Running, Some(Unhealthy), Step::Rest),
        ] {
            let mut record = VmRecord { ran: true, ..record(action) };
            record.assignment.spec.restart = policy;
            assert_eq!(super::next(&record, seen, health), step, "{policy:?} {seen:?} {health:?}");
            record.lent = Some(MigrationId::from_u128(9));
            assert_eq!(super::next(&record, seen, health), Step::Rest, "a migration has it in hand");
        }
    }

    #[test]
    fn a_guest_that_powered_itself_off_starts_again_only_if_its_policy_says_so() {
        let mut record = record(VmAction::Run);
        assert_eq!(next(&record, VmState::Stopped), Step::Start);
        record.ran = true;
        assert_eq!(next(&record, VmState::Stopped), Step::Rest);
        record.assignment.spec.restart = RestartPolicy::Always;
        assert_eq!(next(&record, VmState::Stopped), Step::Start);
    }

    #[test]
    fn a_guest_that_runs_when_it_is_ordered_to_has_begun_its_run() {
        let mut record = record(VmAction::Run);
        assert!(is_under_way(&record, VmState::Running) && !is_under_way(&record, VmState::Stopped));
        record.lent = Some(MigrationId::from_u128(9));
        assert!(!is_under_way(&record, VmState::Running), "a migration has it in hand");
        record = VmRecord { ran: true, ..VmRecord::new(assignment(VmAction::Run)) };
        assert!(!is_under_way(&record, VmState::Running), "it is known");
        record = VmRecord::new(assignment(VmAction::Stop(StopTerms::AT_ONCE)));
        assert!(!is_under_way(&record, VmState::Running), "it is not wanted");
    }

    #[test]
    fn a_restart_is_carried_out_once() {
        let mut record = record(VmAction::Restart { request: 4, stop: StopTerms::within_ms(10) });
        record.ran = true;
        assert_eq!(next(&record, VmState::Running), Step::Stop(StopTerms::within_ms(10)));
        assert_eq!(next(&record, VmState::Stopped), Step::MarkRestarted(4));
        (record.restarted, record.ran) = (4, false);
        assert_eq!(next(&record, VmState::Stopped), Step::Start);
        record.ran = true;
        assert_eq!(next(&record, VmState::Running), Step::Rest);
    }

    #[test]
    fn what_a_migration_has_in_hand_is_not_touched() {
        for action in [VmAction::Run, VmAction::Delete, VmAction::Stop(StopTerms::AT_ONCE)] {
            let mut record = record(action);
            record.lent = Some(MigrationId::from_u128(9));
            for seen in [VmState::Missing, VmState::Stopped, VmState::Paused, VmState::Running] {
                assert_eq!(next(&record, seen), Step::Rest);
            }
        }
    }

    #[test]
    fn a_paused_guest_is_never_resumed_here() {
        assert_eq!(next(&record(VmAction::Run), VmState::Paused), Step::Rest);
    }
}
