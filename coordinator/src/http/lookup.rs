//! Paths and bodies name things by id or by name; this finds which is meant. A text that is an id is taken for
//! one, so a thing whose name looks like an id of its kind is found by its id only.

use super::problem::{ApiError, ApiResult};
use novacron_common::{
    api::ProblemCode,
    ids::{HostId, JobId, NetworkId, TemplateId, VmId, WorkflowId},
    spec::Name,
};
use novacron_core::{
    State,
    record::{HostRecord, JobRecord, NetworkRecord, TemplateRecord, VmRecord, WorkflowRecord},
};
use std::str::FromStr;

/// The id in `key`, or what the index holds under it as a name.
fn resolve<I: FromStr>(key: &str, by_name: impl FnOnce(&Name) -> Option<I>) -> Option<I> {
    key.parse().ok().or_else(|| by_name(&key.parse().ok()?))
}

/// The machine with this id or name.
pub fn vm<'s>(state: &'s State, key: &str) -> ApiResult<&'s VmRecord> {
    resolve::<VmId>(key, |name| state.index().vm_named(name))
        .and_then(|id| state.vm(id))
        .ok_or_else(|| ApiError::not_found("vm", key))
}

/// Where this machine is.
pub fn host_of(vm: &VmRecord) -> ApiResult<HostId> {
    vm.placed_on.ok_or_else(|| ApiError::new(ProblemCode::Conflict, "the machine has no host now"))
}

/// The machine with this id or name, and where it is.
pub fn placed_vm(state: &State, key: &str) -> ApiResult<(VmId, HostId)> {
    let vm = vm(state, key)?;
    Ok((vm.id, host_of(vm)?))
}

/// The host with this id or name.
pub fn host<'s>(state: &'s State, key: &str) -> ApiResult<&'s HostRecord> {
    resolve::<HostId>(key, |name| state.index().host_named(name))
        .and_then(|id| state.host(id))
        .ok_or_else(|| ApiError::not_found("host", key))
}

/// The template with this id or name.
pub fn template<'s>(state: &'s State, key: &str) -> ApiResult<&'s TemplateRecord> {
    resolve::<TemplateId>(key, |name| state.index().template_named(name))
        .and_then(|id| state.template(id))
        .ok_or_else(|| ApiError::not_found("template", key))
}

/// The tenant network with this id or name.
pub fn network<'s>(state: &'s State, key: &str) -> ApiResult<&'s NetworkRecord> {
    resolve::<NetworkId>(key, |name| state.index().networks().named(name))
        .and_then(|id| state.network(id))
        .ok_or_else(|| ApiError::not_found("network", key))
}

/// The job with this id or name.
pub fn job<'s>(state: &'s State, key: &str) -> ApiResult<&'s JobRecord> {
    resolve::<JobId>(key, |name| state.index().job_named(name))
        .and_then(|id| state.job(id))
        .ok_or_else(|| ApiError::not_found("job", key))
}

/// The workflow with this id or name.
pub fn workflow<'s>(state: &'s State, key: &str) -> ApiResult<&'s WorkflowRecord> {
    resolve::<WorkflowId>(key, |name| state.index().workflow_named(name))
        .and_then(|id| state.workflow(id))
        .filter(|workflow| !workflow.removed)
        .ok_or_else(|| ApiError::not_found("workflow", key))
}

/// The host that a body's field names: if there is none, the field is at fault and not the path.
pub fn host_in_field(state: &State, field: &str, key: &str) -> ApiResult<HostId> {
    host(state, key).map(|h| h.id).map_err(|e| ApiError::field(field, e.problem().cause.clone()))
}

/// The template that a body's field names.
pub fn template_in_field<'s>(state: &'s State, field: &str, key: &str) -> ApiResult<&'s TemplateRecord> {
    template(state, key).map_err(|e| ApiError::field(field, e.problem().cause.clone()))
}

/// The tenant network that a body's field names.
pub fn network_in_field(state: &State, field: &str, key: &str) -> ApiResult<NetworkId> {
    network(state, key).map(|n| n.id).map_err(|e| ApiError::field(field, e.problem().cause.clone()))
}
