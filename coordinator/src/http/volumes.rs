//! `/api/v1/hosts/{host}/volumes`: what namespace machines have of a host, and leave there. The ledger knows who has one, the host
//! what there is.

use super::{
    App, lookup,
    problem::{ApiError, ApiResult},
};
use crate::agents::CallError;
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use novacron_common::{
    api::{Problem, ProblemCode, VolumeView},
    ids::HostId,
    spec::{Name, VolumeSource},
    wire::{AgentCommand, AgentReply},
};
use novacron_core::State as Ledger;
use std::collections::BTreeMap;
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(remove))
}

/// The names of the machines that have volumes of a host, by volume.
fn users(state: &Ledger, host: HostId) -> BTreeMap<Name, Vec<String>> {
    let mut users: BTreeMap<Name, Vec<String>> = BTreeMap::new();
    for vm in state.index().vms_on(host).filter_map(|id| state.vm(id)) {
        for volume in &vm.spec.volumes {
            if let VolumeSource::Named(name) = &volume.source {
                users.entry(name.clone()).or_default().push(vm.spec.name.to_string());
            }
        }
    }
    users
}

/// List the volumes of a host.
#[utoipa::path(get, path = "/api/v1/hosts/{host}/volumes", tag = "hosts", operation_id = "list_volumes",
    params(("host" = String, Path, description = "Id or name")),
    responses((status = 200, body = Vec<VolumeView>), (status = "default", body = Problem)))]
async fn list(State(app): State<App>, Path(key): Path<String>) -> ApiResult<Json<Vec<VolumeView>>> {
    let (id, name, mut users) = app
        .read(|state| {
            let host = lookup::host(state, &key)?;
            Ok::<_, ApiError>((host.id, host.name.to_string(), users(state, host.id)))
        })
        .await??;
    let seen = match app.agents.call(id, &AgentCommand::ListVolumes).await? {
        AgentReply::Volumes(seen) => seen,
        other => return Err(CallError::of_answer(id, other).into()),
    };
    let views = seen.into_iter().map(|volume| VolumeView {
        machines: users.remove(&volume.name).unwrap_or_default(),
        name: volume.name.to_string(),
        host: name.clone(),
        size: volume.size,
        used: volume.used,
    });
    Ok(Json(views.collect()))
}

/// Delete a volume of a host with all that is in it. Refused while a machine has it, running or not.
#[utoipa::path(delete, path = "/api/v1/hosts/{host}/volumes/{volume}", tag = "hosts", operation_id = "delete_volume",
    params(("host" = String, Path, description = "Id or name"), ("volume" = String, Path, description = "Name")),
    responses((status = 204), (status = "default", body = Problem)))]
async fn remove(
    State(app): State<App>,
    Path((key, volume)): Path<(String, String)>,
) -> ApiResult<StatusCode> {
    let unknown = || ApiError::not_found("volume", &volume);
    let name: Name = volume.parse().map_err(|_| unknown())?;
    let host = app
        .read(|state| {
            let host = lookup::host(state, &key)?.id;
            match users(state, host).remove(&name) {
                None => Ok(host),
                Some(machines) => {
                    let cause = format!("{name} is a volume of {}", machines.join(", "));
                    Err(ApiError::new(ProblemCode::Conflict, cause).fix("delete what has it first"))
                }
            }
        })
        .await??;
    match app.agents.call(host, &AgentCommand::RemoveVolume(name)).await? {
        AgentReply::Accepted => Ok(StatusCode::NO_CONTENT),
        AgentReply::AlreadySo => Err(unknown()),
        other => Err(CallError::of_answer(host, other).into()),
    }
}
