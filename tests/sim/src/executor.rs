//! One thread that runs every task of every machine. Exactly one thing happens at a time: a timer or message comes
//! due only when no task can go on, so that what a task sees never depends on the order in which its futures are
//! asked. Which of several ready tasks goes first is the seed's choice.

use crate::{os, trace::Trace};
use novacron_common::splitmix::SplitMix64;
use novacron_runtime::{Job, TaskId, TimerId, Work, World};
use novacron_store::Disk;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};
use tokio::time::Instant;

/// Number of a simulated machine.
pub type Machine = usize;

/// Polls without the clock moving on, after which the world is taken to hang.
const BUSY_MAX: u64 = 2_000_000;

/// Tasks that can go on. A set, not a queue: in which order tokio's channels wake several is its own choice, which
/// cannot be seeded; which of them are awake is not.
type Ready = Arc<Mutex<BTreeSet<u64>>>;

/// The world of one seed.
pub struct Executor {
    state: Mutex<State>,
    ready: Ready,
    began: Instant,
}

struct State {
    now: u64,
    next: u64,
    next_task: u64,
    tasks: BTreeMap<u64, Task>,
    events: BTreeMap<(u64, u64), Event>,
    timers: BTreeMap<u64, u64>,
    machines: Vec<Place>,
    current: Option<Machine>,
    rng: SplitMix64,
    trace: Trace,
}

struct Task {
    machine: Machine,
    /// Taken out while it is polled.
    job: Option<Job>,
    waker: Arc<TaskWaker>,
}

enum Event {
    Wake(Waker),
    Act(Act),
}

/// What happens at a time.
pub type Act = Box<dyn FnOnce() + Send>;

/// A machine, as the executor sees it.
struct Place {
    disk: Disk,
    /// How far its wall clock is ahead, nanoseconds.
    skew: i64,
    /// It is being crashed: nothing new starts.
    falling: bool,
    /// Stopped as by SIGSTOP; what became ready meanwhile.
    paused: Option<Vec<u64>>,
    /// How long a sync takes, nanoseconds.
    sync: (u64, u64),
    /// When the disk is done with what it was asked for.
    disk_free_at: u64,
}

