//! The event stream, one JSON object a line. With `--follow` a cut is bridged: each event carries a token, and the
//! stream goes on behind the last one, at whichever coordinator answers.

use super::{Context, segment};
use crate::{cli::EventsArgs, error::CtlError, output, retry, socket};
use futures_util::StreamExt;
use novacron_common::api::Event;
use std::time::Duration;
use tokio_tungstenite::tungstenite::Message;

/// Pause before the next try.
const PAUSE: Duration = Duration::from_millis(500);

pub async fn run(context: &Context, args: EventsArgs) -> Result<(), CtlError> {
    let mut seen = args.resume;
    loop {
        match stream(context, &mut seen).await {
            // A refusal is an answer; only what may pass is tried again.
            Err(error)
                if args.follow && (retry::may_pass(&error) || matches!(error, CtlError::Outcome(_))) =>
            {
                eprintln!("novactl: {}; connecting again", error.describe());
                tokio::time::sleep(PAUSE).await;
            }
            Ok(()) if args.follow => tokio::time::sleep(PAUSE).await,
            ended => return ended,
        }
    }
}

/// Prints events until the stream ends; `seen` is the token of the last.
async fn stream(context: &Context, seen: &mut Option<String>) -> Result<(), CtlError> {
    let query = seen.as_deref().map(|token| format!("?resume={}", segment(token))).unwrap_or_default();
    let mut events = socket::open(&context.client.settings, &format!("/api/v1/ws{query}")).await?;
    while let Some(message) = events.next().await {
        match message {
            Ok(Message::Text(text)) => {
                output::line(&text)?;
                let event: Event = serde_json::from_str(&text).map_err(CtlError::Answer)?;
                *seen = Some(event.token);
            }
            Ok(Message::Close(frame)) => {
                let reason = frame.map(|f| f.reason.to_string()).unwrap_or_default();
                return Err(CtlError::Outcome(format!("the server ended the stream: {reason}")));
            }
            Ok(_) => {}
            Err(cause) => {
                let server = context.client.settings.server.clone();
                return Err(CtlError::Unreachable { server, cause: cause.into() });
            }
        }
    }
    Ok(())
}
