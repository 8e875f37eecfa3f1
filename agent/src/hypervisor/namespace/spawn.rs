//! The clone into new namespaces, and the words between supervisor and init.

use super::{
    privileges::die_with_parent,
    step::{Doing, StepError, checked},
};
use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair},
    unistd::{Pid, getpid, getppid, pause},
};
use novacron_common::record::AttemptEnd;
use std::{
    os::fd::{AsRawFd, OwnedFd},
    panic::{AssertUnwindSafe, catch_unwind},
};

/// Longest reason that init gives.
const REASON_MAX: usize = 2048;

/// What init says to its supervisor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// All walls stand; the command is about to run.
    Started,
    /// The command ended with this status, as `wait(2)` gives it.
    Ended(i32),
    /// It never ran, and why.
    Failed(String),
    /// What the command left as its result; before `Ended`.
    Result(String),
    /// Something about the result that the reader of the output should know; before `Ended`.
    Note(String),
}

fn tagged(tag: u8, text: &str, most: usize) -> Vec<u8> {
    let text = text.as_bytes();
    [&[tag], &text[..text.len().min(most)]].concat()
}

/// One end of a connection that keeps messages apart (`SOCK_SEQPACKET`).
pub struct Channel(pub OwnedFd);

impl Channel {
    fn pair() -> Result<(Self, Self), StepError> {
        let flags = SockFlag::SOCK_CLOEXEC;
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)
            .doing("connect supervisor and init")
            .map(|(one, other)| (Self(one), Self(other)))
    }

    /// One whose other end is closed: that of a tree whose init has its own way to say its last word.
    ///
    /// # Errors
    /// [`StepError`] if the kernel gives none.
    pub fn closed() -> Result<Self, StepError> {
        Self::pair().map(|(ours, _theirs)| ours)
    }

    /// Lets init go on.
    pub fn say_go(&self) -> Result<(), StepError> {
        send(self.0.as_raw_fd(), b"g", MsgFlags::MSG_NOSIGNAL).doing("let init go on").map(drop)
    }

    /// Waits for [`Self::say_go`].
    ///
    /// # Errors
    /// [`StepError`] if the supervisor is gone.
    pub fn wait_for_go(&self) -> Result<(), StepError> {
        let mut byte = [0];
        match recv(self.0.as_raw_fd(), &mut byte, MsgFlags::empty()).doing("wait for the supervisor")? {
            0 => Err(StepError::new("wait for the supervisor", Errno::EPIPE)),
            _ => Ok(()),
        }
    }

    /// Whether the other end is closed.
    pub fn is_closed(&self) -> bool {
        let mut byte = [0];
        matches!(recv(self.0.as_raw_fd(), &mut byte, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_PEEK), Ok(0))
    }

    /// Says a word. A supervisor that is gone needs none.
    pub fn say(&self, word: &Word) {
        let bytes = match word {
            Word::Started => b"s".to_vec(),
            Word::Ended(status) => [b"e".as_slice(), &status.to_le_bytes()].concat(),
            Word::Failed(reason) => tagged(b'f', reason, REASON_MAX),
            Word::Result(text) => tagged(b'r', text, AttemptEnd::RESULT_MAX),
            Word::Note(text) => tagged(b'n', text, REASON_MAX),
        };
        let _gone = send(self.0.as_raw_fd(), &bytes, MsgFlags::MSG_NOSIGNAL);
    }

    /// The next word, if one is there.
    pub fn hear(&self) -> Option<Word> {
        let mut buffer = [0; AttemptEnd::RESULT_MAX + 1];
        let length = recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT).ok()?;
        match buffer[..length].split_first()? {
            (b's', []) => Some(Word::Started),
            (b'e', status) => status.try_into().ok().map(|bytes| Word::Ended(i32::from_le_bytes(bytes))),
            (b'f', reason) => Some(Word::Failed(String::from_utf8_lossy(reason).into_owned())),
            (b'r', text) => Some(Word::Result(String::from_utf8_lossy(text).into_owned())),
            (b'n', text) => Some(Word::Note(String::from_utf8_lossy(text).into_owned())),
            _ => None,
        }
    }
}

