//! The simulated network, at the level that QUIC gives to the code above it: connections and ordered streams of
//! bytes. A lost packet is a late one, because QUIC repeats it; a cut longer than QUIC's idle time-out ends the
//! connection on the side that hears nothing; a machine that crashed says nothing more. Beyond what QUIC can do,
//! a finished request is now and then delivered a second time, as by a client that repeats it, and all that hosts were
//! told of late may come once more, long after it was overtaken.

mod line;
mod pipe;

use crate::{
    executor::{Executor, Machine},
    identities::{COORDINATORS, role},
    os::SECOND,
};
use async_trait::async_trait;
use line::{Conversation, Line};
use novacron_runtime::time::sleep;
use novacron_transport::{Met, SimulatedNet};
use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};
use tokio::sync::mpsc;

/// QUIC's idle time-out (`common/transport/src/settings.rs`).
const IDLE: u64 = 8 * SECOND;
/// A handshake's deadline (`common/transport/src/endpoint.rs`).
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How soon a sender repeats what was not acknowledged.
const REPEAT: u64 = SECOND / 8;
/// Orders to hosts that may come once more.
const ORDERS_MAX: usize = 64;
/// Connections that wait to be accepted.
const BACKLOG: usize = 64;

/// How bad the network is.
#[derive(Debug, Clone, Copy)]
pub struct Weather {
    /// One way, nanoseconds.
    pub delay: (u64, u64),
    /// Per cent of messages that are lost once.
    pub loss: u64,
    /// Per cent of requests that come twice.
    pub doubled: u64,
}

/// On a quiet day.
pub const CALM: Weather = Weather { delay: (100_000, 600_000), loss: 0, doubled: 0 };

/// The network. Cheap to clone.
#[derive(Clone)]
pub struct Net(Arc<Inner>);

struct Inner {
    executor: Arc<Executor>,
    state: Mutex<State>,
}

struct State {
    weather: Weather,
    /// Ways that are cut, and in which cut.
    cut: BTreeMap<(Machine, Machine), u64>,
    cuts: u64,
    listening: BTreeMap<Machine, Listening>,
    conversations: Vec<Weak<Conversation>>,
    /// What coordinators told hosts of late, the newest last.
    orders: VecDeque<Order>,
}

/// A whole request that was sent to a host.
struct Order {
    on: Weak<Conversation>,
    from: line::Side,
    request: Vec<u8>,
}

struct Listening {
    life: u64,
    backlog: mpsc::Sender<Met>,
}

/// A machine's place in the network, for one life of it.
pub struct Station {
    net: Net,
    machine: Machine,
    life: u64,
    accepted: tokio::sync::Mutex<mpsc::Receiver<Met>>,
}

/// Where a machine is.
pub fn address(machine: Machine) -> SocketAddr {
    let last = u8::try_from(machine + 1).unwrap_or(u8::MAX);
    SocketAddr::from(([10, 0, 0, last], 8091))
}

fn machine_at(address: SocketAddr) -> Option<Machine> {
    (0..crate::identities::MACHINES_MAX).find(|machine| self::address(*machine) == address)
}

