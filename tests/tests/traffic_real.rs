//! A migration's link beside other traffic: a real TCP stream (CUBIC) on the same shaped link between two nodes.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::socket::{setsockopt, sockopt::TcpCongestion};
use novacron_common::{
    ids::{ClusterId, HostId},
    units::UnixMillis,
    wire::StreamKind,
};
use novacron_tests::lab::{Lab, Node};
use novacron_tests::require;
use novacron_transport::{
    CertificateAuthority, Endpoint, Identity, IdentityCell, Link, Role, Sharing, Stream, certificate_request,
};
use tokio::io::AsyncReadExt as _;
use tokio::runtime::Runtime;

const CLUSTER: ClusterId = ClusterId::from_u128(1);
const HOSTS: [HostId; 2] = [HostId::from_u128(1), HostId::from_u128(2)];
/// The link, Mbit/s: little enough that the processors of a busy machine are not the narrower place.
const MBIT: u32 = 40;
/// The longest queue of a shaped link (`Lab::shape`).
const QUEUE: Duration = Duration::from_millis(50);
/// What is waited for before and after the other stream, bytes: a second of the link.
const ALONE: u64 = 5_000_000;
/// How long the other stream lasts before it is looked at, and while it is: CUBIC takes some seconds to find its share.
const OTHER: [Duration; 2] = [Duration::from_secs(8), Duration::from_secs(5)];
/// Nothing here takes so long.
const SOON: Duration = Duration::from_secs(60);
const CHUNK: usize = 64 << 10;
/// As a migration's control lane.
const CONTROL_PRIORITY: i32 = 2;

fn now() -> UnixMillis {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    UnixMillis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// What was seen.
#[derive(Debug)]
struct Seen {
    /// Bulk bytes a second: alone, beside the other stream, and after it.
    bulk: [f64; 3],
    /// The other stream's bytes a second.
    other: f64,
    /// Control's median round trip: alone, beside the other stream, and after it.
    control: [Duration; 3],
}

struct Road {
    runtime: Runtime,
    arrived: Arc<AtomicU64>,
    trips: Arc<std::sync::Mutex<Vec<Duration>>>,
    _ends: (Endpoint, Endpoint, Link),
}

impl Road {
    /// Bulk and control on one link, for ever.
    fn open(nodes: [&Node; 2]) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let ca = CertificateAuthority::generate(CLUSTER, now())?;
        let bind = |node: &Node, host| {
            let address = SocketAddr::from((node.address(), 0));
            let identity = Arc::new(IdentityCell::new(identity(&ca, host)?));
            node.on_network(|| {
                let _inside = runtime.enter();
                Ok(Endpoint::bind(address, identity)?)
            })
        };
        let (from, to) = (bind(nodes[0], HOSTS[0])?, bind(nodes[1], HOSTS[1])?);
        let (arrived, trips) = (Arc::<AtomicU64>::default(), Arc::default());
        runtime.spawn(receive(to.clone(), arrived.clone()));
        let address = to.local_addr()?;
        let role = Role::Agent { host: HOSTS[1] };
        let link = runtime.block_on(from.connect_brisk(address, &role, Sharing::Yielding))?;
        let control = runtime.block_on(link.open(StreamKind::Lane))?;
        runtime.spawn(ask(control, Arc::clone(&trips)));
        runtime.spawn(flood(runtime.block_on(link.open(StreamKind::Lane))?));
        Ok(Self { runtime, arrived, trips, _ends: (from, to, link) })
    }

    /// Bulk bytes a second until `over`, and control's median round trip.
    fn watch(&self, mut over: impl FnMut(u64) -> bool) -> Result<(f64, Duration)> {
        self.trips.lock().expect("no panic").clear();
        let (began, from) = (Instant::now(), self.arrived.load(Relaxed));
        while !over(self.arrived.load(Relaxed) - from) {
            ensure!(began.elapsed() < SOON, "{} bytes arrived", self.arrived.load(Relaxed) - from);
            std::thread::sleep(Duration::from_millis(5));
        }
        let rate = (self.arrived.load(Relaxed) - from) as f64 / began.elapsed().as_secs_f64();
        let mut trips = self.trips.lock().expect("no panic").clone();
        trips.sort_unstable();
        Ok((rate, trips.get(trips.len() / 2).copied().context("control did not flow")?))
    }
}

fn identity(ca: &CertificateAuthority, host: HostId) -> Result<Identity> {
    let (key, csr) = certificate_request()?;
    let certificate = ca.issue(&csr, &Role::Agent { host }, SOON * 10, now())?;
    Ok(Identity::new(CLUSTER, ca.certificate_der(), &certificate, &key)?)
}

