//! Post-copy: the guest goes over before all of its memory has, and what becomes of the half that is left here.
//!
//! A copy that does not converge is *poised*: it goes on pass after pass, and its guest runs here, until the hand-over is
//! committed in advance. Then QEMU is told, holds the guest here for good, sends what a processor needs, and libvirt calls
//! Finish at the target. That call is the point of no return: before it passes, it is written down here and there. A call
//! of Finish without it (the copy converged after all) is made one that holds the guest, as after any other copy.

use super::{
    Committed, Departure, Ending, OBSERVE_MAX, SourcePhase, called_off,
    copy::{Copy, Stage},
    reunion::Reunion,
    until_done,
};
use crate::{
    migrate::{
        journal::OutboundMark,
        lane::source::AtItsEnd,
        outcome::Verdict,
        ports::{Mover, Standing},
    },
    text::describe,
};
use novacron_common::{
    ids::VmId,
    record::OutboundState,
    units::Epoch,
    wire::{Denial, DenialCode},
};
use novacron_runtime::time::sleep;
use std::time::Duration;

impl Departure {
    /// The hand-over is committed: the guest may go over.
    pub(super) async fn go_over(&self, said: Committed, copy: &mut Copy) {
        let Some(said) = self.current(said) else { return };
        let answer = match (self.give_away(copy).await, copy.stage) {
            (Err(denial), _) => Err(denial),
            (Ok(()), Stage::Passes) => {
                let text = "it is not ready to go over".to_owned();
                Err(Denial { code: DenialCode::Conflict, text })
            }
            (Ok(()), Stage::Poised) => self.send_over(said.epoch, copy).await,
            (Ok(()), Stage::Going(_) | Stage::Split) => Ok(()),
        };
        let _ = said.reply.send(answer);
    }

    /// By the ledger the machine is the target's, whatever becomes of the copy: an agent that is started again has to know.
    async fn give_away(&self, copy: &mut Copy) -> Result<(), Denial> {
        if !copy.given_away {
            let written = self.parts.write(self.ticket.migration, self.record(OutboundMark::GivenAway)).await;
            written.map_err(|error| Denial { code: DenialCode::Failed, text: describe(&*error) })?;
            copy.given_away = true;
        }
        Ok(())
    }

    async fn send_over(&self, epoch: Epoch, copy: &mut Copy) -> Result<(), Denial> {
        self.mover.go_over(self.vm()).await.map_err(|error| {
            // It may have ended by itself in this very moment: how is for the coordinator to ask.
            tracing::warn!(migration = %self.ticket.migration, reason = describe(&error), "it does not go over");
            Denial { code: DenialCode::Failed, text: describe(&error) }
        })?;
        tracing::info!(migration = %self.ticket.migration, "the guest goes over, memory follows");
        copy.stage = Stage::Going(epoch);
        Ok(())
    }

    /// The copy is at its end: says whether the guest went over. From then on it never runs here again.
    pub(super) async fn at_its_end(&self, asked: AtItsEnd, copy: &mut Copy) {
        let Stage::Going(epoch) = copy.stage else {
            let _ = asked.send(false);
            return;
        };
        let gone_over = match self.mover.standing(self.vm()).await {
            Ok(standing) => matches!(standing, Standing::Split { .. }),
            Err(error) => {
                // Held there it comes to no harm: nobody runs it until this is known.
                tracing::warn!(migration = %self.ticket.migration, reason = describe(&error), "not seen whether it went over");
                false
            }
        };
        let record = self.record(OutboundMark::Split(epoch));
        let written = gone_over && self.parts.write(self.ticket.migration, record).await.is_ok();
        if written {
            copy.stage = Stage::Split;
            self.show(OutboundState::Split(copy.progress.clone()));
        }
        let _ = asked.send(written);
    }

    /// A half of the guest is here and cannot go on by itself: it is kept, and the other looked for.
    pub(super) async fn stranded(&mut self, mut ending: Ending) -> SourcePhase {
        let cause = if ending.reason.is_empty() { "the copy broke" } else { &ending.reason };
        let reason = format!(
            "the guest went over, and the rest of its memory could not follow ({cause}). Both halves are kept"
        );
        tracing::warn!(migration = %self.ticket.migration, reason, "stranded");
        self.draft = None;
        self.show(OutboundState::Stranded { reason: reason.clone() });
        self.tidied_up().await; // the sockets of the way that broke are where those of the next will be
        let pursuit = Reunion::of(self).pursue();
        tokio::pin!(pursuit);
        loop {
            tokio::select! {
                biased;
                next = self.let_go(&reason) => return next,
                never = &mut pursuit => match never {},
                () = sleep(OBSERVE_MAX) => {}
            }
            match self.look(&ending).await {
                Ok(Verdict::Gone) => {
                    ending.report.cuts += 1; // survived, too
                    return SourcePhase::Gone(ending.report);
                }
                Ok(Verdict::Back) => return SourcePhase::Back(ending),
                Ok(Verdict::Lost) => return SourcePhase::Lost(ending.reason),
                Ok(Verdict::Stranded | Verdict::Wait | Verdict::Abort | Verdict::Resume | Verdict::Halt) => {}
                Err(error) => {
                    tracing::warn!(migration = %self.ticket.migration, reason = describe(&*error), "not seen");
                }
            }
        }
    }

    /// The half that was here has ended.
    pub(super) async fn lost(&mut self, cause: String) -> SourcePhase {
        let cause = if cause.is_empty() { String::new() } else { format!(" ({cause})") };
        let reason = format!(
            "the guest is lost: its process on the source ended before all of its memory had followed it{cause}"
        );
        tracing::warn!(migration = %self.ticket.migration, reason, "lost");
        self.draft = None;
        self.show(OutboundState::Lost { reason: reason.clone() });
        self.let_go(&reason).await
    }

    /// Waits for the coordinator's word on what is here: it is of no use any more, or the target never ran the guest, and
    /// has discarded what it had. Then the machine is this host's, with its disk as it was when the guest was to go over.
    async fn let_go(&mut self, reason: &str) -> SourcePhase {
        let mut cancel = self.cancel.clone();
        tokio::select! {
            biased;
            next = self.released() => next,
            cause = called_off(&mut cancel) => {
                end_half(&*self.mover, self.vm()).await;
                SourcePhase::Back(Ending { given_away: true, ..Ending::failed(format!("{cause}: {reason}")) })
            }
        }
    }
}

/// Ends the half that is here.
pub(super) async fn end_half(mover: &dyn Mover, vm: VmId) {
    until_done("stop half a guest", || async { Ok(mover.stop(vm, Duration::ZERO).await?) }).await;
}
