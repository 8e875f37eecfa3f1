//! A command in a machine, on this terminal or in a pipe.

use super::{Context, segment};
use crate::{
    cli::VmExecArgs,
    error::CtlError,
    socket::{self, Socket},
    terminal::{self, RawTerminal},
};
use futures_util::{SinkExt, StreamExt, stream::SplitSink};
use novacron_common::api::{ExecControl, ExecEvent, ExecRequest, STDERR, STDOUT};
use serde::Serialize;
use std::{io::Write, process::ExitCode};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
};
use tokio_tungstenite::tungstenite::{Bytes, Message};

/// The exit code where the machine could not run the command, as shells have it.
const CANNOT_RUN: u8 = 126;
/// What a signal's number is added to, as shells do.
const KILLED: u8 = 128;

/// Runs it, and says how it ended.
pub async fn run(context: &Context, args: VmExecArgs) -> Result<ExitCode, CtlError> {
    let size = terminal::size();
    if args.tty && size.is_none() {
        return Err(CtlError::Settings(
            "--tty needs a terminal: leave it out where input is a file or a pipe".into(),
        ));
    }
    let request = ExecRequest {
        command: args.command,
        copy: None,
        env: args.env.into_iter().collect(),
        user: args.user,
        working_dir: args.workdir,
        input: args.interactive,
        terminal: size.filter(|_| args.tty),
    };
    let socket = begin(context, &args.vm, &request).await?;
    let raw = if args.tty { RawTerminal::enter()? } else { None };
    let keys = args.interactive.then(terminal::keys);
    let ended = Session::new(keys, args.tty)?.relay(socket).await;
    drop(raw);
    ended
}

/// Asks for it; what becomes of it comes over the socket.
pub(super) async fn begin(context: &Context, vm: &str, request: &ExecRequest) -> Result<Socket, CtlError> {
    let path = format!("/api/v1/vms/{}/exec", segment(vm));
    let mut socket = socket::open(&context.client.settings, &path).await?;
    socket.send(text(request)?).await.map_err(|_| lost())?;
    Ok(socket)
}

/// Input, piece by piece; an empty one is its end.
type Pieces = mpsc::Receiver<std::io::Result<Vec<u8>>>;

/// What of this side concerns the command.
pub(super) struct Session {
    keys: Option<Pieces>,
    /// Where its standard output goes in place of ours.
    output: Option<mpsc::Sender<Vec<u8>>>,
    resized: Option<Signal>,
    interrupt: Signal,
    terminate: Signal,
    interrupts: u32,
}

impl Session {
    pub(super) fn new(keys: Option<Pieces>, has_terminal: bool) -> Result<Self, CtlError> {
        let receive = |kind| signal(kind).map_err(CtlError::local("receive signals"));
        Ok(Self {
            keys,
            output: None,
            resized: has_terminal.then(|| receive(SignalKind::window_change())).transpose()?,
            interrupt: receive(SignalKind::interrupt())?,
            terminate: receive(SignalKind::terminate())?,
            interrupts: 0,
        })
    }

    /// Its standard output goes there in place of ours, as long as somebody takes it.
    pub(super) fn with_output(self, output: mpsc::Sender<Vec<u8>>) -> Self {
        Self { output: Some(output), ..self }
    }

    /// Until it has ended.
    pub(super) async fn relay(mut self, socket: Socket) -> Result<ExitCode, CtlError> {
        let (mut to_machine, mut from_machine) = socket.split();
        loop {
            tokio::select! {
                message = from_machine.next() => match message {
                    Some(Ok(Message::Binary(bytes))) => self.show(&bytes).await?,
                    Some(Ok(Message::Text(text))) => {
                        let event = serde_json::from_str(&text).map_err(CtlError::Answer)?;
                        if let Some(code) = end(event)? {
                            return Ok(code);
                        }
                    }
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return Err(lost()),
                    Some(Ok(_)) => {}
                },
                said = self.next() => match said? {
                    Said::Nothing => {}
                    Said::Leave => return Ok(ExitCode::from(KILLED + 2)),
                    // Where the socket is broken, the reading tells why.
                    Said::Message(message) => _ = send(&mut to_machine, message).await,
                },
            }
        }
    }