impl Net {
    /// A network in this world.
    pub fn new(executor: Arc<Executor>) -> Self {
        let state = State {
            weather: CALM,
            cut: BTreeMap::new(),
            cuts: 0,
            listening: BTreeMap::new(),
            conversations: Vec::new(),
            orders: VecDeque::new(),
        };
        Self(Arc::new(Inner { executor, state: Mutex::new(state) }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The world.
    pub(crate) fn executor(&self) -> &Arc<Executor> {
        &self.0.executor
    }

    /// Sets the weather.
    pub fn set_weather(&self, weather: Weather) {
        self.state().weather = weather;
    }

    /// A machine begins to listen; its earlier life is over.
    pub fn attach(&self, machine: Machine) -> Arc<Station> {
        let (backlog, accepted) = mpsc::channel(BACKLOG);
        let mut state = self.state();
        let life = state.listening.get(&machine).map_or(1, |before| before.life + 1);
        state.listening.insert(machine, Listening { life, backlog });
        drop(state);
        Arc::new(Station { net: self.clone(), machine, life, accepted: tokio::sync::Mutex::new(accepted) })
    }

    /// A machine is gone, without a word. Its peers notice when they have heard nothing for long enough.
    pub fn detach(&self, machine: Machine) {
        let mut state = self.state();
        let (backlog, _) = mpsc::channel(1);
        if let Some(listening) = state.listening.get_mut(&machine) {
            *listening = Listening { life: listening.life + 1, backlog };
        }
        let conversations: Vec<_> = state.conversations.iter().filter_map(Weak::upgrade).collect();
        drop(state);
        for conversation in conversations {
            if let Some(side) = conversation.side_of(machine) {
                conversation.fall_silent(side);
            }
        }
    }

    /// Cuts the way from one machine to another; the way back stays.
    pub fn cut(&self, from: Machine, to: Machine) {
        let mut state = self.state();
        state.cuts += 1;
        let cut = state.cuts;
        state.cut.insert((from, to), cut);
        drop(state);
        let net = self.clone();
        let idle = IDLE + self.0.executor.draw(|rng| rng.below(2 * SECOND));
        self.0.executor.act_in(idle, Box::new(move || net.give_up(from, to, cut)));
    }

    /// Mends every cut.
    pub fn mend(&self) {
        self.state().cut.clear();
    }

    /// Mends the ways between two machines.
    pub fn mend_between(&self, one: Machine, other: Machine) {
        let mut state = self.state();
        state.cut.retain(|(from, to), _| ![(one, other), (other, one)].contains(&(*from, *to)));
    }

    /// `to` has heard nothing from `from` since this cut began.
    fn give_up(&self, from: Machine, to: Machine, cut: u64) {
        let state = self.state();
        if state.cut.get(&(from, to)) != Some(&cut) {
            return;
        }
        let conversations: Vec<_> = state.conversations.iter().filter_map(Weak::upgrade).collect();
        drop(state);
        for conversation in conversations {
            if let (Some(side), Some(_)) = (conversation.side_of(to), conversation.side_of(from)) {
                conversation.fall_silent(side);
            }
        }
    }

    /// Takes note of a request, if it is an order to a host.
    fn note_request(&self, on: &Arc<Conversation>, from: line::Side, request: &[u8]) {
        let [sender, receiver] = [on.ends[from].0, on.ends[1 - from].0];
        if sender >= COORDINATORS || receiver < COORDINATORS {
            return;
        }
        let mut state = self.state();
        if state.orders.len() == ORDERS_MAX {
            state.orders.pop_front();
        }
        state.orders.push_back(Order { on: Arc::downgrade(on), from, request: request.to_vec() });
    }

    /// All that hosts were told of late comes once more, on connections that still stand; nobody reads the answers.
    pub fn repeat_orders(&self) {
        let orders = std::mem::take(&mut self.state().orders);
        for Order { on, from, request } in orders {
            if let Some(conversation) = on.upgrade() {
                pipe::send_again(&conversation, from, request);
            }
        }
    }

    fn is_cut(&self, from: Machine, to: Machine) -> bool {
        self.state().cut.contains_key(&(from, to))
    }

    /// How long a message is on its way.
    fn delay(&self) -> u64 {
        let weather = self.state().weather;
        self.0.executor.draw(|rng| {
            let mut delay = rng.between(weather.delay.0, weather.delay.1);
            while rng.percent(weather.loss) {
                delay += rng.between(REPEAT / 4, REPEAT);
            }
            delay
        })
    }

    /// After how long a request comes a second time, if it does.
    fn doubled(&self) -> Option<u64> {
        let weather = self.state().weather;
        if weather.doubled == 0 {
            return None;
        }
        self.0.executor.draw(|rng| rng.percent(weather.doubled).then(|| rng.between(1_000_000, SECOND / 2)))
    }

    async fn dial(&self, from: Machine, life: u64, to: SocketAddr) -> Result<Met, String> {
        let began = novacron_runtime::time::Instant::now();
        let delay = self.delay() + self.delay();
        sleep(Duration::from_nanos(delay)).await;
        let target = machine_at(to).filter(|target| self.answers(from, *target));
        let Some(target) = target else {
            novacron_runtime::time::sleep_until(began + HANDSHAKE).await;
            return Err("no answer".into());
        };
        let met = self.meet((from, life), target);
        met.ok_or_else(|| "too many wait to be accepted".into())
    }

    fn answers(&self, from: Machine, target: Machine) -> bool {
        let up = self.state().listening.get(&target).is_some_and(|there| !there.backlog.is_closed());
        let reached = !self.is_cut(from, target) && !self.is_cut(target, from);
        up && reached && !self.0.executor.is_paused(target)
    }

    fn meet(&self, (from, life): (Machine, u64), target: Machine) -> Option<Met> {
        let mut state = self.state();
        let there = state.listening.get(&target)?;
        let backlog = there.backlog.clone();
        let conversation = Conversation::new(self.clone(), [(from, life), (target, there.life)]);
        state.conversations.retain(|known| known.strong_count() > 0);
        state.conversations.push(Arc::downgrade(&conversation));
        drop(state);
        let met = Met { peer: role(from), line: Line::end_of(&conversation, 1) };
        backlog.try_send(met).ok()?;
        Some(Met { peer: role(target), line: Line::end_of(&conversation, 0) })
    }

    /// Whether this is the life that a machine has now.
    fn lives(&self, (machine, life): (Machine, u64)) -> bool {
        self.state().listening.get(&machine).is_some_and(|now| now.life == life)
    }
}

#[async_trait]
impl SimulatedNet for Station {
    async fn dial(&self, to: SocketAddr) -> Result<Met, String> {
        self.net.dial(self.machine, self.life, to).await
    }

    async fn accept(&self) -> Option<Met> {
        self.accepted.lock().await.recv().await
    }

    fn local_addr(&self) -> SocketAddr {
        address(self.machine)
    }
}

impl std::fmt::Debug for Station {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Station({})", self.machine)
    }
}

impl std::fmt::Debug for Net {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Net")
    }
}
