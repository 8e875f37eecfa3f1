//! [`Ledger`]: the handle through which everything else reads, proposes and learns what was committed.

use super::{
    LedgerError, OpenError,
    clock::ClockVerdict,
    commit::{DEADLINE, Missed},
    election,
    leadership::{self, Leadership},
    network::{self, Network},
    peers::{self, Peers, Silent},
    proposer::{self, Proposals},
    reads::{self, Freshness, Readers},
    serving::{Reads, Serving},
    settings::{self, Compaction},
    store::{LogStore, StateMachine, StoreFault},
    types::{Committed, Member, NodeId, Raft},
};
use novacron_core::{Applied, CommandBody, State};
use novacron_runtime::{spawn, spawn_blocking, task::JoinHandle, time::Instant};
use novacron_store::Store;
use novacron_transport::{Endpoint, LinkError, Stream};
use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicBool},
    time::Duration,
};
use tokio::sync::{Notify, broadcast, watch};

/// What a ledger is opened with.
#[derive(Debug)]
pub struct LedgerOptions {
    /// This coordinator's number.
    pub node: NodeId,
    /// Where its files are.
    pub folder: PathBuf,
    /// The way to the others; `None` while a cluster is founded.
    pub endpoint: Option<Endpoint>,
}

/// The replicated ledger. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub struct Ledger {
    pub(super) inner: Arc<Inner>,
    pub(super) proposals: Proposals,
    tasks: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

/// What the ledger's own tasks share.
pub(super) struct Inner {
    pub node: NodeId,
    pub raft: Raft,
    pub log: LogStore,
    pub machine: StateMachine,
    pub endpoint: Option<Endpoint>,
    pub leadership: watch::Receiver<Leadership>,
    /// Read indexes of this node, while it leads.
    pub here: Readers,
    /// Read indexes of the leader, while another leads.
    pub through: Readers,
    pub freshness: Freshness,
    /// Leadership is being handed over: nothing is committed or confirmed here.
    pub paused: AtomicBool,
    /// While it hands over its leadership: it sends no heartbeats.
    pub silent: AtomicBool,
    pub peers: Peers,
    /// A node with a shorter log wants to lead, and nobody does.
    pub should_stand: Notify,
    /// When this node began.
    pub began: Instant,
}

impl Ledger {
    /// Opens or makes the ledger in `options.folder` and starts its Raft node. A node that has never been a
    /// member waits to be called.
    ///
    /// # Errors
    /// [`OpenError`] if the files cannot be read.
    pub async fn open(options: LedgerOptions) -> Result<Self, OpenError> {
        let LedgerOptions { node, folder, endpoint } = options;
        let opened = spawn_blocking(move || Store::open(&folder)).await.map_err(StoreFault::from)?;
        Self::open_on(opened.map_err(StoreFault::from)?, node, endpoint).await
    }

    /// As [`Ledger::open`], on a store that is open.
    ///
    /// # Errors
    /// [`OpenError`] if its records cannot be read.
    pub async fn open_on(store: Store, node: NodeId, endpoint: Option<Endpoint>) -> Result<Self, OpenError> {
        Self::open_compacting(store, node, endpoint, Compaction::default()).await
    }

