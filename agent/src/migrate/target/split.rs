//! Post-copy at the target: the guest runs here before all of its memory is here.
//!
//! libvirt lets it run when the source calls Finish, so the control lane holds that call until it is written down here, and
//! refuses it unless the hand-over is known to be committed. From then on nothing discards the guest: it becomes complete,
//! it is stranded (and kept) for as long as memory does not follow, or it is lost.

use super::{Arrival, Landed, Order, Stage, TargetPhase, next_event, share};
use crate::{
    hypervisor::MachineFiles,
    migrate::{
        journal::{InboundMark, Record},
        lane::target::LaneEvent,
        ports::{Failure, Standing},
        source::until_done,
    },
    text::describe,
};
use novacron_common::{
    record::InboundState,
    units::Epoch,
    wire::{Denial, DenialCode},
};
use novacron_runtime::{
    task::spawn,
    time::{sleep, timeout},
};
use std::time::Duration;
use tokio::sync::oneshot;

/// How often a half is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long libvirt may take for its last words; the coordinator lets the source go without them, too.
const LAST_WORDS_DEADLINE: Duration = Duration::from_secs(30);

/// What a look says of the half that is here.
enum Half {
    Complete,
    Flows,
    Broken,
    Ended,
}

/// Serves the lanes until libvirt here has told the source's that the guest is complete: without that the source would keep
/// its half.
async fn last_words(mut stage: Option<Box<Stage>>) {
    let over =
        async { while !matches!(next_event(&mut stage).await, None | Some(LaneEvent::Over { .. })) {} };
    let _ = timeout(LAST_WORDS_DEADLINE, over).await;
    share(stage).await;
}

impl Arrival {
    /// The hand-over is committed in advance: the epoch, if it may run the guest.
    pub(super) fn open(&self, epoch: Epoch, reply: oneshot::Sender<Result<(), Denial>>) -> Option<Epoch> {
        let verdict = match self.spec.mobility.allows_post_copy() {
            true => self.may_run(epoch),
            false => Err(Denial {
                code: DenialCode::Invalid,
                text: "the machine does not allow post-copy".to_owned(),
            }),
        };
        let opened = verdict.is_ok().then_some(epoch);
        let _ = reply.send(verdict);
        opened
    }

    /// libvirt here is about to let the guest run: it may, if the hand-over is committed and that is written down.
    pub(super) async fn let_split(&self, may: oneshot::Sender<bool>, opened: Option<Epoch>) -> Option<Epoch> {
        let epoch = opened?;
        let (ticket, spec) = (self.ticket.clone(), self.spec.clone());
        let record = Record::Inbound { ticket, spec, mark: InboundMark::Split { epoch } };
        if let Err(error) = self.parts.write(self.ticket.migration, record).await {
            tracing::error!(migration = %self.ticket.migration, reason = describe(&*error), "it may not go over: that could not be written down");
            return None;
        }
        // If nobody waits for it any more it does not run; what is looked at next says so.
        let _ = may.send(true);
        Some(epoch)
    }

