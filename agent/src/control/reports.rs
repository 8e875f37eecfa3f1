//! Delivers what must not be lost. Ends of attempts are kept by their runner until the coordinator has committed
//! them. A migration's change is sent once: the coordinator asks again if it hears nothing.

use crate::{attempt::AttemptRunner, text::describe};
use novacron_common::{
    ids::MigrationId,
    record::{AttemptReport, SideState},
    wire::{ControlRequest, StreamKind},
};
use novacron_transport::{Link, LinkError};
use std::{sync::Arc, time::Duration};
use tokio::sync::{mpsc, watch};

/// How soon an undelivered report is tried again, and how often those kept on disk are looked through.
const RETRY: Duration = Duration::from_secs(2);
/// How long the coordinator may take to commit a report.
const COMMIT_DEADLINE: Duration = Duration::from_secs(10);

/// Sends reports over whatever session there is.
#[derive(Clone)]
pub struct Reports {
    link: watch::Receiver<Option<Link>>,
}

impl Reports {
    /// Over the session whose link is `link`.
    pub fn new(link: watch::Receiver<Option<Link>>) -> Self {
        Self { link }
    }

    /// Delivers the ends of attempts, for ever: fresh ones at once, those kept from earlier again and again.
    pub async fn deliver_attempts(mut self, runner: Arc<AttemptRunner>) {
        let Some(mut fresh) = runner.reports() else { return };
        let mut settled = false;
        loop {
            if !settled {
                settled = self.deliver_kept(&runner).await;
            }
            let pause = if settled { Duration::MAX } else { RETRY };
            match novacron_runtime::time::timeout(pause.min(Duration::from_secs(86_400)), fresh.recv()).await
            {
                Ok(Some(report)) => settled &= self.deliver(report, &runner).await,
                Ok(None) => return,
                Err(_) => {}
            }
        }
    }

    /// Whether nothing is left to deliver. What is kept comes in portions.
    async fn deliver_kept(&mut self, runner: &AttemptRunner) -> bool {
        loop {
            let kept = match runner.unacknowledged().await {
                Ok(kept) if kept.is_empty() => return true,
                Ok(kept) => kept,
                Err(error) => {
                    tracing::error!(reason = describe(&error), "the ends of attempts cannot be read");
                    return false;
                }
            };
            for report in kept {
                if !self.deliver(report, runner).await {
                    return false;
                }
            }
        }
    }

    async fn deliver(&mut self, report: AttemptReport, runner: &AttemptRunner) -> bool {
        let attempt = report.attempt;
        if let Err(error) = self.send(ControlRequest::AttemptEnded(report)).await {
            tracing::debug!(%attempt, reason = describe(&error), "report not delivered yet");
            return false;
        }
        if let Err(error) = runner.acknowledge(attempt).await {
            tracing::warn!(%attempt, reason = describe(&error), "a delivered report could not be removed");
        }
        true
    }

    /// Sends the changes of migrations, for ever.
    pub async fn send_migrations(mut self, mut changes: mpsc::Receiver<(MigrationId, SideState)>) {
        while let Some((migration, state)) = changes.recv().await {
            if let Err(error) = self.send(ControlRequest::Migration { migration, state }).await {
                tracing::debug!(%migration, reason = describe(&error), "change not sent: the coordinator will ask");
            }
        }
    }

    /// Returns once the coordinator has committed it.
    async fn send(&mut self, request: ControlRequest) -> Result<(), LinkError> {
        let stopping = || LinkError::Broken { doing: "reporting", reason: "the agent is stopping".into() };
        let waiting =
            novacron_runtime::time::timeout(COMMIT_DEADLINE, self.link.wait_for(Option::is_some)).await;
        let late = |_| LinkError::Broken { doing: "waiting for a session", reason: "there is none".into() };
        let link = waiting.map_err(late)?.ok().and_then(|l| l.clone()).ok_or_else(stopping)?;
        let exchange = async {
            let mut stream = link.open(StreamKind::Control).await?;
            stream.send(&request).await?;
            stream.finish();
            stream.recv::<()>().await
        };
        let late = |_| LinkError::Broken { doing: "waiting for a commit", reason: "too slow".into() };
        novacron_runtime::time::timeout(COMMIT_DEADLINE, exchange).await.map_err(late)?
    }
}
