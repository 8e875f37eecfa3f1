//! `/api/v1/vms`: machines.

use super::{
    App,
    extract::{Body, OptionalBody, Params},
    lookup, plan,
    problem::{ApiError, ApiResult},
};
use crate::{agents::CallError, identity::now};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use novacron_common::{
    api::{
        MigrateQuery, MigrateRequest, MigrationPlan, MigrationView, Page, PageQuery, Problem, ProblemCode,
        VmCreate, VmDesired, VmKill, VmStop, VmUpdate, VmView,
    },
    ids::{MigrationId, VmId},
    spec::{Faults, Signal, StopTerms},
    wire::{AgentCommand, AgentReply, VmAct},
};
use novacron_core::{
    Applied, CommandBody,
    command::{self, MigrationAsk, VmDesire, VmRestart},
    lists,
    placement::{self, Constraints},
    views, vms,
};
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(show, update, delete))
        .routes(routes!(start))
        .routes(routes!(stop))
        .routes(routes!(restart))
        .routes(routes!(pause))
        .routes(routes!(resume))
        .routes(routes!(kill))
        .routes(routes!(migrate))
}

/// List machines.
#[utoipa::path(get, path = "/api/v1/vms", tag = "vms", operation_id = "list_vms", params(PageQuery),
    responses((status = 200, body = Page<VmView>), (status = "default", body = Problem)))]
async fn list(State(app): State<App>, Params(query): Params<PageQuery>) -> ApiResult<Json<Page<VmView>>> {
    Ok(Json(app.read(|state| lists::vms(state, &query)).await??))
}

/// Make a machine. It is placed at once and started unless `start` is false.
#[utoipa::path(post, path = "/api/v1/vms", tag = "vms", operation_id = "create_vm", request_body = VmCreate,
    responses((status = 201, body = VmView), (status = "default", body = Problem)))]
async fn create(State(app): State<App>, Body(body): Body<VmCreate>) -> ApiResult<(StatusCode, Json<VmView>)> {
    let made = make(&app, &body).await;
    app.metrics.vm_operation("create", made.is_ok());
    Ok((StatusCode::CREATED, Json(made?)))
}

async fn make(app: &App, body: &VmCreate) -> ApiResult<VmView> {
    let (spec, host) = app
        .read(|state| {
            let template = lookup::template_in_field(state, "template", &body.template)?;
            let host =
                body.host.as_deref().map(|key| lookup::host_in_field(state, "host", key)).transpose()?;
            let network = body.network.name.as_deref();
            let network =
                network.map(|key| lookup::network_in_field(state, "network.name", key)).transpose()?;
            ApiResult::Ok((body.to_spec(&template.spec, network)?, host))
        })
        .await??;
    let id = VmId::generate();
    let create = command::VmCreate { id, spec, host, offer: None, start: body.start };
    let id = match app.propose(CommandBody::VmCreate(Box::new(create))).await? {
        Applied::VmCreated { vm, .. } => vm,
        _ => id,
    };
    view(app, id).await
}

async fn view(app: &App, id: VmId) -> ApiResult<VmView> {
    app.read(|state| {
        let vm = state.vm(id).ok_or_else(|| ApiError::not_found("vm", &id.to_string()))?;
        Ok(views::vm(state, vm))
    })
    .await?
}

async fn find(app: &App, key: &str) -> ApiResult<VmId> {
    app.read(|state| lookup::vm(state, key).map(|vm| vm.id)).await?
}

/// Show a machine.
#[utoipa::path(get, path = "/api/v1/vms/{vm}", tag = "vms", operation_id = "show_vm",
    params(("vm" = String, Path, description = "Id or name")),
    responses((status = 200, body = VmView), (status = "default", body = Problem)))]
async fn show(State(app): State<App>, Path(key): Path<String>) -> ApiResult<Json<VmView>> {
    app.read(|state| lookup::vm(state, &key).map(|vm| Json(views::vm(state, vm)))).await?
}

/// Change a machine's name, restart policy, or whether it may be moved by post-copy; fields that are absent stay.
#[utoipa::path(put, path = "/api/v1/vms/{vm}", tag = "vms", operation_id = "update_vm", request_body = VmUpdate,
    params(("vm" = String, Path, description = "Id or name")),
    responses((status = 200, body = VmView), (status = "default", body = Problem)))]
async fn update(
    State(app): State<App>,
    Path(key): Path<String>,
    Body(body): Body<VmUpdate>,
) -> ApiResult<Json<VmView>> {
    let mut faults = Faults::default();
    let name = body.name.as_ref().map(|name| faults.take("name", name.parse()));
    let name = faults.into_result(Some(name.flatten()))?;
    let vm = find(&app, &key).await?;
    let update = command::VmUpdate { vm, name, restart: body.restart, post_copy: body.post_copy };
    operate(&app, "update", CommandBody::VmUpdate(update)).await?;
    view(&app, vm).await.map(Json)
}