    /// As [`Ledger::open_on`], with other figures for cutting the log.
    pub(super) async fn open_compacting(
        store: Store,
        node: NodeId,
        endpoint: Option<Endpoint>,
        compaction: Compaction,
    ) -> Result<Self, OpenError> {
        let open = move || {
            let log = LogStore::open(store.clone())?;
            log.renounce(node)?;
            let machine = StateMachine::open(store, log.journal())?;
            Ok::<_, StoreFault>((log, machine))
        };
        let (log, machine) = spawn_blocking(open).await.map_err(StoreFault::from)??;
        let network = Network::new(endpoint.clone(), log.journal());
        let raft =
            Raft::new(node, settings::raft(compaction)?, network, log.clone(), machine.clone()).await?;
        let (publish, leadership) = watch::channel(Leadership::Follower { leader: None });
        let ((here, here_waiting), (through, through_waiting)) = (reads::queue(), reads::queue());
        let inner = Arc::new(Inner {
            node,
            raft,
            log,
            machine,
            endpoint,
            leadership,
            here,
            through,
            freshness: Freshness::default(),
            paused: AtomicBool::new(false),
            silent: AtomicBool::new(false),
            peers: Peers::default(),
            should_stand: Notify::new(),
            began: Instant::now(),
        });
        let (proposals, asks) = proposer::queue();
        let tasks = vec![
            spawn(leadership::watch(inner.raft.clone(), publish)),
            spawn(leadership::tell(inner.clone())),
            spawn(election::keep(inner.clone())),
            spawn(proposer::run(inner.clone(), asks)),
            spawn(super::membership::keep(inner.clone())),
            spawn(peers::keep(inner.clone())),
            spawn(super::alarm::keep(inner.clone())),
            spawn(reads::confirm(inner.clone())),
            spawn(reads::run(here_waiting, {
                let inner = inner.clone();
                move || owned(inner.clone(), async |inner| inner.read_index().await)
            })),
            spawn(reads::run(through_waiting, {
                let inner = inner.clone();
                move || owned(inner.clone(), async |inner| inner.read_index_through().await)
            })),
        ];
        Ok(Self { inner, proposals, tasks: Arc::new(Mutex::new(tasks)) })
    }

    /// Makes this node the only voter of a new cluster.
    ///
    /// # Errors
    /// [`OpenError::AlreadyFounded`] if it is a member of one.
    pub async fn found(&self, member: Member) -> Result<(), OpenError> {
        let founder = BTreeMap::from([(self.inner.node, member)]);
        self.inner.raft.initialize(founder).await.map_err(|e| OpenError::AlreadyFounded(Box::new(e)))
    }

    /// Commits a command on a majority and answers with what came of it. The leader stamps it with its clock.
    ///
    /// # Errors
    /// [`LedgerError`] if it was not committed, or if that is not known.
    pub async fn propose(&self, body: CommandBody) -> Result<Applied, LedgerError> {
        let Some(serving) = Serving::current() else { return Ok(self.submit(body).await?.1) };
        match self.submit(serving.wrap(body)).await {
            Ok((index, applied)) => {
                serving.note(index, &applied);
                Ok(applied.first())
            }
            Err(error) => {
                serving.release();
                Err(error)
            }
        }
    }

    async fn submit(&self, body: CommandBody) -> Result<(u64, Applied), LedgerError> {
        let answered = self.proposals.submit(body)?;
        let (index, outcomes) = match answered.await {
            Ok(Ok(committed)) => committed,
            Ok(Err(Missed::Final(error))) => return Err(error),
            Ok(Err(Missed::Retry)) => return Err(self.inner.no_leader()),
            Err(_) => return Err(LedgerError::Stopped),
        };
        Ok((index, outcomes.into_iter().next().ok_or(LedgerError::Unknown)?))
    }

    /// Returns once the local state is as new as the request that is being served wants it: by default as
    /// [`Ledger::linearizable`], and with what the request itself committed.
    ///
    /// # Errors
    /// As [`Ledger::linearizable`].
    pub async fn current(&self) -> Result<(), LedgerError> {
        let Some(serving) = Serving::current() else { return self.linearizable().await };
        // Its own writes came after its beginning: a state that has them is new enough, and no quorum need be asked.
        if let Some(index) = serving.committed() {
            return self.inner.applied(index, Instant::now() + DEADLINE).await;
        }
        let (began, known) = (Instant::now(), self.inner.freshness.since());
        match serving.reads() {
            Reads::Stale { max_age }
                if max_age.is_none_or(|max| known.is_some_and(|at| at.elapsed() <= max)) =>
            {
                serving.read_as_of(known);
            }
            Reads::Stale { .. } | Reads::Linearizable => {
                self.linearizable().await?;
                serving.read_as_of(Some(began));
            }
        }
        Ok(())
    }

    /// How old the local state may be: everything that was acknowledged anywhere before then is in it. `None` if
    /// this node has not heard from a majority since its start.
    pub fn age(&self) -> Option<Duration> {
        self.inner.freshness.age()
    }

