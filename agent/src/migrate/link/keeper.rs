//! A link of the source to the target's agent: dialled at the start, dialled again when it is cut, given up after a grace.
//! A cut at the first call is a cut like any other.
//!
//! ```text
//!  Up ──cut──▶ Lost ──dialled again──▶ Up
//!   │            └──grace is over, or somebody else answers──▶ Over
//!   └──closed by either side──▶ Over
//! ```
//!
//! Every lane has a task that carries it over the link of the day; when that breaks, the task waits for the next one
//! and takes the lane up again there.

use super::{
    Lie,
    carrier::{CarryError, carry},
    dialler::Dialler,
    lane::{Lane, LaneReader, LaneWriter},
    pace::Pacer,
    saved::{BadLane, SavedLane},
    window,
};
use crate::text::describe;
use novacron_common::{
    record::Ticket,
    wire::{Denial, LaneId, LaneKind, LaneOpen, LaneVerdict, StreamKind},
};
use novacron_transport::{Endpoint, Link, LinkError, Stream};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Mutex, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// How long the target may take to open a lane or to take it up.
const OPEN_DEADLINE: Duration = Duration::from_secs(5);

/// A lane could not be had, or not be had again.
#[derive(Debug, thiserror::Error)]
pub enum LaneError {
    /// The link to the target.
    #[error("could not reach the target's agent")]
    Link(#[from] LinkError),
    /// Nobody answered at all.
    #[error("the target's agent did not answer within {} s", .0.as_secs_f32())]
    Silent(Duration),
    /// The target does not honour the ticket.
    #[error("the target refused")]
    Refused(#[source] Denial),
    /// The target does not answer.
    #[error("the target did not open a lane in time")]
    TooSlow,
    /// The target claims what cannot be.
    #[error("the target takes the lane up in the wrong place")]
    Lie(#[from] Lie),
    /// There is no link any more.
    #[error("{0}")]
    Over(String),
    /// More connections than a migration can have.
    #[error("a migration has no more {0:?} lanes")]
    TooMany(LaneKind),
}

/// A keeper as it stands, for a successor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedKeeper {
    target: SocketAddr,
    cuts: u32,
}

/// What becomes of the link.
#[derive(Clone)]
enum LinkState {
    Up(Link),
    Lost,
    /// Why, as a sentence.
    Over(String),
}

/// How the link fares, for people.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkCondition {
    /// It is lost just now, and waited for.
    pub lost: bool,
    /// How often it was lost and came back.
    pub cuts: u32,
}

/// Opens lanes to one target with one ticket, and keeps them going. The link is closed when the last clone is dropped.
pub struct Keeper(Arc<Shared>);

struct Shared {
    dialler: Dialler,
    ticket: Ticket,
    grace: Duration,
    pacer: Pacer,
    state: watch::Sender<LinkState>,
    cuts: AtomicU32,
    /// Those that are not over.
    lanes: std::sync::Mutex<BTreeMap<LaneId, Arc<Lane>>>,
    /// A successor has all of it.
    left: AtomicBool,
    renewing: Mutex<()>,
    stop: CancellationToken,
}

impl Keeper {
    /// Dials the target until it answers; nobody but the host in the ticket will do. It is waited for, now and after a
    /// cut, for `grace`. Lanes send no faster than `pacer` lets them.
    ///
    /// # Errors
    /// [`LaneError`].
    pub async fn dial(
        endpoint: Endpoint,
        target: SocketAddr,
        ticket: Ticket,
        grace: Duration,
        pacer: Pacer,
    ) -> Result<Self, LaneError> {
        let dialler = Dialler::new(endpoint, target, ticket.target, pacer.sharing());
        let answered = timeout(grace, dialler.call_until_answered()).await;
        let link = answered.map_err(|_| LaneError::Silent(grace))??;
        let keeper = Self::new(dialler, (ticket, grace, pacer), LinkState::Up(link));
        tokio::spawn(keeper.0.clone().keep_link());
        Ok(keeper)
    }

    fn new(dialler: Dialler, (ticket, grace, pacer): (Ticket, Duration, Pacer), state: LinkState) -> Self {
        Self(Arc::new(Shared {
            dialler,
            ticket,
            grace,
            pacer,
            state: watch::Sender::new(state),
            cuts: AtomicU32::new(0),
            lanes: std::sync::Mutex::default(),
            left: AtomicBool::new(false),
            renewing: Mutex::new(()),
            stop: CancellationToken::new(),
        }))
    }

    /// Goes on where a predecessor was: its lanes are taken up once the target answers, within `grace`.
    pub fn restore(
        saved: &SavedKeeper,
        endpoint: Endpoint,
        ticket: Ticket,
        grace: Duration,
        pacer: Pacer,
    ) -> Self {
        let dialler = Dialler::new(endpoint, saved.target, ticket.target, pacer.sharing());
        let keeper = Self::new(dialler, (ticket, grace, pacer), LinkState::Lost);
        keeper.0.cuts.store(saved.cuts, Ordering::Relaxed);
        let shared = keeper.0.clone();
        tokio::spawn(async move {
            if shared.find("this agent was started again").await {
                shared.keep_link().await;
            }
        });
        keeper
    }