/// Delete a machine with its disk.
#[utoipa::path(delete, path = "/api/v1/vms/{vm}", tag = "vms", operation_id = "delete_vm",
    params(("vm" = String, Path, description = "Id or name")),
    responses((status = 202, body = VmView), (status = "default", body = Problem)))]
async fn delete(State(app): State<App>, Path(key): Path<String>) -> ApiResult<(StatusCode, Json<VmView>)> {
    let before = app.read(|state| lookup::vm(state, &key).map(|vm| views::vm(state, vm))).await??;
    let desire = VmDesire { vm: before.id, desired: VmDesired::Deleted, stop: StopTerms::AT_ONCE };
    operate(&app, "delete", CommandBody::VmDesire(desire)).await?;
    // One that no host holds may be gone already.
    let after = app.read(|state| state.vm(before.id).map(|vm| views::vm(state, vm))).await?;
    Ok((StatusCode::ACCEPTED, Json(after.unwrap_or(before))))
}

/// Have a machine run.
#[utoipa::path(post, path = "/api/v1/vms/{vm}/start", tag = "vms", operation_id = "start_vm",
    params(("vm" = String, Path, description = "Id or name")),
    responses((status = 202, body = VmView), (status = "default", body = Problem)))]
async fn start(State(app): State<App>, Path(key): Path<String>) -> ApiResult<(StatusCode, Json<VmView>)> {
    let vm = app
        .read(|state| match lookup::vm(state, &key)? {
            vm if vms::is_held(vm) => Err(ApiError::new(ProblemCode::Conflict, "the machine is paused")
                .fix("resume it, or restore it if it is in a checkpoint")),
            vm => Ok(vm.id),
        })
        .await??;
    let desire = VmDesire { vm, desired: VmDesired::Running, stop: StopTerms::AT_ONCE };
    operate(&app, "start", CommandBody::VmDesire(desire)).await?;
    accepted(&app, vm).await
}

/// Have a machine stopped: a KVM machine's guest is asked to shut down, a namespace machine's command is sent a signal, and after the
/// grace it is ended. `message` of the stopped machine says which it was.
#[utoipa::path(post, path = "/api/v1/vms/{vm}/stop", tag = "vms", operation_id = "stop_vm", request_body = Option<VmStop>,
    params(("vm" = String, Path, description = "Id or name")),
    responses((status = 202, body = VmView), (status = "default", body = Problem)))]
async fn stop(
    State(app): State<App>,
    Path(key): Path<String>,
    OptionalBody(body): OptionalBody<VmStop>,
) -> ApiResult<(StatusCode, Json<VmView>)> {
    let (vm, stop) = terms(&app, &key, &body).await?;
    let desire = VmDesire { vm, desired: VmDesired::Stopped, stop };
    operate(&app, "stop", CommandBody::VmDesire(desire)).await?;
    accepted(&app, vm).await
}

/// Stop a machine and have it run again.
#[utoipa::path(post, path = "/api/v1/vms/{vm}/restart", tag = "vms", operation_id = "restart_vm",
    request_body = Option<VmStop>,
    params(("vm" = String, Path, description = "Id or name")),
    responses((status = 202, body = VmView), (status = "default", body = Problem)))]
async fn restart(
    State(app): State<App>,
    Path(key): Path<String>,
    OptionalBody(body): OptionalBody<VmStop>,
) -> ApiResult<(StatusCode, Json<VmView>)> {
    let (vm, stop) = terms(&app, &key, &body).await?;
    operate(&app, "restart", CommandBody::VmRestart(VmRestart { vm, stop })).await?;
    accepted(&app, vm).await
}

/// Hold a running machine where it is: its memory stays, and its time stands still until it is resumed.
#[utoipa::path(post, path = "/api/v1/vms/{vm}/pause", tag = "vms", operation_id = "pause_vm",
    params(("vm" = String, Path, description = "Id or name")),
    responses((status = 202, body = VmView), (status = "default", body = Problem)))]
async fn pause(State(app): State<App>, Path(key): Path<String>) -> ApiResult<(StatusCode, Json<VmView>)> {
    let held = act(&app, &key, VmAct::Pause).await;
    app.metrics.vm_operation("pause", held.is_ok());
    accepted(&app, held?).await
}

/// Let a paused machine run on.
#[utoipa::path(post, path = "/api/v1/vms/{vm}/resume", tag = "vms", operation_id = "resume_vm",
    params(("vm" = String, Path, description = "Id or name")),
    responses((status = 202, body = VmView), (status = "default", body = Problem)))]
async fn resume(State(app): State<App>, Path(key): Path<String>) -> ApiResult<(StatusCode, Json<VmView>)> {
    let resumed = act(&app, &key, VmAct::Resume).await;
    app.metrics.vm_operation("resume", resumed.is_ok());
    accepted(&app, resumed?).await
}

