//! A hypervisor in memory, for tests of what is above the port. It keeps the port's promises (the contract suite
//! runs against it) and can be told to fail.

use super::{
    Capabilities, ConsoleStream, Definition, Halt, Health, HvError, Hypervisor, HypervisorEvent, Listed,
    Printed, Usage,
};
use crate::clock;
use async_trait::async_trait;
use novacron_common::{
    ids::VmId,
    record::{Accel, VmState, VmStatistics},
    spec::{MachineKind, Mobility, Signal, StopTerms},
    wire::{ExecCommand, ExecEnd, ExecInput, ExecOutput, LogChunk, codec},
};
use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
    pin::Pin,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    sync::{broadcast, mpsc},
    task::AbortHandle,
};

const EVENTS_MAX: usize = 64;
const CONSOLE_BUFFER: usize = 4096;

/// What every guest prints when it is started.
pub const GREETING: &str = "are-you-there\n";

/// A failure that was asked for with [`Fake::fail_next`].
#[derive(Debug, thiserror::Error)]
#[error("the fake was told to fail")]
pub struct ToldToFail;

/// How a fake guest takes a request to shut down.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Manners {
    /// It does so at once.
    #[default]
    Obedient,
    /// It never does: its power has to be cut.
    Deaf,
}

struct Machine {
    definition: Definition,
    state: VmState,
    started: Option<Instant>,
    console: Option<AbortHandle>,
    commands: Vec<AbortHandle>,
    has_run: bool,
    followers: Vec<mpsc::Sender<std::io::Result<LogChunk>>>,
    health: Option<Health>,
    saved: Option<Saved>,
}

/// What there is of a machine beside itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Saved {
    /// A checkpoint, and it ran on.
    Kept,
    /// It is nowhere but in its checkpoint.
    Suspended,
}

#[derive(Default)]
struct World {
    machines: BTreeMap<VmId, Machine>,
    foreign: Vec<String>,
    failures: VecDeque<&'static str>,
    manners: Manners,
}

/// The hypervisor.
pub struct Fake {
    kind: MachineKind,
    world: Mutex<World>,
    events: broadcast::Sender<HypervisorEvent>,
}

impl Fake {
    /// An empty one for machines of this kind.
    pub fn new(kind: MachineKind) -> Self {
        let (events, _) = broadcast::channel(EVENTS_MAX);
        Self { kind, world: Mutex::default(), events }
    }

    /// The next call of that method (its name in the port) fails.
    pub fn fail_next(&self, method: &'static str) {
        self.world().failures.push_back(method);
    }

    /// Lists a domain of somebody else's.
    pub fn add_foreign(&self, name: &str) {
        self.world().foreign.push(name.to_owned());
    }

    /// How its guests take a request to shut down.
    pub fn set_manners(&self, manners: Manners) {
        self.world().manners = manners;
    }

    /// Something happens to a machine that nobody here asked for: its guest powers off, a move holds it.
    ///
    /// # Errors
    /// [`HvError::Unknown`].
    pub fn turn(&self, vm: VmId, state: VmState) -> Result<(), HvError> {
        self.with(vm, |machine| machine.enter(state))
    }

    /// Its health check finds it so, until it is stopped.
    ///
    /// # Errors
    /// [`HvError::Unknown`].
    pub fn find(&self, vm: VmId, health: Health) -> Result<(), HvError> {
        self.with(vm, |machine| machine.health = Some(health))?;
        let _ = self.events.send(HypervisorEvent::Changed(vm)); // nobody listens: fine
        Ok(())
    }

    /// The definition as it was last given.
    pub fn definition(&self, vm: VmId) -> Option<Definition> {
        self.world().machines.get(&vm).map(|machine| machine.definition.clone())
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn asked(&self, method: &'static str) -> Result<(), HvError> {
        let failures = &mut self.world().failures;
        match failures.front() {
            Some(next) if *next == method => {
                failures.pop_front();
                Err(HvError::failed(method, ToldToFail))
            }
            _ => Ok(()),
        }
    }

    /// Acts on a machine and tells everybody if that changed its state.
    fn with<T>(&self, vm: VmId, act: impl FnOnce(&mut Machine) -> T) -> Result<T, HvError> {
        let mut world = self.world();
        let machine = world.machines.get_mut(&vm).ok_or(HvError::Unknown { vm })?;
        let before = machine.state;
        let result = act(machine);
        if machine.state != before {
            let _ = self.events.send(HypervisorEvent::Changed(vm)); // nobody listens: fine
        }
        Ok(result)
    }
}

impl Machine {
    fn enter(&mut self, state: VmState) {
        if state == VmState::Stopped {
            (self.started, self.health) = (None, None);
            self.hang_up();
        } else if self.started.is_none() {
            self.started = Some(Instant::now());
            self.has_run = true;
        }
        self.state = state;
    }

