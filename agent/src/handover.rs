//! What outlives this agent: what copies leave at a planned restart, and connections that are lent to the service manager in case
//! that the agent is killed.
//!
//! What copies leave goes through the service manager to the agent that is started in place of this one.
//!
//! systemd's file-descriptor store (sd_notify(3), `FDSTORE=1`) keeps the sockets and a memfd with everything else while no agent
//! runs; the unit allows it (`FileDescriptorStoreMax=`). The memfd holds `NVHO`, a version, and the copies as bincode. Guests'
//! memory is in it: it never has a name on a disk, and is sealed, so that nobody who holds it can change it. What a successor
//! cannot read it closes: those copies end fully back, as after a crash.

use crate::{
    migrate::{
        lane::saved::Descriptors,
        legacy::{Inheritance, SavedMigration},
    },
    text::describe,
};
use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl};
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::{
    memfd::{MFdFlags, memfd_create},
    socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg},
};
use novacron_common::{
    ids::{MigrationId, VmId},
    wire::codec::{self, CodecError},
};
use std::{
    ffi::OsString,
    fs::File,
    io::{self, IoSlice, Read, Seek, Write},
    os::{
        fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::{ffi::OsStrExt, net::UnixDatagram},
    },
};
use tokio::net::UnixStream;

const MAGIC: &[u8; 4] = b"NVHO";
/// Raised whenever anything in what is saved changes: a successor of another version does not go on.
const VERSION: u32 = 2;
const HEAD: usize = 8;
/// How long the service manager may take to take the descriptors, milliseconds.
const BARRIER_MS: u16 = 5000;
/// More than all copies of a host ever leave: their caches and windows, thirty-two times.
const STATE_MAX: u64 = 8 << 30;
/// The memfd's name in the store, and the sockets', with their number.
const STATE: &str = "novacron-copies";
const SOCKET: &str = "novacron-socket-";
/// A monitor's name there, with its machine's id.
const MONITOR: &str = "novacron-monitor-";

/// What was left could not be handed over, or taken over.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// The system's reason.
    #[error("could not {doing}")]
    System {
        /// What was being done.
        doing: &'static str,
        /// Why not.
        #[source]
        cause: io::Error,
    },
    /// Another version left it, or nobody of ours.
    #[error("what the agent before left is of another version, or damaged")]
    Unreadable,
    /// It is no copies.
    #[error("what the agent before left cannot be read")]
    Codec(#[from] CodecError),
}

fn system(doing: &'static str) -> impl Fn(io::Error) -> HandoverError {
    move |cause| HandoverError::System { doing, cause }
}

/// The copies, each with how many of the sockets are its.
type Image = Vec<(SavedMigration, u32)>;

/// Whether there is a service manager, to which anything can be left.
pub fn is_possible() -> bool {
    manager().is_some()
}

/// Its socket.
fn manager() -> Option<OsString> {
    std::env::var_os("NOTIFY_SOCKET")
}

/// Gives all of it to the service manager. Without one it is lost, and the copies with it.
///
/// # Errors
/// [`HandoverError`].
pub fn store(left: Vec<Inheritance>) -> Result<(), HandoverError> {
    let (image, sockets) = image_of(left)?;
    let file = sealed(&image)?;
    for (number, socket) in sockets.iter().enumerate() {
        give(&format!("{SOCKET}{number}"), socket)?;
    }
    give(STATE, &file)?; // last: with it, all is there
    until_heard()
}

fn sealed(image: &[u8]) -> Result<File, HandoverError> {
    let memfd = memfd_create(c"novacron-copies", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)
        .map_err(|errno| system("make a memfd")(errno.into()))?;
    let mut file = File::from(memfd);
    file.write_all(image).map_err(system("write to a memfd"))?;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals())).map_err(|errno| system("seal a memfd")(errno.into()))?;
    Ok(file)
}

/// Nothing of it changes any more.
fn seals() -> SealFlag {
    SealFlag::all()
}

