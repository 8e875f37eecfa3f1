//! Plays systemd for one program: it holds the descriptors that the program hands over (sd_notify(3), `FDSTORE=1`), and passes
//! them to the next start (sd_listen_fds(3)).

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

/// Where the program finds it, in its node.
const SOCKET: &str = "/run/novacron-notify";
/// Descriptors are first put here, out of the way of those that starting a program needs.
const FAR: RawFd = 500;
/// As many are passed at most: a copy leaves fewer than ten.
const MOST: usize = 64;
/// Datagrams are looked for so often.
const LOOK_EVERY: Duration = Duration::from_millis(200);

type Held = Vec<(String, OwnedFd)>;

/// The service manager of one program.
pub struct Manager {
    held: Arc<Mutex<Held>>,
}

impl Manager {
    /// Listens in a node's `/run`, whose path outside is `run`.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn listen(run: &Path) -> Result<Self> {
        let path = run.join(Path::new(SOCKET).file_name().unwrap_or_default());
        let _of_the_last_start = std::fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).with_context(|| format!("binding {}", path.display()))?;
        socket.set_read_timeout(Some(LOOK_EVERY))?;
        let held = Arc::<Mutex<Held>>::default();
        let listening = Arc::downgrade(&held);
        std::thread::spawn(move || {
            while let Some(held) = listening.upgrade() {
                receive(&socket, &held);
            }
        });
        Ok(Self { held })
    }

    /// How many descriptors it holds now.
    #[must_use]
    pub fn count(&self) -> usize {
        lock(&self.held).len()
    }

    /// Starts a program so that it finds this manager, and what it holds.
    ///
    /// # Errors
    /// When more is held than can be passed.
    pub fn command(&self, program: &Path, args: &[String]) -> Result<Command> {
        let held = lock(&self.held);
        ensure!(held.len() <= MOST, "{} descriptors are held", held.len());
        let moves: Vec<String> =
            (0..held.len()).map(|at| format!("exec {}<&{}-", 3 + at, FAR as usize + at)).collect();
        let names: Vec<&str> = held.iter().map(|(name, _)| name.as_str()).collect();
        let script = format!("{}\nexport LISTEN_PID=$$\nexec \"$0\" \"$@\"", moves.join("\n"));
        let mut command = Command::new("bash"); // sh moves no descriptor with two digits
        command.arg("-c").arg(script).arg(program).args(args).stdin(Stdio::null());
        command.env("NOTIFY_SOCKET", SOCKET);
        if !held.is_empty() {
            command.env("LISTEN_FDS", held.len().to_string()).env("LISTEN_FDNAMES", names.join(":"));
        }
        // Copies of its own: what is held may be let go before the program starts.
        let copies = held.iter().map(|(_, fd)| fd.try_clone()).collect::<std::io::Result<Vec<_>>>()?;
        // SAFETY: between fork and exec the closure only calls dup2 on descriptors that it owns.
        unsafe {
            command.pre_exec(move || {
                for (at, copy) in (FAR..).zip(&copies) {
                    if libc::dup2(copy.as_raw_fd(), at) < 0 {
                        return Err(std::io::Error::last_os_error());
                    }
                }
                Ok(())
            });
        }
        Ok(command)
    }
}

fn lock(held: &Mutex<Held>) -> MutexGuard<'_, Held> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes in one datagram, if one comes.
fn receive(socket: &UnixDatagram, held: &Mutex<Held>) {
    let mut text = [0; 4096];
    let mut room = nix::cmsg_space!([RawFd; 1]);
    let mut parts = [IoSliceMut::new(&mut text)];
    let Ok(message) =
        recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut room), MsgFlags::MSG_CMSG_CLOEXEC)
    else {
        return;
    };
    let length = message.bytes;
    let mut descriptor = None;
    for control in message.cmsgs().into_iter().flatten() {
        if let ControlMessageOwned::ScmRights(passed) = control {
            // SAFETY: the kernel has just made these descriptors for this process.
            descriptor = passed.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).next_back();
        }
    }
    let text = String::from_utf8_lossy(&text[..length]).into_owned();
    let name = text.lines().find_map(|line| line.strip_prefix("FDNAME=")).unwrap_or("stored").to_owned();
    for line in text.lines() {
        match line {
            "FDSTORE=1" => lock(held).extend(descriptor.take().map(|fd| (name.clone(), fd))),
            "FDSTOREREMOVE=1" => lock(held).retain(|(other, _)| *other != name),
            _ => {}
        }
    }
}

/// Where a node's `/run` is outside of it.
#[must_use]
pub fn run_of(node: &crate::lab::Node) -> Option<PathBuf> {
    node.outside_path(Path::new("/run"))
}
