//! `/health`: whether this coordinator lives, whether it can serve, and what it depends on. No token: load
//! balancers and operators in need must get it.

use super::App;
use crate::raft::ClockVerdict;
use axum::{Json, extract::State, http::StatusCode};
use novacron_common::api::{Health, HealthCheck};
use std::time::Duration;
use utoipa_axum::{router::OpenApiRouter, routes};

/// How long a quorum may take to answer before the check says no.
const QUORUM_DEADLINE: Duration = Duration::from_secs(2);

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(health)).routes(routes!(live)).routes(routes!(ready))
}

/// How it is, with everything that it depends on. Always 200: the body says more than a status could.
#[utoipa::path(get, path = "/health", tag = "operations", operation_id = "health", security(()),
    responses((status = 200, body = Health)))]
async fn health(State(app): State<App>) -> Json<Health> {
    Json(summary(check_all(&app).await))
}

/// Whether the process serves at all.
#[utoipa::path(get, path = "/health/live", tag = "operations", operation_id = "health_live", security(()),
    responses((status = 200, body = Health)))]
async fn live() -> Json<Health> {
    Json(summary(Vec::new()))
}

/// Whether requests can be served: the ledger is there and a quorum answers. Hosts that are down do not count.
#[utoipa::path(get, path = "/health/ready", tag = "operations", operation_id = "health_ready", security(()),
    responses((status = 200, body = Health), (status = 503, body = Health)))]
async fn ready(State(app): State<App>) -> (StatusCode, Json<Health>) {
    let needed = vec![ledger(&app), quorum(&app).await];
    let serves = needed.iter().all(|check| check.ok);
    // A clock that is off keeps the leader from firing, not from serving.
    let health = summary(needed.into_iter().chain([clock(&app)]).collect());
    let status = match serves {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, Json(health))
}

async fn check_all(app: &App) -> Vec<HealthCheck> {
    vec![ledger(app), quorum(app).await, clock(app), hosts(app)]
}

fn summary(checks: Vec<HealthCheck>) -> Health {
    let status = if checks.iter().all(|check| check.ok) { "ok" } else { "degraded" };
    Health { status: status.to_owned(), checks }
}

fn check(name: &str, ok: bool, detail: String) -> HealthCheck {
    HealthCheck { name: name.to_owned(), ok, detail }
}

fn ledger(app: &App) -> HealthCheck {
    let found = app.ledger.read(|state| state.cluster().is_some());
    let detail = match found {
        true => format!("applied up to {}", app.ledger.status().applied),
        false => "the cluster's record has not reached this coordinator".to_owned(),
    };
    check("ledger", found, detail)
}

async fn quorum(app: &App) -> HealthCheck {
    let asked = tokio::time::timeout(QUORUM_DEADLINE, app.ledger.linearizable()).await;
    match asked {
        Ok(Ok(())) => {
            let leader =
                app.ledger.status().leader.map_or_else(|| "unknown".to_owned(), |node| node.to_string());
            check("quorum", true, format!("coordinator {leader} leads"))
        }
        Ok(Err(error)) => check("quorum", false, error.to_string()),
        Err(_) => check("quorum", false, "no quorum answers".to_owned()),
    }
}

fn clock(app: &App) -> HealthCheck {
    let alarms = app.ledger.read(|state| {
        state.alarms().iter().map(|alarm| novacron_core::views::alarm(alarm).cause).collect::<Vec<_>>()
    });
    match (app.ledger.clock(), alarms.is_empty()) {
        (ClockVerdict::Off { median_ahead_ms }, _) => {
            check("clock", false, format!("the majority's clocks are {median_ahead_ms} ms ahead of this one"))
        }
        (_, false) => check("clock", false, alarms.join("; ")),
        (ClockVerdict::Agrees, true) => check("clock", true, "agrees with the majority's".to_owned()),
        (ClockVerdict::Unknown, true) => check("clock", true, "nobody to compare it with".to_owned()),
    }
}

fn hosts(app: &App) -> HealthCheck {
    let (up, all) = app.ledger.read(|state| {
        let up = state.hosts().iter().filter(|host| host.is_up()).count();
        (up, state.hosts().len())
    });
    check("hosts", up == all, format!("{up} of {all} up"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bad_check_degrades_the_whole() {
        let good = check("a", true, String::new());
        assert_eq!(summary(vec![good.clone()]).status, "ok");
        assert_eq!(summary(vec![good, check("b", false, String::new())]).status, "degraded");
    }
}
