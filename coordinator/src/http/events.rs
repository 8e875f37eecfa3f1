//! The event stream as a WebSocket (RFC 6455): one JSON text message an event.

use super::App;
use crate::events::Notice;
use axum::{
    Router,
    extract::{
        State,
        ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code},
    },
    response::Response,
    routing::any,
};
use futures_util::{Sink, SinkExt, StreamExt, stream::SplitStream};
use novacron_common::api::{Event, Problem};
use std::time::Duration;
use tokio::{
    sync::broadcast::{Receiver, error::RecvError},
    time::{Instant, MissedTickBehavior, interval_at, timeout},
};
use utoipa_axum::{router::OpenApiRouter, routes};

/// A ping is sent this often.
const PING: Duration = Duration::from_secs(20);
/// A client that is silent this long is gone (it answers pings).
const SILENCE_MAX: Duration = Duration::from_secs(50);
/// How long one message may wait for a slow client's socket.
const SEND_DEADLINE: Duration = Duration::from_secs(10);
/// Clients say nothing but pongs; anything longer is not for us.
const INCOMING_MAX: usize = 4096;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(stream))
}

/// The same under the path of the first documents.
pub fn aliases() -> Router<App> {
    Router::new().route("/ws/status", any(stream))
}

/// Every committed change, as a WebSocket. Without a header, give `?ticket=` of `POST /api/v1/ws/tickets`.
///
/// A client that cannot keep up is closed with code 1008 and a reason; it reads the lists and connects again.
#[utoipa::path(get, path = "/api/v1/ws", tag = "events", operation_id = "events",
    params(("ticket" = Option<String>, Query, description = "A single-use ticket in place of the header")),
    responses((status = 101, description = "One `Event` a text message", body = Event),
              (status = "default", body = Problem)))]
async fn stream(State(app): State<App>, upgrade: WebSocketUpgrade) -> Response {
    let events = app.events.subscribe();
    upgrade.max_message_size(INCOMING_MAX).on_upgrade(async move |socket| {
        app.metrics.event_clients.inc();
        let stop = app.parts.stop.clone();
        let (send, recv) = socket.split();
        let last = tokio::select! {
            last = forward(send, events) => last,
            () = hear(recv) => None,
            () = stop.cancelled() => None,
        };
        app.metrics.event_clients.dec();
        if let Some(reason) = last {
            tracing::info!(reason, "a client of the event stream was closed");
        }
    })
}

/// Sends events and pings. Ends with the reason when it closes the client itself.
async fn forward(mut send: impl Sink<Message> + Unpin, mut events: Receiver<Notice>) -> Option<&'static str> {
    let mut pings = interval_at(Instant::now() + PING, PING);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let next = tokio::select! {
            next = events.recv() => match next {
                Ok(Notice::Event(text)) => Ok(Message::text(&*text)),
                Ok(Notice::Gap) => Err("events were missed: read the lists and connect again"),
                Err(RecvError::Lagged(_)) => Err("too slow: read the lists and connect again"),
                Err(RecvError::Closed) => return None,
            },
            _ = pings.tick() => Ok(Message::Ping(axum::body::Bytes::new())),
        };
        match next {
            Ok(message) => match timeout(SEND_DEADLINE, send.send(message)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return None,
                // The socket's buffer is full: a close frame would not get through either.
                Err(_) => return Some("its socket took nothing for too long"),
            },
            Err(reason) => {
                let frame = CloseFrame { code: close_code::POLICY, reason: reason.into() };
                let _ = timeout(SEND_DEADLINE, send.send(Message::Close(Some(frame)))).await;
                return Some(reason);
            }
        }
    }
}

/// Ends when the client closes, breaks, or is silent for too long.
async fn hear(mut recv: SplitStream<WebSocket>) {
    while let Ok(Some(Ok(message))) = timeout(SILENCE_MAX, recv.next()).await {
        if matches!(message, Message::Close(_)) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::BACKLOG;
    use std::sync::{Arc, Mutex};
    use tokio::sync::broadcast;

    /// A client that takes everything, and shows what it took.
    fn client() -> (impl Sink<Message> + Unpin, Arc<Mutex<Vec<Message>>>) {
        let taken = Arc::new(Mutex::new(Vec::new()));
        let into = taken.clone();
        let sink = futures_util::sink::unfold((), move |(), message: Message| {
            into.lock().unwrap().push(message);
            std::future::ready(Ok::<_, std::convert::Infallible>(()))
        });
        (Box::pin(sink), taken)
    }

    fn close_reason(taken: &Mutex<Vec<Message>>) -> Option<(u16, String)> {
        match taken.lock().unwrap().last() {
            Some(Message::Close(Some(frame))) => Some((frame.code, frame.reason.to_string())),
            _ => None,
        }
    }

    #[tokio::test]
    async fn a_client_that_falls_behind_is_closed_with_the_reason() {
        let (sender, events) = broadcast::channel(BACKLOG);
        for _ in 0..=BACKLOG {
            sender.send(Notice::Event("{}".into())).unwrap();
        }
        let (sink, taken) = client();
        assert!(forward(sink, events).await.is_some_and(|reason| reason.starts_with("too slow")));
        let (code, reason) = close_reason(&taken).unwrap();
        assert_eq!(code, close_code::POLICY);
        assert!(reason.contains("read the lists"), "{reason}");
    }

    #[tokio::test]
    async fn events_are_sent_in_order_and_a_gap_ends_the_stream() {
        let (sender, events) = broadcast::channel(8);
        for notice in [Notice::Event("1".into()), Notice::Event("2".into()), Notice::Gap] {
            sender.send(notice).unwrap();
        }
        let (sink, taken) = client();
        assert!(forward(sink, events).await.is_some());
        let texts: Vec<_> =
            taken.lock().unwrap().iter().filter_map(|m| m.to_text().ok().map(str::to_owned)).collect();
        assert_eq!(texts[..2], ["1", "2"]);
        assert!(close_reason(&taken).unwrap().1.contains("missed"));
    }
}
