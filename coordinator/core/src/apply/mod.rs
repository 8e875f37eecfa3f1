//! What each command does: one small function a command, grouped by resource. Each checks first and writes last, so
//! that a refusal has changed nothing.

mod attempts;
mod cluster;
mod fires;
mod handover;
mod hosts;
mod jobs;
mod members;
mod migrations;
mod networks;
mod overdue;
mod requests;
mod templates;
mod ticks;
mod turn;
mod verbs;
mod vms;
mod workflows;

use crate::{
    applied::{Applied, Refusal},
    command::CommandBody,
    state::{State, Stored},
    table::{ROW_MAX, encode_row},
};
use novacron_common::{api::ProblemCode, spec::Fault};

pub use migrations::{check_source as check_move_source, check_strategy as check_move_strategy};
pub use requests::{ANSWER_MAX, REQUESTS_BYTES_MAX, REQUESTS_MAX, REQUESTS_REMEMBERED};

/// What an apply function returns; a refusal is an answer like any other.
type Outcome = Result<Applied, Refusal>;

pub(crate) fn apply(state: &mut State, body: CommandBody) -> Applied {
    match body {
        CommandBody::Batch(bodies) => {
            Applied::Batch(bodies.into_iter().map(|body| apply_one(state, body)).collect())
        }
        CommandBody::Keyed(keyed) => requests::keyed(state, *keyed),
        body => apply_one(state, body),
    }
}

fn apply_one(state: &mut State, body: CommandBody) -> Applied {
    use CommandBody as C;
    let outcome = match body {
        C::ClusterInit(c) => cluster::init(state, c),
        C::CoordinatorPut(c) => cluster::coordinator_put(state, c),
        C::CoordinatorRemove { node } => cluster::coordinator_remove(state, node),
        C::JoinTokenPut(c) => members::join_token_put(state, c),
        C::JoinTokenUse(c) => Ok(members::join_token_use(state, c)),
        C::TokenPut(c) => cluster::token_put(state, c),
        C::TokenRemove { id } => cluster::token_remove(state, id),
        C::HostHello(c) => hosts::hello(state, *c),
        C::HostSeen(c) => hosts::seen(state, c),
        C::HostDown(c) => hosts::down(state, &c),
        C::HostCordon(c) => hosts::cordon(state, &c),
        C::HostRemove(c) => hosts::remove(state, &c),
        C::TemplatePut(c) => templates::put(state, *c),
        C::TemplateRemove { id } => templates::remove(state, id),
        C::NetworkCreate(c) => networks::create(state, *c),
        C::NetworkRemove { id } => networks::remove(state, id),
        C::RequestAnswered(c) => requests::answered(state, *c),
        C::TicketPut(c) => requests::ticket_put(state, c),
        C::TicketUse { digest } => requests::ticket_use(state, digest),
        C::ClockAlarm(c) => requests::clock_alarm(state, c),
        body => return apply_work(state, body),
    };
    outcome.into()
}

/// The other half: machines, jobs, migrations.
fn apply_work(state: &mut State, body: CommandBody) -> Applied {
    use CommandBody as C;
    let outcome = match body {
        C::VmCreate(c) => vms::create(state, *c),
        C::VmPlace(c) => vms::place(state, *c),
        C::VmDesire(c) => vms::desire(state, &c),
        C::VmRestart(c) => vms::restart(state, &c),
        C::VmUpdate(c) => vms::update(state, c),
        C::VmObserve(c) => vms::observe(state, c),
        C::VmForget { vm } => vms::forget(state, vm),
        C::JobPut(c) => jobs::put(state, *c),
        C::JobUpdate(c) => jobs::update(state, *c),
        C::JobRemove { id } => jobs::remove(state, id),
        C::JobExecute(c) => fires::execute(state, &c),
        C::FireCommit(c) => ticks::commit(state, c),
        C::FireAlarm { fire } => fires::alarm(state, fire),
        C::AttemptPlace(c) => attempts::place(state, &c),
        C::AttemptEnd(c) => attempts::end(state, *c),
        C::AttemptSettled(c) => attempts::settled(state, c),
        C::VerbBegin(c) => verbs::begin(state, *c),
        C::HostFence { host } => attempts::fence(state, host),
        C::FireCancel { fire } => fires::cancel(state, fire),
        C::MigrationAsk(c) => migrations::ask(state, *c),
        C::MigrationObserve(c) => migrations::observe(state, *c),
        C::MigrationDenied(c) => migrations::denied(state, &c),
        C::MigrationCancel { id } => migrations::cancel(state, id),
        C::MigrationGiveUp { id } => migrations::give_up(state, id),
        C::Handover(c) => handover::commit(state, &c),
        C::Keyed(_) => Err(Refusal::new(ProblemCode::InvalidRequest, "a keyed command inside a batch")),
        body => return apply_workflow(state, body),
    };
    outcome.into()
}

/// And workflows.
fn apply_workflow(state: &mut State, body: CommandBody) -> Applied {
    use CommandBody as C;
    let outcome = match body {
        C::WorkflowPut(c) => workflows::put(state, *c),
        C::WorkflowUpdate(c) => workflows::update(state, *c),
        C::WorkflowRemove { id } => workflows::remove(state, id),
        C::RunStart(c) => workflows::start(state, *c),
        C::RunTick(c) => workflows::tick(state, &c),
        C::RunCancel { run } => workflows::cancel(state, run),
        C::RunRetry(c) => workflows::retry(state, &c),
        C::NodeDecide(c) => workflows::decide(state, &c),
        C::RunAdvance(c) => workflows::advance(state, &c),
        C::RunForget { run } => workflows::forget(state, run),
        C::Batch(_) => Err(Refusal::new(ProblemCode::InvalidRequest, "a batch inside a batch")),
        // Dealt with by the functions above, which hand over the rest only.
        _ => Err(Refusal::new(ProblemCode::Internal, "a command that nothing applies")),
    };
    outcome.into()
}

/// Refuses what would not fit into one row of the store. `field` is what the user can make smaller.
fn fits<R: Stored>(row: &R, field: &str) -> Result<(), Refusal> {
    let length = encode_row(row).map_or(usize::MAX, |bytes| bytes.len());
    if length <= ROW_ASKED_MAX {
        return Ok(());
    }
    let reason = format!("is too long: all of it together may have {ROW_ASKED_MAX} bytes");
    Err(Refusal::new(ProblemCode::TooLarge, "what is asked for is larger than one record of the ledger")
        .details(vec![Fault::new(field, reason)]))
}

/// Of [`ROW_MAX`], what a user may fill; the rest is for what is observed later.
const ROW_ASKED_MAX: usize = ROW_MAX - 16 * 1024;
