//! The coordinator's commands. Each may come twice, late, or to an agent that has lost its journal.

use super::{Hands, Migrations, Trip, deny, failed};
use crate::migrate::{
    journal::{InboundMark, OutboundMark, Record},
    ports::Standing,
    source::{Committed, SourcePhase},
    target::{Order, TargetPhase},
};
use novacron_common::{
    ids::{MigrationId, VmId},
    record::{
        Climb, DiskDigest, InboundState, MoveLimits, OutboundState, SideState, Ticket, VmAction, VmAssignment,
    },
    spec::{StopTerms, VmSpec},
    units::{Epoch, Generation},
    wire::{Denial, DenialCode},
};
use novacron_runtime::time::timeout;
use std::{net::SocketAddr, time::Duration};
use tokio::sync::{mpsc, oneshot};

/// How long a copy may take to go over: its hypervisor answers within milliseconds.
const SPLIT_DEADLINE: Duration = Duration::from_secs(10);

impl Migrations {
    /// Gets ready to receive; the outcome is an observation.
    ///
    /// # Errors
    /// [`Denial`] if this host cannot or must not.
    pub async fn prepare_inbound(&self, ticket: Ticket, spec: VmSpec) -> Result<(), Denial> {
        let _turn = self.turns.take(ticket.migration).await;
        if self.is_known(&ticket, true)? {
            return Ok(());
        }
        let mover = self.admit(&ticket, &spec, ticket.target)?;
        let vm = ticket.vm;
        if self.parts.residents.holds(vm).await? {
            return deny(DenialCode::Conflict, format!("{vm} belongs to this host already"));
        }
        match mover.standing(vm).await {
            Ok(Standing::Absent) => {}
            Ok(_) => {
                return deny(DenialCode::Conflict, format!("the hypervisor of this host knows {vm} already"));
            }
            Err(error) => return Err(failed(&error)),
        }
        let record = Record::Inbound { ticket: ticket.clone(), spec: spec.clone(), mark: InboundMark::Begun };
        let state = record.state();
        self.write(ticket.migration, record).await?;
        self.spawn_inbound(mover, Trip::known(ticket, spec, state), TargetPhase::Prepare);
        Ok(())
    }

    /// Sends the machine; the outcome is an observation.
    ///
    /// # Errors
    /// [`Denial`] if this host cannot or must not.
    pub async fn start_outbound(
        &self,
        ticket: Ticket,
        spec: VmSpec,
        target: SocketAddr,
        limits: MoveLimits,
    ) -> Result<(), Denial> {
        let _turn = self.turns.take(ticket.migration).await;
        if self.is_known(&ticket, false)? {
            return Ok(());
        }
        let mover = self.admit(&ticket, &spec, ticket.source)?;
        let (vm, id) = (ticket.vm, ticket.migration);
        self.parts.residents.lend(vm, id, ticket.epoch).await?;
        let begun = async {
            match mover.standing(vm).await {
                Ok(Standing::Running) => {}
                Ok(Standing::Stopped) if !ticket.live => {}
                Ok(_) => return deny(DenialCode::Conflict, format!("{vm} does not run here")),
                Err(error) => return Err(failed(&error)),
            }
            let record =
                Record::Outbound { ticket: ticket.clone(), spec: spec.clone(), mark: OutboundMark::Begun };
            self.write(id, record).await
        };
        if let Err(denial) = begun.await {
            self.parts.residents.give_back(vm, id, false).await?;
            return Err(denial);
        }
        let state = SideState::Outbound(OutboundState::Connecting);
        let trip = Trip { ticket, spec, target: Some(target), limits, state };
        self.spawn_outbound(mover, trip, SourcePhase::Connect);
        Ok(())
    }

    /// Calls a departure off. One that never began is called off for good.
    ///
    /// # Errors
    /// [`Denial`] if the machine is gone already.
    pub async fn cancel_outbound(&self, id: MigrationId, reason: String) -> Result<(), Denial> {
        let _turn = self.turns.take(id).await;
        let known = {
            let sides = self.lock();
            match sides.get(&id).map(|side| (&side.hands, side.state.borrow().clone())) {
                Some((Hands::Outbound { .. }, SideState::Outbound(OutboundState::Gone(_)))) => {
                    return deny(DenialCode::Conflict, "the machine is gone from this host");
                }
                Some((Hands::Outbound { cancel, .. }, _)) => {
                    cancel.send_if_modified(|before| {
                        let first = before.is_none();
                        before.get_or_insert(reason.clone());
                        first
                    });
                    true
                }
                Some((Hands::None, SideState::Outbound(OutboundState::Released))) => {
                    return deny(DenialCode::Conflict, "the hand-over is done");
                }
                Some(_) => true,
                None => false,
            }
        };
        if !known {
            let state =
                SideState::Outbound(OutboundState::Back { reason, cancelled: true, climb: Climb::default() });
            self.write(id, Record::Ended(state.clone())).await?;
            self.remember(id, state);
        }
        Ok(())
    }

