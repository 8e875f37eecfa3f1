//! Jobs over HTTP.

mod body;
mod fire;
mod ledger;
mod overdue;
mod period;
mod policy;
mod target;
mod unique;
mod view;

pub use body::{JobCreate, JobUpdate};
pub use fire::{AttemptView, ExecuteAccepted, FireState, FireView};
pub use ledger::{LedgerEntry, LedgerTotals, LedgerView, TickState};
pub use overdue::OverdueView;
pub use period::{Period, parse_duration};
pub use policy::{
    BackoffBody, ConcurrencyBody, MisfireBody, MisfirePolicyBody, RetentionBody, RetryBody, RetryOnBody,
};
pub use target::{CommandTargetBody, HttpBody, JobTargetBody, StatusBody, VmCommandBody, VmVerbBody};
pub use view::{JobStatus, JobView};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::JobSpec;

    #[test]
    fn the_documented_body_is_taken_as_it_stands() {
        let body = r#"{"name":"data-pipeline","schedule":"0 2 * * *","timezone":"UTC","enabled":true,
                       "priority":5,"max_retries":3,"timeout":30000}"#;
        let body: JobCreate = serde_json::from_str(body).unwrap();
        let spec = JobSpec::try_from(&body).unwrap();
        assert_eq!((spec.timeout_ms, spec.priority, spec.retry.max_retries), (30_000, 5, 3));
    }

    #[test]
    fn every_fault_is_named_at_once() {
        let body: JobCreate =
            serde_json::from_str(r#"{"name":"a b","schedule":"x","timezone":"Mars/Base","timeout":"1y"}"#)
                .unwrap();
        let faults = JobSpec::try_from(&body).unwrap_err();
        let fields: Vec<_> = faults.0.iter().map(|f| f.field.as_str()).collect();
        assert_eq!(fields, ["name", "schedule", "timezone", "timeout"]);
    }

    #[test]
    fn a_partial_update_leaves_the_rest() {
        let create: JobCreate = serde_json::from_str(r#"{"name":"a","schedule":"@daily"}"#).unwrap();
        let spec = JobSpec::try_from(&create).unwrap();
        let update: JobUpdate = serde_json::from_str(r#"{"name":"b","enabled":false}"#).unwrap();
        let new = update.apply_to(&spec).unwrap();
        assert_eq!((new.name.as_str(), new.enabled, new.schedule), ("b", false, spec.schedule));
    }
}
