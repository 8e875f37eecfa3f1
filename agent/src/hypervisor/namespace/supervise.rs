//! A supervisor's life: build the walls, start the tree, watch it, write down how it ended.
//!
//! It holds no connection to the agent. The agent may be killed, upgraded or stopped; the command and its outcome
//! are not touched by that. If the supervisor itself is killed, the kernel kills its tree.

mod restore;
mod save;

use super::{
    cgroup::Group,
    checkpoint::{reaper, record::Checkpoint},
    command::UMASK,
    enter::{Baggage, enter_and_run},
    folder::Folder,
    ids::IdMap,
    lease::{LeaseHold, Standing},
    limit::Reached,
    outcome::{Ending, Evidence},
    output::Capture,
    request::{Card, Isolated, Origin},
    root,
    seccomp::Filters,
    spawn::{Init, Word, into_new_namespaces},
    spool::Spool,
    step::{Doing, StepError},
};
use crate::hypervisor::Halt;
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        memfd::{MFdFlags, memfd_create},
        signal::{SigSet, Signal, kill},
        signalfd::{SfdFlags, SignalFd},
        stat::umask,
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Gid, Uid, fchown, geteuid, pipe2, read},
};
use novacron_common::{
    record::{AttemptEnd, AttemptOutcome},
    spec::StopTerms,
    units::UnixMillis,
};
use std::{
    fs::File,
    io::{Seek, Write},
    os::fd::{AsFd, OwnedFd},
    path::Path,
    time::{Duration, Instant, SystemTime},
};

/// Room in the output pipe, so that a chatty command is not held up by each switch to its supervisor.
const PIPE_BYTES: i32 = 1 << 20;

/// Runs the command of this folder's request to its end, and returns what is to be written down. Signals have to be
/// held back. With a hold on its lease, it ends when that runs out; with an origin, it can be saved.
pub fn supervise(
    folder: &Folder,
    isolated: &Isolated,
    origin: Option<Origin>,
    lease: Option<LeaseHold>,
) -> AttemptEnd {
    match try_supervise(folder, isolated, origin, lease) {
        Ok(end) => end,
        Err(error) => failed_to_start(error.chain()),
    }
}

/// The end of a command that never ran.
pub fn failed_to_start(reason: String) -> AttemptEnd {
    never_ran(AttemptOutcome::FailedToStart { reason })
}

/// An end without a start.
pub fn never_ran(outcome: AttemptOutcome) -> AttemptEnd {
    AttemptEnd { outcome, started_at: None, ended_at: now(), output: Default::default(), result: None }
}

fn try_supervise(
    folder: &Folder,
    isolated: &Isolated,
    origin: Option<Origin>,
    lease: Option<LeaseHold>,
) -> Result<AttemptEnd, StepError> {
    let signals = receive_signals()?;
    // What is built is for the tree's users to enter.
    umask(UMASK);
    let group = Group::create(&isolated.cgroup, &isolated.limits)?;
    let ended = start(isolated, origin, &group).and_then(|tree| {
        let charge = Charge { folder, isolated, group: &group };
        let mut watch = Watch::new(charge, tree, signals, lease);
        if origin == Some(Origin::Saved) {
            // From here on the machine is here, and no more in its checkpoint.
            Checkpoint::of(Path::new("..")).suspend(false).doing("note that the machine is restored")?;
            watch.word = Some(Word::Started);
            watch.note_start();
        }
        watch.until_ended()
    });
    // Whatever happened: nothing of the tree may live on, and the group goes with it.
    let gone = group.kill_all();
    let end = ended.map(Watch::end);
    if let Err(error) = gone.and_then(|()| group.remove()) {
        tracing::warn!(error = error.chain(), group = isolated.cgroup, "left a cgroup behind");
    }
    if let Some(Err(error)) = isolated.card.as_ref().map(Card::detach) {
        tracing::warn!(error = error.chain(), "left a network card behind");
    }
    end
}