    /// Removes what arrived, or is arriving.
    ///
    /// # Errors
    /// [`Denial`] once it runs here, or if it cannot be removed now.
    pub async fn discard_inbound(&self, id: MigrationId, vm: VmId, reason: String) -> Result<(), Denial> {
        let _turn = self.turns.take(id).await;
        if let Some(orders) = self.orders(id) {
            let answer = order(&orders, |reply| Order::Discard { reason, reply }).await;
            // It may have been about to discard it by itself, and then nobody answered.
            return match self.state(id) {
                Some(SideState::Inbound(InboundState::Discarded { .. })) => Ok(()),
                _ => answer,
            };
        }
        match self.state(id) {
            Some(SideState::Inbound(InboundState::Running)) => {
                return deny(DenialCode::Conflict, format!("{vm} runs here since the hand-over"));
            }
            Some(_) => return Ok(()),
            None => {}
        }
        // The journal was lost, or it never began here: whatever is here without belonging here is removed.
        if !self.has_in_hand(vm)
            && !self.parts.residents.holds(vm).await?
            && let Some(mover) = &self.parts.mover
        {
            mover.undefine(vm).await.map_err(|error| failed(&error))?;
            self.parts.files.remove(vm).await.map_err(|error| failed(&*error))?;
        }
        let state = SideState::Inbound(InboundState::Discarded { reason });
        self.write(id, Record::Ended(state.clone())).await?;
        self.remember(id, state);
        Ok(())
    }

    /// The hand-over is committed with `epoch`: runs what arrived. From here on it only goes forward.
    ///
    /// # Errors
    /// [`Denial`] if it has not arrived, or the epoch does not supersede the ticket's.
    pub async fn resume_inbound(
        &self,
        id: MigrationId,
        vm: VmId,
        epoch: Epoch,
        spec: VmSpec,
        disk: Option<DiskDigest>,
    ) -> Result<(), Denial> {
        let _turn = self.turns.take(id).await;
        if let Some(orders) = self.orders(id) {
            return order(&orders, |reply| Order::Resume { epoch, disk, reply }).await;
        }
        match self.state(id) {
            Some(SideState::Inbound(InboundState::Running)) => Ok(()),
            Some(_) => deny(DenialCode::Conflict, format!("{vm} is not here any more")),
            None => self.adopt(id, vm, epoch, spec).await,
        }
    }

    /// The journal was lost, but the machine is here.
    async fn adopt(&self, id: MigrationId, vm: VmId, epoch: Epoch, spec: VmSpec) -> Result<(), Denial> {
        let Some(mover) = self.parts.mover.clone() else {
            return deny(DenialCode::Unsupported, "this host moves no machines");
        };
        if self.has_in_hand(vm) {
            return deny(DenialCode::Conflict, format!("another migration has {vm} in hand"));
        }
        let standing = mover.standing(vm).await.map_err(|error| failed(&error))?;
        match standing {
            Standing::Paused { persistent: true } => {
                mover.resume(vm).await.map_err(|error| failed(&error))?
            }
            Standing::Running | Standing::Stopped => {}
            _ => return deny(DenialCode::Unknown, format!("{vm} is not here")),
        }
        let action = match standing {
            Standing::Stopped => VmAction::Stop(StopTerms::AT_ONCE),
            _ => VmAction::Run,
        };
        // Which wish it came with was lost with the journal: whatever the coordinator says next is newer.
        let assignment = VmAssignment { vm, epoch, generation: Generation(0), spec, action };
        self.parts.residents.arrived(assignment).await?;
        let state = SideState::Inbound(InboundState::Running);
        self.write(id, Record::Ended(state.clone())).await?;
        self.remember(id, state);
        Ok(())
    }

