//! The target's end of a way between two agents: who may come in, and what its libvirtd and QEMU answer.

use super::{
    copy::{Extent, Heard, Said},
    metal::{Metal, Split},
    road::until,
    truth::{Disk, Memory},
};
use async_trait::async_trait;
use novacron_agent::migrate::{
    lane::target::{LaneEvent, refuse},
    road::{Entrance, Quay},
};
use novacron_common::{
    ids::{HostId, VmId},
    record::Ticket,
    units::UnixMillis,
    wire::{Denial, DenialCode, LaneOpen, LaneVerdict},
};
use novacron_transport::{LinkError, Stream};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// Events that may wait.
const WAITING: usize = 8;
/// How long a libvirtd takes to notice that a copy's source is gone, nanoseconds.
const NOTICED: (u64, u64) = (1_000_000, 300_000_000);

/// What comes through a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comes {
    /// A running guest.
    Guest,
    /// The rest of one that runs here already.
    Rest,
    /// A stopped machine's disk.
    Disk,
}

/// The target's end.
pub(super) struct Gate {
    metal: Arc<Metal>,
    ticket: Ticket,
    comes: Comes,
    events: mpsc::Sender<LaneEvent>,
    spent: AtomicBool,
    stop: CancellationToken,
}

#[async_trait]
impl Entrance for Gate {
    async fn let_in(self: Arc<Self>, open: &LaneOpen, peer: HostId, now: UnixMillis, mut stream: Stream) {
        if let Err(text) = self.judge(open, peer, now) {
            return refuse(stream, Denial { code: DenialCode::Invalid, text: text.into() }).await;
        }
        if stream.send(&LaneVerdict::Open { received: 0 }).await.is_err() {
            return;
        }
        until(self.stop.clone(), self.serve(stream)).await;
    }

    fn shut(&self) {
        self.stop.cancel();
    }
}

impl Gate {
    /// One that is opened on this host for what comes with `ticket`.
    pub fn open(metal: Arc<Metal>, ticket: Ticket, comes: Comes) -> Quay {
        let (tell, events) = mpsc::channel(WAITING);
        let (spent, stop) = (AtomicBool::new(false), CancellationToken::new());
        let gate = Self { metal, ticket, comes, events: tell, spent, stop };
        Quay { kept: None, entrance: Arc::new(gate), events }
    }

