//! Moves that are only thought of: what is shown, and that nothing is begun.

use crate::{
    cluster::TestCluster,
    fake_agent::FakeAgent,
    migrations::{two_hosts, until_ended},
};
use novacron_common::{
    api::{HostView, MigrationPlan, MigrationState, MigrationView, Page, VmView},
    record::{Limit, PreflightFault, PreflightKind, Rung},
};
use serde_json::json;

const DRY: &str = "/api/v1/vms/web-1/migrate?dry_run=true";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_shows_each_host_with_its_forecast_and_begins_nothing() {
    let cluster = TestCluster::start().await;
    let (one, two, made) = two_hosts(&cluster).await;
    let three = FakeAgent::join(&cluster, "node-3").await;
    cluster.post("/api/v1/hosts/node-3/cordon", json!({})).await.ok::<HostView>();

    let answer = cluster.post(DRY, json!({})).await;
    assert_eq!(answer.status.as_u16(), 200);
    let plan: MigrationPlan = answer.ok();
    assert_eq!((plan.vm, plan.source_host, plan.live), (made.id, one.host, true));
    let guest = &plan.guest;
    assert_eq!((guest.in_use_bytes, guest.disk_bytes), (Some(64 << 20), 1 << 20));
    assert_eq!(
        guest.dirty.map(|dirty| (dirty.bytes_per_second, dirty.working_set_bytes)),
        Some((1 << 20, 16 << 20))
    );

    let [best, other] = &plan.candidates[..] else { panic!("{plan:?}") };
    assert_eq!((best.host, best.chosen, best.possible), (two.host, true, true));
    assert_eq!((best.link.rate, best.link.round_trip_us), (Some(100_000_000), Some(200)));
    let forecast = best.forecast.unwrap();
    assert_eq!((forecast.rung, forecast.limit, forecast.basis.measured), (Rung::Precopy, None, true));
    for interval in [forecast.total_ms, forecast.blackout_ms, forecast.wire_bytes] {
        assert!(interval.low <= interval.expected && interval.expected <= interval.high, "{forecast:?}");
        assert!(interval.expected > 0, "{forecast:?}");
    }
    assert_eq!((other.host, other.possible, other.forecast), (three.host, false, None));
    assert_eq!(other.faults[0].kind, PreflightKind::Placement);
    assert!(
        other.faults[0].text.contains("node-3 is cordoned") && other.faults[0].remedy.contains("uncordon")
    );
    assert!(!three.log().iter().any(|step| step.starts_with("check")), "a host that is out is not asked");

    let none: Page<MigrationView> = cluster.get("/api/v1/migrations").await.ok();
    assert_eq!(none.items, []);
    let target: HostView = cluster.get("/api/v1/hosts/node-2").await.ok();
    assert_eq!((target.vms, target.memory_reserved.0), (0, 0), "nothing is reserved");
    assert!(!two.log().iter().any(|step| step == "prepare"), "{:?}", two.log());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_target_objects_to_is_named_and_makes_it_impossible_only_if_certain() {
    let cluster = TestCluster::start().await;
    let (_one, two, _) = two_hosts(&cluster).await;
    two.object(PreflightFault::warning(PreflightKind::Image, "one is missing", "nothing"));
    let plan: MigrationPlan = cluster.post(DRY, json!({ "target_host": "node-2" })).await.ok();
    let [candidate] = &plan.candidates[..] else { panic!("{plan:?}") };
    assert!(candidate.possible && candidate.forecast.is_some() && candidate.chosen);
    two.object(PreflightFault::certain(PreflightKind::Cpu, "it lacks avx2", "choose another"));
    let plan: MigrationPlan = cluster.post(DRY, json!({ "target_host": "node-2" })).await.ok();
    let candidate = &plan.candidates[0];
    assert!(!candidate.possible && candidate.forecast.is_none());
    let kinds: Vec<_> = candidate.faults.iter().map(|fault| (fault.kind, fault.certain)).collect();
    assert_eq!(kinds, [(PreflightKind::Image, false), (PreflightKind::Cpu, true)]);
    let refused = cluster.post("/api/v1/vms/web-1/migrate", json!({ "target_host": "node-2" })).await;
    refused.problem(409, "no_placement", "target_host");
    assert!(refused.body.contains("avx2") && refused.body.contains("choose another"), "{}", refused.body);
    let none: Page<MigrationView> = cluster.get("/api/v1/migrations").await.ok();
    assert_eq!(none.items, [], "nothing is begun");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_shape_the_forecast_and_a_bad_request_is_refused_as_for_a_real_move() {
    let cluster = TestCluster::start().await;
    let (_one, _two, _) = two_hosts(&cluster).await;
    for (body, field) in [
        (json!({ "strategy": "precopy", "max_slowdown_pct": 9 }), "max_slowdown_pct"),
        (json!({ "target_host": "nowhere" }), "target_host"),
        (json!({ "target_host": "node-1" }), "target_host"),
    ] {
        cluster.post(DRY, body).await.problem(400, "invalid_request", field);
    }
    let odd = cluster.post("/api/v1/vms/web-1/migrate?dry_run=maybe", json!({})).await;
    odd.problem(400, "invalid_request", "dry_run");
    cluster.post("/api/v1/vms/none/migrate?dry_run=true", json!({})).await.problem(404, "not_found", "");
    // 64 MiB at 100 MB/s do not fit into a second and the rest of a move.
    let hurried: MigrationPlan =
        cluster.post(DRY, json!({ "deadline": "7d", "max_downtime_ms": 1 })).await.ok();
    let forecast = hurried.candidates[0].forecast.unwrap();
    assert_eq!(hurried.limits.max_downtime_ms, Some(1));
    assert!(forecast.limit != Some(Limit::Deadline), "{forecast:?}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_keeps_its_forecast_and_the_next_one_has_learned_from_it() {
    let cluster = TestCluster::start().await;
    let (_one, _two, _) = two_hosts(&cluster).await;
    let plan: MigrationPlan = cluster.post(DRY, json!({})).await.ok();
    let asked: MigrationView = cluster.post("/api/v1/vms/web-1/migrate", json!({})).await.ok();
    let planned = plan.candidates[0].forecast.unwrap();
    assert_eq!(asked.forecast, Some(planned), "what was measured a moment ago serves");
    assert_eq!(asked.actual, None);
    let ended = until_ended(&cluster, &asked).await;
    assert_eq!(ended.status.state, MigrationState::Completed, "{ended:?}");
    let actual = ended.actual.unwrap();
    assert_eq!((ended.forecast, actual.wire_bytes, actual.blackout_ms), (Some(planned), 40, None));
    let took = ended.status.end_time.unwrap().since(ended.status.start_time);
    assert_eq!(u128::from(actual.total_ms), took.as_millis());
    crate::machines::until(&cluster, "web-1", novacron_common::record::VmState::Running).await;
    let back: MigrationPlan = cluster.post(DRY, json!({})).await.ok();
    let learned = back.candidates[0].forecast.unwrap();
    assert_eq!((planned.basis.moves, learned.basis.moves), (0, 1));
    let unmeasured: VmView = cluster.get("/api/v1/vms/web-1").await.ok();
    assert_eq!(unmeasured.host, Some(plan.candidates[0].host));
    cluster.stop().await;
}
