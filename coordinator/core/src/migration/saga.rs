//! The saga's two pure functions: [`next`] says what to do for a record, [`step`] what an observation does to it.
//!
//! ```text
//! Pending ─► Preparing ─► Copying ─► HandingOver ─► Finishing ─► Completed
//!    │           │           │  ▲          (commit)     │ ▲ └──► Stranded ─► Lost
//!    │           │           │  │                       │ └───────────┘
//!    └───────────┴───────────┴──┼─► Reverting ◄─────────┘ (the target lost the guest before it ran there)
//!                               └──────┘ (too late: the source is gone, the target complete)
//!                                      └─► Failed | Cancelled
//! ```
//!
//! * The target is discarded only when the source is known to hold the guest (`Back`, or never started), or when the
//!   target itself says that nothing is left.
//! * The right to run the guest changes hands only by the committed hand-over, from a source that was *observed*
//!   gone to a target that was *observed* complete. No time-out decides anything.
//! * Post-copy is the exception: a guest that runs at once cannot wait for a commit. A source that is *poised* for it asks
//!   for the hand-over beforehand, and sends its guest over only once the target was told of it. Until then its own guest
//!   runs, so that it may still say `Back`: then the right returns to it, under another epoch. Afterwards it only goes
//!   forward: to its end, or, if it breaks, it is `Stranded` with a half on each host, until they meet again or one half
//!   is known to be lost.
//! * What a side has said it does not take back by a late or repeated message: an observation counts only if it is
//!   further on than the last ([`OutboundState`] and [`InboundState`] are ranked), and "unknown" counts only as the
//!   answer to a question asked in the present step.

use crate::record::MigrationRecord;
use novacron_common::{
    api::MigrationState,
    planted::{self, Mistake},
    record::{InboundState, MigrationProgress, OutboundState, SideState},
};

/// What the reconciler does next for a migration. Every call is idempotent. The reconciler reads the record's `step`,
/// carries the actions out in order, stops at the first that fails, and proposes each answer to an `Observe…` with
/// that step. An agent that is told to cancel or discard what it does not know writes that down, so that a request
/// which was on its way before is refused when it arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SagaAction {
    /// The guest has to stop first: its assignment sees to it.
    AwaitStop,
    /// Others of its gang go first.
    AwaitTurn,
    /// Call the target.
    PrepareInbound,
    /// Call the source.
    StartOutbound,
    /// Ask the source how far it is.
    ObserveSource,
    /// Ask the target how far it is.
    ObserveTarget,
    /// Propose the hand-over.
    Handover,
    /// Call the target: run the guest.
    ResumeInbound,
    /// Call the source: remove what is left.
    ReleaseOutbound,
    /// Call the source: go back.
    CancelOutbound,
    /// Call the target: remove what arrived.
    DiscardInbound,
    /// Call the target: the guest may go over (post-copy).
    OpenInbound,
    /// Call the source: send the guest over (post-copy).
    SplitOutbound,
    /// Call the target: the other half is lost.
    AbandonInbound,
}

/// What to do for this record, in this order. Empty once it has ended.
pub fn next(record: &MigrationRecord) -> Vec<SagaAction> {
    use SagaAction as A;
    match record.state {
        MigrationState::Pending if record.awaits_turn => vec![A::AwaitTurn],
        MigrationState::Pending if record.awaits_stop => vec![A::AwaitStop],
        MigrationState::Pending | MigrationState::Preparing => vec![A::PrepareInbound, A::ObserveTarget],
        MigrationState::Copying => copying(record),
        MigrationState::HandingOver if may_hand_over(record) => vec![A::Handover],
        MigrationState::HandingOver => vec![A::ObserveSource, A::ObserveTarget],
        MigrationState::Finishing | MigrationState::Stranded => going_over(record),
        MigrationState::Reverting => reverting(record),
        MigrationState::Completed
        | MigrationState::Failed
        | MigrationState::Cancelled
        | MigrationState::Lost => Vec::new(),
    }
}

