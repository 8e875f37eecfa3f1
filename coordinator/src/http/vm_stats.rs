//! What a machine uses, from its host.

use super::{
    App, lookup,
    problem::{ApiError, ApiResult},
};
use crate::agents::CallError;
use axum::{
    Json,
    extract::{Path, State},
};
use novacron_common::{
    api::{Problem, VmStats},
    record::VmStatistics,
    units::UnixMillis,
    wire::{AgentCommand, AgentReply},
};
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(stats))
}

/// What a machine has used since it was started, counted by its host at the time of asking. The counters grow: for what it uses in
/// a second, ask twice.
#[utoipa::path(get, path = "/api/v1/vms/{vm}/stats", tag = "vms", operation_id = "vm_stats",
    params(("vm" = String, Path, description = "Id or name")),
    responses((status = 200, body = VmStats), (status = "default", body = Problem)))]
async fn stats(State(app): State<App>, Path(key): Path<String>) -> ApiResult<Json<VmStats>> {
    let known = app
        .read(|state| {
            let vm = lookup::vm(state, &key)?;
            Ok::<_, ApiError>(VmStats {
                id: vm.id,
                name: vm.spec.name.to_string(),
                state: vm.state,
                host: lookup::host_of(vm)?,
                cpus: vm.spec.cpus,
                memory_limit: vm.spec.memory,
                used: VmStatistics::none(UnixMillis(0)),
            })
        })
        .await??;
    let host = known.host;
    match app.agents.call(host, &AgentCommand::CountVm(known.id)).await? {
        AgentReply::Counted(used) => Ok(Json(VmStats { used, ..known })),
        other => Err(CallError::of_answer(host, other).into()),
    }
}