struct TaskWaker {
    task: u64,
    queued: AtomicBool,
    ready: Ready,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            lock(&self.ready).insert(self.task);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long a sync takes on a healthy disk.
pub const SYNC: (u64, u64) = (200_000, 2_000_000);

impl Executor {
    /// An empty world with so many machines. The thread must simulate already ([`os::simulate`]).
    pub fn new(seed: u64, machines: usize) -> Arc<Self> {
        let place = || {
            let disk = Disk::default();
            disk.defer_syncs();
            Place { disk, skew: 0, falling: false, paused: None, sync: SYNC, disk_free_at: 0 }
        };
        let state = State {
            now: 0,
            next: 0,
            next_task: 0,
            tasks: BTreeMap::new(),
            events: BTreeMap::new(),
            timers: BTreeMap::new(),
            machines: (0..machines).map(|_| place()).collect(),
            current: None,
            rng: SplitMix64::new(seed),
            trace: Trace::default(),
        };
        Arc::new(Self { state: Mutex::new(state), ready: Arc::default(), began: Instant::now() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Nanoseconds since the world began.
    pub fn elapsed(&self) -> u64 {
        self.state().now
    }

    /// The machine whose task runs now.
    pub fn current(&self) -> Option<Machine> {
        self.state().current
    }

    /// What happened so far.
    pub fn trace(&self) -> Trace {
        self.state().trace
    }

    /// Adds to what happened.
    pub fn note(&self, what: &[u64]) {
        self.state().trace.note(what);
    }

    /// Adds bytes that were sent to what happened.
    pub fn note_bytes(&self, bytes: &[u8]) {
        self.state().trace.note_bytes(bytes);
    }

    /// Draws from the world's randomness.
    pub fn draw<R>(&self, draw: impl FnOnce(&mut SplitMix64) -> R) -> R {
        draw(&mut self.state().rng)
    }

    /// A machine's disk.
    pub fn disk(&self, machine: Machine) -> Disk {
        self.state().machines[machine].disk.clone()
    }

    /// Sets how far a machine's wall clock is ahead.
    pub fn set_skew(&self, machine: Machine, nanoseconds: i64) {
        self.state().machines[machine].skew = nanoseconds;
    }

    /// How far a machine's wall clock is ahead.
    pub fn skew(&self, machine: Machine) -> i64 {
        self.state().machines[machine].skew
    }

    /// Sets how long a sync takes on a machine, nanoseconds.
    pub fn set_sync(&self, machine: Machine, between: (u64, u64)) {
        self.state().machines[machine].sync = between;
    }

    /// Whether a machine is paused.
    pub fn is_paused(&self, machine: Machine) -> bool {
        self.state().machines[machine].paused.is_some()
    }

    /// Starts a task on a machine.
    pub fn spawn_on(&self, machine: Machine, job: Job) -> TaskId {
        let mut state = self.state();
        let task = state.task_number();
        if state.machines[machine].falling {
            drop(state);
            drop(job);
            return TaskId(task);
        }
        let waker =
            Arc::new(TaskWaker { task, queued: AtomicBool::new(true), ready: Arc::clone(&self.ready) });
        state.tasks.insert(task, Task { machine, job: Some(job), waker });
        lock(&self.ready).insert(task);
        TaskId(task)
    }

    /// Does something after a while.
    pub fn act_in(&self, nanoseconds: u64, act: Act) {
        let mut state = self.state();
        let key = (state.now + nanoseconds, state.number());
        state.events.insert(key, Event::Act(act));
    }

    /// Stops a machine as SIGSTOP does.
    pub fn pause(&self, machine: Machine) {
        self.state().machines[machine].paused.get_or_insert_default();
    }

    /// Lets a paused machine go on.
    pub fn resume(&self, machine: Machine) {
        let held = self.state().machines[machine].paused.take().unwrap_or_default();
        lock(&self.ready).extend(held);
    }

    /// Drops every task of a machine, and what its disk had not synced.
    pub fn crash(&self, machine: Machine) {
        self.resume(machine);
        let doomed: Vec<Task> = {
            let mut state = self.state();
            state.machines[machine].falling = true;
            let ids: Vec<u64> =
                state.tasks.iter().filter(|(_, task)| task.machine == machine).map(|(id, _)| *id).collect();
            ids.iter().filter_map(|id| state.tasks.remove(id)).collect()
        };
        // What they hold may call back into the world as it goes.
        drop(doomed);
        let mut state = self.state();
        let mut rng = state.rng.fork();
        let place = &mut state.machines[machine];
        place.falling = false;
        place.disk_free_at = 0;
        let disk = place.disk.clone();
        drop(state);
        let all = rng.percent(50);
        disk.crash(|unsynced| match all {
            true => 0,
            false => usize::try_from(rng.below(unsynced as u64 + 1)).unwrap_or(0),
        });
    }

    /// The world ends: everything in it is dropped.
    pub fn end(&self) {
        let machines = self.state().machines.len();
        (0..machines).for_each(|machine| self.crash(machine));
        let events = std::mem::take(&mut self.state().events);
        drop(events);
    }

    /// Runs the world for a while.
    ///
    /// # Panics
    /// If it hangs: tasks that wake each other for ever without the clock moving on.
    pub fn run_for(self: &Arc<Self>, duration: Duration) {
        let until = self.elapsed() + u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        while self.step(until) {}
        self.state().now = until;
    }

    /// Runs until nothing can go on, then lets the next thing happen that is due by `until`.
    fn step(&self, until: u64) -> bool {
        let mut polls = 0;
        while let Some(task) = self.choose() {
            self.poll(task);
            polls += 1;
            assert!(
                polls < BUSY_MAX,
                "the world hangs at {} ns: task {task} is always ready",
                self.elapsed()
            );
        }
        let event = {
            let mut state = self.state();
            let Some(first) = state.events.first_entry().filter(|first| first.key().0 <= until) else {
                return false;
            };
            let ((at, number), event) = first.remove_entry();
            state.now = at;
            state.timers.remove(&number);
            event
        };
        match event {
            Event::Wake(waker) => waker.wake(),
            Event::Act(act) => act(),
        }
        true
    }

    fn choose(&self) -> Option<u64> {
        let mut ready = lock(&self.ready);
        let chosen = match ready.len() {
            0 => return None,
            1 => 0,
            many => self.state().rng.below(many as u64),
        };
        let task = ready.iter().nth(usize::try_from(chosen).unwrap_or(0)).copied()?;
        ready.remove(&task);
        Some(task)
    }

    fn poll(&self, id: u64) {
        let (mut job, waker) = {
            let mut state = self.state();
            let state = &mut *state;
            let Some(task) = state.tasks.get_mut(&id) else { return };
            let place = &mut state.machines[task.machine];
            if let Some(held) = &mut place.paused {
                held.push(id);
                return;
            }
            let Some(job) = task.job.take() else { return };
            task.waker.queued.store(false, Ordering::Relaxed);
            state.current = Some(task.machine);
            state.trace.note(&[state.now, id, task.machine as u64]);
            os::set_clock(state.now, place.skew);
            (job, Waker::from(Arc::clone(&task.waker)))
        };
        let polled = job.as_mut().poll(&mut Context::from_waker(&waker));
        self.put_back(id, job, polled);
    }

    fn put_back(&self, id: u64, job: Job, polled: Poll<()>) {
        let mut state = self.state();
        let kept = match polled {
            Poll::Ready(()) => {
                state.tasks.remove(&id);
                Some(job)
            }
            Poll::Pending => match state.tasks.get_mut(&id) {
                Some(task) => {
                    task.job = Some(job);
                    None
                }
                // It was aborted by itself.
                None => Some(job),
            },
        };
        drop(state);
        drop(kept);
        self.state().current = None;
    }

    fn disk_time(&self, machine: Machine) -> u64 {
        let mut state = self.state();
        let now = state.now;
        let (from, to) = state.machines[machine].sync;
        let takes = state.rng.between(from, to);
        let place = &mut state.machines[machine];
        // One head: what is asked for later is done later.
        place.disk_free_at = place.disk_free_at.max(now) + takes;
        place.disk_free_at - now
    }
}

impl State {
    /// Of a timer or an act. Tasks are counted apart: openraft's replication waits with a `select!` that is not
    /// biased, so whether its timer is set at all is left to chance that no seed reaches.
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn task_number(&mut self) -> u64 {
        self.next_task += 1;
        self.next_task
    }
}

impl World for Executor {
    fn spawn(&self, job: Job) -> TaskId {
        let machine = self.state().current.unwrap_or(0);
        self.spawn_on(machine, job)
    }

    fn abort(&self, task: TaskId) {
        let dropped = self.state().tasks.remove(&task.0);
        drop(dropped);
    }

    fn now(&self) -> Instant {
        self.began + Duration::from_nanos(self.elapsed())
    }

    fn wake_at(&self, at: Instant, waker: Waker) -> TimerId {
        let due = u64::try_from(at.saturating_duration_since(self.began).as_nanos()).unwrap_or(u64::MAX);
        let mut state = self.state();
        let (due, number) = (due.max(state.now), state.number());
        state.events.insert((due, number), Event::Wake(waker));
        state.timers.insert(number, due);
        TimerId(number)
    }

    fn cancel(&self, timer: TimerId) {
        let mut state = self.state();
        let dropped = match state.timers.remove(&timer.0) {
            Some(due) => state.events.remove(&(due, timer.0)),
            None => None,
        };
        drop(state);
        drop(dropped);
    }

    fn blocking(&self, work: Work) -> Option<Job> {
        let machine = self.state().current.unwrap_or(0);
        let disk = self.disk(machine);
        let before = disk.syncs();
        work();
        if disk.syncs() == before {
            return None;
        }
        let asked = disk.asked();
        let done = novacron_runtime::time::sleep(Duration::from_nanos(self.disk_time(machine)));
        Some(Box::pin(async move {
            done.await;
            disk.settle(asked);
        }))
    }

    fn settle(&self) {
        let machine = self.state().current.unwrap_or(0);
        let disk = self.disk(machine);
        disk.settle(disk.asked());
    }

    fn random(&self) -> u64 {
        self.state().rng.bits()
    }
}
