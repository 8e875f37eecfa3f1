//! What a namespace machine's command prints, from its host.

use super::{
    App,
    extract::Params,
    job_logs::{Log, copy, relay},
    lookup,
    problem::ApiResult,
};
use axum::{
    extract::{Path, State},
    http::header,
};
use novacron_common::api::Problem;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(logs))
}

/// Query of a machine's output.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct VmLogsQuery {
    /// Whether to go on until the machine has ended (default: what is there now).
    #[serde(default)]
    follow: bool,
    /// Begin with this many of the last lines (default: with the oldest byte that the host has).
    #[serde(default)]
    tail: Option<u32>,
}

/// What a namespace machine's command prints, as plain bytes: its host keeps the last 256 KiB of the machine's last run. Where
/// bytes were left out, a line in brackets says how many.
#[utoipa::path(get, path = "/api/v1/vms/{vm}/logs", tag = "vms", operation_id = "vm_logs",
    params(("vm" = String, Path, description = "Id or name"), VmLogsQuery),
    responses((status = 200, body = String, content_type = "text/plain"), (status = "default", body = Problem)))]
async fn logs(
    State(app): State<App>,
    Path(key): Path<String>,
    Params(query): Params<VmLogsQuery>,
) -> ApiResult<Log> {
    let (vm, host) = app.read(|state| lookup::placed_vm(state, &key)).await??;
    let stream = app.agents.machine_log(host, vm, query.tail, query.follow).await?;
    // Whoever wants the last lines knows that others were before.
    let shown = query.tail.is_none().then_some(0);
    let body = relay(&app, move |to| async move {
        copy(stream, shown, &to).await;
    });
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], body))
}