/// Whether the hand-over may be committed: the guest has left and is complete on the target, or it waits for the
/// hand-over to go over (post-copy).
pub(crate) fn may_hand_over(record: &MigrationRecord) -> bool {
    if planted::is(Mistake::HandedOverUnseen) && record.inbound == InboundState::Arrived {
        return !matches!(record.outbound, OutboundState::Back { .. });
    }
    match record.outbound {
        OutboundState::Gone(_) => record.inbound == InboundState::Arrived,
        OutboundState::Poised(_) => record.inbound == InboundState::Receiving,
        _ => false,
    }
}

/// The hand-over is committed.
fn going_over(record: &MigrationRecord) -> Vec<SagaAction> {
    use SagaAction as A;
    if target_runs(record) || lost_at_target(record) {
        return vec![A::ReleaseOutbound, A::ObserveSource];
    }
    match record.outbound {
        OutboundState::Gone(_) | OutboundState::Released => vec![A::ResumeInbound, A::ObserveTarget],
        OutboundState::Lost { .. } => vec![A::AbandonInbound, A::ObserveTarget],
        OutboundState::Poised(_) if planted::is(Mistake::OpenForgotten) => {
            vec![A::SplitOutbound, A::ObserveSource, A::ObserveTarget]
        }
        OutboundState::Poised(_) => {
            vec![A::OpenInbound, A::SplitOutbound, A::ObserveSource, A::ObserveTarget]
        }
        _ => vec![A::ObserveSource, A::ObserveTarget],
    }
}

fn copying(record: &MigrationRecord) -> Vec<SagaAction> {
    use SagaAction as A;
    match record.outbound {
        OutboundState::Unknown => vec![A::StartOutbound, A::ObserveSource],
        OutboundState::Gone(_) => vec![A::ObserveTarget],
        _ => vec![A::ObserveSource, A::ObserveTarget],
    }
}

fn reverting(record: &MigrationRecord) -> Vec<SagaAction> {
    use SagaAction as A;
    if source_gone(record) {
        return match may_discard(record) {
            true => vec![A::DiscardInbound, A::ObserveTarget],
            false => vec![A::ObserveTarget],
        };
    }
    if !source_settled(record) {
        return vec![A::CancelOutbound, A::ObserveSource];
    }
    vec![A::DiscardInbound, A::ObserveTarget]
}

fn source_gone(record: &MigrationRecord) -> bool {
    matches!(record.outbound, OutboundState::Gone(_))
}

fn lost_at_target(record: &MigrationRecord) -> bool {
    matches!(record.inbound, InboundState::Lost { .. })
}

fn target_runs(record: &MigrationRecord) -> bool {
    record.inbound == InboundState::Running
}

/// Whether the source certainly holds the guest and will not send it any more.
fn source_settled(record: &MigrationRecord) -> bool {
    !record.started
        || matches!(record.outbound, OutboundState::Back { .. } | OutboundState::Released)
        || record.outbound_unknown_at == Some(record.step)
}

/// With the source gone, the target may hold the only copy. It may be discarded only if an operator cancelled and
/// the target says that it knows nothing.
fn may_discard(record: &MigrationRecord) -> bool {
    record.cancel_requested && record.inbound_unknown_at == Some(record.step) || discards_blindly(record)
}

fn discards_blindly(record: &MigrationRecord) -> bool {
    record.cancel_requested && planted::is(Mistake::OnlyCopyDiscarded)
}

fn outbound_rank(state: &OutboundState) -> u8 {
    match state {
        OutboundState::Unknown => 0,
        OutboundState::Connecting => 1,
        OutboundState::Copying(_) => 2,
        OutboundState::Poised(_) => 3,
        OutboundState::Split(_) => 4,
        OutboundState::Stranded { .. } => 5,
        // It stays where it is if the target never ran it, and the coordinator says so.
        OutboundState::Lost { .. } => 6,
        OutboundState::Gone(_) | OutboundState::Back { .. } => 7,
        OutboundState::Released => 8,
    }
}

fn inbound_rank(state: &InboundState) -> u8 {
    match state {
        InboundState::Unknown => 0,
        InboundState::Preparing => 1,
        InboundState::Ready => 2,
        InboundState::Receiving => 3,
        InboundState::Arrived | InboundState::Split => 4,
        InboundState::Stranded { .. } => 5,
        InboundState::Running | InboundState::Discarded { .. } | InboundState::Lost { .. } => 6,
    }
}

