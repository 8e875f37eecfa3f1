//! Keeps the leases of attempts: asks the leader, over whatever session there is, for all that are due at once.

use crate::{
    attempt::{AttemptRunner, Next},
    hypervisor::namespace::lease::BootTime,
    text::describe,
};
use novacron_common::{
    ids::AttemptKey,
    units::Epoch,
    wire::{ControlRequest, LeasesGranted, StreamKind},
};
use novacron_transport::{Link, LinkError};
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;

/// Pause after a request that was not answered.
const RETRY: Duration = Duration::from_millis(300);
/// How long the leader may take: it asks a majority before it answers.
const ANSWER_DEADLINE: Duration = Duration::from_secs(3);
/// Nobody has a lease that is due before this.
const IDLE: Duration = Duration::from_secs(3600);

/// Renews leases, for ever.
pub async fn keep_leases(mut link: watch::Receiver<Option<Link>>, runner: Arc<AttemptRunner>) {
    loop {
        let pause = match runner.next_of_leases(BootTime::now()) {
            Next::Wait(pause) => pause.unwrap_or(IDLE),
            Next::Ask(asked) => match ask(&mut link, asked, &runner).await {
                Ok(()) => continue_after_answer(&runner),
                Err(error) => {
                    tracing::debug!(reason = describe(&error), "leases were not renewed");
                    RETRY
                }
            },
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = runner.lease_wanted() => {}
        }
    }
}

/// What was refused stays due; to ask for it again and again would help nobody.
fn continue_after_answer(runner: &AttemptRunner) -> Duration {
    match runner.next_of_leases(BootTime::now()) {
        Next::Ask(_) => RETRY,
        Next::Wait(pause) => pause.unwrap_or(IDLE),
    }
}

async fn ask(
    link: &mut watch::Receiver<Option<Link>>,
    asked: Vec<(AttemptKey, Epoch)>,
    runner: &AttemptRunner,
) -> Result<(), LinkError> {
    let stopping = || LinkError::Broken { doing: "renewing leases", reason: "the agent is stopping".into() };
    let link =
        link.wait_for(Option::is_some).await.ok().and_then(|link| link.clone()).ok_or_else(stopping)?;
    let asked_at = BootTime::now();
    let exchange = async {
        let mut stream = link.open(StreamKind::Control).await?;
        stream.send(&ControlRequest::RenewLeases(asked)).await?;
        stream.finish();
        stream.recv::<LeasesGranted>().await
    };
    let late = |_| LinkError::Broken { doing: "renewing leases", reason: "no answer in time".into() };
    let granted = tokio::time::timeout(ANSWER_DEADLINE, exchange).await.map_err(late)??;
    runner.renewed(granted, asked_at).await;
    Ok(())
}
