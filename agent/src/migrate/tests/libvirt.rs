//! Plays both hosts' hypervisors: the source's side of a peer-to-peer migration over the sockets that it is given,
//! and the target's libvirtd with a QEMU that takes memory. Calls are libvirt's own, in XDR.

use super::{
    played_memory::{in_turns, parts, take_memory},
    world::DOCUMENT,
};
use crate::{
    hypervisor::{Definition, HvError, MachineFiles},
    migrate::{
        filter::{call, parse_frame},
        ports::{Copied, Ear, Mover, Push, Rest, Route, Standing},
    },
};
use async_trait::async_trait;
use novacron_common::ids::VmId;
use std::{
    io,
    num::NonZeroU8,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::Notify,
};

/// Bytes of memory that a played guest has.
pub const MEMORY: u64 = 24 << 20;
/// What is left of it when a copy that broke goes on.
const REST: &[u8] = &[0x5a; 1 << 20];
const PAUSED: u32 = 0x20;
const POST_COPY: u32 = 0x8000;
const FLAGS: u32 = 0x1 | 0x2 | 0x8 | 0x10 | 0x80;

/// What is to go wrong.
#[derive(Default)]
pub struct Faults {
    /// Says that this is not the agreed machine, by one more device.
    pub foreign_device: AtomicBool,
    /// Bytes of memory after which the source's QEMU stops sending until it is aborted; 0: never.
    pub hang_after: AtomicU64,
    /// Bytes of memory after which the source's QEMU waits until it is told to go on; 0: never.
    pub pause_after: AtomicU64,
    /// Told so.
    pub go_on: Notify,
    /// The target's libvirtd finishes, but its reply never reaches the source.
    pub lose_finish_reply: AtomicBool,
    /// The target's libvirtd closes the connection instead of answering Prepare.
    pub refuse_prepare: AtomicBool,
    /// The source's guest ends while it is copied.
    pub guest_powers_off: AtomicBool,
    /// The source's libvirtd has heard that the copy is complete, and does not return until it is told to go on.
    pub tidies_slowly: AtomicBool,
    /// It has begun to.
    pub tidying: Notify,
    /// So many aborts are not heeded.
    pub unheeded_aborts: AtomicU64,
    /// The source's QEMU was cut off while it hung.
    pub cut_off: AtomicBool,
    /// The source's guest writes as fast as is sent: no pass leaves less than the one before.
    pub busy: AtomicBool,
    /// Both QEMUs can be told to go on with a copy that broke.
    pub reunites: AtomicBool,
    /// The source's does not let its guest go over.
    pub refuse_to_go_over: AtomicBool,
    /// The source's has ended its copy for good.
    pub copy_failed: AtomicBool,
    /// What QEMU sends of the guest's memory; [`MEMORY`] bytes that are no pages if left alone.
    pub memory: Mutex<Option<Arc<Vec<u8>>>>,
    /// On so many channels beside the main one the target's QEMU takes it.
    pub channels: AtomicU8,
}

impl Faults {
    fn stream(&self) -> Arc<Vec<u8>> {
        let stream = self.memory.lock().unwrap().clone();
        stream.unwrap_or_else(|| Arc::new(vec![0x5a; usize::try_from(MEMORY).unwrap()]))
    }
}

/// One host's hypervisor.
pub struct PlayedHypervisor {
    standing: Arc<Mutex<Standing>>,
    copying: AtomicBool,
    abort: Notify,
    own: PathBuf,
    other: PathBuf,
    faults: Arc<Faults>,
    /// How often a guest was let run here.
    pub resumed: AtomicU64,
    /// How often its ear was lent.
    pub ears: AtomicU64,
    /// The pauses that were allowed, milliseconds.
    pub pauses: Mutex<Vec<u32>>,
    held: AtomicBool,
    /// It was told to let the guest go over.
    goes_over: Notify,
    looks: AtomicU64,
}

impl PlayedHypervisor {
    pub fn new(own: &Path, other: &Path, faults: Arc<Faults>) -> Self {
        Self {
            standing: Arc::new(Mutex::new(Standing::Absent)),
            copying: AtomicBool::new(false),
            abort: Notify::new(),
            own: own.to_owned(),
            other: other.to_owned(),
            faults,
            resumed: AtomicU64::new(0),
            ears: AtomicU64::new(0),
            pauses: Mutex::default(),
            held: AtomicBool::new(false),
            goes_over: Notify::new(),
            looks: AtomicU64::new(0),
        }
    }

    pub fn get(&self) -> Standing {
        *self.standing.lock().unwrap()
    }

    /// Whether the guest's processors run here, all of its memory or a part of it being here.
    pub fn runs_as_target(&self) -> bool {
        matches!(self.get(), Standing::Running | Standing::Split { .. })
    }

