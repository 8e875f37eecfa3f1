//! A guest's serial console as an async byte stream.
//!
//! libvirt's streams block, so each console has a connection and two threads of its own; a stalled reader holds
//! up nobody else. `VIR_DOMAIN_CONSOLE_FORCE` takes the console over from whoever has it.

use super::{
    super::{ConsoleStream, HvError},
    connection::{self, Connection, Private},
};
use novacron_common::ids::VmId;
use std::{pin::Pin, sync::Arc};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf},
    runtime::Handle,
};
use virt::{error::Error as VirtError, stream::Stream, sys};

/// Bytes that wait for a slow reader before the guest's output is held back.
const BUFFER: usize = 64 << 10;
/// Bytes moved at once; libvirt's own stream messages are up to 256 KiB.
const CHUNK: usize = 16 << 10;

/// An open console. The connection is closed with the last of its threads.
struct Open {
    stream: Stream,
    _connection: Private,
}

/// See [`crate::hypervisor::Hypervisor::console`].
pub(super) async fn open(connection: &Connection, vm: VmId) -> Result<Pin<Box<dyn ConsoleStream>>, HvError> {
    let doing = format!("open the console of {vm}");
    let another = connection.open_another();
    let open = connection::blocking(&doing, move || attach(another()?, vm)).await?;
    let console = Arc::new(open.ok_or(HvError::Unknown { vm })?);
    let (ours, theirs) = tokio::io::duplex(BUFFER);
    let (from_user, to_user) = tokio::io::split(ours);
    let runtime = Handle::current();
    let spawn = |name: &str| std::thread::Builder::new().name(name.to_owned());
    let pump_out = (runtime.clone(), Arc::clone(&console));
    spawn("console-out")
        .spawn(move || guest_to_user(&pump_out.0, &pump_out.1.stream, to_user))
        .map_err(|error| HvError::failed(&*doing, error))?;
    spawn("console-in")
        .spawn(move || user_to_guest(&runtime, &console, from_user))
        .map_err(|error| HvError::failed(&*doing, error))?;
    Ok(Box::pin(theirs))
}

fn attach(connection: Private, vm: VmId) -> Result<Option<Open>, VirtError> {
    let Some(domain) = connection::find(connection.connect(), vm)? else { return Ok(None) };
    let stream = Stream::new(connection.connect(), 0)?;
    domain.open_console(None, &stream, sys::VIR_DOMAIN_CONSOLE_FORCE)?;
    Ok(Some(Open { stream, _connection: connection }))
}

/// Until the guest's end closes (it stopped, or somebody took the console over) or the user is gone.
fn guest_to_user(runtime: &Handle, stream: &Stream, mut to_user: WriteHalf<DuplexStream>) {
    let mut chunk = vec![0; CHUNK];
    while let Ok(length) = stream.recv(&mut chunk) {
        let Some(bytes) = usize::try_from(length).ok().and_then(|length| chunk.get(..length)) else { break };
        if bytes.is_empty() || runtime.block_on(to_user.write_all(bytes)).is_err() {
            break;
        }
    }
    let _ = runtime.block_on(to_user.shutdown()); // the user may be gone: then nobody waits for the end
}

/// Until the user drops the stream; then the guest's end is closed too.
fn user_to_guest(runtime: &Handle, console: &Open, mut from_user: ReadHalf<DuplexStream>) {
    let mut chunk = vec![0; CHUNK];
    while let Ok(length) = runtime.block_on(from_user.read(&mut chunk)) {
        if length == 0 {
            // Waits until libvirtd has written the last keys; an abort would throw them away.
            let _ = console.stream.clone().finish();
            break;
        }
        if send_all(&console.stream, &chunk[..length]).is_err() {
            break;
        }
    }
    // Wakes the other thread; fails if the stream has ended already.
    let _ = console.stream.clone().abort();
}

fn send_all(stream: &Stream, mut bytes: &[u8]) -> Result<(), VirtError> {
    while !bytes.is_empty() {
        let sent = usize::try_from(stream.send(bytes)?).unwrap_or(0);
        bytes = &bytes[sent.min(bytes.len())..];
    }
    Ok(())
}