/// The first stream is answered, the second counted.
async fn receive(endpoint: Endpoint, arrived: Arc<AtomicU64>) -> Option<()> {
    let link = endpoint.accept().await?;
    let (_, mut control) = link.accept().await.ok()?;
    tokio::spawn(async move {
        while let Ok(call) = control.recv::<u64>().await {
            control.send(&call).await.ok()?;
        }
        Some(())
    });
    let (_, bulk) = link.accept().await.ok()?;
    let (_send, mut recv) = bulk.split();
    let mut buffer = vec![0; CHUNK];
    while let Ok(count @ 1..) = recv.read(&mut buffer).await {
        arrived.fetch_add(count as u64, Relaxed);
    }
    Some(())
}

async fn ask(control: Stream, trips: Arc<std::sync::Mutex<Vec<Duration>>>) -> Option<()> {
    let (mut send, mut recv) = control.split();
    send.set_priority(CONTROL_PRIORITY);
    for call in 0_u64.. {
        let asked = Instant::now();
        send.send(&call).await.ok()?;
        recv.recv::<u64>().await.ok()?;
        trips.lock().expect("no panic").push(asked.elapsed());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Some(())
}

async fn flood(bulk: Stream) {
    let (mut send, _recv) = bulk.split();
    let chunk = bytes::Bytes::from(vec![7; CHUNK]);
    while send.write_chunks(&mut [chunk.clone()]).await.is_ok() {}
}

/// A TCP stream with CUBIC from one node to the other.
struct Other {
    arrived: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Other {
    fn start([from, to]: [&Node; 2]) -> Result<Self> {
        let listener = to.on_network(|| Ok(TcpListener::bind((to.address(), 0))?))?;
        let address = listener.local_addr()?;
        let mut writer = from.on_network(|| Ok(TcpStream::connect_timeout(&address, SOON)?))?;
        setsockopt(&writer, TcpCongestion, &"cubic".into())?;
        writer.set_write_timeout(Some(SOON))?;
        let (mut reader, _) = listener.accept()?;
        let other = Self { arrived: Arc::default(), stop: Arc::default() };
        let (arrived, stop) = (other.arrived.clone(), other.stop.clone());
        std::thread::spawn(move || while !stop.load(Relaxed) && writer.write_all(&[3; CHUNK]).is_ok() {});
        std::thread::spawn(move || {
            let mut buffer = vec![0; CHUNK];
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                arrived.fetch_add(count as u64, Relaxed);
            }
        });
        Ok(other)
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}

fn beside(nodes: [&Node; 2]) -> Result<Seen> {
    let road = Road::open(nodes)?;
    road.watch(|bytes| bytes >= ALONE)?; // the link has found its speed
    let alone = road.watch(|bytes| bytes >= ALONE)?;
    let other = Other::start(nodes)?;
    std::thread::sleep(OTHER[0]);
    let (began, from) = (Instant::now(), other.arrived.load(Relaxed));
    let during = road.watch(|_| began.elapsed() >= OTHER[1])?;
    let rate = (other.arrived.load(Relaxed) - from) as f64 / began.elapsed().as_secs_f64();
    drop(other);
    road.watch(|bytes| bytes >= ALONE)?; // what the other left in the queue is gone
    let after = road.watch(|bytes| bytes >= ALONE)?;
    road.runtime.shutdown_background();
    Ok(Seen { bulk: [alone.0, during.0, after.0], other: rate, control: [alone.1, during.1, after.1] })
}

#[test]
fn a_yielding_link_leaves_the_way_to_a_tcp_stream_and_takes_it_again_and_control_never_waits_for_it()
-> Result<()> {
    require!(root);
    let mut lab = Lab::new("traffic")?;
    let (from, to) = (lab.node("n1")?, lab.node("n2")?);
    // On the way and not at the sender: there the kernel keeps a TCP stream's part of the queue small by itself.
    lab.shape(&to, MBIT)?;
    let seen = beside([&from, &to])?;
    eprintln!("of {MBIT} Mbit/s: {seen:?}");
    let link = f64::from(MBIT) * 1e6 / 8.0;
    let [alone, during, after] = seen.bulk;
    ensure!(alone > 0.7 * link && after > 0.7 * link, "alone it takes the link: {seen:?}");
    ensure!(seen.other > 2.0 * during, "the other stream gets most of it: {seen:?}");
    let [alone, during, after] = seen.control;
    ensure!(alone < QUEUE * 2 && after < QUEUE * 2, "control waits behind the link's own bytes: {seen:?}");
    // There behind a queue that somebody else keeps full, and once more for the window.
    ensure!(during < QUEUE * 4, "control waits for more than the link's queue: {seen:?}");
    Ok(())
}
