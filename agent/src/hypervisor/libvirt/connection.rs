//! The connection to libvirtd: bounded blocking calls, and a supervisor that reconnects when libvirtd restarts.
//! Guests survive such a restart; the callers of the port see one retry and a `Resync`.

use super::{
    super::{HvError, HypervisorEvent},
    ffi::{Listener, Session},
};
use novacron_common::ids::VmId;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, Semaphore, broadcast, watch},
    task::JoinHandle,
};
use uuid::Uuid;
use virt::{connect::Connect, domain::Domain, error::Error as VirtError};

/// Calls to libvirtd at the same time. It serves 20 clients' calls with as many threads; the rest wait here.
const CALLS_MAX: usize = 16;
/// Events that a slow receiver may be behind before it has to look at everything.
const EVENTS_MAX: usize = 1024;
/// A libvirtd that is silent for interval × (count + 1) is given up.
const KEEP_ALIVE: (Duration, u32) = (Duration::from_secs(5), 3);
const RECONNECT_FIRST: Duration = Duration::from_millis(50);
const RECONNECT_LAST: Duration = Duration::from_secs(2);
/// How long a call waits for libvirtd to come back.
const ABSENCE_MAX: Duration = Duration::from_secs(10);

/// libvirtd stayed away for [`ABSENCE_MAX`].
#[derive(Debug, thiserror::Error)]
#[error("libvirtd does not answer at {uri}")]
struct Absent {
    uri: String,
}

type Current = Option<Arc<Session>>;

/// Hands libvirt's callbacks to whoever listens. Both ways never block.
struct Announcer {
    events: broadcast::Sender<HypervisorEvent>,
    lost: Arc<Notify>,
}

impl Listener for Announcer {
    fn domain_changed(&self, uuid: Uuid) {
        let _ = self.events.send(HypervisorEvent::Changed(VmId::from(uuid))); // nobody listens: fine
    }

    fn closed(&self) {
        self.lost.notify_one();
    }
}

/// Opens sessions to one libvirtd.
#[derive(Clone)]
struct Opener {
    uri: String,
    events: broadcast::Sender<HypervisorEvent>,
    lost: Arc<Notify>,
}

impl Opener {
    fn open(&self) -> Result<Session, VirtError> {
        let announcer = Announcer { events: self.events.clone(), lost: Arc::clone(&self.lost) };
        Session::open(&self.uri, KEEP_ALIVE, Arc::new(announcer))
    }
}

/// The connection, kept up.
pub(super) struct Connection {
    opener: Opener,
    current: watch::Receiver<Current>,
    slots: Arc<Semaphore>,
    supervisor: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.supervisor.abort();
    }
}

impl Connection {
    /// Connects once; from then on the connection mends itself.
    ///
    /// # Errors
    /// If libvirtd does not answer now.
    pub(super) async fn open(uri: &str) -> Result<Self, HvError> {
        let (events, _) = broadcast::channel(EVENTS_MAX);
        let opener = Opener { uri: uri.to_owned(), events, lost: Arc::new(Notify::new()) };
        let opening = opener.clone();
        let first = blocking(&format!("connect to {uri}"), move || opening.open()).await?;
        let (publish, current) = watch::channel(Some(Arc::new(first)));
        let supervisor = tokio::spawn(supervise(opener.clone(), publish));
        Ok(Self { opener, current, slots: Arc::new(Semaphore::new(CALLS_MAX)), supervisor })
    }

    /// Changes that nobody here asked for.
    pub(super) fn events(&self) -> broadcast::Receiver<HypervisorEvent> {
        self.opener.events.subscribe()
    }

