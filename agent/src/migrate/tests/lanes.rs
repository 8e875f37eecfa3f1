//! Lanes over real QUIC: who may open one, and how bytes, ends and breaks cross.

use super::world::{A, B, GRACE, Net, spec, ticket};
use crate::{
    hypervisor::MachineFiles,
    migrate::{
        lane::{
            cold,
            relay::{self, Flows, Way},
            target::{Door, LaneEvent, Onward},
        },
        link::{
            carrier::carry,
            lane::{Lane, LaneReader, LaneWriter},
            pace::{Budget, Pacer},
            window,
        },
    },
};
use novacron_common::{
    ids::HostId,
    record::Ticket,
    units::UnixMillis,
    wire::{LaneId, LaneKind, LaneOpen, LaneVerdict, StreamKind},
};
use novacron_transport::{Link, Role, Sharing, Stream};
use std::{
    num::NonZeroU32,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::mpsc,
    time::timeout,
};

const SOON: Duration = Duration::from_secs(5);

/// A qcow2 file of that length: a valid header, then noise.
pub fn qcow2(length: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..length).map(|i| (i * 31 % 251) as u8).collect();
    bytes[..1024].fill(0);
    let words: [(usize, u32); 6] = [(0, 0x5146_49fb), (4, 3), (20, 16), (36, 1), (96, 4), (100, 104)];
    for (at, word) in words {
        bytes[at..at + 4].copy_from_slice(&word.to_be_bytes());
    }
    // size, L1 table, refcount table and its clusters
    for (at, word) in [(24, 64u64 << 20), (40, 3 << 16), (48, 1 << 16)] {
        bytes[at..at + 8].copy_from_slice(&word.to_be_bytes());
    }
    bytes[56..60].copy_from_slice(&1u32.to_be_bytes());
    bytes
}

/// Two linked endpoints: the agent of A has dialled the agent of B.
pub async fn linked(net: &Net) -> (Link, Link) {
    let (a, b) = (net.endpoint(A), net.endpoint(B));
    let address = b.local_addr().unwrap();
    let (dialled, accepted) = tokio::join!(a.connect(address, &Role::Agent { host: B }), b.accept());
    std::mem::forget((a, b)); // their tasks end with the test's runtime
    (dialled.unwrap(), accepted.unwrap())
}

async fn streams(net: &Net) -> (Link, Link, Stream, Stream) {
    let (here, there) = linked(net).await;
    let mut out = here.open(StreamKind::Lane).await.unwrap();
    out.send(&0u8).await.unwrap();
    let (_, mut came) = there.accept().await.unwrap();
    came.recv::<u8>().await.unwrap();
    (here, there, out, came)
}

/// A lane over `stream`, in its first turn and without another.
pub fn lane_over(stream: Stream, id: LaneId) -> (LaneReader, LaneWriter) {
    paced_lane_over(stream, id, Pacer::default())
}

fn paced_lane_over(stream: Stream, id: LaneId, pacer: Pacer) -> (LaneReader, LaneWriter) {
    let (lane, reader, writer) = Lane::new(id, window::of(id).unwrap());
    lane.take_turn(1, 0).unwrap();
    tokio::spawn(async move {
        if let Err(error) = carry(&lane, 1, stream, &pacer).await {
            lane.break_off(error.to_string());
        }
    });
    (reader, writer)
}

const MAIN: LaneId = LaneId { kind: LaneKind::Memory, number: 0 };

