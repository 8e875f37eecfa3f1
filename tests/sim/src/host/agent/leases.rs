//! The leases of a host's attempts: what is due and what a grant means is the shipped code's; asking, and where a
//! deadline is kept, is as in `novacron_agent::control::keep_leases` and `AttemptRunner`.

use super::{Agent, end};
use novacron_agent::{
    attempt::{Next, lease},
    hypervisor::namespace::lease::BootTime,
};
use novacron_common::{
    ids::AttemptKey,
    record::{AttemptOutcome, AttemptReport},
    spec::OnLeaseLost,
    units::Epoch,
    wire::{AttemptStart, ControlRequest, LeasesGranted, StreamKind},
};
use novacron_runtime::time::{sleep, timeout};
use novacron_transport::LinkError;
use std::time::Duration;
use tokio::sync::watch;

/// Pause after a request that was not answered.
const RETRY: Duration = Duration::from_millis(300);
/// How long the leader may take.
const ANSWER_DEADLINE: Duration = Duration::from_secs(3);
/// Nobody has a lease that is due before this.
const IDLE: Duration = Duration::from_secs(3600);

impl Agent {
    /// Renews leases, for ever.
    pub(super) async fn keep_leases(self) {
        loop {
            let pause = match self.next_of_leases() {
                Next::Wait(pause) => pause.unwrap_or(IDLE),
                Next::Ask(asked) => {
                    self.renew(asked).await;
                    match self.next_of_leases() {
                        Next::Ask(_) => RETRY,
                        Next::Wait(pause) => pause.unwrap_or(IDLE),
                    }
                }
            };
            tokio::select! {
                biased;
                () = self.books.lease_wanted.notified() => {}
                () = sleep(pause) => {}
            }
        }
    }

    fn next_of_leases(&self) -> Next {
        lease::next(self.table().live.iter(), BootTime::now())
    }

    async fn renew(&self, asked: Vec<(AttemptKey, Epoch)>) {
        let asked_at = BootTime::now();
        let Ok(Ok(granted)) = timeout(ANSWER_DEADLINE, self.ask(asked)).await else { return };
        for attempt in granted.0 {
            let until =
                self.table().live.get_mut(&attempt).and_then(|live| live.lease.as_mut()?.renew(asked_at));
            if let Some(until) = until {
                self.host.kept().until.insert(attempt, until);
            }
            self.wake_from_lease(attempt);
        }
    }

    async fn ask(&self, asked: Vec<(AttemptKey, Epoch)>) -> Result<LeasesGranted, LinkError> {
        let stopped = |_| LinkError::Broken { doing: "renewing leases", reason: "the agent stops".into() };
        let mut link = self.link.subscribe();
        let link = link.wait_for(Option::is_some).await.map_err(stopped)?.clone();
        let Some(link) = link else { return Ok(LeasesGranted::default()) };
        let mut stream = link.open(StreamKind::Control).await?;
        stream.send(&ControlRequest::RenewLeases(asked)).await?;
        stream.finish();
        stream.recv().await
    }

    /// Lets an attempt go on that waits for its first grant.
    pub(super) fn wake_from_lease(&self, attempt: AttemptKey) {
        if let Some(lease) = self.table().live.get(&attempt).and_then(|live| live.lease.as_ref()) {
            lease.announce();
        }
    }

    /// Tells when an attempt that dies with its lease has one.
    pub(super) fn first_grant(&self, start: &AttemptStart) -> Option<watch::Receiver<bool>> {
        let table = self.table();
        let lease = table.live.get(&start.attempt)?.lease.as_ref()?;
        (start.on_lease_lost == OnLeaseLost::Kill).then(|| lease.granted())
    }

    /// As the shipped runner: the right to run is what was asked for after the start command came.
    pub(super) async fn launch_when(self, start: AttemptStart, mut granted: watch::Receiver<bool>) {
        let patience = Duration::from_millis(start.lease.map_or(0, |lease| lease.duration_ms));
        match timeout(patience, granted.wait_for(|granted| *granted)).await {
            Ok(Ok(_)) => self.host.launch(&start),
            Ok(Err(_)) | Err(_) => {
                let end = end(AttemptOutcome::LeaseLost);
                self.host.settle(AttemptReport { attempt: start.attempt, epoch: start.epoch, end });
            }
        }
    }
}
