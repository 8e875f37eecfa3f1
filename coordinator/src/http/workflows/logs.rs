//! What the node of a run printed. Its fire is one like a job's, and so are its attempts.

use super::{
    super::{
        App,
        extract::Params,
        job_logs::{Log, print},
        problem::{ApiError, ApiResult},
    },
    runs::{NodePath, node, run},
};
use axum::extract::{Path, State};
use novacron_common::{
    api::{Problem, ProblemCode},
    ids::{AttemptKey, NodeRef},
};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(logs))
}

/// Query of a node's output.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct NodeLogsQuery {
    /// Of a map: which item, from 0.
    #[serde(default)]
    item: Option<u32>,
    /// Which try, from 1 (default: the last).
    #[serde(default)]
    attempt: Option<u32>,
    /// Whether to go on until the attempt has ended (default: what is there now).
    #[serde(default)]
    follow: bool,
}

/// What a node's command or job printed, as plain bytes, from the attempt's host while it runs and from the ledger once
/// it has ended. Where bytes were left out (at most 16 KiB of the beginning and as much of the end are kept), a line in
/// brackets says how many.
#[utoipa::path(get, path = "/{workflow}/runs/{run}/nodes/{node}/logs", tag = "workflows",
    operation_id = "run_node_logs",
    params(("workflow" = String, Path, description = "Id or name"), ("run" = String, Path, description = "Id"),
           ("node" = String, Path, description = "Id"), NodeLogsQuery),
    responses((status = 200, body = String, content_type = "text/plain"), (status = "default", body = Problem)))]
async fn logs(
    State(app): State<App>,
    Path(path): Path<NodePath>,
    Params(query): Params<NodeLogsQuery>,
) -> ApiResult<Log> {
    let attempt = app.read(|state| of_node(state, &path, &query)).await??;
    print(app, attempt, query.follow).await
}

fn of_node(
    state: &novacron_core::State,
    (workflow, run_id, node_id): &NodePath,
    query: &NodeLogsQuery,
) -> ApiResult<AttemptKey> {
    let run = run(state, workflow, run_id)?;
    let place = node(state, run, node_id)?.key.node;
    let item = query.item.map_or(0, |item| item.saturating_add(1));
    let row = state.node_run(NodeRef { run: run.id, node: place, item });
    if item > 0 && row.is_none() {
        return Err(ApiError::not_found("item", &(item - 1).to_string()));
    }
    if item == 0 && row.is_some_and(|row| row.map.is_some()) {
        return Err(ApiError::field("item", "has to be given: the node is a map, and its items print"));
    }
    let nothing =
        || ApiError::new(ProblemCode::NotFound, "nothing has been tried for the node, so nothing printed");
    let fire = row.and_then(|row| row.fire).ok_or_else(nothing)?;
    let last = state.fire(fire).map(|fire| fire.attempts).filter(|attempts| *attempts > 0);
    let number = query.attempt.or(last).ok_or_else(nothing)?;
    Ok(AttemptKey { fire, number })
}