    fn judge(&self, open: &LaneOpen, peer: HostId, now: UnixMillis) -> Result<(), &'static str> {
        match () {
            () if open.ticket != self.ticket || peer != self.ticket.source => Err("it is another ticket"),
            () if self.stop.is_cancelled() => Err("the migration is over here"),
            () if self.comes != Comes::Rest && now > self.ticket.expires_at => Err("the ticket has expired"),
            () if self.spent.swap(true, Ordering::Relaxed) => Err("the ticket is spent"),
            () => Ok(()),
        }
    }

    async fn serve(&self, stream: Stream) {
        match self.comes {
            Comes::Guest | Comes::Disk => self.tell(LaneEvent::Begun).await,
            Comes::Rest => self.metal.take_up(self.ticket.vm),
        }
        let incoming = Incoming { metal: Arc::clone(&self.metal), vm: self.ticket.vm };
        let ended = self.converse(stream).await;
        drop(incoming);
        let reason = format!("the source ended the copy: {ended:?}");
        if self.comes == Comes::Disk {
            return self.tell(LaneEvent::Landed(Err(reason))).await;
        }
        if self.metal.split(self.ticket.vm).is_some() {
            self.tell(LaneEvent::Broke).await;
        }
        self.tell(LaneEvent::Over { reason }).await;
    }

    async fn converse(&self, mut stream: Stream) -> Result<(), LinkError> {
        let process = || self.metal.domain(self.ticket.vm).map(|domain| domain.process);
        let mut guest = process().filter(|_| self.comes == Comes::Rest);
        loop {
            let said = tokio::select! {
                biased;
                () = self.metal.process_gone(self.ticket.vm, guest.unwrap_or(0)), if guest.is_some() => {
                    return stream.send(&Heard::Ended).await; // its QEMU hangs up
                }
                said = stream.recv_opt::<Said>() => said?,
            };
            let Some(said) = said else { return Ok(()) };
            let heard = self.answer(said).await.unwrap_or_else(Heard::Failed);
            if heard == Heard::Prepared {
                guest = process();
            }
            stream.send(&heard).await?;
        }
    }

    async fn answer(&self, said: Said) -> Result<Heard, String> {
        match said {
            Said::Piece | Said::Rest => self.take_more(said).await,
            Said::Run(_, disk, Extent::Half) if !self.has_the_disk(disk) => Ok(Heard::Ended),
            Said::Run(..) if !self.may_split().await => Err("it may not run here".into()),
            // That its libvirtd cannot run what no QEMU takes back is nobody's fault.
            Said::Run(.., Extent::Half) => self.take(said).await.inspect_err(|_| {
                self.metal.truth.excuses(self.ticket.vm);
            }),
            Said::Prepare | Said::Finish(..) | Said::Run(..) | Said::Disk(..) => self.take(said).await,
        }
    }

    /// Disks have crossed by the time a guest goes over, if there is somebody to take them.
    fn has_the_disk(&self, disk: Option<Disk>) -> bool {
        let (metal, vm) = (&self.metal, self.ticket.vm);
        let arrives = metal.domain(vm).is_some_and(|domain| !domain.persistent);
        if arrives {
            disk.into_iter().for_each(|disk| metal.truth.lands(metal.host, vm, disk));
        }
        arrives
    }

    /// As the target's QEMU, of which a guest runs already.
    async fn take_more(&self, said: Said) -> Result<Heard, String> {
        let (metal, vm) = (&self.metal, self.ticket.vm);
        match said {
            _ if metal.split(vm) != Some(Split::Flows) => Err("the guest does not wait for it".into()),
            Said::Rest => {
                metal.complete(vm);
                self.tell(LaneEvent::Finished).await;
                Ok(Heard::Finished)
            }
            _ => Ok(Heard::More),
        }
    }

    /// As the target's libvirtd.
    async fn take(&self, said: Said) -> Result<Heard, String> {
        let (metal, vm) = (&self.metal, self.ticket.vm);
        metal.call("receive").await.map_err(|error| format!("{error:?}"))?;
        match said {
            Said::Prepare => {
                metal.expect(vm)?;
                Ok(Heard::Prepared)
            }
            Said::Finish(memory, disk) => {
                self.keep(memory, disk)?;
                self.tell(LaneEvent::Finished).await;
                Ok(Heard::Finished)
            }
            Said::Run(memory, disk, Extent::Whole) => {
                self.keep(memory, disk)?;
                metal.resume(vm);
                self.tell(LaneEvent::Finished).await;
                Ok(Heard::Finished)
            }
            Said::Run(memory, disk, Extent::Half) => {
                self.keep(memory, disk)?;
                metal.take_over(vm, self.ticket.source);
                Ok(Heard::More)
            }
            Said::Disk(disk, ran) => {
                disk.into_iter().for_each(|disk| metal.truth.lands(metal.host, vm, disk));
                self.tell(LaneEvent::Landed(Ok(ran))).await;
                Ok(Heard::Taken)
            }
            Said::Piece | Said::Rest => Err("that is QEMU's".into()),
        }
    }

    /// What arrived stays defined.
    fn keep(&self, memory: Memory, disk: Option<Disk>) -> Result<(), String> {
        let (metal, vm) = (&self.metal, self.ticket.vm);
        metal.domain(vm).filter(|domain| !domain.persistent).ok_or("the copy is gone")?;
        metal.truth.arrives(metal.host, vm, memory, disk);
        metal.set(vm, |domain| domain.persistent = true);
        Ok(())
    }

    async fn may_split(&self) -> bool {
        let (tell, told) = oneshot::channel();
        self.tell(LaneEvent::Splits(tell)).await;
        told.await.unwrap_or(false)
    }

    async fn tell(&self, event: LaneEvent) {
        let _ = self.events.send(event).await; // a migration that has ended does not listen any more
    }
}

/// A copy that arrives: libvirtd gives it up when its source is gone, unless it is complete by then, or runs.
struct Incoming {
    metal: Arc<Metal>,
    vm: VmId,
}

impl Drop for Incoming {
    fn drop(&mut self) {
        let (metal, vm) = (Arc::clone(&self.metal), self.vm);
        let process = metal.domain(vm).map(|domain| domain.process);
        let soon = u64::try_from(metal.draw(NOTICED).as_nanos()).unwrap_or(0);
        let executor = Arc::clone(&metal.executor);
        executor.act_in(
            soon,
            Box::new(move || {
                // Another copy may have begun by then.
                if metal.domain(vm).map(|domain| domain.process) == process {
                    metal.abandon(vm);
                    metal.part_ways(vm);
                }
            }),
        );
    }
}