    fn hang_up(&mut self) {
        if let Some(console) = self.console.take() {
            console.abort();
        }
        self.commands.drain(..).for_each(|command| command.abort());
        self.followers.clear();
    }
}

/// What is sent comes back, until there is no more of it.
async fn cat(mut guest: DuplexStream) -> std::io::Result<()> {
    let said = |output: &ExecOutput| codec::encode_frame(output).map_err(std::io::Error::other);
    guest.write_all(&said(&ExecOutput::Started)?).await?;
    loop {
        let mut prefix = [0; codec::LENGTH_BYTES];
        guest.read_exact(&mut prefix).await?;
        let mut frame = vec![0; codec::frame_length(prefix).map_err(std::io::Error::other)?];
        guest.read_exact(&mut frame).await?;
        match codec::decode(&frame).map_err(std::io::Error::other)? {
            ExecInput::Bytes(bytes) => guest.write_all(&said(&ExecOutput::Output(bytes))?).await?,
            ExecInput::End => {
                return guest.write_all(&said(&ExecOutput::Ended(ExecEnd::Exited(0)))?).await;
            }
            ExecInput::Signal(number) => {
                return guest.write_all(&said(&ExecOutput::Ended(ExecEnd::Killed(number)))?).await;
            }
            ExecInput::Resize(_) => {}
        }
    }
}

#[async_trait]
impl Hypervisor for Fake {
    fn capabilities(&self) -> Capabilities {
        let live_migration = self.kind == MachineKind::Kvm;
        Capabilities {
            kind: self.kind,
            accel: Accel::Tcg,
            console: true,
            exec: true,
            printed: true,
            live_migration,
        }
    }

    async fn define(&self, definition: &Definition) -> Result<(), HvError> {
        self.asked("define")?;
        let definition = definition.clone();
        let mut world = self.world();
        let machine = world.machines.entry(definition.vm).or_insert_with(|| Machine {
            definition: definition.clone(),
            state: VmState::Stopped,
            started: None,
            console: None,
            commands: Vec::new(),
            has_run: false,
            followers: Vec::new(),
            health: None,
            saved: None,
        });
        machine.definition = definition;
        Ok(())
    }

    async fn start(&self, vm: VmId) -> Result<(), HvError> {
        self.asked("start")?;
        self.with(vm, |machine| {
            if machine.state == VmState::Stopped {
                machine.enter(VmState::Running);
            }
        })
    }

    async fn stop(&self, vm: VmId, terms: StopTerms) -> Result<Halt, HvError> {
        self.asked("stop")?;
        let state = self.with(vm, |machine| machine.state)?;
        let manners = self.world().manners;
        let mut halt = Halt::OnAsking(None);
        if manners == Manners::Deaf && state == VmState::Running {
            self.with(vm, |machine| machine.state = VmState::Stopping)?;
            tokio::time::sleep(terms.grace()).await;
            halt = Halt::Overdue { signal: None, grace: terms.grace() };
        }
        self.with(vm, |machine| {
            machine.saved = machine.saved.filter(|saved| *saved == Saved::Kept);
            machine.enter(VmState::Stopped);
        })?;
        Ok(halt)
    }

    async fn pause(&self, vm: VmId) -> Result<(), HvError> {
        self.asked("pause")?;
        self.with(vm, |machine| match machine.state {
            VmState::Running | VmState::Paused => {
                machine.enter(VmState::Paused);
                Ok(())
            }
            state => Err(HvError::State { vm, state, remedy: "start it first" }),
        })?
    }

    /// Its guests end at any signal.
    async fn signal(&self, vm: VmId, signal: Signal) -> Result<(), HvError> {
        self.asked("signal")?;
        self.with(vm, |machine| match machine.state {
            VmState::Paused if signal != Signal::Kill => {
                Err(HvError::State { vm, state: machine.state, remedy: "resume it first" })
            }
            VmState::Running | VmState::Paused => {
                machine.enter(VmState::Stopped);
                Ok(())
            }
            state => Err(HvError::State { vm, state, remedy: "start it first" }),
        })?
    }

    async fn resume(&self, vm: VmId) -> Result<(), HvError> {
        self.asked("resume")?;
        let stopped = self.with(vm, |machine| match machine.state {
            VmState::Stopped => true,
            _ if machine.saved == Some(Saved::Suspended) => true,
            _ => {
                machine.enter(VmState::Running);
                false
            }
        })?;
        if stopped { Err(HvError::Unsupported { what: "resuming a stopped machine" }) } else { Ok(()) }
    }

    async fn checkpoint(&self, vm: VmId, leave_running: bool) -> Result<(), HvError> {
        self.asked("checkpoint")?;
        self.with(vm, |machine| match (machine.state, machine.saved) {
            (_, _) if machine.definition.spec.mobility != Mobility::Migratable => {
                Err(HvError::Unsupported { what: "saving a machine that is not migratable" })
            }
            (VmState::Paused, Some(Saved::Suspended)) => Ok(()),
            (VmState::Running, _) if leave_running => {
                machine.saved = Some(Saved::Kept);
                Ok(())
            }
            (VmState::Running, _) => {
                machine.enter(VmState::Stopped);
                (machine.state, machine.saved) = (VmState::Paused, Some(Saved::Suspended));
                Ok(())
            }
            (state, _) => Err(HvError::State { vm, state, remedy: "have it run first" }),
        })?
    }

