//! `/api/v1/vms/{vm}/checkpoint` and `/restore`: a machine's processes on its host's disk, and back.

use super::{
    App,
    extract::OptionalBody,
    problem::ApiResult,
    vms::{accepted, act},
};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use novacron_common::{
    api::{Problem, VmCheckpoint, VmView},
    wire::VmAct,
};
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(checkpoint)).routes(routes!(restore))
}

/// Save the processes and memory of a running, migratable namespace machine on its host, in place of what was saved before. It is
/// paused then, and nowhere but there, or, with `leave_running`, runs on. A failure leaves it running, and names what it holds that
/// cannot be saved. An answer that takes more than 25 seconds is not waited for; the machine's state tells what came of it.
#[utoipa::path(post, path = "/api/v1/vms/{vm}/checkpoint", tag = "vms", operation_id = "checkpoint_vm",
    request_body = Option<VmCheckpoint>,
    params(("vm" = String, Path, description = "Id or name")),
    responses((status = 202, body = VmView), (status = "default", body = Problem)))]
async fn checkpoint(
    State(app): State<App>,
    Path(key): Path<String>,
    OptionalBody(body): OptionalBody<VmCheckpoint>,
) -> ApiResult<(StatusCode, Json<VmView>)> {
    let saved = act(&app, &key, VmAct::Checkpoint { leave_running: body.leave_running }).await;
    app.metrics.vm_operation("checkpoint", saved.is_ok());
    accepted(&app, saved?).await
}

/// Have a machine run on as it was when it was saved: the same processes, numbers, addresses and memory. One that was left running
/// goes back to what it was then, with its disk.
#[utoipa::path(post, path = "/api/v1/vms/{vm}/restore", tag = "vms", operation_id = "restore_vm",
    params(("vm" = String, Path, description = "Id or name")),
    responses((status = 202, body = VmView), (status = "default", body = Problem)))]
async fn restore(State(app): State<App>, Path(key): Path<String>) -> ApiResult<(StatusCode, Json<VmView>)> {
    let restored = act(&app, &key, VmAct::Restore).await;
    app.metrics.vm_operation("restore", restored.is_ok());
    accepted(&app, restored?).await
}