/// Takes what a side says, and goes on as far as that allows. Returns whether the record changed.
pub fn step(record: &mut MigrationRecord, side: SideState, asked_at_step: Option<u64>) -> bool {
    let news = match side {
        SideState::Outbound(state) => take_outbound(record, state, asked_at_step),
        SideState::Inbound(state) => take_inbound(record, state, asked_at_step),
    };
    news | advance(record)
}

fn take_outbound(record: &mut MigrationRecord, state: OutboundState, asked_at_step: Option<u64>) -> bool {
    if state == OutboundState::Unknown {
        let counts = asked_at_step == Some(record.step) && record.outbound_unknown_at != asked_at_step;
        if counts {
            record.outbound_unknown_at = asked_at_step;
        }
        return counts;
    }
    let newer = outbound_rank(&state) > outbound_rank(&record.outbound);
    let early = matches!(
        state,
        OutboundState::Released
            | OutboundState::Split(_)
            | OutboundState::Stranded { .. }
            | OutboundState::Lost { .. }
    );
    if early && !record.handed_over {
        return false;
    }
    if !(newer || progress(&state).is_some() && same_figures(&state, &record.outbound)) {
        return false;
    }
    let was_stranded = matches!(record.outbound, OutboundState::Stranded { .. });
    match &state {
        OutboundState::Copying(progress)
        | OutboundState::Poised(progress)
        | OutboundState::Split(progress) => {
            record.progress = progress.clone();
        }
        // Of halves one of which is lost, the other has nothing to add.
        OutboundState::Stranded { .. } | OutboundState::Lost { .. } if lost_at_target(record) => (),
        OutboundState::Stranded { reason } | OutboundState::Lost { reason } => record.message = short(reason),
        OutboundState::Gone(report) => {
            record.report = Some(report.clone());
            if was_stranded {
                met_again(record);
            }
        }
        OutboundState::Back { reason, climb, .. } => {
            record.progress.climb = *climb;
            // The target often hears of the end first, and knows only that the source ended it.
            let of_target = matches!(&record.inbound, InboundState::Discarded { reason } if short(reason) == record.message);
            if record.message.is_empty() || of_target {
                record.message = short(reason);
            }
        }
        OutboundState::Unknown | OutboundState::Connecting | OutboundState::Released => (),
    }
    record.outbound = state;
    true
}

fn take_inbound(record: &mut MigrationRecord, state: InboundState, asked_at_step: Option<u64>) -> bool {
    if state == InboundState::Unknown {
        let counts = asked_at_step == Some(record.step) && record.inbound_unknown_at != asked_at_step;
        if counts {
            record.inbound_unknown_at = asked_at_step;
        }
        return counts;
    }
    let early = matches!(
        state,
        InboundState::Running
            | InboundState::Split
            | InboundState::Stranded { .. }
            | InboundState::Lost { .. }
    ) && !record.handed_over;
    if early || inbound_rank(&state) <= inbound_rank(&record.inbound) {
        return false;
    }
    if let InboundState::Discarded { reason } = &state
        && record.message.is_empty()
    {
        record.message = short(reason);
    }
    if state == InboundState::Running && matches!(record.inbound, InboundState::Stranded { .. }) {
        met_again(record);
    }
    // Why the source's half is lost is the cause; that the target's was given up follows from it.
    let of_source = matches!(record.outbound, OutboundState::Lost { .. });
    if let InboundState::Stranded { reason } | InboundState::Lost { reason } = &state
        && !of_source
    {
        record.message = short(reason);
    }
    record.inbound = state;
    true
}

/// Of a guest that was stranded for a while.
pub(crate) const MET_AGAIN: &str =
    "the machine is on the target; in post-copy the two halves of its guest lost each other, and met again";

/// One of the sides says so first, and the other need not: that was a cut, and it was survived.
fn met_again(record: &mut MigrationRecord) {
    if record.message != MET_AGAIN {
        MET_AGAIN.clone_into(&mut record.message);
        record.progress.cuts += 1;
    }
}