/// As it lies in the memfd, and the sockets.
pub(crate) fn image_of(left: Vec<Inheritance>) -> Result<(Vec<u8>, Vec<OwnedFd>), CodecError> {
    let (mut image, mut sockets) = (Image::new(), Vec::new());
    for Inheritance { saved, descriptors } in left {
        let before = sockets.len();
        sockets.extend(descriptors.into_all());
        image.push((saved, u32::try_from(sockets.len() - before).unwrap_or(u32::MAX)));
    }
    let mut bytes = MAGIC.to_vec();
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend(codec::encode_unbounded(&image)?);
    Ok((bytes, sockets))
}

fn give(name: &str, descriptor: &impl AsFd) -> Result<(), HandoverError> {
    // It is not to look whether a socket's other end has gone: who takes it over sees that.
    let words = format!("FDSTORE=1\nFDNAME={name}\nFDPOLL=0\n");
    send(&words, &[descriptor.as_fd().as_raw_fd()])
        .map_err(system("hand a descriptor to the service manager"))
}

/// Waits until the service manager has taken in all that it was sent: it closes its end of a pipe then.
fn until_heard() -> Result<(), HandoverError> {
    let doing = "wait until the service manager has taken the descriptors";
    let (heard, end) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|errno| system(doing)(errno.into()))?;
    send("BARRIER=1", &[end.as_raw_fd()]).map_err(system(doing))?;
    drop(end);
    let mut waits = [PollFd::new(heard.as_fd(), PollFlags::empty())];
    match poll(&mut waits, BARRIER_MS) {
        Ok(0) => Err(system(doing)(io::ErrorKind::TimedOut.into())),
        Ok(_) => Ok(()),
        Err(errno) => Err(system(doing)(errno.into())),
    }
}

/// One datagram to the service manager, with descriptors (sd_notify(3)).
fn send(words: &str, descriptors: &[RawFd]) -> io::Result<()> {
    let path = manager().ok_or(io::ErrorKind::NotFound)?;
    let bytes = path.as_bytes();
    let address = match bytes.split_first() {
        Some((b'@', name)) => UnixAddr::new_abstract(name)?,
        _ => UnixAddr::new(bytes)?,
    };
    let socket = UnixDatagram::unbound()?;
    let control = [ControlMessage::ScmRights(descriptors)];
    let control = if descriptors.is_empty() { &control[..0] } else { &control[..] };
    let parts = [IoSlice::new(words.as_bytes())];
    sendmsg(socket.as_raw_fd(), &parts, control, MsgFlags::MSG_NOSIGNAL, Some(&address))?;
    Ok(())
}

/// What an agent before this one left.
#[derive(Debug, Default)]
pub struct Left {
    /// Copies that go on.
    pub copies: Vec<Inheritance>,
    /// Monitors of machines ([`keep_monitor`]), which the service manager goes on keeping.
    pub monitors: Vec<(VmId, OwnedFd)>,
}

/// Takes it, if there is any. What cannot be gone on with is closed.
pub fn take() -> Left {
    let Passed { state, sockets, monitors } = passed();
    let read = state.map(|state| read(state).and_then(|bytes| inheritances(&bytes, sockets)));
    let copies = read.unwrap_or(Ok(Vec::new())).unwrap_or_else(|error| {
        tracing::error!(reason = describe(&error), "copies that were left by the agent before end here");
        Vec::new()
    });
    Left { copies, monitors }
}

/// Has the service manager keep a machine's monitor open, whatever becomes of this agent. Without one nobody does.
///
/// # Errors
/// [`HandoverError`].
pub fn keep_monitor(vm: VmId, monitor: &impl AsFd) -> Result<(), HandoverError> {
    give(&format!("{MONITOR}{vm}"), monitor)
}

/// It keeps it no more.
pub fn forget_monitor(vm: VmId) {
    forget(&format!("{MONITOR}{vm}"));
}

fn forget(name: &str) {
    let _unless_there_is_none = send(&format!("FDSTOREREMOVE=1\nFDNAME={name}\n"), &[]);
}

/// A socket that a predecessor left.
///
/// # Errors
/// The system's: it is none.
pub fn socket_of(descriptor: OwnedFd) -> io::Result<UnixStream> {
    let socket = std::os::unix::net::UnixStream::from(descriptor);
    socket.set_nonblocking(true)?;
    UnixStream::from_std(socket)
}

