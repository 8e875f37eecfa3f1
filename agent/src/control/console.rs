//! A guest's serial console, from the hypervisor to whoever the coordinator lets look.

use crate::{text::describe, vm::Machines};
use novacron_common::{
    ids::VmId,
    spec::MachineKind,
    wire::{AgentReply, ConsoleOpen, Denial, DenialCode},
};
use novacron_transport::{LinkError, Stream};
use std::{io::SeekFrom, path::Path};
use tokio::io::{AsyncReadExt, AsyncSeekExt};

/// Opens the console and copies both ways until either side ends it.
pub(super) async fn serve(mut stream: Stream, machines: &Machines) -> Result<(), LinkError> {
    let ConsoleOpen { vm } = stream.recv().await?;
    let mut guest = match open(vm, machines).await {
        Ok(guest) => guest,
        Err(denial) => {
            stream.send(&AgentReply::Denied(denial)).await?;
            stream.finish();
            return Ok(());
        }
    };
    stream.send(&AgentReply::Accepted).await?;
    let (send, recv) = stream.split();
    let mut remote = tokio::io::join(recv, send);
    if let Err(error) = tokio::io::copy_bidirectional(&mut remote, &mut guest).await {
        tracing::debug!(%vm, %error, "console ended");
    }
    Ok(())
}

async fn open(
    vm: VmId,
    machines: &Machines,
) -> Result<std::pin::Pin<Box<dyn crate::hypervisor::ConsoleStream>>, Denial> {
    let unsupported =
        || Denial { code: DenialCode::Unsupported, text: "no KVM machines run on this host".into() };
    let hypervisor = machines.hypervisors().of(MachineKind::Kvm).ok_or_else(unsupported)?;
    hypervisor.console(vm).await.map_err(|error| Denial { code: DenialCode::Failed, text: describe(&error) })
}

/// The last `bytes_max` bytes of a console's log; empty if it has written nothing yet.
pub(super) async fn log_tail(path: &Path, bytes_max: u64) -> std::io::Result<Vec<u8>> {
    let mut file = match tokio::fs::File::open(path).await {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let length = file.metadata().await?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(bytes_max))).await?;
    let mut tail = Vec::new();
    file.take(bytes_max).read_to_end(&mut tail).await?;
    Ok(tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_tail_of_a_log_is_bounded_and_an_absent_log_is_empty() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("console.log");
        assert_eq!(log_tail(&path, 4).await.unwrap(), b"");
        std::fs::write(&path, b"0123456789").unwrap();
        assert_eq!(log_tail(&path, 4).await.unwrap(), b"6789");
        assert_eq!(log_tail(&path, 400).await.unwrap(), b"0123456789");
    }
}