/// The figures of a source that sends.
fn progress(state: &OutboundState) -> Option<&MigrationProgress> {
    match state {
        OutboundState::Copying(progress)
        | OutboundState::Poised(progress)
        | OutboundState::Split(progress) => Some(progress),
        _ => None,
    }
}

/// Whether it says the same as before, with other figures.
fn same_figures(state: &OutboundState, before: &OutboundState) -> bool {
    outbound_rank(state) == outbound_rank(before) && state != before
}

/// Longest text that is kept of an agent's reason, in characters.
const REASON_MAX: usize = 512;

pub(crate) fn short(reason: &str) -> String {
    reason.chars().take(REASON_MAX).collect()
}

/// The hand-over is committed.
pub(crate) fn finish(record: &mut MigrationRecord) {
    enter(record, MigrationState::Finishing);
    advance(record);
}

/// Goes from state to state until one has to wait. Returns whether any was left.
pub(crate) fn advance(record: &mut MigrationRecord) -> bool {
    let mut moved = false;
    while let Some(state) = following(record) {
        enter(record, state);
        moved = true;
    }
    moved
}

fn enter(record: &mut MigrationRecord, state: MigrationState) {
    record.state = state;
    record.step += 1;
    // From here on the source may be told to start at any moment.
    record.started |= state == MigrationState::Copying;
}

/// The state that what is known leads to, if it is another. The hand-over itself is a command of its own.
fn following(record: &MigrationRecord) -> Option<MigrationState> {
    use MigrationState as S;
    let discarded = matches!(record.inbound, InboundState::Discarded { .. });
    let back = matches!(record.outbound, OutboundState::Back { .. });
    let gives_up = record.cancel_requested || record.abandoned;
    match record.state {
        S::Pending if (record.awaits_turn || record.awaits_stop) && record.cancel_requested => {
            Some(S::Cancelled)
        }
        S::Pending | S::Preparing if gives_up || discarded => Some(S::Reverting),
        S::Pending if inbound_rank(&record.inbound) >= 1 => Some(S::Preparing),
        S::Preparing if inbound_rank(&record.inbound) >= 2 => Some(S::Copying),
        S::Copying if source_gone(record) && may_hand_over(record) => Some(S::HandingOver),
        S::Copying if gives_up || discarded || back => Some(S::Reverting),
        S::Copying if may_hand_over(record) => Some(S::HandingOver),
        S::HandingOver if discarded || back => Some(S::Reverting),
        S::Finishing | S::Stranded => finishing(record, discarded || back),
        S::Reverting => reverted(record, discarded),
        _ => None,
    }
}

/// The hand-over is committed; `reverts`: all the same the guest did not go over.
fn finishing(record: &MigrationRecord, reverts: bool) -> Option<MigrationState> {
    use MigrationState as S;
    let released = record.outbound == OutboundState::Released
        || record.outbound_unknown_at == Some(record.step)
        || planted::is(Mistake::ReleaseForgotten);
    let lost = lost_at_target(record);
    let following = match () {
        () if reverts => S::Reverting,
        () if target_runs(record) && released => S::Completed,
        () if lost && released => S::Lost,
        () if is_stranded(record) => S::Stranded,
        () => S::Finishing,
    };
    (following != record.state).then_some(following)
}

/// Whether both halves of a guest are kept, and neither can go on.
fn is_stranded(record: &MigrationRecord) -> bool {
    let ended = target_runs(record) || lost_at_target(record);
    let source = matches!(record.outbound, OutboundState::Stranded { .. });
    let source_is_kept = source || matches!(record.outbound, OutboundState::Split(_));
    let target = matches!(record.inbound, InboundState::Stranded { .. });
    !ended && (source || target && source_is_kept)
}

fn reverted(record: &MigrationRecord, discarded: bool) -> Option<MigrationState> {
    let ended = if record.cancel_requested { MigrationState::Cancelled } else { MigrationState::Failed };
    if source_gone(record) {
        return match record.inbound {
            InboundState::Arrived if !record.handed_over && !discards_blindly(record) => {
                Some(MigrationState::HandingOver)
            }
            _ => discarded.then_some(ended),
        };
    }
    let target_clean = discarded || record.inbound_unknown_at == Some(record.step);
    (source_settled(record) && target_clean).then_some(ended)
}