    /// The hand-over is committed with `epoch`, before the guest goes over (post-copy): it may run here once it does.
    ///
    /// # Errors
    /// [`Denial`] if none is arriving, or the epoch does not supersede the ticket's.
    pub async fn open_inbound(&self, id: MigrationId, epoch: Epoch) -> Result<(), Denial> {
        match self.orders(id) {
            Some(orders) => order(&orders, |reply| Order::Open { epoch, reply }).await,
            None => deny(DenialCode::Unknown, "no guest is arriving here by this migration"),
        }
    }

    /// The source lost its half (post-copy): ends what is here, and keeps the machine, stopped.
    ///
    /// # Errors
    /// [`Denial`] if no half is here.
    pub async fn abandon_inbound(&self, id: MigrationId, reason: String) -> Result<(), Denial> {
        let answer = match self.orders(id) {
            Some(orders) => order(&orders, |reply| Order::Abandon { reason, reply }).await,
            None => deny(DenialCode::Unknown, "no half of a guest is here by this migration"),
        };
        // A repeated word may come while the first is carried out.
        match self.state(id) {
            Some(SideState::Inbound(InboundState::Lost { .. })) => Ok(()),
            _ => answer,
        }
    }

    /// The hand-over is committed with `epoch`, and the target knows: the guest may go over (post-copy).
    ///
    /// # Errors
    /// [`Denial`] if it is not ready for it, the hypervisor refuses, or the epoch does not supersede the ticket's.
    pub async fn split_outbound(&self, id: MigrationId, epoch: Epoch) -> Result<(), Denial> {
        let splits = {
            let sides = self.lock();
            match sides.get(&id).map(|side| (&side.hands, side.state.borrow().clone())) {
                Some((
                    Hands::Outbound { splits, .. },
                    SideState::Outbound(OutboundState::Copying(_) | OutboundState::Poised(_)),
                )) => splits.clone(),
                // It has gone over, or come to another end: that is what it says when it is observed.
                Some((_, SideState::Outbound(_))) => return Ok(()),
                _ => return deny(DenialCode::Unknown, "this migration takes nothing away from here"),
            }
        };
        let over = || Denial { code: DenialCode::Conflict, text: "the copy is over: observe it".into() };
        // Behind the copy nobody reads them any more; one is enough, and the next says the same.
        let (reply, answer) = oneshot::channel();
        splits.try_send(Committed { epoch, reply }).map_err(|_| over())?;
        timeout(SPLIT_DEADLINE, answer).await.map_err(|_| over())?.map_err(|_| over())?
    }

    /// The hand-over is committed with `epoch`: removes what is left of the machine here.
    ///
    /// # Errors
    /// [`Denial`] if the machine is not gone, or the epoch does not supersede the ticket's.
    pub async fn release_outbound(&self, id: MigrationId, vm: VmId, epoch: Epoch) -> Result<(), Denial> {
        let _turn = self.turns.take(id).await;
        let releases = match self.lock().get(&id).map(|side| &side.hands) {
            Some(Hands::Outbound { releases, .. }) => Some(releases.clone()),
            _ => None,
        };
        let state = self.state(id);
        match (state, releases) {
            (
                Some(SideState::Outbound(
                    OutboundState::Gone(_) | OutboundState::Stranded { .. } | OutboundState::Lost { .. },
                )),
                Some(releases),
            ) => {
                let (reply, answer) = oneshot::channel();
                let sent = releases.send(Committed { epoch, reply }).await;
                if sent.is_err() {
                    return Ok(()); // released in the meantime
                }
                answer.await.unwrap_or(Ok(()))
            }
            (Some(SideState::Outbound(OutboundState::Released)), _) => Ok(()),
            (Some(_), _) => deny(DenialCode::Conflict, format!("{vm} is not gone from this host")),
            (None, _) if self.parts.residents.holds(vm).await? => {
                deny(DenialCode::Unknown, format!("{vm} is here, and this migration is not known"))
            }
            (None, _) => {
                let state = SideState::Outbound(OutboundState::Released);
                self.write(id, Record::Ended(state.clone())).await?;
                self.remember(id, state);
                Ok(())
            }
        }
    }
}

async fn order(
    orders: &mpsc::Sender<Order>,
    make: impl FnOnce(oneshot::Sender<Result<(), Denial>>) -> Order,
) -> Result<(), Denial> {
    let ended = || Denial { code: DenialCode::Conflict, text: "it has just ended: observe it".into() };
    let (reply, answer) = oneshot::channel();
    orders.send(make(reply)).await.map_err(|_| ended())?;
    answer.await.map_err(|_| ended())?
}