/// The first process of a tree.
pub struct Init {
    /// Its id in the supervisor's namespace.
    pub pid: Pid,
    /// The supervisor's end.
    pub channel: Channel,
}

/// A cgroup namespace is not among them: init makes it once it is in its cgroup, so that this becomes the root.
const NAMESPACES: libc::c_int = libc::CLONE_NEWUSER
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC;

/// Runs `body` as the first process of new user, mount, pid, network, UTS and IPC namespaces.
///
/// # Errors
/// [`StepError`] if this process has more than one thread, or the kernel refuses.
pub fn into_new_namespaces(body: impl FnOnce(Channel) -> i32) -> Result<Init, StepError> {
    require_one_thread()?;
    let (ours, theirs) = Channel::pair()?;
    match clone3(NAMESPACES)? {
        None => {
            drop(ours);
            let code = catch_unwind(AssertUnwindSafe(|| body(theirs))).unwrap_or(101);
            // SAFETY: `_exit` ends this copy of the supervisor without running what only the original may run.
            unsafe { libc::_exit(code) }
        }
        Some(pid) => Ok(Init { pid, channel: ours }),
    }
}

/// A process that does nothing, in a user namespace of its own. Whoever asked for it ends it.
///
/// # Errors
/// [`StepError`] if this process has more than one thread, or the kernel refuses.
pub fn into_user_namespace() -> Result<Pid, StepError> {
    require_one_thread()?;
    let parent = getpid();
    match clone3(libc::CLONE_NEWUSER)? {
        Some(pid) => Ok(pid),
        None => {
            let tied = die_with_parent();
            // The parent may have ended before the tie was made, and then nobody would ever end this one.
            while tied.is_ok() && getppid() == parent {
                pause();
            }
            // SAFETY: `_exit` ends this copy of the supervisor without running what only the original may run.
            unsafe { libc::_exit(1) }
        }
    }
}

/// `clone3(2)` without a stack of its own, which is a fork. `None` in the child.
fn clone3(flags: libc::c_int) -> Result<Option<Pid>, StepError> {
    // SAFETY: zeros are a valid clone_args; every pointer in it is then null, which means "not wanted".
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = u64::from(flags.cast_unsigned());
    arguments.exit_signal = u64::from(libc::SIGCHLD.cast_unsigned());
    // SAFETY: the arguments outlive the call and their true size is given. Without CLONE_VM the child has its own
    // copy of this process' memory, and as it had one thread, no lock in it is held by anybody else.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of::<libc::clone_args>()) };
    let pid = checked(pid).doing("clone into new namespaces")?;
    Ok((pid > 0).then(|| Pid::from_raw(i32::try_from(pid).unwrap_or(i32::MAX))))
}

fn require_one_thread() -> Result<(), StepError> {
    let threads = std::fs::read_dir("/proc/self/task").doing("count threads")?.count();
    if threads == 1 {
        Ok(())
    } else {
        Err(StepError::new("clone into new namespaces", format!("the supervisor has {threads} threads")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_arrives_as_it_was_said() {
        let (one, other) = Channel::pair().unwrap();
        let words = [
            Word::Started,
            Word::Result("{}".repeat(AttemptEnd::RESULT_MAX / 2)),
            Word::Note("too long".into()),
            Word::Ended(-9),
            Word::Failed("no such file".into()),
        ];
        words.iter().for_each(|word| one.say(word));
        let heard: Vec<Word> = std::iter::from_fn(|| other.hear()).collect();
        assert_eq!(heard, words);
        one.say(&Word::Failed("x".repeat(9_000)));
        assert_eq!(other.hear(), Some(Word::Failed("x".repeat(REASON_MAX))));
    }

    #[test]
    fn a_supervisor_that_is_gone_is_noticed() {
        let (one, other) = Channel::pair().unwrap();
        assert!(!other.is_closed());
        drop(one);
        assert!(other.is_closed());
        assert!(other.wait_for_go().is_err());
    }
}
