//! Memory lanes through the page codec: both ends over a pipe.

use super::world::ticket;
use crate::migrate::lane::{
    Counters,
    codec::{Decoding, Encoding, Weighs, decoder, framer},
    packing::Packers,
    relay::Way,
};
use novacron_common::record::{MemoryTraffic, TransferCounts};
use std::{io, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream, duplex},
    task::JoinHandle,
    time::timeout,
};

const PIPE: usize = 64 << 10;
const SOON: Duration = Duration::from_secs(60);

/// What crosses the wire in a test has no peer that says how far it is.
impl Weighs for DuplexStream {
    fn weigh(&mut self, _plain: u64) {}
}

struct Ends {
    /// QEMU's on the source.
    qemu: DuplexStream,
    /// What crosses the wire.
    counted: JoinHandle<io::Result<TransferCounts>>,
    decoded: JoinHandle<io::Result<()>>,
    /// QEMU's on the target.
    incoming: DuplexStream,
}

/// Source and target of one memory lane.
fn lane() -> Ends {
    let ticket = ticket(true);
    let (qemu, from) = duplex(PIPE);
    let (wire, arriving) = duplex(PIPE);
    let (to, incoming) = duplex(PIPE);
    let (framer, decoder) = (framer(&ticket, 0), decoder(&ticket, 0));
    let counted = tokio::spawn(async move {
        let counters = Arc::<Counters>::default();
        let mut encoding = Encoding::new((framer, Packers::default()), 0, counters.clone());
        let stats = encoding.run(&mut Way { from, to: wire }).await?;
        let counts = counters.read();
        let told = (counts.memory_bytes, counts.memory.wire_bytes);
        assert_eq!((stats.wire, stats.wire), told, "what is counted is what is sent");
        Ok(counts)
    });
    let decoded = tokio::spawn(async move {
        Decoding::new(decoder).run(&mut Way { from: BufReader::new(arriving), to }).await
    });
    Ends { qemu, counted, decoded, incoming }
}

#[tokio::test]
async fn what_qemu_writes_arrives_as_it_was_in_fewer_bytes() {
    let Ends { mut qemu, counted, decoded, mut incoming } = lane();
    let said: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 253) as u8).collect();
    let copy = said.clone();
    let writing = tokio::spawn(async move { qemu.write_all(&copy).await });
    let mut heard = Vec::new();
    timeout(SOON, incoming.read_to_end(&mut heard)).await.unwrap().unwrap();
    assert!(heard == said, "bytes changed on the way");
    writing.await.unwrap().unwrap();
    decoded.await.unwrap().unwrap();
    let wire = counted.await.unwrap().unwrap().memory_bytes;
    assert!(wire < 300_000, "{wire} bytes for what repeats itself every 253");
}

/// A record as QEMU's preempt channel has them.
pub fn record(number: u64, page: &[u8; 4096]) -> Vec<u8> {
    const PAGE_FLAG: u64 = 8;
    [&((number << 12) | PAGE_FLAG).to_be_bytes(), b"\x03ram".as_slice(), page].concat()
}

#[tokio::test]
async fn what_is_sent_is_counted_by_kind() {
    let Ends { mut qemu, counted, decoded, mut incoming } = lane();
    let noise = |seed: u32| -> [u8; 4096] {
        std::array::from_fn(|at| (seed + at as u32 + 1).wrapping_mul(2_654_435_761).to_be_bytes()[0])
    };
    let mut edited = noise(1);
    edited[100] ^= 1;
    let pages = [noise(1), noise(5000), noise(9000), [0; 4096], noise(5000), edited];
    // The last one comes from where the first one was.
    let said: Vec<u8> =
        [0, 1, 2, 3, 4, 0].into_iter().zip(&pages).flat_map(|(at, page)| record(at, page)).collect();
    let writing = tokio::spawn(async move { qemu.write_all(&said).await.map(|()| said) });
    let mut heard = Vec::new();
    timeout(SOON, incoming.read_to_end(&mut heard)).await.unwrap().unwrap();
    let said = writing.await.unwrap().unwrap();
    assert!(heard == said, "bytes changed on the way");
    decoded.await.unwrap().unwrap();
    let memory = counted.await.unwrap().unwrap().memory;
    let MemoryTraffic { raw, zero, reference, delta, .. } = memory;
    assert_eq!([raw, zero, reference, delta].map(|kind| kind.pages), [3, 1, 1, 1], "{memory:?}");
    assert_eq!((raw.bytes, zero.bytes, reference.bytes), (3 * 4096, 0, 0));
    assert!((1..100).contains(&delta.bytes), "{memory:?}");
    assert_eq!(memory.written_bytes, said.len() as u64);
}

#[tokio::test]
async fn what_qemu_has_written_arrives_though_nothing_follows() {
    let Ends { mut qemu, mut incoming, .. } = lane();
    let mut heard = [0; 5];
    for said in [b"first", b"other"] {
        qemu.write_all(said).await.unwrap();
        timeout(SOON, incoming.read_exact(&mut heard)).await.unwrap().unwrap();
        assert_eq!(&heard, said);
    }
}

#[tokio::test]
async fn a_peer_that_sends_what_was_not_encoded_gives_qemu_nothing() {
    for sent in [b"QEVM\0\0\0\x03 and so on, as QEMU writes it".as_slice(), b"", &[1, 0xff, 0xff, 0xff, 0xff]]
    {
        let (mut wire, arriving) = duplex(PIPE);
        let (to, mut incoming) = duplex(PIPE);
        wire.write_all(sent).await.unwrap();
        drop(wire);
        let mut decoding = Decoding::new(decoder(&ticket(true), 0));
        let decoded = decoding.run(&mut Way { from: BufReader::new(arriving), to }).await;
        assert_eq!(decoded.unwrap_err().kind(), io::ErrorKind::InvalidData, "{sent:?}");
        let mut heard = Vec::new();
        incoming.read_to_end(&mut heard).await.unwrap();
        assert!(heard.is_empty());
    }
}

#[tokio::test]
async fn another_ticket_or_lane_decodes_nothing() {
    let ours = ticket(true);
    for decoder in
        [decoder(&ours, 1), decoder(&novacron_common::record::Ticket { secret: [8; 32], ..ours.clone() }, 0)]
    {
        let (mut qemu, from) = duplex(PIPE);
        let (wire, arriving) = duplex(PIPE);
        let (to, _incoming) = duplex(PIPE);
        qemu.write_all(b"of one migration's main lane").await.unwrap();
        drop(qemu);
        let mut encoding = Encoding::new((framer(&ours, 0), Packers::default()), 0, Arc::default());
        encoding.run(&mut Way { from, to: wire }).await.unwrap();
        let decoded = Decoding::new(decoder).run(&mut Way { from: BufReader::new(arriving), to }).await;
        assert_eq!(decoded.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
