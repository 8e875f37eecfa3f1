//! The order in which the first process of a tree gives up its rights. Each step needs a right that a later one
//! takes away, so this order is the design; nothing else in here decides anything.

use super::{
    cgroup::Doors,
    init,
    privileges::{die_with_parent, hide_memory},
    request::Isolated,
    root,
    seccomp::Filters,
    spawn::{Channel, Word},
    step::{Doing, StepError, checked},
};
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl, open},
    sched::{CloneFlags, unshare},
    sys::{
        resource::{Resource, setrlimit},
        stat::Mode,
    },
    unistd::{
        Gid, Uid, dup2_stderr, dup2_stdin, dup2_stdout, setgroups, sethostname, setresgid, setresuid, setsid,
    },
};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Above the standard streams; what is above it, and above [`WORD_FD`] if that is kept, is closed.
const CHANNEL_FD: i32 = 3;

/// The way for a last word, if there is one.
const WORD_FD: i32 = 4;

/// What init brings along from the supervisor.
pub struct Baggage<'a> {
    /// The walls and the command.
    pub isolated: &'a Isolated,
    /// Compiled beforehand.
    pub filters: &'a Filters,
    /// Into its cgroup.
    pub doors: &'a Doors,
    /// Where the command prints to.
    pub output: OwnedFd,
    /// What it reads from; nothing if absent.
    pub input: Option<OwnedFd>,
    /// To the supervisor.
    pub channel: Channel,
    /// Where the last word of a tree goes that can be saved.
    pub word: Option<OwnedFd>,
}

/// Isolates the calling process, then becomes the tree's init. Returns its exit code.
pub fn enter_and_run(baggage: Baggage<'_>) -> i32 {
    let Baggage { isolated, filters, doors, output, input, channel, word } = baggage;
    // Before the doors are closed with every other descriptor.
    let inside = doors.enter();
    let has_input = input.is_some();
    let streams = Streams { input: input.as_ref(), output: &output, errors: &output };
    let (channel, word) = match keep_only(streams, channel.0, word) {
        Ok((channel, word)) => (Channel(channel), word),
        Err(_) => return 1, // without a channel there is nobody to tell; the supervisor sees the exit
    };
    std::mem::forget((output, input)); // closed by number
    let can_be_saved = word.is_some();
    match inside.and_then(|()| isolate(isolated, filters, (has_input, can_be_saved), &channel)) {
        Ok(()) => init::run(isolated, &channel, word),
        Err(error) => {
            channel.say(&Word::Failed(error.chain()));
            1
        }
    }
}

fn isolate(
    isolated: &Isolated,
    filters: &Filters,
    (has_input, can_be_saved): (bool, bool),
    channel: &Channel,
) -> Result<(), StepError> {
    // The supervisor maps our ids; without that nothing may go on.
    channel.wait_for_go()?;
    become_inner_root()?;
    if can_be_saved {
        // Its session is saved with it, which cannot be the supervisor's.
        setsid().doing("start a session")?;
    }
    // Changing ids clears this tie, so it comes after; the supervisor may have ended before it was made.
    die_with_parent()?;
    if channel.is_closed() {
        return Err(StepError::new("tie init to its supervisor", Errno::EPIPE));
    }
    // In our cgroup by now, so that it is what the namespace shows as the root.
    unshare(CloneFlags::CLONE_NEWCGROUP).doing("make a cgroup namespace")?;
    sethostname(&isolated.hostname).doing("set the host name")?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0).doing("forbid core files")?;
    if let Some(card) = &isolated.card {
        card.configure()?;
    }
    root::enter(can_be_saved.then_some(isolated.limits.scratch_max))?;
    if !has_input {
        read_from_nothing()?;
    }
    hide_memory()?;
    isolated.rights.drop_others()?;
    // Last, as it refuses most of what happened above.
    filters.install()
}

/// What a command's standard streams are to be; one that is absent stays as it is.
pub(super) struct Streams<'a> {
    pub(super) input: Option<&'a OwnedFd>,
    pub(super) output: &'a OwnedFd,
    pub(super) errors: &'a OwnedFd,
}

/// The standard streams become what was given, the channel stays, and every other descriptor is closed: none of the
/// agent's or supervisor's may reach the command.
pub(super) fn keep_only(
    streams: Streams<'_>,
    channel: OwnedFd,
    word: Option<OwnedFd>,
) -> Result<(OwnedFd, Option<OwnedFd>), StepError> {
    if let Some(input) = streams.input {
        dup2_stdin(input).doing("redirect standard input")?;
    }
    dup2_stdout(streams.output).doing("redirect standard output")?;
    dup2_stderr(streams.errors).doing("redirect standard error")?;
    // Out of the way first: it might be descriptor 3 or below already.
    let mut last = CHANNEL_FD;
    let aside = |fd: &OwnedFd| fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(WORD_FD + 1)).doing("keep the channel");
    let (high, high_word) = (aside(&channel)?, word.as_ref().map(aside).transpose()?);
    let kept = [Some(high), high_word];
    for (high, low) in
        kept.into_iter().zip([CHANNEL_FD, WORD_FD]).filter_map(|(high, low)| Some((high?, low)))
    {
        // SAFETY: dup3 takes numbers; 3 and 4 are either free, or ones that are given up here.
        checked(unsafe { libc::dup3(high, low, libc::O_CLOEXEC) }.into()).doing("keep the channel")?;
        last = low;
    }
    // SAFETY: closes by number everything above the channel. The owners of those numbers (those of the streams, `channel`
    // and the supervisor's own) are forgotten or never dropped: this process ends with `_exit` or becomes another program.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, last + 1, u32::MAX, 0) };
    checked(closed).doing("close inherited descriptors")?;
    std::mem::forget((channel, word));
    // SAFETY: descriptor 3 is open, as dup3 said, and nothing else owns it; so is 4, if it is the last.
    let (channel, word) = unsafe {
        (OwnedFd::from_raw_fd(CHANNEL_FD), (last == WORD_FD).then(|| OwnedFd::from_raw_fd(WORD_FD)))
    };
    Ok((channel, word))
}

pub(super) fn become_inner_root() -> Result<(), StepError> {
    setgroups(&[]).doing("drop supplementary groups")?;
    let (user, group) = (Uid::from_raw(0), Gid::from_raw(0));
    setresgid(group, group, group).doing("become the inner group 0")?;
    setresuid(user, user, user).doing("become the inner user 0")
}

fn read_from_nothing() -> Result<(), StepError> {
    let null =
        open("/dev/null", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).doing("open /dev/null")?;
    debug_assert!(null.as_raw_fd() > CHANNEL_FD);
    dup2_stdin(&null).doing("redirect standard input")
}