/// How the ends of pipes are made.
const QUIET: OFlag = OFlag::O_CLOEXEC;

/// A running tree, and where its output comes out.
struct Tree {
    init: Init,
    output: OwnedFd,
    /// Where the last word of a tree comes out that can be saved.
    word: Option<OwnedFd>,
}

fn start(isolated: &Isolated, origin: Option<Origin>, group: &Group) -> Result<Tree, StepError> {
    let own_map = std::fs::read_to_string("/proc/self/uid_map").doing("read the own id map")?;
    let map = IdMap::choose(&own_map, isolated.id_slot, geteuid().as_raw());
    let filters = Filters::compile()?;
    let mut input = isolated.program.stdin.as_deref().map(input_of).transpose()?;
    root::build(&root::Plan {
        lower: &isolated.lower,
        map,
        scratch_max: isolated.limits.scratch_max,
        masked: &isolated.masked,
        volumes: &isolated.volumes,
        resolvers: isolated.card.as_ref().map_or(&[], |card| &card.resolvers),
        origin,
    })?;
    if origin == Some(Origin::Saved) {
        return restore::restored(group, map);
    }
    let (output, write_end) = output_pipe(map)?;
    let (word, mut last) = match origin {
        Some(_) => pipe2(QUIET)
            .doing("make a pipe for the last word")
            .map(|(word, last)| (Some(word), Some(last)))?,
        None => (None, None),
    };
    let doors = group.doors()?;
    let mut write_end = Some(write_end);
    let init = into_new_namespaces(|channel| match write_end.take() {
        Some(output) => {
            let (input, word) = (input.take(), last.take());
            enter_and_run(Baggage {
                isolated,
                filters: &filters,
                doors: &doors,
                output,
                input,
                channel,
                word,
            })
        }
        None => 1,
    })?;
    drop((write_end, last));
    // Dropping the channel on an error lets init end, which waits for the word to go on.
    map.write(init.pid)?;
    if let Some(card) = &isolated.card {
        card.attach(init.pid)?;
    }
    init.channel.say_go()?;
    Ok(Tree { init, output, word })
}

/// Its owner may open it by name, as images do whose log files are links to /dev/stdout.
fn output_pipe(map: IdMap) -> Result<(OwnedFd, OwnedFd), StepError> {
    let (read_end, write_end) = pipe2(QUIET).doing("make the output pipe")?;
    let owner = map.root_outside();
    fchown(&write_end, Some(Uid::from_raw(owner)), Some(Gid::from_raw(owner)))
        .doing("give away the output pipe")?;
    fcntl(&read_end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).doing("make the output pipe")?;
    let _as_it_was = fcntl(&read_end, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES));
    Ok((read_end, write_end))
}

/// A file without a name that holds `text`: unlike a pipe, it needs nobody to fill it while the command reads.
fn input_of(text: &str) -> Result<OwnedFd, StepError> {
    let file = memfd_create("stdin", MFdFlags::MFD_CLOEXEC).doing("make the standard input")?;
    let mut file = File::from(file);
    file.write_all(text.as_bytes()).and_then(|()| file.rewind()).doing("fill the standard input")?;
    Ok(file.into())
}

fn signals() -> SigSet {
    [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().collect()
}

/// From here on no signal but SIGKILL and SIGSTOP ends or stops the supervisor.
///
/// # Errors
/// [`StepError`].
pub fn hold_back_signals() -> Result<(), StepError> {
    signals().thread_block().doing("block signals")
}

/// Where they are read from then on.
///
/// # Errors
/// [`StepError`].
pub fn receive_signals() -> Result<SignalFd, StepError> {
    SignalFd::with_flags(&signals(), SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).doing("receive signals")
}

/// What a watch is over.
#[derive(Clone, Copy)]
struct Charge<'a> {
    folder: &'a Folder,
    isolated: &'a Isolated,
    group: &'a Group,
}

