//! What an attempt or a machine prints, to whoever the coordinator lets look, while it runs.

use crate::{
    attempt::AttemptRunner,
    hypervisor::{Printed, namespace::follow::follow as follow_spool},
    text::describe,
    vm::Machines,
};
use novacron_common::{
    ids::{AttemptKey, VmId},
    wire::{AgentReply, Denial, DenialCode, LogChunk},
};
use novacron_transport::{LinkError, Stream};
use std::{io, sync::Arc, time::Duration};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

/// An empty chunk is sent this often, so that either side notices the other's end.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

/// Whose output can be looked at at once.
const PLACES_MAX: usize = 64;

static PLACES: Semaphore = Semaphore::const_new(PLACES_MAX);

/// Answers `AttemptLog`.
pub(super) async fn of_attempt(
    stream: Stream,
    runner: &Arc<AttemptRunner>,
    attempt: AttemptKey,
    follow: bool,
) -> Result<(), LinkError> {
    let folder = runner.folder(attempt);
    let printed = if folder.path().exists() {
        let runner = Arc::clone(runner);
        Ok(follow_spool(folder, None, move || follow && runner.is_running(attempt)))
    } else {
        Err(deny(DenialCode::Unknown, "this host holds nothing of this attempt any more".into()))
    };
    serve(stream, printed).await
}

/// Answers `MachineLog`.
pub(super) async fn of_machine(
    stream: Stream,
    machines: &Machines,
    vm: VmId,
    lines: Option<u32>,
    follow: bool,
) -> Result<(), LinkError> {
    let printed = match machines.hypervisor_of(vm).await {
        Ok(hypervisor) => hypervisor
            .printed(vm, lines, follow)
            .await
            .map_err(|error| deny(DenialCode::Failed, describe(&error))),
        Err(denial) => Err(denial),
    };
    serve(stream, printed).await
}

fn deny(code: DenialCode, text: String) -> Denial {
    Denial { code, text }
}

fn place() -> Result<SemaphorePermit<'static>, Denial> {
    let full = || format!("{PLACES_MAX} are being looked at on this host: try again later");
    PLACES.try_acquire().map_err(|_| deny(DenialCode::NoRoom, full()))
}

async fn serve(mut stream: Stream, printed: Result<Printed, Denial>) -> Result<(), LinkError> {
    match printed.and_then(|printed| Ok((printed, place()?))) {
        Ok((printed, _place)) => {
            stream.send(&AgentReply::Accepted).await?;
            copy(&mut stream, printed).await?;
        }
        Err(denial) => stream.send(&AgentReply::Denied(denial)).await?,
    }
    stream.finish();
    Ok(())
}

async fn copy(stream: &mut Stream, mut printed: Printed) -> Result<(), LinkError> {
    let mut shown = 0;
    loop {
        let chunk = match timeout(SIGN_OF_LIFE, printed.recv()).await {
            Err(_) => LogChunk { at: shown, bytes: Vec::new() },
            Ok(Some(chunk)) => chunk.map_err(broken)?,
            Ok(None) => return Ok(()),
        };
        shown = chunk.at + chunk.bytes.len() as u64;
        stream.send(&chunk).await?;
    }
}

fn broken(cause: io::Error) -> LinkError {
    LinkError::Broken { doing: "reading what is printed", reason: cause.to_string() }
}