/// Send a signal to a namespace machine's command; KILL, to a machine of any kind, ends it at once. What ends by this has ended by
/// itself: if the machine is to be restarted always, it starts again.
#[utoipa::path(post, path = "/api/v1/vms/{vm}/kill", tag = "vms", operation_id = "kill_vm", request_body = Option<VmKill>,
    params(("vm" = String, Path, description = "Id or name")),
    responses((status = 202, body = VmView), (status = "default", body = Problem)))]
async fn kill(
    State(app): State<App>,
    Path(key): Path<String>,
    OptionalBody(body): OptionalBody<VmKill>,
) -> ApiResult<(StatusCode, Json<VmView>)> {
    let killed = act(&app, &key, VmAct::Signal(body.signal.unwrap_or(Signal::Kill))).await;
    app.metrics.vm_operation("kill", killed.is_ok());
    accepted(&app, killed?).await
}

/// Asks the machine's host. Nothing of it is in the ledger: a host that starts anew starts its machines.
pub(super) async fn act(app: &App, key: &str, act: VmAct) -> ApiResult<VmId> {
    let (vm, host, epoch) = app
        .read(|state| {
            let vm = lookup::vm(state, key)?;
            if vm.migration.is_some() {
                return Err(ApiError::new(ProblemCode::Conflict, "the machine is being moved")
                    .fix("wait for the move's end, or cancel it"));
            }
            Ok((vm.id, lookup::host_of(vm)?, vm.epoch))
        })
        .await??;
    match app.agents.call(host, &AgentCommand::ActOnVm { vm, epoch, act }).await? {
        AgentReply::Accepted | AgentReply::AlreadySo => Ok(vm),
        other => Err(CallError::of_answer(host, other).into()),
    }
}

/// Which machine, and how it is to be stopped.
async fn terms(app: &App, key: &str, body: &VmStop) -> ApiResult<(VmId, StopTerms)> {
    let (vm, kind) = app.read(|state| lookup::vm(state, key).map(|vm| (vm.id, vm.spec.kind))).await??;
    Ok((vm, body.terms(kind)?))
}

pub(super) async fn accepted(app: &App, vm: VmId) -> ApiResult<(StatusCode, Json<VmView>)> {
    Ok((StatusCode::ACCEPTED, Json(view(app, vm).await?)))
}

async fn operate(app: &App, operation: &str, command: CommandBody) -> ApiResult<()> {
    let done = app.propose(command).await;
    app.metrics.vm_operation(operation, done.is_ok());
    done.map(drop)
}

/// Move a machine to another host: running (`live`), or stopped, moved and started again. With `dry_run=true` nothing is
/// begun: the answer says what each host would make of it.
#[utoipa::path(post, path = "/api/v1/vms/{vm}/migrate", tag = "vms", operation_id = "migrate_vm",
    request_body = MigrateRequest,
    params(("vm" = String, Path, description = "Id or name"), MigrateQuery),
    responses((status = 202, body = MigrationView), (status = 200, description = "With `dry_run=true`", body = MigrationPlan),
        (status = "default", body = Problem)))]
async fn migrate(
    State(app): State<App>,
    Path(key): Path<String>,
    Params(query): Params<MigrateQuery>,
    Body(body): Body<MigrateRequest>,
) -> ApiResult<Response> {
    if query.dry_run {
        return Ok(Json(plan::plan(&app, &key, &body).await?).into_response());
    }
    let asked = ask_migration(&app, &key, &body).await;
    app.metrics.vm_operation("migrate", asked.is_ok());
    Ok((StatusCode::ACCEPTED, Json(asked?)).into_response())
}

async fn ask_migration(app: &App, key: &str, body: &MigrateRequest) -> ApiResult<MigrationView> {
    let limits = body.limits()?;
    let mut secret = [0; 32];
    aws_lc_rs::rand::fill(&mut secret).map_err(|_| crate::identity::NoRandomness)?;
    let id = MigrationId::generate();
    let (mut ask, spec) = app
        .read(|state| {
            let vm = lookup::vm(state, key)?;
            let (target, placement) = match &body.target_host {
                Some(key) => (lookup::host_in_field(state, "target_host", key)?, None),
                None => {
                    let elsewhere = Constraints { source: vm.placed_on, only: None };
                    let offer = placement::plan(state, &vm.spec, elsewhere)?;
                    (offer.placement.host, Some(offer.placement))
                }
            };
            let (spec, vm, live) = (vm.spec.clone(), vm.id, body.live);
            let measures = app.kept.of(vm, target, now());
            let gang = body.gang;
            let ask = MigrationAsk { id, vm, target, live, limits, gang, secret, placement, measures };
            ApiResult::Ok((ask, spec))
        })
        .await??;
    plan::check(app, &ask, &spec).await?;
    ask.measures = std::mem::take(&mut ask.measures).figures();
    let id = match app.propose(CommandBody::MigrationAsk(Box::new(ask))).await? {
        Applied::MigrationAsked(id) => id,
        _ => id,
    };
    super::migrations::view(app, id).await
}
