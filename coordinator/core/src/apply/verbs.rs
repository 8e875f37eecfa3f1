//! What the coordinators do to machines for a fire: the same commands that a user would give, as an attempt.

use super::{Outcome, attempts, migrations, vms};
use crate::{
    applied::{Applied, Refusal},
    command::{VerbBegin, VerbStep},
    record::VerbWatch,
    state::State,
};
use novacron_common::{
    api::VmDesired,
    record::{AttemptEnd, AttemptOutcome, AttemptReport, Output},
};

/// The attempt begins with the command's effect; its end is observed ([`crate::verbs::outcome`]). What cannot be
/// begun is an attempt that failed to start.
pub(super) fn begin(state: &mut State, c: VerbBegin) -> Outcome {
    attempts::check_waits(state, c.fire)?;
    let fire = c.fire;
    match take_step(state, c.step) {
        Ok(watch) => {
            let (attempt, epoch) = attempts::start(state, fire, None, Some(watch))?;
            Ok(Applied::AttemptStarted { attempt, epoch })
        }
        Err(reason) => {
            let (attempt, epoch) = attempts::start(state, fire, None, None)?;
            let outcome = AttemptOutcome::FailedToStart { reason };
            let ended_at = state.now();
            let end =
                AttemptEnd { outcome, started_at: None, ended_at, output: Output::default(), result: None };
            attempts::end(state, AttemptReport { attempt, epoch, end })?;
            Ok(Applied::AttemptStarted { attempt, epoch })
        }
    }
}

fn take_step(state: &mut State, step: VerbStep) -> Result<VerbWatch, String> {
    let told = |refusal: Refusal| refusal.to_string();
    match step {
        VerbStep::Impossible(reason) => Err(reason),
        VerbStep::Desire(desire) => {
            vms::desire(state, &desire).map_err(told)?;
            Ok(match desire.desired {
                VmDesired::Running => VerbWatch::Runs(desire.vm),
                _ => VerbWatch::Stopped(desire.vm),
            })
        }
        VerbStep::Restart(restart) => {
            vms::restart(state, &restart).map_err(told)?;
            let request = state.vm(restart.vm).map_or(0, |vm| vm.restart_requests);
            Ok(VerbWatch::Restarted { vm: restart.vm, request })
        }
        VerbStep::Migrate(ask) => {
            let id = ask.id;
            migrations::ask(state, ask).map_err(told)?;
            Ok(VerbWatch::Moved(id))
        }
    }
}