    /// A lane that a predecessor left; it goes on once there is a link.
    ///
    /// # Errors
    /// [`BadLane`].
    pub fn resume(&self, saved: &SavedLane) -> Result<(LaneReader, LaneWriter), BadLane> {
        let window = window::of(saved.id).ok_or(BadLane)?;
        let (lane, reader, writer) = Lane::restore(saved, window)?;
        if !saved.complete {
            tokio::spawn(self.0.clone().take_up(lane));
        }
        Ok((reader, writer))
    }

    /// Leaves the link and its lanes to a successor: nothing is sent on them any more, and nobody is told that it ends. The
    /// lanes that nobody has saved yet are returned.
    pub fn leave(&self) -> (SavedKeeper, Vec<SavedLane>) {
        let shared = &self.0;
        shared.left.store(true, Ordering::Relaxed); // dropped, it would close the link
        let lanes = shared.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let left = lanes.values().filter_map(|lane| lane.save()).collect();
        let (target, cuts) = (shared.dialler.target(), shared.cuts.load(Ordering::Relaxed));
        (SavedKeeper { target, cuts }, left)
    }

    /// A new lane; returns once the target has opened it. It outlives cuts from then on.
    ///
    /// # Errors
    /// [`LaneError`].
    pub async fn open(&self, id: LaneId) -> Result<(LaneReader, LaneWriter), LaneError> {
        let (lane, reader, writer) = Lane::new(id, window::of(id).ok_or(LaneError::TooMany(id.kind))?);
        if let Some((turn, stream)) = self.0.attach(&lane).await? {
            self.0.enter(&lane);
            tokio::spawn(self.0.clone().keep_lane(lane, turn, stream));
        }
        Ok((reader, writer))
    }

    /// With which the lanes were opened.
    pub fn ticket(&self) -> &Ticket {
        &self.0.ticket
    }

    /// How the link fares.
    pub fn condition(&self) -> LinkCondition {
        let lost = matches!(*self.0.state.borrow(), LinkState::Lost);
        LinkCondition { lost, cuts: self.0.cuts.load(Ordering::Relaxed) }
    }

    /// Waits until [`Keeper::condition`] is not `before` any more.
    pub async fn changed(&self, before: LinkCondition) {
        let mut state = self.0.state.subscribe();
        while self.condition() == before && state.changed().await.is_ok() {}
    }

    /// Waits until there is no link any more and none will come; says why.
    pub async fn over(&self) -> String {
        let mut state = self.0.state.subscribe();
        let over = state.wait_for(|state| matches!(state, LinkState::Over(_))).await;
        match over.as_deref() {
            Ok(LinkState::Over(reason)) => reason.clone(),
            _ => "nobody keeps the link any more".to_owned(),
        }
    }

    /// Ends every lane.
    pub fn close(&self) {
        self.0.end("the migration is over here".to_owned());
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if !self.0.left.load(Ordering::Relaxed) {
            self.close();
        }
    }
}

impl Shared {
    /// The first reason stays.
    fn end(&self, reason: String) {
        self.state.send_if_modified(|state| {
            match state {
                LinkState::Over(_) => return false,
                LinkState::Up(link) => link.close("the migration is over here"),
                LinkState::Lost => {}
            }
            *state = LinkState::Over(reason);
            true
        });
        self.stop.cancel();
    }

    /// Replaces the link unless all is over; says whether.
    fn set(&self, new: LinkState) -> bool {
        self.state.send_if_modified(|state| {
            let goes_on = !matches!(state, LinkState::Over(_));
            if goes_on {
                *state = new;
            }
            goes_on
        })
    }

    async fn keep_link(self: Arc<Self>) {
        let mut seen = self.state.subscribe();
        loop {
            let LinkState::Up(link) = seen.borrow_and_update().clone() else { return };
            let reason = tokio::select! {
                reason = link.closed() => reason,
                _ = seen.changed() => continue,
            };
            if link.is_closed_on_purpose() {
                return self.end(format!("the link to the target was closed: {reason}"));
            }
            if !self.set(LinkState::Lost) || !self.find(&reason).await {
                return;
            }
        }
    }

    /// Calls until there is a link again; says whether there is.
    async fn find(&self, reason: &str) -> bool {
        tracing::warn!(migration = %self.ticket.migration, reason, grace = ?self.grace, "the link to the target is lost");
        let found = tokio::select! {
            found = timeout(self.grace, self.dialler.call_back()) => found,
            () = self.stop.cancelled() => return false,
        };
        match found {
            Ok(Ok(link)) => {
                self.found(link);
                return true;
            }
            Ok(Err(error)) => {
                self.end(format!("the link to the target was lost for good: {}", describe(&error)));
            }
            Err(_) => {
                let grace = self.grace.as_secs_f32();
                self.end(format!(
                    "the link to the target was lost ({reason}) and did not come back within {grace} s"
                ));
            }
        }
        false
    }

