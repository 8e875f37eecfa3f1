//! The agent's side: a porter is started, and its socket is all that there is to it.

use crate::hypervisor::namespace::{folder::Folder, process::ProcessError};
use novacron_common::wire::{ExecCommand, codec};
use std::{
    os::{fd::OwnedFd, unix::net},
    path::Path,
    process::Stdio,
};
use tokio::{io::AsyncWriteExt, net::UnixStream, process::Command};

/// Starts a porter for a command in the machine of this supervisor's folder. What is read and written from then on are
/// frames; whether the command runs is the first of them.
///
/// # Errors
/// [`ProcessError`] if no process can be started.
pub async fn launch(exe: &Path, folder: &Folder, command: &ExecCommand) -> Result<UnixStream, ProcessError> {
    let failed = |cause| ProcessError::Start { exe: exe.into(), cause };
    let (ours, theirs) = net::UnixStream::pair().map_err(failed)?;
    ours.set_nonblocking(true).map_err(failed)?;
    // Neither ended nor awaited by us: it ends when its socket does, and tokio collects what is dropped.
    Command::new(exe)
        .arg("exec")
        .arg(folder.path())
        .env_clear()
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(folder.log()?)
        .spawn()
        .map_err(failed)?;
    let mut socket = UnixStream::from_std(ours).map_err(failed)?;
    let frame = codec::encode_frame(command).map_err(|cause| failed(std::io::Error::other(cause)))?;
    socket.write_all(&frame).await.map_err(failed)?;
    Ok(socket)
}
