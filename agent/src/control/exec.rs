//! Commands in machines, from the coordinator to the process that runs them: bytes go both ways and are not looked at.

use crate::{text::describe, vm::Machines};
use novacron_common::wire::{AgentReply, Denial, DenialCode, ExecCommand, ExecOpen};
use novacron_transport::{LinkError, Stream};
use tokio::{io::AsyncWriteExt, sync::Semaphore};

/// Commands that run in this host's machines at once.
const COMMANDS_MAX: usize = 256;

static PLACES: Semaphore = Semaphore::const_new(COMMANDS_MAX);

/// Runs a command until it ends, or the coordinator's side of the stream does.
pub(super) async fn serve(mut stream: Stream, machines: &Machines) -> Result<(), LinkError> {
    let open: ExecOpen = stream.recv().await?;
    let place = PLACES.try_acquire();
    let begun = match &place {
        Ok(_) => begin(&open, machines).await,
        Err(_) => Err(Denial {
            code: DenialCode::NoRoom,
            text: format!("{COMMANDS_MAX} commands run in the machines of this host: try again later"),
        }),
    };
    let command = match begun {
        Ok(command) => command,
        Err(denial) => {
            stream.send(&AgentReply::Denied(denial)).await?;
            stream.finish();
            return Ok(());
        }
    };
    stream.send(&AgentReply::Accepted).await?;
    let (mut to_user, mut from_user) = stream.split();
    let (mut from_command, mut to_command) = tokio::io::split(command);
    tokio::select! {
        // A command ends by its last frame: what it said before is passed on whole.
        told = tokio::io::copy(&mut from_command, &mut to_user) => {
            if let Err(error) = told {
                tracing::debug!(vm = %open.vm, %error, "the user of a command was lost");
            }
            to_user.finish();
        }
        // A user whose side ends has gone, and the command is ended by dropping its stream.
        _ = tokio::io::copy(&mut from_user, &mut to_command) => {
            let _gone_already = to_command.shutdown().await;
        }
    }
    Ok(())
}

async fn begin(
    ExecOpen { vm, command }: &ExecOpen,
    machines: &Machines,
) -> Result<std::pin::Pin<Box<dyn crate::hypervisor::ConsoleStream>>, Denial> {
    let invalid = |text: String| Err(Denial { code: DenialCode::Invalid, text });
    if command.argv.is_empty() && command.copy.is_none() {
        return invalid("no command was given".into());
    }
    if command.bytes() > ExecCommand::BYTES_MAX {
        return invalid(format!("a command has at most {} bytes", ExecCommand::BYTES_MAX));
    }
    machines
        .hypervisor_of(*vm)
        .await?
        .exec(*vm, command)
        .await
        .map_err(|error| Denial { code: DenialCode::Failed, text: describe(&error) })
}
