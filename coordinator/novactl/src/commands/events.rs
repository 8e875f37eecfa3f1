//! The event stream, one JSON object a line.

use super::Context;
use crate::{error::CtlError, output, socket};
use futures_util::StreamExt;
use tokio_tungstenite::tungstenite::Message;

pub async fn run(context: &Context) -> Result<(), CtlError> {
    let mut events = socket::open(&context.client.settings, "/api/v1/ws").await?;
    while let Some(message) = events.next().await {
        match message {
            Ok(Message::Text(text)) => output::line(&text)?,
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
