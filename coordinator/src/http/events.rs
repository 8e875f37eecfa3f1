//! The event stream as a WebSocket (RFC 6455): one JSON text message an event.

use super::{
    App,
    extract::Params,
    problem::{ApiError, ApiResult},
};
use crate::events::{Notice, Place, Rendered, Subscription};
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

/// The query of the event stream; a ticket in it is the guard's.
#[derive(Debug, Default, serde::Deserialize)]
struct StreamQuery {
    #[serde(default)]
    resume: Option<String>,
}

/// Every committed change, as a WebSocket. Without a header, give `?ticket=` of `POST /api/v1/ws/tickets`.
///
/// With `?resume=` and the `token` of the last event, at any coordinator, nothing is missed; where that is too long
/// ago, the first event is of kind `gap`: read the lists. A client that cannot keep up is closed with code 1008 and
/// a reason; it resumes.
#[utoipa::path(get, path = "/api/v1/ws", tag = "events", operation_id = "events",
    params(("ticket" = Option<String>, Query, description = "A single-use ticket in place of the header"),
           ("resume" = Option<String>, Query, description = "The `token` of the last event that the client saw")),
    responses((status = 101, description = "One `Event` a text message", body = Event),
              (status = "default", body = Problem)))]
async fn stream(
    State(app): State<App>,
    Params(query): Params<StreamQuery>,
    upgrade: WebSocketUpgrade,
) -> ApiResult<Response> {
    let seen = query.resume.as_deref().map(str::parse::<Place>).transpose();
    let seen = seen.map_err(|bad| ApiError::field("resume", bad.to_string()))?;
    let subscription = app.events.subscribe(seen);
    Ok(upgrade.max_message_size(INCOMING_MAX).on_upgrade(async move |socket| {
        app.metrics.event_clients.inc();
        let stop = app.parts.stop.clone();
        let (send, recv) = socket.split();
        let last = tokio::select! {
            last = serve(&app, send, subscription, seen) => last,
            () = hear(recv) => None,
            () = stop.cancelled() => None,
        };
        app.metrics.event_clients.dec();
        if let Some(reason) = last {
            tracing::info!(reason, "a client of the event stream was closed");
        }
    }))
}

/// What was missed, or that it cannot be had any more; then what comes.
async fn serve(
    app: &App,
    mut send: impl Sink<Message> + Unpin,
    subscription: Subscription,
    seen: Option<Place>,
) -> Option<&'static str> {
    let Subscription { missed, live } = subscription;
    let mut seen = seen;
    match missed {
        Some(entries) => {
            for entry in entries {
                let events = crate::events::render(&app.ledger, &entry);
                if let Err(ended) = send_all(&mut send, &events, &mut seen).await {
                    return ended;
                }
            }
        }
        None => {
            seen = None;
            let gap: Vec<Rendered> = app.events.gap(&app.ledger).into_iter().collect();
            if let Err(ended) = send_all(&mut send, &gap, &mut seen).await {
                return ended;
            }
        }
    }
    forward(send, live, seen).await
}

/// Sends those events that the client has not seen; how the stream ended if it did.
async fn send_all(
    send: &mut (impl Sink<Message> + Unpin),
    events: &[Rendered],
    seen: &mut Option<Place>,
) -> Result<(), Option<&'static str>> {
    for event in events {
        if seen.is_some_and(|seen| event.place <= seen) {
            continue;
        }
        *seen = Some(event.place);
        put(send, Message::text(&*event.text)).await?;
    }
    Ok(())
}

async fn put(send: &mut (impl Sink<Message> + Unpin), message: Message) -> Result<(), Option<&'static str>> {
    match timeout(SEND_DEADLINE, send.send(message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(None),
        // The socket's buffer is full: a close frame would not get through either.
        Err(_) => Err(Some("its socket took nothing for too long")),
    }
}

/// Sends events and pings. Ends with the reason when it closes the client itself.
async fn forward(
    mut send: impl Sink<Message> + Unpin,
    mut events: Receiver<Notice>,
    mut seen: Option<Place>,
) -> Option<&'static str> {
    let mut pings = interval_at(Instant::now() + PING, PING);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let sent = tokio::select! {
            next = events.recv() => match next {
                Ok(Notice::Events(events)) => send_all(&mut send, &events, &mut seen).await,
                Ok(Notice::Gap) => Err(Some("events were missed: read the lists and connect again")),
                Err(RecvError::Lagged(_)) => Err(Some("too slow: connect again with ?resume= and the last token")),
                Err(RecvError::Closed) => Err(None),
            },
            _ = pings.tick() => put(&mut send, Message::Ping(axum::body::Bytes::new())).await,
        };
        if let Err(ended) = sent {
            if let Some(reason) = ended {
                let frame = CloseFrame { code: close_code::POLICY, reason: reason.into() };
                let _ = timeout(SEND_DEADLINE, send.send(Message::Close(Some(frame)))).await;
            }
            return ended;
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

    fn event(index: u64) -> Notice {
        let place = Place { index, ordinal: 0 };
        Notice::Events([Rendered { place, text: index.to_string().into() }].into())
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
        for index in 0..=BACKLOG as u64 {
            sender.send(event(index)).unwrap();
        }
        let (sink, taken) = client();
        assert!(forward(sink, events, None).await.is_some_and(|reason| reason.starts_with("too slow")));
        let (code, reason) = close_reason(&taken).unwrap();
        assert_eq!(code, close_code::POLICY);
        assert!(reason.contains("resume"), "{reason}");
    }

    #[tokio::test]
    async fn events_are_sent_in_order_and_a_gap_ends_the_stream() {
        let (sender, events) = broadcast::channel(8);
        for notice in [event(5), event(6), event(7), Notice::Gap] {
            sender.send(notice).unwrap();
        }
        let (sink, taken) = client();
        let seen = Some(Place { index: 5, ordinal: 0 });
        assert!(forward(sink, events, seen).await.is_some());
        let texts: Vec<_> =
            taken.lock().unwrap().iter().filter_map(|m| m.to_text().ok().map(str::to_owned)).collect();
        assert_eq!(texts[..2], ["6", "7"], "what was seen does not come again");
        assert!(close_reason(&taken).unwrap().1.contains("missed"));
    }
}
