//! Pages of lists. A page costs what is on it, wherever it begins and whatever it is filtered by: ids are in the
//! order of creation, a cursor is the last id of the page before, and states have an index.

use crate::{
    applied::Refusal,
    fire_index::fires_of,
    record::{HostRecord, JobRecord, MigrationRecord, VmRecord},
    state::{State, Stored},
    views::{self, Outputs, Shapes},
};
use novacron_common::{
    api::{
        FireView, HostState, HostView, JobQuery, JobStatus, JobView, MigrationState, MigrationView,
        NetworkView, Page, PageQuery, ProblemCode, RunView, TemplateView, TokenView, VmView, WorkflowView,
    },
    ids::{BadId, FireKey, JobId, RunId, VmId, WorkflowId},
    record::VmState,
    spec::Fault,
};
use std::{fmt::Display, str::FromStr};

/// Machines, by `?status=` if given.
///
/// # Errors
/// [`Refusal`] names the query's field that is wrong.
pub fn vms(state: &State, query: &PageQuery) -> Result<Page<VmView>, Refusal> {
    let after = cursor::<VmId>(query)?;
    let view = |vm: &VmRecord| views::vm(state, vm);
    match &query.status {
        None => page(query, state.vms().after(after), |vm| vm.id, view),
        Some(text) => {
            let found = state.index().vms_in(vm_state(text)?, after).filter_map(|id| state.vm(id));
            page(query, found, |vm| vm.id, view)
        }
    }
}

/// Hosts, by `?status=up` or `down` if given.
///
/// # Errors
/// As [`vms`].
pub fn hosts(state: &State, query: &PageQuery) -> Result<Page<HostView>, Refusal> {
    const STATES: [(&str, HostState); 2] = [("up", HostState::Up), ("down", HostState::Down)];
    let wanted = query.status.as_deref().map(|text| named(&STATES, text)).transpose()?;
    let all = state.table::<HostRecord>().after(cursor(query)?);
    let found = all.filter(|host| wanted.is_none_or(|wanted| host.state == wanted));
    page(query, found, |host| host.id, |host| views::host(state, host))
}

/// Templates.
///
/// # Errors
/// As [`vms`].
pub fn templates(state: &State, query: &PageQuery) -> Result<Page<TemplateView>, Refusal> {
    table(state, query, views::template)
}

/// Tenant networks.
///
/// # Errors
/// As [`vms`].
pub fn networks(state: &State, query: &PageQuery) -> Result<Page<NetworkView>, Refusal> {
    table(state, query, |network| views::network(state, network))
}

/// Jobs that are looked at for one filtered page; a page costs no more, whatever it is filtered by.
const JOBS_SCANNED: usize = 10_000;

/// Jobs, by `?status=` and `?label=` if given.
///
/// # Errors
/// As [`vms`].
pub fn jobs(state: &State, query: &JobQuery) -> Result<Page<JobView>, Refusal> {
    let wanted = query.status.as_deref().map(job_status).transpose()?;
    let label = query.label.as_deref().map(label).transpose()?;
    let plain = PageQuery { limit: query.limit, cursor: query.cursor.clone(), status: None };
    if wanted.is_none() && label.is_none() {
        return table(state, &plain, |job| views::job(state, job));
    }
    let holds = |job: &JobRecord| {
        let status = state.pulse(job.id).map(|pulse| views::status(job, pulse));
        let labelled = label.is_none_or(|(key, value)| job.spec.labels.get(key).is_some_and(|v| v == value));
        labelled && (wanted.is_none() || status == wanted)
    };
    let mut items = Vec::new();
    let (limit, mut last) = (limit(&plain)?, None);
    let mut rows = state.jobs().after(cursor::<JobId>(&plain)?);
    for job in rows.by_ref().take(JOBS_SCANNED) {
        last = Some(job.id);
        if holds(job) {
            items.push(views::job(state, job));
        }
        if items.len() == limit {
            break;
        }
    }
    let more = rows.next().is_some();
    Ok(Page { items, next_cursor: last.filter(|_| more).map(|id| id.to_string()) })
}

fn label(text: &str) -> Result<(&str, &str), Refusal> {
    text.split_once('=').ok_or_else(|| wrong("label", "must be key=value".to_owned()))
}

fn job_status(text: &str) -> Result<JobStatus, Refusal> {
    match text {
        "active" => Ok(JobStatus::Active),
        "paused" => Ok(JobStatus::Paused),
        "finished" => Ok(JobStatus::Finished),
        "deleting" => Ok(JobStatus::Deleting),
        _ => Err(wrong("status", "must be one of active, paused, finished, deleting".to_owned())),
    }
}

/// Workflows, without their nodes.
///
/// # Errors
/// As [`vms`].
pub fn workflows(state: &State, query: &PageQuery) -> Result<Page<WorkflowView>, Refusal> {
    no_status(query)?;
    let rows = state.workflows().after(cursor(query)?).filter(|workflow| !workflow.removed);
    page(query, rows, |row| row.id, |row| views::workflow(state, row, Shapes::LeftOut))
}

