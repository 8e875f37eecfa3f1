//! Counts what crosses the wire between nodes and looks for a plaintext in it, with a packet socket (packet(7)) on the
//! outside's end of each node's `eth0`.

mod socket;

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use anyhow::{Result, anyhow};

use super::net;
use super::node::Node;

/// Segmentation offload hands over up to 64 KiB as one packet.
const PACKET_MAX: usize = 1 << 17;

/// What to look for.
#[derive(Debug, Clone, Default)]
pub struct Watch {
    /// UDP ports that the agents are known to use.
    pub agent_ports: Vec<u16>,
    /// Bytes that must not be seen; empty: none.
    pub needle: Vec<u8>,
}

/// What was seen between the watched nodes. Packets are as the kernel hands them over: several on the wire may be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Counts {
    /// UDP with an agents' port at either end.
    pub udp_agent: u64,
    /// Other UDP.
    pub udp_other: u64,
    /// TCP.
    pub tcp: u64,
    /// Any other IPv4.
    pub other: u64,
    /// Bytes of all of these, headers included.
    pub bytes: u64,
    /// Packets that held the needle.
    pub needles: u64,
    /// Packets that the kernel dropped because we were too slow: then the other figures are lower bounds.
    pub dropped: u64,
}

/// A running count. One thread a node.
pub struct Capture {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Counts>>,
}

impl Capture {
    pub(super) fn start(outside: &Node, nodes: &[&Node], watch: Watch) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let filter = Arc::new(Filter { nodes: nodes.iter().map(|node| node.address()).collect(), watch });
        // A packet from one watched node to another passes both ports: each port counts only what its node sends.
        let sockets = nodes.iter().map(|node| {
            let port = net::lan_port(node);
            Ok((outside.on_network(|| socket::open(&port))?, node.address()))
        });
        let sockets = sockets.collect::<Result<Vec<_>>>()?;
        let threads = sockets.into_iter().map(|(socket, from)| {
            let (stop, filter) = (Arc::clone(&stop), Arc::clone(&filter));
            std::thread::spawn(move || count(&socket, from, &filter, &stop))
        });
        Ok(Self { threads: threads.collect(), stop })
    }

    /// Ends the count and says what was seen.
    ///
    /// # Errors
    /// When a counting thread panicked.
    pub fn finish(self) -> Result<Counts> {
        self.stop.store(true, Ordering::Relaxed);
        let mut total = Counts::default();
        for thread in self.threads {
            total.add(&thread.join().map_err(|_| anyhow!("a counting thread panicked"))?);
        }
        Ok(total)
    }
}

struct Filter {
    nodes: Vec<Ipv4Addr>,
    watch: Watch,
}

impl Counts {
    fn add(&mut self, other: &Self) {
        self.udp_agent += other.udp_agent;
        self.udp_other += other.udp_other;
        self.tcp += other.tcp;
        self.other += other.other;
        self.bytes += other.bytes;
        self.needles += other.needles;
        self.dropped += other.dropped;
    }

    /// Adds one Ethernet frame, if `from` sent it to another watched node.
    fn take(&mut self, frame: &[u8], from: Ipv4Addr, filter: &Filter) {
        const IPV4: [u8; 2] = [0x08, 0x00];
        let (Some(kind), Some(ip)) = (frame.get(12..14), frame.get(14..34)) else {
            return;
        };
        let source = Ipv4Addr::new(ip[12], ip[13], ip[14], ip[15]);
        let target = Ipv4Addr::new(ip[16], ip[17], ip[18], ip[19]);
        if kind != IPV4 || source != from || !filter.nodes.contains(&target) {
            return;
        }
        self.bytes += frame.len() as u64;
        let payload = frame.get(14 + usize::from(ip[0] & 0x0f) * 4..).unwrap_or_default();
        *self.kind(ip[9], payload, &filter.watch) += 1;
        self.needles += u64::from(holds(payload, &filter.watch.needle));
    }

    fn kind(&mut self, protocol: u8, payload: &[u8], watch: &Watch) -> &mut u64 {
        let port = |at: usize| payload.get(at..at + 2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
        match i32::from(protocol) {
            libc::IPPROTO_UDP
                if [port(0), port(2)].into_iter().flatten().any(|port| watch.agent_ports.contains(&port)) =>
            {
                &mut self.udp_agent
            }
            libc::IPPROTO_UDP => &mut self.udp_other,
            libc::IPPROTO_TCP => &mut self.tcp,
            _ => &mut self.other,
        }
    }
}

fn holds(payload: &[u8], needle: &[u8]) -> bool {
    let Some((&first, _)) = needle.split_first() else {
        return false;
    };
    let mut rest = payload;
    while let Some(at) = rest.iter().position(|&byte| byte == first) {
        if rest[at..].starts_with(needle) {
            return true;
        }
        rest = &rest[at + 1..];
    }
    false
}

fn count(socket: &OwnedFd, from: Ipv4Addr, filter: &Filter, stop: &AtomicBool) -> Counts {
    let (mut counts, mut buffer) = (Counts::default(), vec![0; PACKET_MAX]);
    // The last look comes after the stop, so that what was queued before it is counted.
    loop {
        let last = stop.load(Ordering::Relaxed);
        while let Some(length) = socket::receive(socket, &mut buffer) {
            counts.take(&buffer[..length.min(PACKET_MAX)], from, filter);
        }
        if last {
            counts.dropped = socket::dropped(socket);
            return counts;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

    fn frame(protocol: u8, from: Ipv4Addr, to: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; 34];
        frame[12] = 0x08;
        frame[14] = 0x45;
        frame[23] = protocol;
        frame[26..30].copy_from_slice(&from.octets());
        frame[30..34].copy_from_slice(&to.octets());
        frame.extend_from_slice(payload);
        frame
    }

    fn counts(frames: &[Vec<u8>]) -> Counts {
        let watch = Watch { agent_ports: vec![7000], needle: b"secret".to_vec() };
        let filter = Filter { nodes: vec![A, B], watch };
        let mut counts = Counts::default();
        frames.iter().for_each(|frame| counts.take(frame, A, &filter));
        counts
    }

    #[test]
    fn each_kind_is_told_apart() {
        let to_agent = [&40000u16.to_be_bytes()[..], &7000u16.to_be_bytes()].concat();
        let counts = counts(&[
            frame(17, A, B, &to_agent),
            frame(17, A, B, &[0, 53, 0, 53]),
            frame(6, A, B, b"ports and a secret in it"),
            frame(1, A, B, b""),
        ]);
        assert_eq!((counts.udp_agent, counts.udp_other, counts.tcp, counts.other), (1, 1, 1, 1));
        assert_eq!(counts.needles, 1);
    }

    #[test]
    fn other_peoples_packets_and_stumps_do_not_count() {
        let stranger = Ipv4Addr::new(10, 0, 0, 9);
        let seen = counts(&[frame(6, A, stranger, b""), frame(6, B, A, b""), vec![0; 20], vec![]]);
        assert_eq!(seen, Counts::default());
    }

    #[test]
    fn a_needle_after_a_false_start_is_found() {
        assert!(holds(b"sesecret", b"secret"));
        assert!(!holds(b"secre", b"secret"));
        assert!(!holds(b"anything", b""));
    }
}
