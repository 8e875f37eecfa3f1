//! What an attempt printed: from its host while it runs, from the ledger once it has ended. For jobs here, for nodes
//! of workflows in [`super::workflows`].

use super::{
    App,
    extract::Params,
    lookup,
    problem::{ApiError, ApiResult},
};
use axum::{
    body::{Body, Bytes},
    extract::{Path, State},
    http::{HeaderName, header},
};
use novacron_common::{
    api::Problem,
    ids::{AttemptKey, FireKey, HostId},
    record::Output,
    wire::LogChunk,
};
use novacron_transport::Stream;
use serde::Deserialize;
use std::{convert::Infallible, time::Duration};
use tokio::{sync::mpsc, time::timeout};
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

/// Chunks between the host and a slow client; then the host waits, and leaves out what it cannot hold.
const CHUNKS: usize = 8;
/// The host gives a sign of life every five seconds.
const SILENCE_MAX: Duration = Duration::from_secs(20);
/// How long the end of an attempt may take from its host to the ledger.
const REPORT_MAX: Duration = Duration::from_secs(15);
/// How often the ledger is looked at for it.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(logs))
}

/// Query of an attempt's output.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct LogsQuery {
    /// Whether to go on until the attempt has ended (default: what is there now).
    #[serde(default)]
    follow: bool,
}

/// The output as the answer to a request.
pub(super) type Log = ([(HeaderName, &'static str); 1], Body);

/// What is known of the attempt.
enum Known {
    Ended(Output),
    RunsOn(HostId),
}

/// What an attempt printed, as plain bytes. Where bytes were left out (at most 16 KiB of the beginning and as much of
/// the end are kept), a line in brackets says how many.
#[utoipa::path(get, path = "/api/v1/jobs/{job}/fires/{fire}/attempts/{number}/logs", tag = "jobs",
    operation_id = "attempt_logs",
    params(("job" = String, Path, description = "Id or name"), ("fire" = String, Path, description = "Id"),
           ("number" = u32, Path, description = "1 for the first try"), LogsQuery),
    responses((status = 200, body = String, content_type = "text/plain"), (status = "default", body = Problem)))]
async fn logs(
    State(app): State<App>,
    Path((job, fire, number)): Path<(String, String, u32)>,
    Params(query): Params<LogsQuery>,
) -> ApiResult<Log> {
    let attempt = app.read(|state| of_fire(state, &job, &fire, number)).await??;
    print(app, attempt, query.follow).await
}

fn of_fire(state: &novacron_core::State, job: &str, fire: &str, number: u32) -> ApiResult<AttemptKey> {
    let job = lookup::job(state, job)?.id;
    let key = fire.parse::<FireKey>().ok().filter(|key| key.job == job);
    let fire = key.ok_or_else(|| ApiError::not_found("fire", fire))?;
    Ok(AttemptKey { fire, number })
}

/// What an attempt printed.
pub(super) async fn print(app: App, attempt: AttemptKey, follow: bool) -> ApiResult<Log> {
    let body = match known(&app, attempt).await? {
        Known::Ended(output) => Body::from(output.to_text()),
        Known::RunsOn(host) => match app.agents.attempt_log(host, attempt, follow).await {
            Ok(stream) => of_running(app, attempt, stream, follow),
            // It may have ended between the two questions.
            Err(error) => match known(&app, attempt).await? {
                Known::Ended(output) => Body::from(output.to_text()),
                Known::RunsOn(_) => return Err(error.into()),
            },
        },
    };
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], body))
}

async fn known(app: &App, attempt: AttemptKey) -> ApiResult<Known> {
    app.read(|state| {
        let record =
            state.attempt(attempt).ok_or_else(|| ApiError::not_found("attempt", &attempt.to_string()))?;
        Ok(match (&record.end, record.host) {
            (Some(end), _) => Known::Ended(end.output.clone()),
            (None, Some(host)) => Known::RunsOn(host),
            // Done by the coordinators themselves, which print nothing.
            (None, None) => Known::Ended(Output::default()),
        })
    })
    .await?
}

fn of_running(app: App, attempt: AttemptKey, stream: Stream, follow: bool) -> Body {
    relay(&app.clone(), move |to| async move {
        if let Some(shown) = copy(stream, Some(0), &to).await
            && follow
            && let Some(output) = reported(&app, attempt).await
        {
            let _gone = to.send(rest(&output, shown).into()).await;
        }
    })
}