    pub fn set(&self, standing: Standing) {
        *self.standing.lock().unwrap() = standing;
    }

    fn can_reunite(&self) -> Result<(), HvError> {
        let can = self.faults.reunites.load(SeqCst);
        if can { Ok(()) } else { Err(HvError::Unsupported { what: "to bring halves together" }) }
    }

    /// Its QEMU's connection breaks.
    pub fn abort_now(&self) {
        self.abort.notify_one();
    }

    /// Both hosts of a test share one file system, so the target's sockets are elsewhere.
    fn there(&self, uri: &str) -> String {
        uri.replace(&*self.own.to_string_lossy(), &self.other.to_string_lossy())
    }

    async fn copy(&self, route: &Route, push: Push) -> io::Result<()> {
        self.pauses.lock().unwrap().push(push.pause_ms);
        self.copying.store(true, SeqCst);
        let outcome = if self.faults.guest_powers_off.load(SeqCst) {
            tokio::time::sleep(Duration::from_millis(50)).await;
            self.set(Standing::Stopped);
            Err(io::Error::other("the guest ended"))
        } else {
            self.migrate(route, push).await
        };
        self.copying.store(false, SeqCst);
        outcome
    }

    async fn migrate(&self, route: &Route, push: Push) -> io::Result<()> {
        let flags = FLAGS | if push.post_copy { POST_COPY } else { PAUSED };
        let control = route.control_uri.split_once("socket=").unwrap().1;
        let mut control = UnixStream::connect(control).await?;
        control.write_all(&frame(66, &[])).await?;
        reply(&mut control).await?;
        control.write_all(&frame(1, &[word(1), text("qemu:///system"), word(0)].concat())).await?;
        reply(&mut control).await?;
        control.write_all(&frame(303, &[self.parameters(route), word(0), word(flags)].concat())).await?;
        reply(&mut control).await?;
        let sending = self.send_memory(route, push.channels);
        tokio::pin!(sending);
        let sent = tokio::select! {
            sent = &mut sending => sent,
            () = self.goes_over.notified() => {
                self.set(Standing::Split { broken: false });
                let finish = [self.parameters(route), word(0), word(flags), word(0)].concat();
                control.write_all(&frame(306, &finish)).await?;
                self.faults.go_on.notify_one();
                // libvirt keeps what went over, whatever becomes of it.
                let outcome = tokio::try_join!(sending, reply(&mut control)).map(drop);
                self.set(if outcome.is_ok() { Standing::Absent } else { Standing::Split { broken: true } });
                return outcome;
            }
        };
        let cancelled = u32::from(sent.is_err());
        let finish = [self.parameters(route), word(0), word(flags), word(cancelled)].concat();
        control.write_all(&frame(306, &finish)).await?;
        // libvirt pauses the guest for the last round, and lets it run on if the reply does not come.
        self.set(Standing::Paused { persistent: true });
        let confirmed = reply(&mut control).await;
        let outcome = sent.and(confirmed);
        if outcome.is_ok() && self.faults.tidies_slowly.load(SeqCst) {
            self.faults.tidying.notify_one();
            self.faults.go_on.notified().await;
        }
        self.set(match outcome {
            Ok(()) => Standing::Absent,
            // libvirt lets run on what it paused itself.
            Err(_) if self.held.load(SeqCst) => Standing::Paused { persistent: true },
            Err(_) => Standing::Running,
        });
        outcome
    }

    async fn send_memory(&self, route: &Route, channels: Option<NonZeroU8>) -> io::Result<()> {
        let parts = parts(&self.faults.stream(), channels.map_or(0, NonZeroU8::get));
        let (path, mut ways) = (route.migrate_uri.strip_prefix("unix://").unwrap(), Vec::new());
        for _ in &parts {
            ways.push(UnixStream::connect(path).await?);
        }
        let hang_after = self.faults.hang_after.load(SeqCst);
        let pause_after = self.faults.pause_after.load(SeqCst);
        let mut sent = 0;
        for (way, chunk) in in_turns(&parts) {
            if hang_after > 0 && sent >= hang_after {
                let mut closed = [0];
                tokio::select! {
                    () = self.abort.notified() => {}
                    _ = ways[0].read(&mut closed) => self.faults.cut_off.store(true, SeqCst),
                }
                return Err(io::Error::other("aborted"));
            }
            if pause_after > 0 && sent >= pause_after && sent < pause_after + (1 << 20) {
                self.faults.go_on.notified().await;
            }
            ways[way].write_all(chunk).await?;
            sent += chunk.len() as u64;
        }
        for (mut way, part) in ways.into_iter().zip(&parts) {
            way.shutdown().await?;
            let mut taken = [0; 8];
            way.read_exact(&mut taken).await?;
            if u64::from_be_bytes(taken) != part.len() as u64 {
                return Err(io::Error::other("memory was lost"));
            }
        }
        Ok(())
    }