/// Watches one tree.
struct Watch<'a> {
    charge: Charge<'a>,
    tree: Tree,
    signals: SignalFd,
    lease: Option<LeaseHold>,
    capture: Capture,
    spool: Option<Spool>,
    result: Option<String>,
    output_open: bool,
    deadline: Option<Instant>,
    /// How it was asked to end.
    asked: Option<StopTerms>,
    ending: Option<Ending>,
    word: Option<Word>,
    started_at: Option<UnixMillis>,
    init_status: Option<WaitStatus>,
}

impl<'a> Watch<'a> {
    fn new(charge: Charge<'a>, tree: Tree, signals: SignalFd, lease: Option<LeaseHold>) -> Self {
        Self {
            charge,
            tree,
            signals,
            lease,
            capture: Capture::default(),
            spool: Some(Spool::default()),
            result: None,
            output_open: true,
            deadline: charge.isolated.timeout_ms.map(|ms| Instant::now() + Duration::from_millis(ms)),
            asked: None,
            ending: None,
            word: None,
            started_at: None,
            init_status: None,
        }
    }

    /// Until init is gone, and with it every process of its pid namespace.
    fn until_ended(mut self) -> Result<Self, StepError> {
        // A request to end may have come before signals were received.
        self.heed_kill_request();
        self.heed_save_request();
        while self.init_status.is_none() {
            self.wait().doing("watch the command")?;
            self.hear_words();
            self.heed_signals();
            self.heed_deadline();
            self.heed_lease();
            self.take_output();
        }
        self.hear_words();
        self.take_output();
        Ok(self)
    }

    fn wait(&self) -> nix::Result<()> {
        let mut sources = vec![
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.tree.init.channel.0.as_fd(), PollFlags::POLLIN),
        ];
        if self.output_open {
            sources.push(PollFd::new(self.tree.output.as_fd(), PollFlags::POLLIN));
        }
        if self.tree.init.channel.is_closed() {
            sources.remove(1); // would be ready for ever; SIGCHLD follows, also where a last word does
        }
        if let Some(lease) = &self.lease {
            sources.push(PollFd::new(lease.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut sources, self.patience()) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(cause) => Err(cause),
        }
    }

    /// Rounded up to the next millisecond, so as not to spin through the last one.
    fn patience(&self) -> PollTimeout {
        let Some(deadline) = self.deadline else { return PollTimeout::NONE };
        let left = deadline.saturating_duration_since(Instant::now()).as_millis() + 1;
        i32::try_from(left).ok().and_then(|ms| PollTimeout::try_from(ms).ok()).unwrap_or(PollTimeout::MAX)
    }

    fn hear_words(&mut self) {
        // It is there once init has ended, who says it before that.
        let last = self.tree.word.as_ref().filter(|_| self.init_status.is_some()).and_then(|word| {
            let mut bytes = [0; 5];
            let length = read(word, &mut bytes).ok()?;
            reaper::last_word(&bytes[..length]).map(Word::Ended)
        });
        self.word = last.or(self.word.take());
        while let Some(word) = self.tree.init.channel.hear() {
            match word {
                Word::Result(text) => self.result = Some(text),
                Word::Note(text) => self.capture.push(text.as_bytes()),
                Word::Started | Word::Ended(_) | Word::Failed(_) => {
                    if word == Word::Started {
                        self.note_start();
                    }
                    self.word = Some(word);
                }
            }
        }
    }

    fn note_start(&mut self) {
        self.started_at = Some(now());
        let folder = self.charge.folder;
        let disk = root::disk().map_or(Ok(()), |disk| folder.write_disk(&disk));
        let noted = disk
            .and_then(|()| folder.write_init(self.tree.init.pid.as_raw()))
            .and_then(|()| folder.mark_started());
        if let Err(error) = noted {
            tracing::warn!(%error, "could not note the start");
        }
    }