/// What `print` sends, on a task of its own, which ends with the client.
pub(super) fn relay<F>(app: &App, print: impl FnOnce(mpsc::Sender<Bytes>) -> F) -> Body
where
    F: Future<Output = ()> + Send + 'static,
{
    let (to, mut from) = mpsc::channel::<Bytes>(CHUNKS);
    let (stop, client) = (app.parts.stop.clone(), to.clone());
    let printing = print(to);
    tokio::spawn(async move {
        tokio::select! {
            () = client.closed() => {}
            () = stop.cancelled() => {}
            () = printing => {}
        }
    });
    Body::from_stream(futures_util::stream::poll_fn(move |context| {
        from.poll_recv(context).map(|item| item.map(Ok::<_, Infallible>))
    }))
}

/// Copies chunks to their end, and says up to which byte; `None` if the client or the host was lost before. Nothing is
/// missed in front of the first one where it is not said that something was `shown`.
pub(super) async fn copy(
    mut stream: Stream,
    mut shown: Option<u64>,
    to: &mpsc::Sender<Bytes>,
) -> Option<u64> {
    loop {
        match timeout(SILENCE_MAX, stream.recv_opt::<LogChunk>()).await {
            Ok(Ok(Some(chunk))) => {
                let text = with_gap(shown.unwrap_or(chunk.at), &chunk);
                shown = shown.max(Some(chunk.at + chunk.bytes.len() as u64));
                if !text.is_empty() && to.send(text.into()).await.is_err() {
                    return None;
                }
            }
            Ok(Ok(None)) => return Some(shown.unwrap_or(0)),
            Ok(Err(_)) | Err(_) => {
                let _gone = to.send("\n[its host was lost from sight]\n".into()).await;
                return None;
            }
        }
    }
}

/// The chunk, with a note in front of it if something is missing there.
fn with_gap(shown: u64, chunk: &LogChunk) -> Vec<u8> {
    if chunk.bytes.is_empty() {
        return Vec::new();
    }
    [note(chunk.at.saturating_sub(shown)).into_bytes(), chunk.bytes.clone()].concat()
}

fn note(left_out: u64) -> String {
    if left_out == 0 { String::new() } else { format!("\n[… {left_out} bytes left out …]\n") }
}

/// What the report has beyond the first `shown` bytes: an attempt that ended at once may have been gone before it was
/// looked at, and its supervisor may have had a last word.
fn rest(output: &Output, shown: u64) -> Vec<u8> {
    let tail_at = output.total.saturating_sub(output.tail.len() as u64);
    let mut text = Vec::new();
    let mut at = shown;
    for (from, part) in [(0, &output.head), (tail_at, &output.tail)] {
        let end = from + part.len() as u64;
        if end <= at {
            continue;
        }
        text.extend_from_slice(note(from.saturating_sub(at)).as_bytes());
        let seen = usize::try_from(at.saturating_sub(from)).unwrap_or(usize::MAX).min(part.len());
        text.extend_from_slice(&part[seen..]);
        at = end;
    }
    text
}

/// The output as the ledger has it, once it does.
async fn reported(app: &App, attempt: AttemptKey) -> Option<Output> {
    let look = || app.ledger.read(|state| Some(state.attempt(attempt)?.end.as_ref()?.output.clone()));
    let wait = async {
        loop {
            match look() {
                Some(output) => return output,
                None => tokio::time::sleep(LOOK_AGAIN).await,
            }
        }
    };
    timeout(REPORT_MAX, wait).await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(head: &str, tail: &str, total: u64) -> Output {
        Output { head: head.into(), tail: tail.into(), total }
    }

    #[test]
    fn only_what_was_not_shown_yet_is_added_from_the_report() {
        let text = |output: &Output, shown| String::from_utf8(rest(output, shown)).unwrap();
        let whole = output("abcd", "ef", 6);
        assert_eq!(text(&whole, 0), "abcdef");
        assert_eq!(text(&whole, 3), "def");
        assert_eq!(text(&whole, 5), "f");
        assert_eq!(text(&whole, 6), "");
        let gap = output("abcd", "yz", 26);
        assert_eq!(text(&gap, 0), "abcd\n[… 20 bytes left out …]\nyz");
        assert_eq!(text(&gap, 10), "\n[… 14 bytes left out …]\nyz");
        assert_eq!(text(&gap, 25), "z");
    }

    #[test]
    fn a_gap_in_front_of_a_chunk_is_said() {
        let chunk = LogChunk { at: 10, bytes: b"xyz".to_vec() };
        assert_eq!(with_gap(10, &chunk), b"xyz");
        assert_eq!(with_gap(4, &chunk), "\n[… 6 bytes left out …]\nxyz".as_bytes());
        assert!(with_gap(0, &LogChunk { at: 10, bytes: Vec::new() }).is_empty());
    }
}