    async fn restore(&self, vm: VmId) -> Result<(), HvError> {
        self.asked("restore")?;
        self.with(vm, |machine| match (machine.state, machine.saved) {
            (VmState::Stopped, _) => {
                Err(HvError::State { vm, state: VmState::Stopped, remedy: "start it first" })
            }
            (_, None) => Err(HvError::failed(format!("restore {vm}"), "it has no checkpoint")),
            (_, Some(saved)) => {
                machine.enter(VmState::Stopped);
                machine.enter(VmState::Running);
                machine.saved = Some(saved).filter(|saved| *saved == Saved::Kept);
                Ok(())
            }
        })?
    }

    async fn undefine(&self, vm: VmId) -> Result<(), HvError> {
        self.asked("undefine")?;
        if let Some(mut machine) = self.world().machines.remove(&vm) {
            machine.hang_up();
            let _ = self.events.send(HypervisorEvent::Changed(vm));
        }
        Ok(())
    }

    async fn state(&self, vm: VmId) -> Result<VmState, HvError> {
        self.asked("state")?;
        Ok(self.with(vm, |machine| machine.state).unwrap_or(VmState::Missing))
    }

    async fn list(&self) -> Result<Vec<Listed>, HvError> {
        self.asked("list")?;
        let world = self.world();
        let ours = world.machines.iter().map(|(vm, machine)| Listed::Ours(*vm, machine.state));
        Ok(ours.chain(world.foreign.iter().cloned().map(Listed::Foreign)).collect())
    }

    async fn usage(&self, vm: VmId) -> Result<Usage, HvError> {
        self.asked("usage")?;
        self.with(vm, |machine| match machine.started {
            Some(started) => Usage { cpu: started.elapsed(), memory: machine.definition.spec.memory },
            None => Usage::default(),
        })
    }

    fn health(&self, vm: VmId) -> Option<Health> {
        self.world().machines.get(&vm)?.health.clone()
    }

    async fn statistics(&self, vm: VmId) -> Result<VmStatistics, HvError> {
        let used = self.usage(vm).await?;
        Ok(VmStatistics {
            cpu_ms: u64::try_from(used.cpu.as_millis()).unwrap_or(u64::MAX),
            memory: used.memory,
            ..VmStatistics::none(clock::now())
        })
    }

    async fn addresses(&self, vm: VmId) -> Result<Vec<IpAddr>, HvError> {
        self.asked("addresses")?;
        self.with(vm, |machine| {
            let address = machine.definition.spec.network.address.map(|net| net.addr());
            address.filter(|_| machine.state == VmState::Running).into_iter().collect()
        })
    }

    async fn console(&self, vm: VmId) -> Result<Pin<Box<dyn ConsoleStream>>, HvError> {
        self.asked("console")?;
        self.with(vm, |machine| {
            if machine.started.is_none() {
                return Err(HvError::Unsupported { what: "the console of a stopped machine" });
            }
            machine.hang_up();
            let (guest, user) = tokio::io::duplex(CONSOLE_BUFFER);
            let echo = tokio::spawn(async move {
                let (mut from, mut to) = tokio::io::split(guest);
                let _ = tokio::io::copy(&mut from, &mut to).await; // ends with the user
            });
            machine.console = Some(echo.abort_handle());
            let user: Pin<Box<dyn ConsoleStream>> = Box::pin(user);
            Ok(user)
        })?
    }

    /// Whatever it is told to run is `cat`.
    async fn exec(&self, vm: VmId, _command: &ExecCommand) -> Result<Pin<Box<dyn ConsoleStream>>, HvError> {
        self.asked("exec")?;
        self.with(vm, |machine| {
            let refused = |state, remedy| Err(HvError::State { vm, state, remedy });
            match machine.state {
                VmState::Running => {}
                VmState::Paused => return refused(VmState::Paused, "resume it first"),
                state => return refused(state, "start it first"),
            }
            let (guest, user) = tokio::io::duplex(CONSOLE_BUFFER);
            machine.commands.push(tokio::spawn(cat(guest)).abort_handle());
            let user: Pin<Box<dyn ConsoleStream>> = Box::pin(user);
            Ok(user)
        })?
    }

    /// Every guest prints one line when it is started.
    async fn printed(&self, vm: VmId, lines: Option<u32>, follow: bool) -> Result<Printed, HvError> {
        self.asked("printed")?;
        self.with(vm, |machine| {
            let (to, printed) = mpsc::channel(1);
            if machine.has_run && lines != Some(0) {
                let _has_room = to.try_send(Ok(LogChunk { at: 0, bytes: GREETING.into() }));
            }
            if follow && machine.started.is_some() {
                machine.followers.push(to);
            }
            printed
        })
    }

    fn events(&self) -> broadcast::Receiver<HypervisorEvent> {
        self.events.subscribe()
    }
}