    pub(super) async fn split(&mut self, mut stage: Option<Box<Stage>>, epoch: Epoch) -> TargetPhase {
        self.show(InboundState::Split);
        let (mut stranded, mut waits, mut finished) = (false, false, false);
        // Seen before libvirt says so, which may have to wait for QEMU, as QEMU does for a page of its guest.
        let mut apart = stage.is_none();
        loop {
            let half = match self.half().await {
                // libvirt's word at the end is as good as its state, which it may be slow to change.
                Half::Flows if finished => Half::Complete,
                Half::Flows if apart => Half::Broken,
                half => half,
            };
            match half {
                Half::Complete => {
                    spawn(last_words(stage));
                    return TargetPhase::Resume(Landed { run: true, stage: None }, epoch);
                }
                Half::Ended => {
                    let reason = "the guest is lost: its process on the target ended before all of its memory was there";
                    return TargetPhase::Lost(epoch, reason.to_owned());
                }
                Half::Broken if !stranded => {
                    stranded = true;
                    let reason = "the guest went over, and the rest of its memory does not follow. Both halves are kept";
                    self.show(InboundState::Stranded { reason: reason.to_owned() });
                }
                Half::Broken if !waits => {
                    stage = self.wait_for_the_rest(stage).await;
                    waits = stage.is_some();
                }
                Half::Broken | Half::Flows => {}
            }
            tokio::select! {
                biased;
                Some(event) = next_event(&mut stage) => {
                    finished |= matches!(event, LaneEvent::Finished);
                    let has_hung_up = waits && matches!(event, LaneEvent::Over { .. });
                    if has_hung_up || matches!(event, LaneEvent::Broke) {
                        (apart, waits) = (true, false);
                    }
                }
                order = self.orders.recv() => match order {
                    // What became complete in this very moment needs no other half.
                    Some(Order::Abandon { reason, reply }) => {
                        let _ = reply.send(Ok(()));
                        if !matches!(self.half().await, Half::Complete) {
                            return TargetPhase::Lost(epoch, reason);
                        }
                    }
                    // It runs already, and says so as soon as it is complete.
                    Some(Order::Resume { reply, .. } | Order::Open { reply, .. }) => {
                        let _ = reply.send(Ok(()));
                    }
                    Some(Order::Discard { reply, .. }) => {
                        let text = "the guest went over: it runs here".to_owned();
                        let _ = reply.send(Err(Denial { code: DenialCode::Conflict, text }));
                    }
                    None => return TargetPhase::Ended,
                },
                () = sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// Has the hypervisor's ear, if it can be had. Without it a guest goes over all the same, and if its halves lose each other
    /// the ear is tried for again.
    pub(super) async fn lend_an_ear(&mut self, files: &MachineFiles) {
        if self.ear.as_ref().is_some_and(|ear| ear.hears()) {
            return;
        }
        self.ear = None; // a hypervisor has one at a time
        match self.mover.ear(self.vm(), files).await {
            Ok(ear) => self.ear = Some(ear),
            Err(error) => {
                tracing::warn!(migration = %self.ticket.migration, reason = describe(&error), "halves that lost each other could not meet again");
            }
        }
    }

    /// Ends the way that broke, and has the half that is here wait for the rest of its memory on another.
    async fn wait_for_the_rest(&mut self, broken: Option<Box<Stage>>) -> Option<Box<Stage>> {
        self.door.send_replace(None);
        share(broken).await;
        match self.make_way_for_the_rest().await {
            Ok(stage) => {
                self.door.send_replace(Some(stage.quay.entrance.clone()));
                tracing::info!(migration = %self.ticket.migration, "the half that is here waits for the rest of its memory");
                Some(Box::new(stage))
            }
            Err(error) => {
                tracing::info!(migration = %self.ticket.migration, reason = describe(&*error), "the half that is here cannot wait for the rest of its memory yet");
                None
            }
        }
    }

    async fn make_way_for_the_rest(&mut self) -> Result<Stage, Failure> {
        let files = self.parts.files.prepare(self.vm(), &self.spec).await?;
        self.lend_an_ear(&files).await;
        let ear = self.ear.as_mut().ok_or("the hypervisor does not hear")?;
        let (quay, migrate_uri) = self.parts.roads.receive_again(&self.ticket)?;
        ear.listen_again(&migrate_uri).await?;
        Ok(Stage { quay, files, arriving: None, begun: true, opened: None })
    }

    async fn half(&self) -> Half {
        match self.mover.standing(self.vm()).await {
            Ok(Standing::Running) => Half::Complete,
            Ok(Standing::Absent | Standing::Stopped) => Half::Ended,
            Ok(Standing::Split { broken: true }) => Half::Broken,
            // Held: it was let run just now.
            Ok(Standing::Split { broken: false } | Standing::Paused { .. } | Standing::Unclear) => {
                Half::Flows
            }
            Err(error) => {
                tracing::warn!(vm = %self.vm(), reason = describe(&error), "a half is not seen");
                Half::Flows
            }
        }
    }

    /// Ends what is here. The machine is this host's, with its disk, as after a loss of power: what follows is its restart
    /// policy's to say.
    pub(super) async fn lost(&mut self, epoch: Epoch, reason: String) -> TargetPhase {
        tracing::warn!(migration = %self.ticket.migration, reason, "lost");
        until_done("keep what is left of a lost guest", || async {
            self.mover.undefine(self.vm()).await?;
            let files = self.parts.files.prepare(self.vm(), &self.spec).await?;
            self.mover.define(&self.parts.definition(self.vm(), &self.spec, files)).await?;
            Ok(self.parts.residents.arrived(self.assignment(epoch, true)).await?)
        })
        .await;
        self.ended(InboundState::Lost { reason }).await;
        TargetPhase::Ended
    }
}