    async fn show(&self, message: &[u8]) -> Result<(), CtlError> {
        match (message.split_first(), &self.output) {
            // Who takes no more of it has its own error to tell.
            (Some((&STDOUT, bytes)), Some(output)) => _ = output.send(bytes.to_vec()).await,
            (Some((&STDOUT, bytes)), None) => write(&mut std::io::stdout(), bytes)?,
            (Some((&STDERR, bytes)), _) => write(&mut std::io::stderr(), bytes)?,
            _ => {}
        }
        Ok(())
    }

    /// What this side has to say next.
    async fn next(&mut self) -> Result<Said, CtlError> {
        let control = tokio::select! {
            piece = next_piece(&mut self.keys) => {
                let piece = piece.map_err(CtlError::local("read what goes to the machine"))?;
                if !piece.is_empty() {
                    return Ok(Said::Message(Message::Binary(Bytes::from(piece))));
                }
                self.keys = None;
                ExecControl::EndOfInput
            }
            () = next_signal(&mut self.resized) => match terminal::size() {
                Some(size) => ExecControl::Resize(size),
                None => return Ok(Said::Nothing),
            },
            _ = self.interrupt.recv() => {
                self.interrupts += 1;
                // A command that does not heed the first is left, which ends it.
                if self.interrupts > 1 {
                    return Ok(Said::Leave);
                }
                ExecControl::Signal { number: 2 }
            }
            _ = self.terminate.recv() => ExecControl::Signal { number: 15 },
        };
        text(&control).map(Said::Message)
    }
}

enum Said {
    Message(Message),
    Nothing,
    Leave,
}

async fn send(to: &mut SplitSink<Socket, Message>, message: Message) -> bool {
    to.send(message).await.is_ok()
}

async fn next_piece(keys: &mut Option<mpsc::Receiver<std::io::Result<Vec<u8>>>>) -> std::io::Result<Vec<u8>> {
    match keys {
        Some(keys) => keys.recv().await.unwrap_or(Ok(Vec::new())),
        None => std::future::pending().await,
    }
}

async fn next_signal(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => _ = signal.recv().await,
        None => std::future::pending().await,
    }
}

/// The exit code, once there is one.
fn end(event: ExecEvent) -> Result<Option<ExitCode>, CtlError> {
    match event {
        ExecEvent::Started => Ok(None),
        ExecEvent::Exited { code } => Ok(Some(ExitCode::from(code))),
        ExecEvent::Killed { signal } => Ok(Some(ExitCode::from(KILLED.saturating_add(signal)))),
        ExecEvent::Failed { reason } => {
            eprintln!("novactl: the machine could not run it: {reason}");
            Ok(Some(ExitCode::from(CANNOT_RUN)))
        }
        ExecEvent::Refused { problem } => Err(CtlError::Problem(Box::new(problem))),
    }
}

fn write(to: &mut impl Write, bytes: &[u8]) -> Result<(), CtlError> {
    to.write_all(bytes).and_then(|()| to.flush()).map_err(CtlError::local("write what the command prints"))
}

fn text(value: &impl Serialize) -> Result<Message, CtlError> {
    Ok(Message::Text(serde_json::to_string(value).map_err(CtlError::Answer)?.into()))
}

fn lost() -> CtlError {
    CtlError::Outcome("the connection was lost: the command is ended".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use novacron_common::api::{Problem, ProblemCode};

    #[test]
    fn the_exit_code_is_the_commands() {
        let code = |event| format!("{:?}", end(event).unwrap());
        assert_eq!(code(ExecEvent::Started), format!("{:?}", None::<ExitCode>));
        assert_eq!(code(ExecEvent::Exited { code: 7 }), format!("{:?}", Some(ExitCode::from(7))));
        assert_eq!(code(ExecEvent::Killed { signal: 9 }), format!("{:?}", Some(ExitCode::from(137))));
        assert_eq!(
            code(ExecEvent::Failed { reason: "x".into() }),
            format!("{:?}", Some(ExitCode::from(126)))
        );
        assert!(end(ExecEvent::Refused { problem: Problem::new(ProblemCode::Conflict, "x") }).is_err());
    }
}