/// Runs of a workflow, the newest first, without their nodes.
///
/// # Errors
/// As [`vms`].
pub fn runs(state: &State, workflow: WorkflowId, query: &PageQuery) -> Result<Page<RunView>, Refusal> {
    no_status(query)?;
    let before = cursor::<RunId>(query)?;
    let ids = state.index().workflows().runs(workflow, before).rev();
    page(query, ids.filter_map(|id| state.run(id)), |row| row.id, |row| views::run(state, row))
}

/// Migrations, by `?status=` if given. Unlike machines they have no index by state: a page of a rare state costs a
/// pass over all.
///
/// # Errors
/// As [`vms`].
pub fn migrations(state: &State, query: &PageQuery) -> Result<Page<MigrationView>, Refusal> {
    use MigrationState as S;
    const STATES: [(&str, MigrationState); 9] = [
        ("pending", S::Pending),
        ("preparing", S::Preparing),
        ("copying", S::Copying),
        ("handing_over", S::HandingOver),
        ("finishing", S::Finishing),
        ("completed", S::Completed),
        ("reverting", S::Reverting),
        ("failed", S::Failed),
        ("cancelled", S::Cancelled),
    ];
    let wanted = query.status.as_deref().map(|text| named(&STATES, text)).transpose()?;
    let all = state.table::<MigrationRecord>().after(cursor(query)?);
    let found = all.filter(|record| wanted.is_none_or(|wanted| record.state == wanted));
    page(query, found, |record| record.id, |record| views::migration(state, record))
}

/// API tokens.
///
/// # Errors
/// As [`vms`].
pub fn tokens(state: &State, query: &PageQuery) -> Result<Page<TokenView>, Refusal> {
    table(state, query, views::token)
}

/// Fires of a job, the newest first, without their outputs.
///
/// # Errors
/// As [`vms`].
pub fn fires(state: &State, job: JobId, query: &PageQuery) -> Result<Page<FireView>, Refusal> {
    no_status(query)?;
    let all = fires_of(job);
    let before = cursor::<FireKey>(query)?.filter(|key| key.job == job);
    let found: Box<dyn Iterator<Item = _>> = match before {
        Some(before) => Box::new(state.fires().range(*all.start()..before).rev()),
        None => Box::new(state.fires().range(all).rev()),
    };
    page(query, found, |fire| fire.key, |fire| views::fire(state, fire, Outputs::LeftOut))
}

fn table<R, V>(state: &State, query: &PageQuery, view: impl Fn(&R) -> V) -> Result<Page<V>, Refusal>
where
    R: Stored,
    R::Key: FromStr<Err = BadId> + Display,
{
    no_status(query)?;
    page(query, state.table::<R>().after(cursor::<R::Key>(query)?), |row| row.key(), view)
}

fn page<'a, R: 'a, K: Display, V>(
    query: &PageQuery,
    rows: impl Iterator<Item = &'a R>,
    key: impl Fn(&R) -> K,
    view: impl Fn(&R) -> V,
) -> Result<Page<V>, Refusal> {
    let limit = limit(query)?;
    let rows: Vec<&R> = rows.take(limit + 1).collect();
    let next_cursor = (rows.len() > limit).then(|| key(rows[limit - 1]).to_string());
    Ok(Page { items: rows.into_iter().take(limit).map(view).collect(), next_cursor })
}

fn limit(query: &PageQuery) -> Result<usize, Refusal> {
    let limit = query.limit.unwrap_or(PageQuery::LIMIT_DEFAULT);
    match (1..=PageQuery::LIMIT_MAX).contains(&limit) {
        true => Ok(limit as usize),
        false => Err(wrong("limit", format!("must be 1 to {}", PageQuery::LIMIT_MAX))),
    }
}

fn cursor<K: FromStr<Err = BadId>>(query: &PageQuery) -> Result<Option<K>, Refusal> {
    let parsed = query.cursor.as_ref().map(|text| text.parse()).transpose();
    parsed.map_err(|bad: BadId| wrong("cursor", format!("is not next_cursor of a page before: {bad}")))
}

fn no_status(query: &PageQuery) -> Result<(), Refusal> {
    match query.status {
        Some(_) => Err(wrong("status", "is no filter of this list".to_owned())),
        None => Ok(()),
    }
}

fn vm_state(text: &str) -> Result<VmState, Refusal> {
    const STATES: [(&str, VmState); 9] = [
        ("pending", VmState::Pending),
        ("preparing", VmState::Preparing),
        ("running", VmState::Running),
        ("paused", VmState::Paused),
        ("stopping", VmState::Stopping),
        ("stopped", VmState::Stopped),
        ("failed", VmState::Failed),
        ("missing", VmState::Missing),
        ("unknown", VmState::Unknown),
    ];
    named(&STATES, text)
}

/// The state of that name.
fn named<S: Copy>(states: &[(&str, S)], text: &str) -> Result<S, Refusal> {
    let found = states.iter().find(|(name, _)| *name == text);
    found.map(|(_, state)| *state).ok_or_else(|| {
        let names: Vec<_> = states.iter().map(|(name, _)| *name).collect();
        wrong("status", format!("must be one of {}", names.join(", ")))
    })
}

fn wrong(field: &str, reason: String) -> Refusal {
    let fault = Fault::new(field, reason);
    Refusal::new(ProblemCode::InvalidRequest, fault.to_string()).details(vec![fault])
}
