//! A command inside a machine, as a WebSocket. The first message says what is to be run, so that neither words nor
//! variables stand in an address, which is logged in many places.

use super::{App, lookup, problem::ApiResult};
use crate::agents::CallError;
use axum::{
    body::Bytes,
    extract::{
        Path, State,
        ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code},
    },
    response::Response,
};
use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use novacron_common::{
    api::{ExecControl, ExecEvent, ExecRequest, Problem, ProblemCode, STDERR, STDOUT},
    ids::{HostId, VmId},
    wire::{EXEC_BYTES_MAX, ExecEnd, ExecInput, ExecOpen, ExecOutput},
};
use novacron_transport::{RecvHalf, SendHalf, Stream};
use std::time::Duration;
use tokio::time::timeout;
use utoipa_axum::{router::OpenApiRouter, routes};

/// Longest message of a client: a request of which every character is escaped.
const INCOMING_MAX: usize = 512 * 1024;
/// How long a client may take to say what is to be run.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);
/// How long a slow client's socket may take a message.
const SEND_DEADLINE: Duration = Duration::from_secs(30);

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(exec))
}

/// Run a command in a machine, as a WebSocket. The first message is an `ExecRequest` in JSON; then binary messages are the
/// command's input and text messages an `ExecControl`. What comes are `ExecEvent`s as text, and what the command prints as
/// binary messages, behind a byte 1 (standard output or terminal) or 2 (standard error). The command ends with the socket.
#[utoipa::path(get, path = "/api/v1/vms/{vm}/exec", tag = "vms", operation_id = "exec",
    params(("vm" = String, Path, description = "Id or name")),
    responses((status = 101, description = "Messages both ways"), (status = "default", body = Problem)))]
async fn exec(
    State(app): State<App>,
    Path(key): Path<String>,
    upgrade: WebSocketUpgrade,
) -> ApiResult<Response> {
    let (vm, host) = app.read(|state| lookup::placed_vm(state, &key)).await??;
    let stop = app.parts.stop.clone();
    Ok(upgrade.max_message_size(INCOMING_MAX).on_upgrade(async move |socket| {
        tokio::select! {
            () = serve(app, vm, host, socket) => {}
            () = stop.cancelled() => {}
        }
    }))
}

async fn serve(app: App, vm: VmId, host: HostId, socket: WebSocket) {
    let (mut to_client, mut from_client) = socket.split();
    let begun = begin(&app, vm, host, &mut from_client).await;
    app.metrics.vm_operation("exec", begun.is_ok());
    match begun {
        Ok(stream) => {
            let (to_machine, from_machine) = stream.split();
            tokio::select! {
                () = show(from_machine, &mut to_client) => {}
                () = pass_on(from_client, to_machine) => {}
            }
        }
        Err(problem) => _ = tell(&mut to_client, &ExecEvent::Refused { problem }).await,
    }
    let frame = CloseFrame { code: close_code::NORMAL, reason: "".into() };
    let _gone = timeout(SEND_DEADLINE, to_client.send(Message::Close(Some(frame)))).await;
}

async fn begin(
    app: &App,
    vm: VmId,
    host: HostId,
    from: &mut SplitStream<WebSocket>,
) -> Result<Stream, Problem> {
    let invalid = |cause: String| Problem::new(ProblemCode::InvalidRequest, cause);
    let first = timeout(REQUEST_DEADLINE, from.next()).await.ok().flatten();
    let Some(Ok(Message::Text(text))) = first else {
        return Err(invalid("the first message must say what is to be run, as text".into()));
    };
    let request: ExecRequest = serde_json::from_str(&text).map_err(|error| invalid(error.to_string()))?;
    let open = ExecOpen { vm, command: request.to_command()? };
    app.agents
        .exec(host, &open)
        .await
        .map_err(|error: CallError| super::ApiError::from(error).problem().clone())
}

/// What comes from the machine, until the command has ended.
async fn show(mut from: RecvHalf, to: &mut SplitSink<WebSocket, Message>) {
    let mut goes_on = true;
    while goes_on {
        goes_on = match from.recv::<ExecOutput>().await {
            Ok(ExecOutput::Output(bytes)) => print(to, STDOUT, &bytes).await,
            Ok(ExecOutput::Errors(bytes)) => print(to, STDERR, &bytes).await,
            Ok(ExecOutput::Started) => tell(to, &ExecEvent::Started).await,
            Ok(ExecOutput::Ended(end)) => tell_last(to, &ended(end)).await,
            Ok(ExecOutput::Failed(reason)) => tell_last(to, &ExecEvent::Failed { reason }).await,
            Err(_) => tell_last(to, &lost()).await,
        };
    }
}

async fn tell_last(to: &mut SplitSink<WebSocket, Message>, event: &ExecEvent) -> bool {
    tell(to, event).await;
    false
}

fn ended(end: ExecEnd) -> ExecEvent {
    match end {
        ExecEnd::Exited(code) => ExecEvent::Exited { code },
        ExecEnd::Killed(signal) => ExecEvent::Killed { signal },
    }
}

fn lost() -> ExecEvent {
    let cause = "the command's machine ended, or its host was lost";
    ExecEvent::Refused { problem: Problem::new(ProblemCode::HostUnavailable, cause) }
}

async fn print(to: &mut SplitSink<WebSocket, Message>, stream: u8, bytes: &[u8]) -> bool {
    send(to, Message::Binary(Bytes::from([&[stream], bytes].concat()))).await
}

async fn tell(to: &mut SplitSink<WebSocket, Message>, event: &ExecEvent) -> bool {
    match serde_json::to_string(event) {
        Ok(text) => send(to, Message::Text(text.into())).await,
        Err(error) => {
            tracing::error!(%error, "could not encode an event of a command");
            false
        }
    }
}

async fn send(to: &mut SplitSink<WebSocket, Message>, message: Message) -> bool {
    matches!(timeout(SEND_DEADLINE, to.send(message)).await, Ok(Ok(())))
}

/// What comes from the client, until it has gone or says what nobody understands. With this the command ends.
async fn pass_on(mut from: SplitStream<WebSocket>, mut to: SendHalf) {
    while let Some(Ok(message)) = from.next().await {
        let passed = match message {
            Message::Binary(bytes) => input(&mut to, &bytes).await,
            Message::Text(text) => match serde_json::from_str(&text) {
                Ok(control) => to.send(&control_input(control)).await.is_ok(),
                Err(error) => {
                    tracing::debug!(%error, "a client of a command is not understood");
                    false
                }
            },
            Message::Ping(_) | Message::Pong(_) => true,
            Message::Close(_) => false,
        };
        if !passed {
            return;
        }
    }
}

async fn input(to: &mut SendHalf, bytes: &[u8]) -> bool {
    for piece in bytes.chunks(EXEC_BYTES_MAX) {
        if to.send(&ExecInput::Bytes(piece.to_vec())).await.is_err() {
            return false;
        }
    }
    true
}

fn control_input(control: ExecControl) -> ExecInput {
    match control {
        ExecControl::EndOfInput => ExecInput::End,
        ExecControl::Resize(size) => ExecInput::Resize(size.into()),
        ExecControl::Signal { number } => ExecInput::Signal(number),
    }
}