    /// A connection of one's own, for calls that block for long.
    pub(super) fn open_another(
        &self,
    ) -> impl FnOnce() -> Result<Private, VirtError> + Send + 'static + use<> {
        // Its events are the same as those of the first connection: nobody hears them twice.
        let (events, _) = broadcast::channel(1);
        let opener = Opener { uri: self.opener.uri.clone(), events, lost: Arc::new(Notify::new()) };
        move || opener.open().map(Private)
    }

    /// Runs a blocking call. It is run once more if libvirtd went away in the middle, so it must be idempotent.
    ///
    /// # Errors
    /// Libvirt's error, as the failure of `doing`.
    pub(super) async fn call<T, F>(&self, doing: &str, call: F) -> Result<T, HvError>
    where
        T: Send + 'static,
        F: Fn(&Connect) -> Result<T, VirtError> + Send + Sync + 'static,
    {
        let call = Arc::new(call);
        let session = self.session(None).await?;
        match self.call_on(Arc::clone(&session), doing, Arc::clone(&call)).await {
            Err(_) if !self.alive(&session).await => {
                let session = self.session(Some(&session)).await?;
                self.call_on(session, doing, call).await
            }
            outcome => outcome,
        }
    }

    /// The same on one domain.
    ///
    /// # Errors
    /// [`HvError::Unknown`] if it does not exist, else as [`Connection::call`].
    pub(super) async fn on_domain<T, F>(&self, vm: VmId, doing: &str, call: F) -> Result<T, HvError>
    where
        T: Send + 'static,
        F: Fn(&Domain) -> Result<T, VirtError> + Send + Sync + 'static,
    {
        let found =
            move |connect: &Connect| existing(find(connect, vm)?.map(|domain| call(&domain)).transpose());
        self.call(&format!("{doing} {vm}"), found).await?.ok_or(HvError::Unknown { vm })
    }

    async fn call_on<T, F>(&self, session: Arc<Session>, doing: &str, call: Arc<F>) -> Result<T, HvError>
    where
        T: Send + 'static,
        F: Fn(&Connect) -> Result<T, VirtError> + Send + Sync + 'static,
    {
        // The semaphore is never closed.
        let slot = Arc::clone(&self.slots).acquire_owned().await.map_err(|e| HvError::failed(doing, e))?;
        blocking(doing, move || {
            let outcome = call(session.connect());
            drop((session, slot));
            outcome
        })
        .await
    }

    /// The connection, or the one after `lost`; waits a while for it.
    async fn session(&self, lost: Option<&Arc<Session>>) -> Result<Arc<Session>, HvError> {
        let mut current = self.current.clone();
        let other = |found: &Current| match (found, lost) {
            (Some(found), Some(lost)) => !Arc::ptr_eq(found, lost),
            (found, _) => found.is_some(),
        };
        let found = tokio::time::timeout(ABSENCE_MAX, current.wait_for(other)).await;
        let found = found.ok().and_then(Result::ok).and_then(|session| session.clone());
        found.ok_or_else(|| HvError::failed("reach libvirt", Absent { uri: self.opener.uri.clone() }))
    }

    async fn alive(&self, session: &Arc<Session>) -> bool {
        let session = Arc::clone(session);
        let asked = tokio::task::spawn_blocking(move || session.connect().is_alive().unwrap_or(false)).await;
        asked.unwrap_or(false)
    }
}

/// See [`Connection::open_another`].
pub(super) struct Private(Session);

impl Private {
    /// For virt's calls.
    pub(super) fn connect(&self) -> &Connect {
        self.0.connect()
    }
}

/// The domain, if it exists.
pub(super) fn find(connect: &Connect, vm: VmId) -> Result<Option<Domain>, VirtError> {
    existing(connect.lookup_domain_by_uuid(vm.uuid()).map(Some))
}

/// "No such domain" is an answer, also when it is found out half-way.
fn existing<T>(outcome: Result<Option<T>, VirtError>) -> Result<Option<T>, VirtError> {
    match outcome {
        Err(error) if error.code().is(virt::error::ErrorNumber::NoDomain) => Ok(None),
        outcome => outcome,
    }
}

/// Runs `call` where it may block.
pub(super) async fn blocking<T, F>(doing: &str, call: F) -> Result<T, HvError>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, VirtError> + Send + 'static,
{
    match tokio::task::spawn_blocking(call).await {
        Ok(outcome) => outcome.map_err(|error| HvError::failed(doing, error)),
        Err(panicked) => Err(HvError::failed(doing, panicked)),
    }
}

/// Publishes a new session whenever the old one is lost, until nobody wants one.
async fn supervise(opener: Opener, publish: watch::Sender<Current>) {
    loop {
        opener.lost.notified().await;
        tracing::warn!(uri = opener.uri, "libvirtd went away");
        forget(publish.send_replace(None)).await;
        let _ = opener.events.send(HypervisorEvent::Resync);
        let session = reopen(&opener).await;
        tracing::info!(uri = opener.uri, "libvirtd is back");
        publish.send_replace(Some(Arc::new(session)));
        let _ = opener.events.send(HypervisorEvent::Resync);
    }
}

async fn reopen(opener: &Opener) -> Session {
    let mut pause = RECONNECT_FIRST;
    loop {
        let attempt = opener.clone();
        match blocking("reconnect to libvirt", move || attempt.open()).await {
            Ok(session) => return session,
            Err(error) => tracing::debug!(%error, "libvirtd is not back yet"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RECONNECT_LAST);
    }
}

/// Closing says good-bye to a peer, which may block.
async fn forget(session: Current) {
    let _ = tokio::task::spawn_blocking(move || drop(session)).await;
}
