//! Two halves of a guest that lost each other are brought together again as soon as the target can be reached: a link and
//! lanes of their own, a codec that remembers nothing, and QEMU goes on with what it could not send.

use super::{Departure, split::end_half};
use crate::{
    migrate::{
        parts::MigrationsParts,
        ports::{Failure, Mover, Rest},
        road::LiveRoad,
    },
    text::describe,
};
use novacron_common::{record::Ticket, spec::VmSpec};
use novacron_runtime::time::{Instant, sleep, timeout};
use std::{convert::Infallible, sync::Arc, time::Duration};

/// Between one try and the next.
const AGAIN_AFTER: Duration = Duration::from_secs(3);
/// How often a way is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A way over which nothing has crossed for so long is given up for another.
const QUIET_MAX: Duration = Duration::from_secs(30);

/// What it takes.
pub(super) struct Reunion {
    parts: Arc<MigrationsParts>,
    mover: Arc<dyn Mover>,
    ticket: Ticket,
    spec: VmSpec,
}

impl Reunion {
    /// Of the halves of this guest.
    pub fn of(departure: &Departure) -> Self {
        let Departure { parts, mover, ticket, spec, .. } = departure;
        Self { parts: parts.clone(), mover: mover.clone(), ticket: ticket.clone(), spec: spec.clone() }
    }

    /// Tries until it is dropped, and its way with it. A half that can never send on is ended, for whoever looks at it to see.
    pub async fn pursue(self) -> Infallible {
        let migration = self.ticket.migration;
        loop {
            match self.meet().await {
                Ok(None) => {
                    tracing::warn!(%migration, "the half that is here can never send on: it is ended");
                    end_half(&*self.mover, self.ticket.vm).await;
                    std::future::pending().await
                }
                Ok(Some(road)) => {
                    tracing::info!(%migration, "the half that is here sends on");
                    let reason = accompany(&*road).await;
                    tracing::warn!(%migration, reason, "the halves are apart again");
                }
                Err(error) => {
                    tracing::info!(%migration, reason = describe(&*error), "the halves could not be brought together yet");
                }
            }
            sleep(AGAIN_AFTER).await;
        }
    }

    async fn meet(&self) -> Result<Option<Box<dyn LiveRoad>>, Failure> {
        let files = self.parts.files.prepare(self.ticket.vm, &self.spec).await?;
        let road = self.parts.roads.lead_again(&self.ticket).await?;
        let rest = self.mover.send_again(self.ticket.vm, &files, &road.route(None).migrate_uri).await?;
        Ok((rest == Rest::Follows).then_some(road))
    }
}

/// Keeps the way for as long as it is of use; says why it is not any more.
async fn accompany(road: &dyn LiveRoad) -> String {
    let (mut crossed, mut since) = (road.counts(), Instant::now());
    loop {
        if let Ok(reason) = timeout(LOOK_EVERY, road.over()).await {
            return reason;
        }
        if let Some(trouble) = road.trouble() {
            return trouble;
        }
        let now = road.counts();
        if now != crossed || road.condition().lost {
            (crossed, since) = (now, Instant::now());
        }
        if since.elapsed() > QUIET_MAX {
            return format!("nothing has crossed for {} s", QUIET_MAX.as_secs());
        }
    }
}
