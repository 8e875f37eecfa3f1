//! A relay before the target's libvirtd that cuts the control lane of a migration at a chosen message.
//!
//! A message of libvirt's RPC begins with seven big-endian u32: length (itself included), program, version, procedure,
//! type, serial, status (libvirt, src/rpc/virnetprotocol.x).

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use novacron_tests::cluster::ClusterOptions;
use novacron_tests::lab::Host;

const PROGRAM: u32 = 0x2000_8086;
const FINISH: u32 = 306;
const REPLY: u32 = 1;
const HEADER: usize = 28;
/// libvirt's own limit of a message (VIR_NET_MESSAGE_MAX).
const MESSAGE_MAX: usize = 32 << 20;

/// Where the lane is cut, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// libvirtd has answered Finish; the answer is lost.
    BeforeTheReply,
    /// The answer to Finish has been passed on; nothing after it is.
    AfterTheReply,
    /// Nothing is cut: the relay only tells when the answer to Finish passes.
    Nowhere,
}

/// Serves until the process ends. Tells when the answer to Finish came by, which is where it cuts.
pub struct ControlRelay {
    has_come_by: Arc<AtomicBool>,
}

#[derive(Clone)]
struct Lane {
    cut: Cut,
    has_come_by: Arc<AtomicBool>,
    finish_serial: Arc<AtomicU32>,
}

/// Where the agents find the relay.
const RELAY: &str = "/run/control-relay";

/// The same cluster, whose agents speak to libvirtd through a relay when they move machines.
pub fn with_relay(options: ClusterOptions) -> ClusterOptions {
    ClusterOptions { control_socket: Some(RELAY.to_owned()), ..options }
}

/// The relay of one host of such a cluster.
pub fn relay_before(host: &Host, cut: Cut) -> Result<ControlRelay> {
    let at = host
        .outside_path(Path::new(RELAY))
        .context("the relay's socket is not in a folder of the host's own")?;
    ControlRelay::start(&at, &host.libvirt_socket(), cut)
}

impl ControlRelay {
    /// Listens at `at` and passes everything to libvirtd's socket `to`, but for the cut.
    fn start(at: &Path, to: &Path, cut: Cut) -> Result<Self> {
        let listener = UnixListener::bind(at).with_context(|| format!("listening at {}", at.display()))?;
        let has_come_by = Arc::new(AtomicBool::new(false));
        let (shared, to) = (Arc::clone(&has_come_by), to.to_path_buf());
        thread::spawn(move || {
            for agent in listener.incoming().map_while(Result::ok) {
                let Ok(libvirtd) = UnixStream::connect(&to) else { continue };
                let (has_come_by, finish_serial) = (Arc::clone(&shared), Arc::new(AtomicU32::new(u32::MAX)));
                Lane { cut, has_come_by, finish_serial }.carry(agent, libvirtd);
            }
        });
        Ok(Self { has_come_by })
    }

    pub fn has_come_by(&self) -> bool {
        self.has_come_by.load(Ordering::SeqCst)
    }

    /// Forgets what came by: the next migration is seen anew.
    pub fn forget(&self) {
        self.has_come_by.store(false, Ordering::SeqCst);
    }

    /// Waits until the answer to Finish comes by: the copy is complete, the guest is paused on the target.
    pub fn wait_for_it(&self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        while !self.has_come_by() {
            ensure!(Instant::now() < deadline, "the migration did not come to Finish within {limit:?}");
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

impl Lane {
    fn carry(self, agent: UnixStream, libvirtd: UnixStream) {
        let Ok((agent_too, libvirtd_too)) = agent.try_clone().and_then(|a| Ok((a, libvirtd.try_clone()?)))
        else {
            return;
        };
        let inwards = self.clone();
        thread::spawn(move || inwards.pass(agent, libvirtd, Self::note_finish));
        thread::spawn(move || self.pass(libvirtd_too, agent_too, Self::passes_reply));
    }

    /// Passes messages on until one side ends or `judge` says that this was the last. Ends both sides.
    fn pass(self, mut from: UnixStream, mut to: UnixStream, judge: fn(&Self, &Message) -> Verdict) {
        while let Ok(message) = Message::read(&mut from) {
            let verdict = judge(&self, &message);
            if verdict != Verdict::DropAndCut && to.write_all(&message.0).is_err() {
                break;
            }
            if verdict != Verdict::Pass {
                break;
            }
        }
        // Either may be closed already.
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    }

    fn note_finish(&self, message: &Message) -> Verdict {
        if message.word(1) == PROGRAM && message.word(3) == FINISH {
            self.finish_serial.store(message.word(5), Ordering::SeqCst);
        }
        Verdict::Pass
    }

    fn passes_reply(&self, message: &Message) -> Verdict {
        let is_reply = message.word(1) == PROGRAM && message.word(3) == FINISH && message.word(4) == REPLY;
        let is_ours = message.word(5) == self.finish_serial.load(Ordering::SeqCst);
        // Once: a later migration passes.
        if !(is_reply && is_ours) || self.has_come_by.swap(true, Ordering::SeqCst) {
            return Verdict::Pass;
        }
        match self.cut {
            Cut::BeforeTheReply => Verdict::DropAndCut,
            Cut::AfterTheReply => Verdict::PassAndCut,
            Cut::Nowhere => Verdict::Pass,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Pass,
    PassAndCut,
    DropAndCut,
}

struct Message(Vec<u8>);

impl Message {
    fn read(from: &mut UnixStream) -> Result<Self> {
        let mut length = [0; 4];
        from.read_exact(&mut length)?;
        let whole = u32::from_be_bytes(length) as usize;
        ensure!((HEADER..=MESSAGE_MAX).contains(&whole), "no message of libvirt's has {whole} bytes");
        let mut bytes = vec![0; whole];
        bytes[..4].copy_from_slice(&length);
        from.read_exact(&mut bytes[4..])?;
        Ok(Self(bytes))
    }

    /// The n-th word of the header.
    fn word(&self, n: usize) -> u32 {
        let bytes = &self.0[n * 4..n * 4 + 4];
        u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }
}
