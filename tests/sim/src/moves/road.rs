//! The way between two agents: one stream of the simulated network in place of a migration's lanes. Who may open it, and what
//! each side does when the other is gone, is as in `novacron_agent::migrate::lane`.

use super::{
    copy::{Conduit, Heard, Said},
    metal::Metal,
};
use async_trait::async_trait;
use novacron_agent::migrate::{
    checkpoint::Sink,
    lane::{
        source::AtItsEnd,
        target::{LaneEvent, refuse},
    },
    link::keeper::LinkCondition,
    ports::{Failure, Route},
    road::{Berth, ColdRoad, Destination, Entrance, LiveRoad, Quay, Road, Roads},
};
use novacron_common::{
    ids::{HostId, VmId},
    record::{Ticket, TransferCounts},
    units::UnixMillis,
    wire::{Denial, DenialCode, LaneId, LaneKind, LaneOpen, LaneVerdict, StreamKind},
};
use novacron_runtime::{
    spawn,
    time::{sleep, timeout},
};
use novacron_transport::{Endpoint, LinkError, RecvHalf, Role, SendHalf, Stream};
use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long the target may take to answer.
const ANSWER: Duration = Duration::from_secs(5);
/// What may wait on its way.
const WAITING: usize = 8;
/// How long a libvirtd takes to notice that a copy's source is gone, nanoseconds.
const NOTICED: (u64, u64) = (1_000_000, 300_000_000);
/// How long a disk takes to cross, nanoseconds.
const DISK: (u64, u64) = (10_000_000, 1_500_000_000);
const LOST: &str = "the link to the target was lost";

/// The roads of one host.
pub struct SimulatedRoads {
    /// Its hardware.
    pub metal: Arc<Metal>,
    /// Its agent's.
    pub endpoint: Endpoint,
}

impl SimulatedRoads {
    async fn open(&self, ticket: &Ticket, target: SocketAddr) -> Result<Stream, Failure> {
        let link = self.endpoint.reach(target, &Role::Agent { host: ticket.target }).await?;
        let mut stream = link.open(StreamKind::Lane).await?;
        let lane = LaneId { kind: LaneKind::Control, number: 0 };
        stream.send(&LaneOpen { ticket: ticket.clone(), lane, turn: 1, received: 0 }).await?;
        match timeout(ANSWER, stream.recv::<LaneVerdict>())
            .await
            .map_err(|_| "the target did not answer")??
        {
            LaneVerdict::Open { .. } => Ok(stream),
            LaneVerdict::Over => Err("the lane is over".into()),
            LaneVerdict::Refused(denial) => Err(denial.into()),
        }
    }
}

#[async_trait]
impl Roads for SimulatedRoads {
    async fn lead_live(
        &self,
        ticket: &Ticket,
        to: Destination,
        _sink: Option<Sink>,
    ) -> Result<Box<dyn LiveRoad>, Failure> {
        let (send, recv) = self.open(ticket, to.target).await?.split();
        let (say, said) = mpsc::channel(WAITING);
        let (hear, from) = mpsc::channel(WAITING);
        let uri = format!("control of {}", ticket.migration);
        self.metal.lay(uri.clone(), Conduit { to: say, from });
        let (over, lost) = watch::channel(false);
        let (finish, finished) = watch::channel(false);
        let stop = CancellationToken::new();
        spawn(until(stop.clone(), talk(send, said, over.clone())));
        spawn(until(stop.clone(), listen(recv, hear, (over, finish))));
        let way =
            LiveWay { uri, lost, finished, moved: AtomicU64::new(0), _stop: stop.clone().drop_guard(), stop };
        Ok(Box::new(way))
    }

    async fn lead_cold(&self, ticket: &Ticket, to: Destination) -> Result<Box<dyn ColdRoad>, Failure> {
        let stream = self.open(ticket, to.target).await?;
        let stream = tokio::sync::Mutex::new(stream);
        Ok(Box::new(ColdWay { metal: Arc::clone(&self.metal), vm: ticket.vm, stream }))
    }

    async fn lead_again(&self, _: &Ticket) -> Result<Box<dyn LiveRoad>, Failure> {
        Err("post-copy is not simulated".into())
    }

    fn receive_again(&self, _: &Ticket) -> Result<(Quay, String), Failure> {
        Err("post-copy is not simulated".into())
    }

    /// What a gang keeps of it has nothing to do with who runs it, and is not modelled.
    fn receive(&self, ticket: &Ticket, berth: Berth) -> Result<Quay, Failure> {
        if matches!(berth, Berth::Live { post_copy: true, .. }) {
            return Err("post-copy is not simulated".into());
        }
        let (events_in, events) = mpsc::channel(WAITING);
        let gate = Gate {
            metal: Arc::clone(&self.metal),
            ticket: ticket.clone(),
            events: events_in,
            spent: AtomicBool::new(false),
            stop: CancellationToken::new(),
        };
        Ok(Quay { kept: None, entrance: Arc::new(gate), events })
    }
}

async fn until(stop: CancellationToken, work: impl Future<Output = ()>) {
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = work => {}
    }
}

/// Once the link is lost, what is said goes nowhere: the socket stays open until the road is closed.
async fn talk(mut send: SendHalf, mut said: mpsc::Receiver<Said>, over: watch::Sender<bool>) {
    while let Some(word) = said.recv().await {
        if send.send(&word).await.is_err() {
            over.send_replace(true);
        }
    }
}

async fn listen(
    mut recv: RecvHalf,
    hear: mpsc::Sender<Heard>,
    (over, finish): (watch::Sender<bool>, watch::Sender<bool>),
) {
    while let Ok(word) = recv.recv::<Heard>().await {
        let last = word == Heard::Finished;
        // Overheard on the way, as on the control lane.
        finish.send_if_modified(|finished| std::mem::replace(finished, last) != last);
        let _ = hear.send(word).await; // libvirt may have hung up
    }
    over.send_replace(true);
    hear.closed().await;
}

