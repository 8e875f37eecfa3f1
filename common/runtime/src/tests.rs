//! Outside a simulation everything is tokio's.

use super::{spawn, spawn_blocking, task::JoinSet, time};
use std::time::Duration;

#[tokio::test]
async fn outside_a_simulation_tasks_and_timers_are_tokios() {
    assert!(super::entered().is_none());
    assert_eq!(spawn(async { 7 }).await.unwrap(), 7);
    assert_eq!(spawn_blocking(|| 8).await.unwrap(), 8);
    let late = time::timeout(Duration::from_millis(1), std::future::pending::<()>()).await;
    assert_eq!(late, Err(time::Elapsed));
    assert_eq!(time::timeout(Duration::from_secs(60), async { 9 }).await, Ok(9));
}

#[tokio::test]
async fn a_set_is_joined_one_by_one_and_its_tasks_end_with_it() {
    let mut set = JoinSet::new();
    (0..3).for_each(|number| set.spawn(async move { number }));
    let mut seen = Vec::new();
    while let Some(ended) = set.join_next().await {
        seen.push(ended.unwrap());
    }
    seen.sort_unstable();
    assert_eq!(seen, [0, 1, 2]);
    let (alive, mut ended) = tokio::sync::oneshot::channel::<()>();
    set.spawn(async move {
        let _held_until_dropped = alive;
        std::future::pending().await
    });
    assert!(ended.try_recv().is_err());
    drop(set);
    assert!(ended.await.is_err(), "the task was dropped");
}

#[tokio::test]
async fn a_panic_is_told_from_an_abort() {
    let panicked = spawn(async { panic!("expected by the test") }).await;
    assert!(panicked.is_err_and(|error| error.is_panic()));
    let handle = spawn(std::future::pending::<()>());
    handle.abort();
    assert!(handle.await.is_err_and(|error| !error.is_panic()));
}

#[tokio::test]
async fn an_interval_ticks_at_once_and_not_again_before_its_period_is_over() {
    let mut ticks = time::interval(Duration::from_secs(3600));
    ticks.tick().await;
    assert_eq!(time::timeout(Duration::from_millis(1), ticks.tick()).await, Err(time::Elapsed));
    let mut ticks = time::interval(Duration::from_millis(1));
    for _ in 0..3 {
        ticks.tick().await;
    }
}
