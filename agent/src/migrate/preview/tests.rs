//! Probes between two agents over real QUIC.

use super::probe::{PROBES_MAX, Prober};
use crate::migrate::tests::world::{A, B, Net};
use novacron_common::{
    ids::HostId,
    record::LinkMeasure,
    wire::{DenialCode, PROBE_BYTES_MAX, PROBE_MS_MAX, ProbeCount, ProbeOpen, ProbeVerdict, StreamKind},
};
use novacron_transport::{Endpoint, Link, Role, Stream};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::io::AsyncWriteExt;

/// Longer than any test.
const NEVER: Duration = Duration::from_hours(1);

/// The agent of `B`, which serves probes; and the one of `A`, which knows it.
struct Two {
    from: Prober,
    endpoint: Endpoint,
    at: SocketAddr,
    quiet: Arc<AtomicBool>,
}

fn two() -> Two {
    two_with(Duration::from_millis(PROBE_MS_MAX))
}

/// The second counts a sender for `window`.
fn two_with(window: Duration) -> Two {
    let net = Net::new();
    let (endpoint, there) = (net.endpoint(A), net.endpoint(B));
    let at = there.local_addr().unwrap();
    let directory = move |host: HostId| (host == B).then_some(at);
    let from = Prober::new(endpoint.clone(), Arc::new(directory));
    let quiet = Arc::new(AtomicBool::new(true));
    let prober = Prober::new(there.clone(), Arc::new(|_| None)).with_window(window);
    tokio::spawn(serve(there, prober, quiet.clone()));
    Two { from, endpoint, at, quiet }
}

async fn serve(endpoint: Endpoint, prober: Prober, quiet: Arc<AtomicBool>) {
    while let Some(link) = endpoint.accept().await {
        let (prober, quiet) = (prober.clone(), quiet.clone());
        tokio::spawn(async move {
            while let Ok((kind, stream)) = link.accept().await {
                assert_eq!(kind, StreamKind::Probe);
                let (prober, quiet) = (prober.clone(), quiet.load(SeqCst));
                tokio::spawn(async move { prober.serve(stream, quiet).await });
            }
        });
    }
}

impl Two {
    async fn link(&self) -> Link {
        self.endpoint.connect(self.at, &Role::Agent { host: B }).await.unwrap()
    }
}

async fn open(link: &Link, bytes: u32) -> (Stream, ProbeVerdict) {
    let mut stream = link.open(StreamKind::Probe).await.unwrap();
    stream.send(&ProbeOpen { bytes }).await.unwrap();
    let verdict = stream.recv().await.unwrap();
    (stream, verdict)
}

fn refused(verdict: ProbeVerdict) -> DenialCode {
    let ProbeVerdict::Refused(denial) = verdict else { panic!("{verdict:?}") };
    denial.code
}

#[tokio::test(flavor = "multi_thread")]
async fn a_way_is_measured_and_one_to_a_stranger_is_not() {
    let two = two();
    let way = two.from.measure(B, true).await;
    assert!(way.rate.is_some_and(|rate| rate > 0) && way.round_trip_us.is_some(), "{way:?}");
    assert_eq!((way.host, way.note), (B, None));
    let stranger = two.from.measure(HostId::from_u128(0xc), true).await;
    assert_eq!((stranger.rate, stranger.round_trip_us), (None, None));
    assert!(stranger.note.unwrap().contains("no member"));
}

#[tokio::test(flavor = "multi_thread")]
async fn while_something_moves_at_either_end_no_bytes_are_sent() {
    let two = two();
    let check = |way: LinkMeasure| {
        assert!(way.rate.is_none() && way.round_trip_us.is_some(), "{way:?}");
        assert!(way.note.unwrap().contains("moves are under way"));
    };
    check(two.from.measure(B, false).await);
    two.quiet.store(false, SeqCst);
    check(two.from.measure(B, true).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn too_much_and_too_many_are_refused() {
    let two = two_with(NEVER);
    let link = two.link().await;
    for bytes in [0, PROBE_BYTES_MAX + 1, u32::MAX] {
        assert_eq!(refused(open(&link, bytes).await.1), DenialCode::Invalid);
    }
    let mut held = Vec::new();
    for _ in 0..PROBES_MAX {
        let (stream, verdict) = open(&link, 1).await;
        assert_eq!(verdict, ProbeVerdict::Go, "what was refused holds no place");
        held.push(stream.split());
    }
    assert_eq!(refused(open(&link, 1).await.1), DenialCode::NoRoom);
    for (send, recv) in &mut held {
        send.write_all(&[0]).await.unwrap();
        recv.recv::<ProbeCount>().await.unwrap();
        assert_eq!(open(&link, 1).await.1, ProbeVerdict::Go, "its place is free again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_sender_is_left() {
    let two = two_with(Duration::from_millis(100));
    let link = two.link().await;
    let (mut stream, verdict) = open(&link, 1).await;
    assert_eq!(verdict, ProbeVerdict::Go);
    assert_eq!(stream.recv::<ProbeCount>().await.unwrap(), ProbeCount::default());
}