/// The way of a running machine.
struct LiveWay {
    uri: String,
    lost: watch::Receiver<bool>,
    finished: watch::Receiver<bool>,
    moved: AtomicU64,
    stop: CancellationToken,
    _stop: DropGuard,
}

async fn once(mut seen: watch::Receiver<bool>) {
    if seen.wait_for(|seen| *seen).await.is_err() {
        std::future::pending().await
    }
}

#[async_trait]
impl Road for LiveWay {
    fn condition(&self) -> LinkCondition {
        LinkCondition::default()
    }

    async fn changed(&self, _before: LinkCondition) {
        std::future::pending().await
    }

    /// More with each look, as long as the link stands.
    fn counts(&self) -> TransferCounts {
        let more = u64::from(!*self.lost.borrow());
        let memory_bytes = self.moved.fetch_add(more, Ordering::Relaxed);
        TransferCounts { memory_bytes, ..TransferCounts::default() }
    }

    fn close(&self) {
        self.stop.cancel();
    }
}

#[async_trait]
impl LiveRoad for LiveWay {
    async fn offer_heard(&self) {}

    fn route(&self, disk: Option<&'static str>) -> Route {
        let nowhere = String::new();
        Route { control_uri: self.uri.clone(), migrate_uri: nowhere.clone(), disks_uri: nowhere, disk }
    }

    async fn finished(&self) {
        once(self.finished.clone()).await;
    }

    /// Never: no guest here goes over before all of its memory has.
    async fn at_its_end(&self) -> AtItsEnd {
        std::future::pending().await
    }

    async fn over(&self) -> String {
        once(self.lost.clone()).await;
        LOST.to_owned()
    }

    fn trouble(&self) -> Option<String> {
        None
    }
}

/// The way of a stopped machine.
struct ColdWay {
    metal: Arc<Metal>,
    vm: VmId,
    stream: tokio::sync::Mutex<Stream>,
}

#[async_trait]
impl Road for ColdWay {
    fn condition(&self) -> LinkCondition {
        LinkCondition::default()
    }

    async fn changed(&self, _before: LinkCondition) {
        std::future::pending().await
    }

    fn counts(&self) -> TransferCounts {
        TransferCounts::default()
    }

    fn close(&self) {}
}

#[async_trait]
impl ColdRoad for ColdWay {
    async fn send(&self, _disk: Option<&Path>, ran: bool) -> Result<(), Failure> {
        let mut stream = self.stream.lock().await;
        sleep(self.metal.draw(DISK)).await;
        let disk = self.metal.truth.disk(self.metal.host, self.vm);
        stream.send(&Said::Disk(disk, ran)).await?;
        match stream.recv::<Heard>().await? {
            Heard::Taken => Ok(()),
            other => Err(format!("{other:?}").into()),
        }
    }
}

/// The target's end.
struct Gate {
    metal: Arc<Metal>,
    ticket: Ticket,
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
    fn judge(&self, open: &LaneOpen, peer: HostId, now: UnixMillis) -> Result<(), &'static str> {
        match () {
            () if open.ticket != self.ticket || peer != self.ticket.source => Err("it is another ticket"),
            () if self.stop.is_cancelled() => Err("the migration is over here"),
            () if now > self.ticket.expires_at => Err("the ticket has expired"),
            () if self.spent.swap(true, Ordering::Relaxed) => Err("the ticket is spent"),
            () => Ok(()),
        }
    }

    async fn serve(&self, stream: Stream) {
        self.tell(LaneEvent::Begun).await;
        let incoming = Incoming { metal: Arc::clone(&self.metal), vm: self.ticket.vm };
        let ended = self.converse(stream).await;
        drop(incoming);
        let reason = format!("the source ended the copy: {ended:?}");
        match self.ticket.live {
            true => self.tell(LaneEvent::Over { reason }).await,
            false => self.tell(LaneEvent::Landed(Err(reason))).await,
        }
    }

    async fn converse(&self, mut stream: Stream) -> Result<(), LinkError> {
        while let Some(said) = stream.recv_opt::<Said>().await? {
            let heard = self.answer(said).await.unwrap_or_else(Heard::Failed);
            stream.send(&heard).await?;
        }
        Ok(())
    }

    /// As the target's libvirtd.
    async fn answer(&self, said: Said) -> Result<Heard, String> {
        let (metal, vm) = (&self.metal, self.ticket.vm);
        metal.call("receive").await.map_err(|error| format!("{error:?}"))?;
        match said {
            Said::Prepare => {
                metal.expect(vm)?;
                Ok(Heard::Prepared)
            }
            Said::Finish(memory, disk) => {
                metal.domain(vm).filter(|domain| !domain.persistent).ok_or("the copy is gone")?;
                metal.truth.arrives(metal.host, vm, memory, disk);
                metal.set(vm, |domain| domain.persistent = true);
                self.tell(LaneEvent::Finished).await;
                Ok(Heard::Finished)
            }
            Said::Disk(disk, ran) => {
                disk.into_iter().for_each(|disk| metal.truth.lands(metal.host, vm, disk));
                self.tell(LaneEvent::Landed(Ok(ran))).await;
                Ok(Heard::Taken)
            }
        }
    }

    async fn tell(&self, event: LaneEvent) {
        let _ = self.events.send(event).await; // a migration that has ended does not listen any more
    }
}

/// A copy that arrives: libvirtd gives it up when its source is gone, unless it is complete by then.
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
                }
            }),
        );
    }
}