    fn parameters(&self, route: &Route) -> Vec<u8> {
        let extra = if self.faults.foreign_device.load(SeqCst) {
            "<hostdev mode='subsystem'/></devices>"
        } else {
            "</devices>"
        };
        let domain = DOCUMENT.replace("</devices>", extra);
        let pairs = [
            ("destination_xml", domain.as_str()),
            ("migrate_uri", &self.there(&route.migrate_uri)),
            ("disks_uri", &self.there(&route.disks_uri)),
            ("migrate_disks", route.disk.unwrap_or("none")),
        ];
        let one = |(name, value): &(&str, &str)| [text(name), word(7), text(value)].concat();
        [word(4), pairs.iter().flat_map(one).collect()].concat()
    }
}

#[async_trait]
impl Mover for Arc<PlayedHypervisor> {
    async fn standing(&self, _: VmId) -> Result<Standing, HvError> {
        Ok(self.get())
    }
    async fn send(&self, vm: VmId, route: Route, push: Push) -> Result<(), HvError> {
        // As libvirtd does, whether its client is still there or not.
        let played = self.clone();
        let outcome = tokio::spawn(async move { played.copy(&route, push).await }).await.unwrap();
        outcome.map_err(|error| HvError::failed(format!("migrate {vm}"), error))
    }
    async fn abort(&self, _: VmId) -> Result<(), HvError> {
        let one_less = |left: u64| left.checked_sub(1);
        if self.faults.unheeded_aborts.fetch_update(SeqCst, SeqCst, one_less).is_err() {
            self.abort.notify_one();
        }
        Ok(())
    }
    async fn copied(&self, _: VmId) -> Result<Option<Copied>, HvError> {
        let passes = if self.faults.busy.load(SeqCst) { self.looks.fetch_add(1, SeqCst) + 1 } else { 1 };
        Ok(self.copying.load(SeqCst).then(|| Copied {
            processed: passes,
            remaining: 1,
            iteration: passes,
            ..Copied::default()
        }))
    }
    async fn allow_pause(&self, _: VmId, pause_ms: u32) -> Result<(), HvError> {
        self.pauses.lock().unwrap().push(pause_ms);
        Ok(())
    }
    async fn go_over(&self, _: VmId) -> Result<(), HvError> {
        if self.faults.refuse_to_go_over.load(SeqCst) {
            return Err(HvError::failed("have it go over", io::Error::other("there is no copy")));
        }
        self.goes_over.notify_one();
        Ok(())
    }
    async fn hold(&self, _: VmId) -> Result<(), HvError> {
        self.held.store(true, SeqCst);
        self.set(Standing::Paused { persistent: true });
        self.faults.go_on.notify_one();
        Ok(())
    }
    async fn resume(&self, _: VmId) -> Result<(), HvError> {
        self.resumed.fetch_add(1, SeqCst);
        self.set(Standing::Running);
        Ok(())
    }
    async fn start(&self, _: VmId) -> Result<(), HvError> {
        self.set(Standing::Running);
        Ok(())
    }
    async fn stop(&self, _: VmId, _: Duration) -> Result<(), HvError> {
        self.set(Standing::Stopped);
        Ok(())
    }
    async fn define(&self, _: &Definition) -> Result<(), HvError> {
        self.set(Standing::Stopped);
        Ok(())
    }
    async fn undefine(&self, _: VmId) -> Result<(), HvError> {
        self.set(Standing::Absent);
        Ok(())
    }
    async fn ear(&self, _: VmId, _: &MachineFiles) -> Result<Box<dyn Ear>, HvError> {
        self.can_reunite()?;
        self.ears.fetch_add(1, SeqCst);
        Ok(Box::new(PlayedEar(self.standing.clone())))
    }
    async fn send_again(&self, _: VmId, _: &MachineFiles, uri: &str) -> Result<Rest, HvError> {
        self.can_reunite()?;
        if self.faults.copy_failed.load(SeqCst) {
            return Ok(Rest::GivenUp);
        }
        let mut memory = UnixStream::connect(uri.strip_prefix("unix://").unwrap()).await.unwrap();
        let standing = self.standing.clone();
        *standing.lock().unwrap() = Standing::Split { broken: false };
        tokio::spawn(async move {
            let mut taken = [0; 8];
            memory.write_all(REST).await?;
            memory.shutdown().await?;
            let sent = memory.read_exact(&mut taken).await;
            let seen = if sent.is_ok() { Standing::Absent } else { Standing::Split { broken: true } };
            *standing.lock().unwrap() = seen;
            sent.map(drop)
        });
        Ok(Rest::Follows)
    }
    fn document(&self, _: &Definition) -> Result<String, HvError> {
        Ok(DOCUMENT.to_owned())
    }
}