    fn found(&self, link: Link) {
        let cuts = self.cuts.fetch_add(1, Ordering::Relaxed) + 1;
        tracing::info!(migration = %self.ticket.migration, cuts, "the link to the target is back");
        if !self.set(LinkState::Up(link.clone())) {
            link.close("the migration is over here");
        }
    }

    /// The link, once it is up; dialled again if certificates were renewed since. Lanes on the old one go on.
    async fn usable(&self) -> Result<Link, LaneError> {
        loop {
            let link = self.up().await?;
            if link.is_usable() {
                return Ok(link);
            }
            let _one_at_a_time = self.renewing.lock().await;
            let is_current = matches!(&*self.state.borrow(), LinkState::Up(link) if !link.is_usable() && !link.is_closed());
            if !is_current {
                continue;
            }
            match self.dialler.call().await {
                Ok(new) => _ = self.set(LinkState::Up(new)),
                // Then its keeper calls.
                Err(_) if link.is_closed() => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn up(&self) -> Result<Link, LaneError> {
        let mut state = self.state.subscribe();
        // A link that has just closed is still called up until its keeper has noticed.
        let settled = |state: &LinkState| match state {
            LinkState::Up(link) => !link.is_closed(),
            LinkState::Lost => false,
            LinkState::Over(_) => true,
        };
        match state.wait_for(settled).await.as_deref() {
            Ok(LinkState::Up(link)) => Ok(link.clone()),
            Ok(LinkState::Over(reason)) => Err(LaneError::Over(reason.clone())),
            Ok(LinkState::Lost) | Err(_) => Err(LaneError::Over("nobody keeps the link any more".into())),
        }
    }

    /// Opens the lane on the present link, or takes it up there; `None` if the target has all of it already.
    async fn attach(&self, lane: &Lane) -> Result<Option<(u32, Stream)>, LaneError> {
        loop {
            let link = self.usable().await?;
            let outcome = timeout(OPEN_DEADLINE, self.present(&link, lane)).await;
            match outcome.unwrap_or(Err(LaneError::TooSlow)) {
                Err(LaneError::Link(_) | LaneError::TooSlow)
                    if link.is_closed() && !link.is_closed_on_purpose() => {}
                outcome => return outcome,
            }
        }
    }

    async fn present(&self, link: &Link, lane: &Lane) -> Result<Option<(u32, Stream)>, LaneError> {
        let mut stream = link.open(StreamKind::Lane).await?;
        let (turn, received) = lane.next_turn();
        stream.send(&LaneOpen { ticket: self.ticket.clone(), lane: lane.id(), turn, received }).await?;
        match stream.recv().await? {
            LaneVerdict::Open { received } => {
                lane.resume(turn, received)?;
                Ok(Some((turn, stream)))
            }
            LaneVerdict::Over => {
                stream.finish();
                lane.conclude()?;
                Ok(None)
            }
            LaneVerdict::Refused(denial) => Err(LaneError::Refused(denial)),
        }
    }

    fn enter(&self, lane: &Arc<Lane>) {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner).insert(lane.id(), lane.clone());
    }

    async fn take_up(self: Arc<Self>, lane: Arc<Lane>) {
        self.enter(&lane);
        match self.attach(&lane).await {
            Ok(Some((turn, stream))) => self.keep_lane(lane, turn, stream).await,
            Ok(None) => {}
            Err(error) => lane.break_off(describe(&error)),
        }
    }

    async fn keep_lane(self: Arc<Self>, lane: Arc<Lane>, turn: u32, stream: Stream) {
        tokio::select! {
            () = self.carry_on(&lane, turn, stream) => {}
            () = self.stop.cancelled() => {}
        }
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner).remove(&lane.id());
        // Unless both directions ended well, nobody carries it any more.
        let reason = match &*self.state.borrow() {
            LinkState::Over(reason) => reason.clone(),
            LinkState::Up(_) | LinkState::Lost => "the lane is not carried any more".to_owned(),
        };
        lane.break_off(reason);
    }

    async fn carry_on(&self, lane: &Lane, mut turn: u32, mut stream: Stream) {
        loop {
            match carry(lane, turn, stream, &self.pacer).await {
                Ok(()) => return,
                Err(CarryError::Cut(_)) => {}
                Err(error) => return lane.break_off(describe(&error)),
            }
            // A lane that was broken off in the meantime is taken up, too: so the target hears of it.
            match self.attach(lane).await {
                Ok(Some(next)) => (turn, stream) = next,
                Ok(None) => return,
                Err(error) => return lane.break_off(describe(&error)),
            }
        }
    }
}