    /// The other coordinators that do not answer now.
    pub fn silent(&self) -> Vec<Silent> {
        self.inner.silent()
    }

    /// What the other voters say of this node's clock.
    pub fn clock(&self) -> ClockVerdict {
        self.inner.clock()
    }

    /// Looks at the local state, which may be a little behind the leader's. Keep it short: while `look` runs,
    /// nothing is applied.
    pub fn read<R>(&self, look: impl FnOnce(&State) -> R) -> R {
        self.inner.machine.read(look)
    }

    /// Looks at the local state together with the last log index in it.
    pub fn read_at<R>(&self, look: impl FnOnce(u64, &State) -> R) -> R {
        self.inner.machine.read_at(look)
    }

    /// Returns once the local state has everything that was committed before the call.
    ///
    /// # Errors
    /// [`LedgerError::NoLeader`] if no quorum answers in time.
    pub async fn linearizable(&self) -> Result<(), LedgerError> {
        self.inner.linearizable().await
    }

    /// Entries as they are applied here from now on. A receiver that lags has to read the state anew.
    pub fn committed(&self) -> broadcast::Receiver<Arc<Committed>> {
        self.inner.machine.subscribe()
    }

    /// Who leads, and every change of it.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.inner.leadership.clone()
    }

    /// This coordinator's Raft node number.
    pub fn node(&self) -> NodeId {
        self.inner.node
    }

    /// Takes a coordinator out of the address book; the leader then takes it out of the quorum. Refused if those that
    /// would be left could not decide anything.
    ///
    /// # Errors
    /// As [`Ledger::propose`].
    pub async fn remove_coordinator(&self, node: NodeId) -> Result<Applied, LedgerError> {
        if let Err(refusal) = self.inner.can_soon_do_without(node).await {
            return Ok(Applied::Refused(refusal));
        }
        self.propose(CommandBody::CoordinatorRemove { node }).await
    }

    /// Makes a snapshot of what is applied and purges the log up to it. Happens by itself as the log grows.
    ///
    /// # Errors
    /// [`LedgerError::Stopped`] if the node stops meanwhile.
    pub async fn compact(&self) -> Result<(), LedgerError> {
        let stopped = |_| LedgerError::Stopped;
        let raft = &self.inner.raft;
        let upto = self.inner.machine.applied_index();
        raft.trigger().snapshot().await.map_err(stopped)?;
        self.reached(|m| m.snapshot.is_some_and(|l| l.index >= upto)).await?;
        raft.trigger().purge_log(upto).await.map_err(stopped)?;
        self.reached(|m| m.purged.is_some_and(|l| l.index >= upto)).await
    }

    async fn reached(&self, there: impl FnMut(&leadership::Metrics) -> bool) -> Result<(), LedgerError> {
        self.inner.raft.metrics().wait_for(there).await.map(drop).map_err(|_| LedgerError::Stopped)
    }

    /// Serves one `Raft` stream of coordinator `peer`.
    ///
    /// # Errors
    /// [`LinkError`] if the stream broke.
    pub async fn serve_raft(&self, peer: NodeId, stream: Stream) -> Result<(), LinkError> {
        network::serve(&self.inner, peer, stream).await
    }

    /// Serves one `Forward` stream: another coordinator proposes through this one, which leads.
    ///
    /// # Errors
    /// [`LinkError`] if the stream broke.
    pub async fn serve_forward(&self, stream: Stream) -> Result<(), LinkError> {
        super::forward::serve(self, stream).await
    }

    /// Stops the Raft node; what was acknowledged is on disk.
    pub async fn shutdown(&self) {
        if self.inner.raft.shutdown().await.is_err() {
            tracing::error!("the Raft node had panicked");
        }
        // Not needed, as the log has it all: the next start has less to apply.
        let _ = self.inner.machine.written().await;
        for task in self.tasks.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            task.abort();
        }
    }
}

/// Does `work` with an `inner` of its own, so that the future may be spawned.
async fn owned<R>(inner: Arc<Inner>, work: impl AsyncFnOnce(&Inner) -> R) -> R {
    work(&inner).await
}

impl std::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ledger(node {})", self.inner.node)
    }
}
