//! The link is cut in the middle: lanes go on where they were, or end when the grace is over; and nobody else takes
//! them up, nor in another place.

use super::{
    lanes::{landing, lane_over, linked, qcow2},
    wire::Wire,
    world::{A, B, DOCUMENT, Net, ticket},
};
use crate::migrate::{
    filter::{Expectation, element::Element},
    lane::{
        cold,
        control::Observer as _,
        target::{Door, LaneEvent, Onward},
    },
    link::{
        dialler::Dialler,
        keeper::{Keeper, LinkCondition},
        lane::{LaneReader, LaneWriter},
        links::Links,
        pace::Pacer,
        window,
    },
};
use futures_util::FutureExt as _;
use novacron_common::{
    ids::HostId,
    record::Ticket,
    wire::{LaneFrame, LaneId, LaneKind, LaneOpen, LaneVerdict, StreamKind},
};
use novacron_transport::{Endpoint, Link, Role, Sharing, Stream};
use std::{
    path::Path,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::mpsc,
    time::timeout,
};

/// Longer than anything here takes on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(60);
const GRACE: Duration = Duration::from_secs(20);

/// A target with one door; its QEMU listens at `disk`. A disk's lane carries bytes as they come.
struct Target {
    door: Arc<Door>,
    disk: UnixListener,
    events: mpsc::Receiver<LaneEvent>,
    wire: Wire,
    ours: Ticket,
    near: Endpoint,
    _folder: tempfile::TempDir,
}

/// Serves every lane that A opens, at `door`.
async fn serve(endpoint: Endpoint, door: Arc<Door>) {
    while let Some(link) = endpoint.accept().await {
        let door = door.clone();
        tokio::spawn(async move {
            let Some(Role::Agent { host }) = link.peer().copied() else { return };
            while let Ok((_, mut stream)) = link.accept().await {
                let door = door.clone();
                tokio::spawn(async move {
                    let Ok(open) = stream.recv::<LaneOpen>().await else { return };
                    door.let_in(&open, host, crate::clock::now(), stream).await;
                });
            }
        });
    }
}

impl Target {
    async fn new(grace: Duration) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let expectation = Expectation {
            domain: Element::parse(DOCUMENT).unwrap(),
            migrate_uri: String::new(),
            disks_uri: String::new(),
            disk: String::new(),
            post_copy: false,
        };
        let onward = Onward::Live {
            libvirt: path("libvirt"),
            memory: path("r"),
            disk: path("d"),
            expectation: Box::new(expectation),
        };
        let disk = UnixListener::bind(path("d")).unwrap();
        Self::with(folder, onward, disk, grace).await
    }

    async fn with(folder: tempfile::TempDir, onward: Onward, disk: UnixListener, grace: Duration) -> Self {
        let (net, ours) = (Net::new(), ticket(matches!(onward, Onward::Live { .. })));
        let (near, far) = (net.endpoint(A), net.endpoint(B));
        let (tell, events) = mpsc::channel(16);
        let door = Arc::new(Door::new(ours.clone(), onward, grace, tell));
        door.prepared();
        let wire = Wire::to(far.local_addr().unwrap()).await;
        tokio::spawn(serve(far, door.clone()));
        Self { door, disk, events, wire, ours, near, _folder: folder }
    }

    async fn links(&self, grace: Duration) -> Links {
        let (near, ours) = (self.near.clone(), self.ours.clone());
        let first = Keeper::dial(near, self.wire.address, ours, grace, Pacer::default()).await.unwrap();
        Links::new(first, Vec::new())
    }

    /// A disk's lane, and the connection that leads on from it.
    async fn disk_lane(&self, links: &Links) -> (LaneReader, LaneWriter, UnixStream) {
        let (opened, accepted) =
            tokio::join!(links.open(links.next(LaneKind::Disk).unwrap()), self.disk.accept());
        let ((reader, writer), (qemu, _)) = (opened.unwrap(), accepted.unwrap());
        (reader, writer, qemu)
    }
}

/// Waits until the link is as said.
async fn until(links: &Links, wanted: LinkCondition) {
    let reached = async {
        while links.condition() != wanted {
            links.changed(links.condition()).await;
        }
    };
    timeout(PATIENCE, reached).await.unwrap_or_else(|_| panic!("it stayed at {:?}", links.condition()));
}

