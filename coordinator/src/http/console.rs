//! A machine's console: the last bytes of its log, and the live serial line as a WebSocket.

use super::{
    App,
    extract::Params,
    lookup,
    problem::{ApiError, ApiResult},
};
use crate::agents::CallError;
use axum::{
    body::Bytes,
    extract::{
        Path, State,
        ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code},
    },
    http::{HeaderName, header},
    response::Response,
};
use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use novacron_common::{
    api::Problem,
    wire::{AgentCommand, AgentReply},
};
use novacron_transport::{RecvHalf, SendHalf, Stream};
use serde::Deserialize;
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

/// Bytes of a console log where nothing is said.
const LOG_DEFAULT: u32 = 64 * 1024;
/// Most bytes of a console log: far below a frame.
const LOG_MAX: u32 = 1 << 20;
/// Longest message of a keyboard.
const INCOMING_MAX: usize = 64 * 1024;
/// Bytes of output in one message.
const CHUNK: usize = 16 * 1024;
/// How long a slow client's socket may take a message.
const SEND_DEADLINE: Duration = Duration::from_secs(10);

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(log)).routes(routes!(console))
}

/// Query of a console log.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct LogQuery {
    /// At most this many bytes from the end (default 65536, at most 1048576).
    #[serde(default)]
    bytes: Option<u32>,
}

/// The end of a machine's console log, as plain bytes.
#[utoipa::path(get, path = "/api/v1/vms/{vm}/console-log", tag = "vms", operation_id = "console_log",
    params(("vm" = String, Path, description = "Id or name"), LogQuery),
    responses((status = 200, body = String, content_type = "text/plain"), (status = "default", body = Problem)))]
async fn log(
    State(app): State<App>,
    Path(key): Path<String>,
    Params(query): Params<LogQuery>,
) -> ApiResult<([(HeaderName, &'static str); 1], Vec<u8>)> {
    let bytes_max = query.bytes.unwrap_or(LOG_DEFAULT);
    if bytes_max > LOG_MAX {
        return Err(ApiError::field("bytes", format!("must be at most {LOG_MAX}")));
    }
    let (vm, host) = app.read(|state| lookup::placed_vm(state, &key)).await??;
    match app.agents.call(host, &AgentCommand::ConsoleLog { vm, bytes_max }).await? {
        AgentReply::Bytes(bytes) => Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], bytes)),
        other => Err(CallError::of_answer(host, other).into()),
    }
}

/// A machine's serial console as a WebSocket: binary or text messages in, binary messages out.
#[utoipa::path(get, path = "/api/v1/vms/{vm}/console", tag = "vms", operation_id = "console",
    params(("vm" = String, Path, description = "Id or name"),
           ("ticket" = Option<String>, Query, description = "A single-use ticket in place of the header")),
    responses((status = 101, description = "Plain bytes both ways"), (status = "default", body = Problem)))]
async fn console(
    State(app): State<App>,
    Path(key): Path<String>,
    upgrade: WebSocketUpgrade,
) -> ApiResult<Response> {
    let (vm, host) = app.read(|state| lookup::placed_vm(state, &key)).await??;
    let stream = app.agents.console(host, vm).await?;
    let stop = app.parts.stop.clone();
    Ok(upgrade.max_message_size(INCOMING_MAX).on_upgrade(async move |socket| {
        tokio::select! {
            () = relay(socket, stream) => {}
            () = stop.cancelled() => {}
        }
    }))
}

async fn relay(socket: WebSocket, stream: Stream) {
    let (to_agent, from_agent) = stream.split();
    let (to_client, from_client) = socket.split();
    tokio::select! {
        () = show(from_agent, to_client) => {}
        () = type_in(from_client, to_agent) => {}
    }
}

async fn show(mut from: RecvHalf, mut to: SplitSink<WebSocket, Message>) {
    let mut chunk = vec![0; CHUNK];
    let reason = loop {
        match from.read(&mut chunk).await {
            Ok(0) => break "the guest's console ended",
            Ok(n) => {
                let message = Message::Binary(Bytes::copy_from_slice(&chunk[..n]));
                match timeout(SEND_DEADLINE, to.send(message)).await {
                    Ok(Ok(())) => {}
                    _ => return,
                }
            }
            Err(_) => break "the console's host was lost",
        }
    };
    let frame = CloseFrame { code: close_code::NORMAL, reason: reason.into() };
    let _ = timeout(SEND_DEADLINE, to.send(Message::Close(Some(frame)))).await;
}

async fn type_in(mut from: SplitStream<WebSocket>, mut to: SendHalf) {
    while let Some(Ok(message)) = from.next().await {
        let bytes = match &message {
            Message::Text(text) => text.as_bytes(),
            Message::Binary(bytes) => bytes,
            Message::Ping(_) | Message::Pong(_) => continue,
            Message::Close(_) => break,
        };
        if to.write_all(bytes).await.is_err() {
            return;
        }
    }
    to.finish();
}
