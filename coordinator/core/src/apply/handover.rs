//! The hand-over: the one command by which the right to run a machine goes from one host to another.

use super::Outcome;
use crate::{
    applied::{Applied, Refusal},
    command::Handover,
    migration::saga,
    record::VmRecord,
    state::State,
};
use novacron_common::{
    api::MigrationState,
    planted::{self, Mistake},
};

/// Raises the epoch and moves the machine's place. Only in [`MigrationState::HandingOver`], that is after the source
/// was observed gone and the target complete, or before post-copy, when both are ready for it; the same hand-over again is answered as the first time.
pub(super) fn commit(state: &mut State, c: &Handover) -> Outcome {
    let mut record = super::migrations::find(state, c.migration)?.clone();
    let vm = super::vms::find(state, c.vm)?;
    if record.vm != c.vm || record.target != c.to {
        return Err(Refusal::conflict("the hand-over names another machine or host than its migration"));
    }
    if record.handed_over && c.expect_epoch == record.epoch {
        return Ok(Applied::HandedOver { epoch: record.epoch.next() });
    }
    if vm.epoch != c.expect_epoch || vm.epoch != record.epoch || vm.placed_on != Some(record.source) {
        return Err(Refusal::conflict(format!("the machine is at {} by now", vm.epoch)));
    }
    if record.state != MigrationState::HandingOver || !saga::may_hand_over(&record) {
        return Err(Refusal::conflict("the source is not observed gone, or the target not complete"));
    }
    let epoch = if planted::is(Mistake::HandoverKeepsEpoch) { vm.epoch } else { vm.epoch.next() };
    let vm =
        VmRecord { epoch, placed_on: Some(record.target), placement: record.placement.clone(), ..vm.clone() };
    record.handed_over = true;
    saga::finish(&mut record);
    state.write(vm);
    super::migrations::store(state, record);
    Ok(Applied::HandedOver { epoch })
}