/// Relays a lane over `stream` to one end of a socket pair; returns the other.
fn attach(
    stream: Stream,
    counter: Arc<AtomicU64>,
) -> (UnixStream, tokio::task::JoinHandle<std::io::Result<()>>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (reader, writer) = lane_over(stream, MAIN);
    let task = tokio::spawn(async move {
        let (from, to) = theirs.into_split();
        let (mut out, mut back) = (Way { from, to: writer }, Way { from: reader, to });
        relay::both(&mut out, &mut back, &mut Flows::default(), &counter).await
    });
    (ours, task)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_that_is_used_up_holds_up_memory_and_not_control() {
    const CONTROL: LaneId = LaneId { kind: LaneKind::Control, number: 0 };
    let net = Net::new();
    let (_here, _there, memory_out, memory_came) = streams(&net).await;
    let (_here, _there, control_out, control_came) = streams(&net).await;
    // 125 kB a second: eight megabytes are a minute's.
    let pacer = Pacer::of_host(NonZeroU32::new(1).map(Budget::of_mbit), Sharing::Fair);
    let (_back, mut memory) = paced_lane_over(memory_out, MAIN, pacer.clone());
    let (mut arriving, _writer) = lane_over(memory_came, MAIN);
    let (_back, mut control) = paced_lane_over(control_out, CONTROL, pacer);
    let (mut heard, _writer) = lane_over(control_came, CONTROL);
    let flood = tokio::spawn(async move { memory.write_all(&vec![7; 6 << 20]).await.map(|()| memory) });
    let mut first = [0; 1];
    timeout(SOON, arriving.read_exact(&mut first)).await.unwrap().unwrap();
    for call in 0..100u8 {
        control.write_all(&[call; 1000]).await.unwrap();
        let mut frame = [0; 1000];
        timeout(SOON, heard.read_exact(&mut frame)).await.expect("control waits for memory").unwrap();
        assert_eq!(frame, [call; 1000]);
    }
    let mut rest = vec![0; 6 << 20];
    assert!(timeout(Duration::ZERO, arriving.read_exact(&mut rest)).await.is_err(), "memory was not held up");
    flood.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_cross_and_each_direction_ends_by_itself() {
    let (_here, _there, out, came) = streams(&Net::new()).await;
    let counter = Arc::new(AtomicU64::new(0));
    let (mut source, one) = attach(out, counter.clone());
    let (mut target, two) = attach(came, Arc::default());
    let sent: Vec<u8> = (0..3_000_000u32).map(|i| (i % 253) as u8).collect();
    let copy = sent.clone();
    let writing = tokio::spawn(async move {
        source.write_all(&copy).await.unwrap();
        source.shutdown().await.unwrap();
        let mut answer = String::new();
        source.read_to_string(&mut answer).await.unwrap();
        answer
    });
    let mut received = Vec::new();
    timeout(SOON, target.read_to_end(&mut received)).await.unwrap().unwrap();
    assert!(received == sent, "bytes changed on the way");
    target.write_all(b"still open this way").await.unwrap();
    target.shutdown().await.unwrap();
    assert_eq!(writing.await.unwrap(), "still open this way");
    assert!(one.await.unwrap().is_ok() && two.await.unwrap().is_ok());
    assert_eq!(counter.load(SeqCst), 3_000_000 + 19);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_stops_reading_stops_the_writer() {
    let (_here, _there, out, came) = streams(&Net::new()).await;
    let counter = Arc::new(AtomicU64::new(0));
    let (mut source, _one) = attach(out, counter.clone());
    let (_target, _two) = attach(came, Arc::default());
    let flood = async {
        loop {
            source.write_all(&[0; 1 << 16]).await.unwrap();
        }
    };
    assert!(timeout(Duration::from_secs(3), flood).await.is_err());
    let held = counter.load(SeqCst);
    assert!(held < 64 << 20, "{held} bytes are held somewhere");
}

/// Both ends of a lane of its own over one link.
async fn lane_on(
    here: &Link,
    there: &Link,
    id: LaneId,
) -> ((LaneReader, LaneWriter), (LaneReader, LaneWriter)) {
    let out = here.open(StreamKind::Lane).await.unwrap();
    let (_, came) = there.accept().await.unwrap();
    (lane_over(out, id), lane_over(came, id))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_main_channel_that_nobody_reads_keeps_neither_preempt_nor_control_from_flowing() {
    let (here, there) = linked(&Net::new()).await;
    let ((_back, mut main), (_nobody_reads, _writer)) = lane_on(&here, &there, MAIN).await;
    let flood = async { while main.write_all(&[7; 1 << 16]).await.is_ok() {} };
    let blocked = timeout(Duration::from_secs(1), flood).await;
    assert!(blocked.is_err(), "the main channel broke");
    let preempt = LaneId { kind: LaneKind::Memory, number: 1 };
    let control = LaneId { kind: LaneKind::Control, number: 0 };
    for id in [preempt, control] {
        let ((_back, mut out), (mut came, _writer)) = lane_on(&here, &there, id).await;
        let sent = vec![id.number; 3 * window::of(id).unwrap()];
        let mut received = vec![9; sent.len()];
        let crossing = async { tokio::join!(out.write_all(&sent), came.read_exact(&mut received)) };
        let (written, read) = timeout(SOON, crossing).await.expect("it waits for the main channel");
        assert!(written.is_ok() && read.is_ok() && received == sent, "{id:?}");
    }
    let more = timeout(Duration::from_millis(100), main.write_all(&[7; 16 << 20])).await;
    assert!(more.is_err(), "the main channel was not held up at all");
}

#[tokio::test(flavor = "multi_thread")]
async fn few_bytes_that_stand_for_much_wait_until_their_reader_is_through() {
    let (_here, _there, out, came) = streams(&Net::new()).await;
    let (_back, mut to) = lane_over(out, MAIN);
    let (mut from, _writer) = lane_over(came, MAIN);
    for _ in 0..2 {
        to.write_u32(7).await.unwrap();
        to.weigh(1 << 20);
    }
    // They are looked at, and not yet consumed.
    assert_eq!(timeout(SOON, from.fill_buf()).await.unwrap().unwrap()[..4], [0, 0, 0, 7]);
    assert!(timeout(Duration::ZERO, to.write_u32(8)).await.is_err(), "a third does not wait");
    let reading = tokio::spawn(async move {
        let mut all = Vec::new();
        from.read_to_end(&mut all).await.map(|_| all)
    });
    for _ in 0..200 {
        timeout(SOON, to.write_u32(8)).await.expect("the reader is through").unwrap();
        to.weigh(1 << 20);
    }
    to.shutdown().await.unwrap();
    let all = timeout(SOON, reading).await.unwrap().unwrap().unwrap();
    assert_eq!(all, [[0, 0, 0, 7]; 2].into_iter().chain([[0, 0, 0, 8]; 200]).flatten().collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_link_ends_both_sides_within_seconds() {
    let (here, _there, out, came) = streams(&Net::new()).await;
    let (mut source, one) = attach(out, Arc::default());
    let (mut target, two) = attach(came, Arc::default());
    source.write_all(b"x").await.unwrap();
    assert_eq!(timeout(SOON, target.read_u8()).await.unwrap().unwrap(), b'x');
    here.close("cut");
    let ended = async { (one.await.unwrap().is_err(), two.await.unwrap().is_err()) };
    assert_eq!(timeout(SOON, ended).await.unwrap(), (true, true));
    assert_eq!(timeout(SOON, source.read(&mut [0; 8])).await.unwrap().unwrap(), 0);
    assert_eq!(timeout(SOON, target.read(&mut [0; 8])).await.unwrap().unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_breaks_on_one_side_breaks_on_the_other() {
    let (_here, _there, out, came) = streams(&Net::new()).await;
    let (mut source, _one) = attach(out, Arc::default());
    let (target, _two) = attach(came, Arc::default());
    drop(target);
    let writing = async { while source.write_all(&[0; 1 << 16]).await.is_ok() {} };
    timeout(SOON, writing).await.expect("the writer must be told");
}

pub fn landing(disk: &Path) -> cold::Landing {
    let files = MachineFiles { disk: Some(disk.into()), ..MachineFiles::bare(disk.parent().unwrap()) };
    cold::Landing::new(&files, &spec())
}

/// Presents `open` as `peer` at a door for `ours`, and says how it was answered.
async fn knock(ours: &Ticket, open: LaneOpen, peer: HostId, times: usize) -> Vec<LaneVerdict> {
    let folder = tempfile::tempdir().unwrap();
    let (events, _seen) = mpsc::channel(16);
    let onward = Onward::Cold(landing(&folder.path().join("d")));
    let door = Arc::new(Door::new(ours.clone(), onward, GRACE, events));
    let (here, there) = linked(&Net::new()).await;
    let mut verdicts = Vec::new();
    for _ in 0..times {
        let mut out = here.open(StreamKind::Lane).await.unwrap();
        out.send(&open).await.unwrap();
        let (_, mut came) = there.accept().await.unwrap();
        let (door, open) = (door.clone(), came.recv::<LaneOpen>().await.unwrap());
        tokio::spawn(async move { door.let_in(&open, peer, crate::clock::now(), came).await });
        verdicts.push(timeout(SOON, out.recv().await_verdict()).await.unwrap());
        std::mem::forget(out);
    }
    verdicts
}

trait AwaitVerdict {
    async fn await_verdict(self) -> LaneVerdict;
}

impl<F: Future<Output = Result<LaneVerdict, novacron_transport::LinkError>>> AwaitVerdict for F {
    async fn await_verdict(self) -> LaneVerdict {
        self.await.expect("a verdict")
    }
}

fn open(ticket: &Ticket) -> LaneOpen {
    let lane = LaneId { kind: LaneKind::Disk, number: 0 };
    LaneOpen { ticket: ticket.clone(), lane, turn: 1, received: 0 }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_right_ticket_from_the_right_host_in_time_opens_a_lane_and_only_once() {
    let ours = ticket(false);
    let verdicts = knock(&ours, open(&ours), A, 2).await;
    assert_eq!(verdicts[0], LaneVerdict::Open { received: 0 });
    assert!(matches!(verdicts[1], LaneVerdict::Refused(_)), "a ticket is spent by its first use");

    let mut secret = ours.secret;
    secret[31] ^= 1;
    let wrong = [
        Ticket { secret, ..ours.clone() },
        Ticket { live: true, ..ours.clone() },
        Ticket { epoch: ours.epoch.next(), ..ours.clone() },
        Ticket { expires_at: UnixMillis(i64::MAX), ..ours.clone() },
    ];
    for theirs in &wrong {
        assert!(matches!(knock(&ours, open(theirs), A, 1).await[0], LaneVerdict::Refused(_)), "{theirs:?}");
    }
    let stranger = HostId::from_u128(0xc);
    assert!(matches!(knock(&ours, open(&ours), stranger, 1).await[0], LaneVerdict::Refused(_)));
    let expired = Ticket { expires_at: UnixMillis(1), ..ours.clone() };
    assert!(matches!(knock(&expired, open(&expired), A, 1).await[0], LaneVerdict::Refused(_)));
    for kind in [LaneKind::Control, LaneKind::Memory] {
        let other = LaneOpen { lane: LaneId { kind, number: 0 }, ..open(&ours) };
        assert!(matches!(knock(&ours, other, A, 1).await[0], LaneVerdict::Refused(_)), "{kind:?}");
    }
}

/// Sends `bytes` as a disk to a fresh landing; says what became of it.
async fn send_disk(bytes: &[u8]) -> (Result<(), String>, LaneEvent) {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    std::fs::write(&from, bytes).unwrap();
    std::fs::write(&to, b"the empty overlay").unwrap();
    let (_here, _there, out, came) = streams(&Net::new()).await;
    let landing = landing(&to);
    let counter = AtomicU64::new(0);
    let cargo = cold::Cargo { disk: Some(&from), ran: true, counter: &counter };
    let disk = LaneId { kind: LaneKind::Disk, number: 0 };
    let (out, came) = (lane_over(out, disk), lane_over(came, disk));
    let (sent, received) = tokio::join!(cold::send(out, cargo), cold::receive(came, &landing));
    let landed = received.map_err(|e| crate::text::describe(&e));
    if landed.is_ok() {
        assert!(std::fs::read(&to).unwrap() == bytes);
    }
    (sent.map_err(|e| e.to_string()), LaneEvent::Landed(landed))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_crosses_whole_and_one_that_names_files_of_the_host_does_not_land() {
    let good = qcow2(3 << 20);
    let (sent, landed) = send_disk(&good).await;
    assert!(sent.is_ok() && matches!(landed, LaneEvent::Landed(Ok(true))), "{sent:?} {landed:?}");

    let mut backed = good.clone();
    backed[8..16].copy_from_slice(&512u64.to_be_bytes());
    backed[16..20].copy_from_slice(&11u32.to_be_bytes());
    backed[512..523].copy_from_slice(b"/etc/shadow");
    let mut external = good.clone();
    external[79] |= 4; // incompatible feature: external data file
    for bad in [backed, external, b"not a qcow2 image".to_vec()] {
        let (sent, landed) = send_disk(&bad).await;
        assert!(sent.is_err() && matches!(landed, LaneEvent::Landed(Err(_))), "{landed:?}");
    }
}