struct PlayedEar(Arc<Mutex<Standing>>);

#[async_trait]
impl Ear for PlayedEar {
    fn hears(&self) -> bool {
        true
    }
    async fn listen_again(&mut self, uri: &str) -> Result<(), HvError> {
        let listener = UnixListener::bind(uri.strip_prefix("unix://").unwrap()).unwrap();
        let (standing, rest) = (self.0.clone(), vec![REST.to_vec()]);
        tokio::spawn(async move {
            let taken = take_memory(listener, rest).await.is_ok();
            let seen = if taken { Standing::Running } else { Standing::Split { broken: true } };
            *standing.lock().unwrap() = seen;
        });
        Ok(())
    }
}

/// The target's libvirtd.
pub struct FakeLibvirt {
    pub socket: PathBuf,
    pub hypervisor: Arc<PlayedHypervisor>,
    pub faults: Arc<Faults>,
}

impl FakeLibvirt {
    pub fn serve(self) {
        let listener = UnixListener::bind(&self.socket).unwrap();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // A client that goes away takes its unfinished copy with it (libvirt's autodestroy).
                if self.client(client).await.is_err()
                    && self.hypervisor.get() == (Standing::Paused { persistent: false })
                {
                    self.hypervisor.set(Standing::Absent);
                }
            }
        });
    }

    async fn client(&self, mut client: UnixStream) -> io::Result<()> {
        let mut qemu = None;
        loop {
            let bytes = read_frame(&mut client).await?;
            let frame = parse_frame(&bytes).unwrap().unwrap();
            match frame.procedure {
                303 if self.faults.refuse_prepare.load(SeqCst) => return Err(io::Error::other("refused")),
                303 => {
                    let prepare = call::prepare(frame.payload).unwrap();
                    let uri = prepare.parameters.iter().find(|(name, _)| *name == "migrate_uri").unwrap().1;
                    let call::Value::Text(uri) = uri else { panic!("{uri:?}") };
                    let parts = parts(&self.faults.stream(), self.faults.channels.load(SeqCst));
                    qemu = Some(tokio::spawn(take_memory(UnixListener::bind(&uri[7..])?, parts)));
                    self.hypervisor.set(Standing::Paused { persistent: false });
                }
                306 => {
                    let (finish, cancelled) = call::finish(frame.payload).unwrap();
                    let runs = !cancelled && finish.flags & PAUSED == 0;
                    if runs {
                        self.hypervisor.set(Standing::Split { broken: false });
                    }
                    let all = match qemu.take() {
                        Some(qemu) if !cancelled => qemu.await.unwrap().is_ok(),
                        _ => false,
                    };
                    self.hypervisor.set(match (all, runs) {
                        (true, true) => Standing::Running,
                        (true, false) => Standing::Paused { persistent: true },
                        (false, true) => Standing::Split { broken: true },
                        (false, false) => Standing::Absent,
                    });
                    if runs && !all {
                        return Err(io::Error::other("post-copy broke"));
                    }
                    if self.faults.lose_finish_reply.load(SeqCst) {
                        return Err(io::Error::other("lost"));
                    }
                }
                _ => {}
            }
            client.write_all(&answer(frame.procedure)).await?;
        }
    }
}

fn word(word: u32) -> Vec<u8> {
    word.to_be_bytes().to_vec()
}

fn text(text: &str) -> Vec<u8> {
    let padding = text.len().next_multiple_of(4) - text.len();
    [word(u32::try_from(text.len()).unwrap()), text.as_bytes().to_vec(), vec![0; padding]].concat()
}

fn message(procedure: u32, kind: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(28 + payload.len()).unwrap();
    let header = [length, 0x2000_8086, 1, procedure, kind, procedure, 0].map(u32::to_be_bytes).concat();
    [&header, payload].concat()
}

fn frame(procedure: u32, payload: &[u8]) -> Vec<u8> {
    message(procedure, 0, payload)
}

fn answer(procedure: i32) -> Vec<u8> {
    message(procedure.try_into().unwrap(), 1, &[])
}

async fn read_frame(from: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 4];
    from.read_exact(&mut bytes).await?;
    let length = u32::from_be_bytes(bytes[..4].try_into().unwrap()) as usize;
    bytes.resize(length, 0);
    from.read_exact(&mut bytes[4..]).await?;
    Ok(bytes)
}

async fn reply(from: &mut UnixStream) -> io::Result<()> {
    read_frame(from).await.map(drop)
}