/// Cuts the link until the source has noticed, and mends it.
async fn cut_and_mend(target: &Target, links: &Links, cuts: u32) {
    target.wire.cut();
    until(links, LinkCondition { lost: true, cuts: cuts - 1 }).await;
    target.wire.mend();
    until(links, LinkCondition { lost: false, cuts }).await;
}

fn noise(length: usize, seed: usize) -> Vec<u8> {
    (0..length).map(|at| ((at * 31 + at / 251 * 7 + seed) % 253) as u8).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_cut_off_when_it_is_called_first_is_called_until_it_answers() {
    let target = Target::new(PATIENCE).await;
    target.wire.cut();
    let (links, ()) = tokio::join!(target.links(PATIENCE), async {
        // Longer than one call is tried for, so that it takes another; on a slow machine the first may do.
        tokio::time::sleep(Duration::from_secs(4)).await;
        target.wire.mend();
    });
    let (_reader, mut writer, mut qemu) = target.disk_lane(&links).await;
    assert_eq!(links.condition(), LinkCondition::default(), "no cut of a link that there was");
    writer.write_all(b"hello").await.unwrap();
    let mut read = [0; 5];
    timeout(PATIENCE, qemu.read_exact(&mut read)).await.unwrap().unwrap();
    assert_eq!(&read, b"hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_never_answers_is_given_up_after_the_grace_and_the_error_says_so() {
    let target = Target::new(PATIENCE).await;
    target.wire.cut();
    let grace = Duration::from_secs(1);
    let (near, ours) = (target.near.clone(), target.ours.clone());
    let dialled = Keeper::dial(near, target.wire.address, ours, grace, Pacer::default()).await;
    let error = dialled.map(|_| ()).unwrap_err();
    assert_eq!(error.to_string(), "the target's agent did not answer within 1 s");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waited_for_the_way_to_return_is_not_taken_for_a_round_trip() {
    // One call is made meanwhile, and answered when it has waited for so long.
    const HELD: Duration = Duration::from_millis(300);
    let net = Net::new();
    let (near, far) = (net.endpoint(A), net.endpoint(B));
    let wire = Wire::to(far.local_addr().unwrap()).await;
    let dialler = Dialler::new(near, wire.address, B, Sharing::Fair);
    tokio::spawn(async move { while far.accept().await.is_some() {} });
    wire.hold();
    let (link, ()) = tokio::join!(dialler.call_back(), async {
        tokio::time::sleep(HELD).await;
        wire.mend();
    });
    let round_trip = link.unwrap().round_trip();
    assert!(round_trip < HELD / 2, "{round_trip:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_that_is_cut_twice_in_the_middle_delivers_every_byte_once_both_ways() {
    const LENGTH: usize = 48 << 20;
    let target = Target::new(GRACE).await;
    let links = target.links(GRACE).await;
    let (mut reader, mut writer, qemu) = target.disk_lane(&links).await;
    let (mut from_source, mut to_source) = qemu.into_split();
    let (there, back) = (noise(LENGTH, 1), noise(LENGTH / 4, 2));
    let (sent, answered) = (there.clone(), back.clone());
    let sending = tokio::spawn(async move {
        writer.write_all(&sent).await.unwrap();
        writer.shutdown().await.unwrap();
    });
    let answering = tokio::spawn(async move {
        to_source.write_all(&answered).await.unwrap();
        to_source.shutdown().await.unwrap();
    });
    let (mut got, mut got_back) = (vec![0; LENGTH / 3], vec![0; LENGTH / 16]);
    from_source.read_exact(&mut got).await.unwrap();
    cut_and_mend(&target, &links, 1).await;
    // What was read so far makes room: the link is cut under way again.
    got.resize(LENGTH * 2 / 3, 0);
    from_source.read_exact(&mut got[LENGTH / 3..]).await.unwrap();
    reader.read_exact(&mut got_back).await.unwrap();
    assert!(!sending.is_finished() && !answering.is_finished(), "the cuts must fall into the middle");
    cut_and_mend(&target, &links, 2).await;
    let rest =
        async { tokio::try_join!(from_source.read_to_end(&mut got), reader.read_to_end(&mut got_back)) };
    timeout(PATIENCE, rest).await.unwrap().unwrap();
    assert!(got == there, "bytes were lost, repeated or changed on the way there");
    assert!(got_back == back, "bytes were lost, repeated or changed on the way back");
    sending.await.unwrap();
    answering.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_while_nothing_flows_is_noticed_and_nothing_is_heard_of_it() {
    let target = Target::new(GRACE).await;
    let links = target.links(GRACE).await;
    let (mut reader, mut writer, mut qemu) = target.disk_lane(&links).await;
    cut_and_mend(&target, &links, 1).await;
    writer.write_all(b"still there?").await.unwrap();
    let mut question = [0; 12];
    qemu.read_exact(&mut question).await.unwrap();
    qemu.write_all(b"yes").await.unwrap();
    qemu.shutdown().await.unwrap();
    let mut answer = String::new();
    reader.read_to_string(&mut answer).await.unwrap();
    assert_eq!((&question, answer.as_str()), (b"still there?", "yes"));
    // New lanes open on the new link.
    drop(target.disk_lane(&links).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_stays_away_longer_than_the_grace_ends_the_lane_on_both_sides() {
    let short = Duration::from_secs(2);
    let target = Target::new(short).await;
    let links = target.links(short).await;
    let (mut reader, mut writer, mut qemu) = target.disk_lane(&links).await;
    writer.write_all(b"x").await.unwrap();
    assert_eq!(qemu.read_u8().await.unwrap(), b'x');
    target.wire.cut();
    let reason = timeout(PATIENCE, links.over()).await.unwrap();
    assert!(reason.contains("lost") && reason.contains("within 2 s"), "{reason}");
    let error = timeout(PATIENCE, reader.read_u8()).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("within 2 s"), "{error}");
    assert!(writer.write_all(b"x").await.is_err());
    assert_eq!(timeout(PATIENCE, qemu.read(&mut [0; 8])).await.unwrap().unwrap(), 0, "QEMU must be told");
    // Too late: nobody goes on with what was given up.
    target.wire.mend();
    assert!(links.open(links.next(LaneKind::Disk).unwrap()).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_breaks_while_the_link_is_away_breaks_on_the_other_side_after_it() {
    let target = Target::new(GRACE).await;
    let links = target.links(GRACE).await;
    let (reader, writer, mut qemu) = target.disk_lane(&links).await;
    target.wire.cut();
    until(&links, LinkCondition { lost: true, cuts: 0 }).await;
    drop((reader, writer));
    target.wire.mend();
    assert_eq!(timeout(PATIENCE, qemu.read(&mut [0; 8])).await.unwrap().unwrap(), 0);

    let (mut reader, _writer, qemu) = target.disk_lane(&links).await;
    target.wire.cut();
    until(&links, LinkCondition { lost: true, cuts: 1 }).await;
    drop(qemu);
    target.wire.mend();
    // Either an end or an error: QEMU there is gone.
    assert!(!matches!(timeout(PATIENCE, reader.read(&mut [0; 8])).await.unwrap(), Ok(1..)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_machines_disk_crosses_a_cut() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    let disk = qcow2(60 << 20);
    std::fs::write(&from, &disk).unwrap();
    std::fs::write(&to, b"the empty overlay").unwrap();
    let unused = UnixListener::bind(folder.path().join("d")).unwrap();
    let mut target = Target::with(folder, Onward::Cold(landing(&to)), unused, GRACE).await;
    let links = Arc::new(target.links(GRACE).await);
    let sending = tokio::spawn({
        let (links, from) = (links.clone(), from.clone());
        async move {
            let counter = AtomicU64::new(0);
            let halves = links.open(links.next(LaneKind::Disk).unwrap()).await.unwrap();
            cold::send(halves, cold::Cargo { disk: Some(&from), ran: true, counter: &counter }).await
        }
    });
    let grown = async {
        while length(&to) < 1 << 20 || length(&to) == 17 {
            tokio::task::yield_now().await
        }
    };
    timeout(PATIENCE, grown).await.unwrap();
    cut_and_mend(&target, &links, 1).await;
    timeout(PATIENCE, sending).await.unwrap().unwrap().unwrap();
    assert!(matches!(target.events.recv().await, Some(LaneEvent::Begun)));
    assert!(matches!(target.events.recv().await, Some(LaneEvent::Landed(Ok(true)))));
    assert!(std::fs::read(&to).unwrap() == disk, "the disk changed on the way");
}

fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}

/// Opens a stream of `link` with `open`, and says how it was answered.
async fn ask(link: &Link, open: &LaneOpen) -> (LaneVerdict, Stream) {
    let mut stream = link.open(StreamKind::Lane).await.unwrap();
    stream.send(open).await.unwrap();
    let verdict = timeout(PATIENCE, stream.recv()).await.unwrap().unwrap();
    (verdict, stream)
}

async fn send_frame(
    stream: Stream,
    frame: LaneFrame,
    bytes: &[u8],
) -> (novacron_transport::SendHalf, novacron_transport::RecvHalf) {
    let (mut send, recv) = stream.split();
    send.write_all(&frame.to_bytes()).await.unwrap();
    send.write_all(bytes).await.unwrap();
    (send, recv)
}

const FIRST: LaneId = LaneId { kind: LaneKind::Disk, number: 0 };

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_is_taken_up_only_by_its_own_source_forwards_and_where_it_was() {
    let target = Target::new(GRACE).await;
    let link = target.near.connect(target.wire.address, &Role::Agent { host: B }).await.unwrap();
    let open = |turn, received| LaneOpen { ticket: target.ours.clone(), lane: FIRST, turn, received };
    let refused = |verdict: LaneVerdict, what: &str| {
        let LaneVerdict::Refused(denial) = verdict else { panic!("{verdict:?}") };
        assert!(denial.text.contains(what), "{denial}");
    };
    refused(ask(&link, &open(1, 5)).await.0, "taken up");
    refused(ask(&link, &LaneOpen { lane: LaneId { number: 17, ..FIRST }, ..open(1, 0) }).await.0, "expected");

    let (verdict, stream) = ask(&link, &open(3, 0)).await;
    assert_eq!(verdict, LaneVerdict::Open { received: 0 });
    let (mut qemu, _) = target.disk.accept().await.unwrap();
    let old = send_frame(stream, LaneFrame::Data { offset: 0, length: 4 }, b"abcd").await;
    let mut got = [0; 4];
    qemu.read_exact(&mut got).await.unwrap();

    refused(ask(&link, &open(3, 0)).await.0, "spent");
    refused(ask(&link, &open(2, 0)).await.0, "spent");
    let secret = [1; 32];
    let forged = LaneOpen { ticket: Ticket { secret, ..target.ours.clone() }, ..open(4, 0) };
    refused(ask(&link, &forged).await.0, "agreed upon");
    let stranger = HostId::from_u128(0xc);
    let (here, there) = linked(&Net::new()).await;
    let mut out = here.open(StreamKind::Lane).await.unwrap();
    out.send(&0u8).await.unwrap();
    let (_, came) = there.accept().await.unwrap();
    target.door.let_in(&open(4, 0), stranger, crate::clock::now(), came).await;
    out.recv::<LaneVerdict>().await.map(|verdict| refused(verdict, "agreed upon")).unwrap();

    // The same source, on a newer turn: the old stream is dropped and says nothing any more.
    let (verdict, stream) = ask(&link, &open(4, 0)).await;
    assert_eq!(verdict, LaneVerdict::Open { received: 4 });
    let (mut old_send, mut old_recv) = old;
    let overtaken = async { while old_recv.read(&mut [0; 64]).await.is_ok_and(|count| count > 0) {} };
    timeout(PATIENCE, overtaken).await.unwrap();
    let _ = old_send.write_all(&LaneFrame::Data { offset: 4, length: 1 }.to_bytes()).await;
    let _kept = send_frame(stream, LaneFrame::Data { offset: 2, length: 4 }, b"cdef").await;
    qemu.read_exact(&mut got[..2]).await.unwrap();
    assert_eq!(&got[..2], b"ef", "what was here already is not repeated");

    // An offset that cannot be ends the lane, and only it.
    refused(ask(&link, &open(5, 1 << 40)).await.0, "not in 0..=0");
    assert_eq!(timeout(PATIENCE, qemu.read(&mut got)).await.unwrap().unwrap(), 0, "QEMU must be told");
    refused(ask(&link, &open(6, 0)).await.0, "broken");
    let other = LaneOpen { lane: LaneId { number: 1, ..FIRST }, ..open(1, 0) };
    assert_eq!(ask(&link, &other).await.0, LaneVerdict::Open { received: 0 });
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_cannot_be_end_the_lane_and_not_the_agent() {
    let target = Target::new(GRACE).await;
    let link = target.near.connect(target.wire.address, &Role::Agent { host: B }).await.unwrap();
    let lies: [(LaneFrame, usize); 4] = [
        (LaneFrame::Data { offset: 1, length: 1 }, 1),
        (LaneFrame::Ack { offset: 1 }, 0),
        (LaneFrame::End { offset: 9 }, 0),
        (LaneFrame::Data { offset: u64::MAX, length: 8 }, 8),
    ];
    for (number, (frame, length)) in (0..).zip(lies) {
        let lane = LaneId { number, ..FIRST };
        let open = LaneOpen { ticket: target.ours.clone(), lane, turn: 1, received: 0 };
        let (_, stream) = ask(&link, &open).await;
        let (mut qemu, _) = target.disk.accept().await.unwrap();
        let _kept = send_frame(stream, frame, &vec![0; length]).await;
        assert_eq!(timeout(PATIENCE, qemu.read(&mut [0; 8])).await.unwrap().unwrap(), 0, "{frame:?}");
    }
    let good =
        LaneOpen { ticket: target.ours.clone(), lane: LaneId { number: 9, ..FIRST }, turn: 1, received: 0 };
    assert_eq!(ask(&link, &good).await.0, LaneVerdict::Open { received: 0 });
}

#[tokio::test(flavor = "multi_thread")]
async fn lanes_that_nobody_reads_do_not_hold_up_libvirts_or_a_post_copy_channel() {
    let (here, there) = linked(&Net::new()).await;
    let mut kept = Vec::new();
    let mut pairs = Vec::new();
    let memory = (0..window::MEMORY_MAX).map(|number| LaneId { kind: LaneKind::Memory, number });
    let disks = (0..window::DISK_MAX).map(|number| LaneId { kind: LaneKind::Disk, number });
    let control = LaneId { kind: LaneKind::Control, number: 0 };
    for id in memory.chain(disks).chain([control]) {
        let mut out = here.open(StreamKind::Lane).await.unwrap();
        out.send(&0u8).await.unwrap();
        let (_, mut came) = there.accept().await.unwrap();
        came.recv::<u8>().await.unwrap();
        pairs.push((id, lane_over(out, id), lane_over(came, id)));
    }
    // All but two are filled until nothing more fits, and nobody reads.
    let post_copy = LaneId { kind: LaneKind::Memory, number: window::MEMORY_MAX - 1 };
    let (spared, blocked): (Vec<_>, Vec<_>) =
        pairs.into_iter().partition(|(id, ..)| *id == control || *id == post_copy);
    for (id, (reader, mut writer), far) in blocked {
        let mut filled = 0;
        // As nobody reads, a write that waits would wait for ever.
        while let Some(written) = writer.write(&[0; 1 << 16]).now_or_never() {
            filled += written.unwrap();
        }
        assert!(filled > 0 && filled <= window::of(id).unwrap(), "{id:?} took {filled} bytes");
        kept.push((reader, writer, far));
    }
    for (id, (_reader, mut writer), (mut far, _far_writer)) in spared {
        let sent = noise(4 << 20, 3);
        let copy = sent.clone();
        let sending = tokio::spawn(async move {
            writer.write_all(&copy).await.unwrap();
            writer
        });
        let mut got = vec![0; sent.len()];
        timeout(PATIENCE, far.read_exact(&mut got))
            .await
            .unwrap_or_else(|_| panic!("{id:?} is held up"))
            .unwrap();
        assert!(got == sent);
        drop(sending.await.unwrap());
    }
}
