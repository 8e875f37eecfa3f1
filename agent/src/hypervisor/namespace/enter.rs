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
    unistd::{Gid, Uid, dup2_stderr, dup2_stdin, dup2_stdout, setgroups, sethostname, setresgid, setresuid},
};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// The lowest descriptor that is closed; below it are the standard streams and the channel.
const CHANNEL_FD: i32 = 3;

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
}

/// Isolates the calling process, then becomes the tree's init. Returns its exit code.
pub fn enter_and_run(baggage: Baggage<'_>) -> i32 {
    let Baggage { isolated, filters, doors, output, input, channel } = baggage;
    // Before the doors are closed with every other descriptor.
    let inside = doors.enter();
    let has_input = input.is_some();
    let streams = Streams { input: input.as_ref(), output: &output, errors: &output };
    let channel = match keep_only(streams, channel.0) {
        Ok(channel) => Channel(channel),
        Err(_) => return 1, // without a channel there is nobody to tell; the supervisor sees the exit
    };
    std::mem::forget((output, input)); // closed by number
    match inside.and_then(|()| isolate(isolated, filters, has_input, &channel)) {
        Ok(()) => init::run(isolated, &channel),
        Err(error) => {
            channel.say(&Word::Failed(error.chain()));
            1
        }
    }
}

fn isolate(
    isolated: &Isolated,
    filters: &Filters,
    has_input: bool,
    channel: &Channel,
) -> Result<(), StepError> {
    // The supervisor maps our ids; without that nothing may go on.
    channel.wait_for_go()?;
    become_inner_root()?;
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
    root::enter()?;
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
pub(super) fn keep_only(streams: Streams<'_>, channel: OwnedFd) -> Result<OwnedFd, StepError> {
    if let Some(input) = streams.input {
        dup2_stdin(input).doing("redirect standard input")?;
    }
    dup2_stdout(streams.output).doing("redirect standard output")?;
    dup2_stderr(streams.errors).doing("redirect standard error")?;
    // Out of the way first: it might be descriptor 3 or below already.
    let high = fcntl(&channel, FcntlArg::F_DUPFD_CLOEXEC(CHANNEL_FD + 1)).doing("keep the channel")?;
    // SAFETY: dup3 takes numbers; 3 is either free, or one that is given up here.
    let kept = unsafe { libc::dup3(high, CHANNEL_FD, libc::O_CLOEXEC) };
    checked(kept.into()).doing("keep the channel")?;
    // SAFETY: closes by number everything above the channel. The owners of those numbers (those of the streams, `channel`
    // and the supervisor's own) are forgotten or never dropped: this process ends with `_exit` or becomes another program.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, CHANNEL_FD + 1, u32::MAX, 0) };
    checked(closed).doing("close inherited descriptors")?;
    std::mem::forget(channel);
    // SAFETY: descriptor 3 is open, as dup3 said, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(CHANNEL_FD) })
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