    fn heed_signals(&mut self) {
        while let Ok(Some(signal)) = self.signals.read_signal() {
            if signal.ssi_signo == (Signal::SIGCHLD as i32).cast_unsigned() {
                self.reap();
            } else {
                self.heed_kill_request();
                self.heed_save_request();
            }
        }
    }

    fn reap(&mut self) {
        match waitpid(self.tree.init.pid, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(_) => {}
            Ok(status) => self.init_status = Some(status),
        }
    }

    /// A signal alone says nothing: a service manager sends SIGTERM to all and sundry when the agent stops.
    fn heed_kill_request(&mut self) {
        let Ok(Some(terms)) = self.charge.folder.kill_request() else { return };
        if self.ending.is_some() {
            return;
        }
        self.ending = Some(Ending::Killed);
        // What is frozen cannot hear the request: waiting for it is of no use.
        if terms.grace_ms == 0 || self.charge.group.is_frozen() {
            self.note_cut(Halt::Unasked);
            return self.cut();
        }
        let wanted = terms.signal.and_then(|signal| Signal::try_from(signal.number()).ok());
        let _already_ended = kill(self.tree.init.pid, wanted.unwrap_or(Signal::SIGTERM));
        self.asked = Some(terms);
        self.deadline = Some(Instant::now() + terms.grace());
    }

    fn note_cut(&self, halt: Halt) {
        if let Err(error) = self.charge.folder.write_cut(halt) {
            tracing::warn!(%error, "could not note that it did not end by itself");
        }
    }

    fn heed_deadline(&mut self) {
        if self.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            self.ending.get_or_insert(Ending::TimedOut);
            if let Some(terms) = self.asked {
                self.note_cut(Halt::Overdue { signal: terms.signal, grace: terms.grace() });
            }
            self.cut();
        }
    }

    /// Also where the tree is being ended already: a grace does not outlast the lease.
    fn heed_lease(&mut self) {
        let Some(lease) = &self.lease else { return };
        if lease.has_fired() && lease.look(self.charge.folder) == Standing::Lost {
            self.lease = None;
            self.ending.get_or_insert(Ending::LeaseLost);
            self.cut();
        }
    }

    /// Kills init. The kernel then kills every process of its pid namespace, daemons and all.
    fn cut(&mut self) {
        self.deadline = None;
        let _already_ended = kill(self.tree.init.pid, Signal::SIGKILL);
        if self.charge.group.is_frozen()
            && let Err(error) = self.charge.group.thaw()
        {
            tracing::warn!(error = error.chain(), "could not thaw what was killed");
        }
    }

    fn take_output(&mut self) {
        let mut buffer = [0; 64 * 1024];
        while self.output_open {
            match read(&self.tree.output, &mut buffer) {
                Ok(0) => self.output_open = false,
                Ok(length) => self.keep(&buffer[..length]),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return,
                Err(_) => self.output_open = false,
            }
            if self.init_status.is_none() {
                return; // one buffer at a time, so that a flood cannot keep the deadline waiting
            }
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.capture.push(bytes);
        let Some(Err(error)) = self.spool.as_mut().map(|spool| spool.push(self.charge.folder, bytes)) else {
            return;
        };
        tracing::warn!(%error, "could not show what is printed while it runs");
        self.spool = None;
    }

    fn end(mut self) -> AttemptEnd {
        let evidence = Evidence {
            ending: self.ending,
            word: self.word.take(),
            init: self.init_status,
            oom_kills: self.charge.group.oom_kills(),
        };
        let outcome = evidence.outcome();
        let reached = Reached { forks_refused: self.charge.group.forks_refused(), is_full: root::is_full() };
        reached.notes(&outcome).iter().for_each(|note| self.keep(note.as_bytes()));
        AttemptEnd {
            outcome,
            started_at: self.started_at,
            ended_at: now(),
            output: self.capture.finish(),
            result: self.result,
        }
    }
}

/// The host's clock.
pub fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    UnixMillis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