/// The descriptors that the service manager kept.
#[derive(Default)]
struct Passed {
    state: Option<OwnedFd>,
    sockets: Vec<OwnedFd>,
    monitors: Vec<(VmId, OwnedFd)>,
}

/// Of copies it keeps them no more.
fn passed() -> Passed {
    let Ok(passed) = sd_notify::listen_fds_with_names() else { return Passed::default() };
    let (mut state, mut sockets, mut monitors) = (None, Vec::new(), Vec::new());
    for (descriptor, name) in passed {
        // SAFETY: the service manager passed it to this process, and nobody else has taken it: this is called once, at the start.
        let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
        if let Some(Ok(vm)) = name.strip_prefix(MONITOR).map(str::parse) {
            monitors.push((vm, descriptor));
            continue;
        }
        forget(&name);
        match name.strip_prefix(SOCKET).map(str::parse::<u32>) {
            Some(Ok(number)) => sockets.push((number, descriptor)),
            _ if name == STATE => state = Some(descriptor),
            _ => tracing::warn!(name, "the service manager passes a descriptor that is not known here"),
        }
    }
    sockets.sort_by_key(|(number, _)| *number);
    if (0..).zip(&sockets).any(|(wanted, (number, _))| *number != wanted) {
        tracing::error!("the service manager has lost a socket of the agent before");
        return Passed { monitors, ..Passed::default() };
    }
    Passed { state, sockets: sockets.into_iter().map(|(_, descriptor)| descriptor).collect(), monitors }
}

fn read(state: OwnedFd) -> Result<Vec<u8>, HandoverError> {
    let mut file = File::from(state);
    let held = fcntl(&file, FcntlArg::F_GET_SEALS)
        .map_err(|errno| system("look at the memfd's seals")(errno.into()))?;
    if !SealFlag::from_bits_truncate(held).contains(seals()) {
        return Err(HandoverError::Unreadable);
    }
    file.rewind().map_err(system("rewind the memfd"))?;
    let length = file.metadata().map_err(system("look at the memfd"))?.len();
    if length > STATE_MAX {
        return Err(HandoverError::Unreadable);
    }
    let mut bytes = Vec::new();
    file.take(STATE_MAX).read_to_end(&mut bytes).map_err(system("read the memfd"))?;
    Ok(bytes)
}

/// What an image and its sockets are.
pub(crate) fn inheritances(bytes: &[u8], sockets: Vec<OwnedFd>) -> Result<Vec<Inheritance>, HandoverError> {
    let (head, body) = bytes.split_at_checked(HEAD).ok_or(HandoverError::Unreadable)?;
    if head[..4] != *MAGIC || head[4..] != VERSION.to_le_bytes() {
        return Err(HandoverError::Unreadable);
    }
    let image: Image = codec::decode_within(body, body.len())?;
    let mut sockets = sockets.into_iter();
    let left = image.into_iter().map(|(saved, count)| {
        let own = sockets.by_ref().take(usize::try_from(count).unwrap_or(usize::MAX));
        Inheritance { saved, descriptors: Descriptors::of(own) }
    });
    Ok(left.collect())
}

/// Whose they are.
pub fn migrations(left: &[Inheritance]) -> Vec<MigrationId> {
    left.iter().map(Inheritance::migration).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What whole copies are, through an image and back, is in `migrate::tests::restarts`.
    #[test]
    fn what_another_version_left_or_somebody_damaged_is_refused() {
        let (good, _) = image_of(Vec::new()).unwrap();
        assert!(inheritances(&good, Vec::new()).unwrap().is_empty());
        let mut other = good.clone();
        other[4] += 1;
        assert!(matches!(inheritances(&other, Vec::new()), Err(HandoverError::Unreadable)));
        for length in 0..good.len() {
            assert!(inheritances(&good[..length], Vec::new()).is_err(), "{length}");
        }
        assert!(inheritances(&[good.as_slice(), &[0]].concat(), Vec::new()).is_err(), "something follows");
        let claims =
            [MAGIC.as_slice(), &VERSION.to_le_bytes(), &[253, 255, 255, 255, 255, 255, 255, 255, 127]];
        assert!(inheritances(&claims.concat(), Vec::new()).is_err(), "more copies than there are bytes");
    }
}
