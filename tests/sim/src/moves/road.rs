//! The way between two agents: one stream of the simulated network in place of a migration's lanes. Who may open it, and what
//! each side does when the other is gone, is as in `novacron_agent::migrate::lane`.

use super::{
    copy::{Conduit, Heard, Said},
    gate::{Comes, Gate},
    metal::Metal,
};
use crate::net;
use async_trait::async_trait;
use novacron_agent::migrate::{
    checkpoint::Sink,
    lane::source::AtItsEnd,
    link::keeper::LinkCondition,
    ports::{Failure, Route},
    road::{Berth, ColdRoad, Destination, LiveRoad, Quay, Road, Roads},
};
use novacron_common::{
    ids::VmId,
    record::{Ticket, TransferCounts},
    wire::{LaneId, LaneKind, LaneOpen, LaneVerdict, StreamKind},
};
use novacron_runtime::{
    spawn,
    time::{sleep, timeout},
};
use novacron_transport::{Endpoint, RecvHalf, Role, SendHalf, Stream};
use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long the target may take to answer.
const ANSWER: Duration = Duration::from_secs(5);
/// What may wait on its way.
const WAITING: usize = 8;
/// How long a disk takes to cross, nanoseconds.
const DISK: (u64, u64) = (10_000_000, 1_500_000_000);
/// How long an agent may be about something else before it acts on what it has overheard, nanoseconds.
const BUSY: (u64, u64) = (0, 150_000_000);
const LOST: &str = "the link to the target was lost";

/// The roads of one host.
pub struct SimulatedRoads {
    /// Its hardware.
    pub metal: Arc<Metal>,
    /// Its agent's.
    pub endpoint: Endpoint,
}

impl SimulatedRoads {
    async fn open(&self, ticket: &Ticket, target: SocketAddr, kind: LaneKind) -> Result<Stream, Failure> {
        let link = self.endpoint.reach(target, &Role::Agent { host: ticket.target }).await?;
        let mut stream = link.open(StreamKind::Lane).await?;
        let lane = LaneId { kind, number: 0 };
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

    fn way(&self, uri: String, stream: Stream) -> Box<dyn LiveRoad> {
        let (send, recv) = stream.split();
        let (say, said) = mpsc::channel(WAITING);
        let (hear, from) = mpsc::channel(WAITING);
        self.metal.lay(uri.clone(), Conduit { to: say, from });
        let (over, lost) = watch::channel(false);
        let (finish, finished) = watch::channel(false);
        let (ask, ends) = mpsc::channel(1);
        let stop = CancellationToken::new();
        spawn(until(stop.clone(), talk(send, said, (over.clone(), ask))));
        spawn(until(stop.clone(), listen(recv, hear, (over, finish), Arc::clone(&self.metal))));
        Box::new(LiveWay {
            uri,
            lost,
            finished,
            at_its_end: tokio::sync::Mutex::new(ends),
            moved: AtomicU64::new(0),
            _stop: stop.clone().drop_guard(),
            stop,
        })
    }

    fn gate(&self, ticket: &Ticket, comes: Comes) -> Quay {
        Gate::open(Arc::clone(&self.metal), ticket.clone(), comes)
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
        let stream = self.open(ticket, to.target, LaneKind::Control).await?;
        Ok(self.way(format!("control of {}", ticket.migration), stream))
    }

    async fn lead_cold(&self, ticket: &Ticket, to: Destination) -> Result<Box<dyn ColdRoad>, Failure> {
        let stream = self.open(ticket, to.target, LaneKind::Disk).await?;
        let stream = tokio::sync::Mutex::new(stream);
        Ok(Box::new(ColdWay { metal: Arc::clone(&self.metal), vm: ticket.vm, stream }))
    }

    async fn lead_again(&self, ticket: &Ticket) -> Result<Box<dyn LiveRoad>, Failure> {
        let machine = usize::try_from(ticket.target.uuid().as_u128())?;
        let stream = self.open(ticket, net::address(machine), LaneKind::Memory).await?;
        Ok(self.way(rest_of(ticket), stream))
    }

    fn receive_again(&self, ticket: &Ticket) -> Result<(Quay, String), Failure> {
        Ok((self.gate(ticket, Comes::Rest), rest_of(ticket)))
    }

    /// What a gang keeps of it has nothing to do with who runs it, and is not modelled.
    fn receive(&self, ticket: &Ticket, berth: Berth) -> Result<Quay, Failure> {
        let comes = match berth {
            Berth::Live { .. } => Comes::Guest,
            Berth::Cold(_) => Comes::Disk,
        };
        Ok(self.gate(ticket, comes))
    }
}

/// Works until that is not wanted any more.
pub(super) async fn until(stop: CancellationToken, work: impl Future<Output = ()>) {
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = work => {}
    }
}

fn rest_of(ticket: &Ticket) -> String {
    format!("rest of {}", ticket.migration)
}

/// Once the link is lost, what is said goes nowhere: the socket stays open until the road is closed. A call that lets the
/// guest run at the target passes once its source has agreed; else it is one that holds the guest.
async fn talk(
    mut send: SendHalf,
    mut said: mpsc::Receiver<Said>,
    (over, ask): (watch::Sender<bool>, mpsc::Sender<AtItsEnd>),
) {
    while let Some(word) = said.recv().await {
        let word = match word {
            Said::Run(memory, disk, _) if !went_over(&ask).await => Said::Finish(memory, disk),
            word => word,
        };
        if send.send(&word).await.is_err() {
            over.send_replace(true);
        }
    }
}

async fn went_over(ask: &mpsc::Sender<AtItsEnd>) -> bool {
    let (tell, told) = oneshot::channel();
    ask.send(tell).await.is_ok() && told.await.unwrap_or(false)
}

async fn listen(
    mut recv: RecvHalf,
    hear: mpsc::Sender<Heard>,
    (over, finish): (watch::Sender<bool>, watch::Sender<bool>),
    metal: Arc<Metal>,
) {
    while let Ok(word) = recv.recv::<Heard>().await {
        let last = word == Heard::Finished;
        if last && metal.loses_last_word() {
            break;
        }
        let _ = hear.send(word).await; // libvirt may have hung up
        if last {
            // Overheard on the way, as on the control lane.
            sleep(metal.draw(BUSY)).await;
            finish.send_replace(true);
        }
    }
    over.send_replace(true);
    hear.closed().await;
}

/// The way of a running machine.
struct LiveWay {
    uri: String,
    lost: watch::Receiver<bool>,
    finished: watch::Receiver<bool>,
    at_its_end: tokio::sync::Mutex<mpsc::Receiver<AtItsEnd>>,
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
        let uri = self.uri.clone();
        Route { control_uri: uri.clone(), migrate_uri: uri, disks_uri: String::new(), disk }
    }

    async fn finished(&self) {
        once(self.finished.clone()).await;
    }

    async fn at_its_end(&self) -> AtItsEnd {
        match self.at_its_end.lock().await.recv().await {
            Some(asked) => asked,
            None => std::future::pending().await,
        }
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
