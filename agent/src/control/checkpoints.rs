//! Sees to it that nothing is kept of machines that are no more: asks the ledger, at start and again and again.

use crate::{migrate::checkpoint::Checkpoints, text::describe};
use novacron_common::{
    ids::VmId,
    wire::{ControlRequest, Departed, StreamKind},
};
use novacron_transport::{Link, LinkError};
use std::time::Duration;
use tokio::sync::watch;

/// How often it asks.
const EVERY: Duration = Duration::from_secs(60);
/// Pause after a question that was not answered.
const RETRY: Duration = Duration::from_secs(10);
/// How long a coordinator may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// Erases what is kept of machines that are no more, or for too long, for ever.
pub async fn keep_checkpoints(mut link: watch::Receiver<Option<Link>>, checkpoints: Checkpoints) {
    loop {
        let pause = match sweep(&mut link, &checkpoints).await {
            Ok(()) => EVERY,
            Err(error) => {
                tracing::debug!(reason = describe(&error), "checkpoints were not looked through");
                RETRY
            }
        };
        tokio::time::sleep(pause).await;
    }
}

async fn sweep(link: &mut watch::Receiver<Option<Link>>, checkpoints: &Checkpoints) -> Result<(), LinkError> {
    let held = on_disk(checkpoints, |checkpoints| {
        if let Err(error) = checkpoints.evict() {
            tracing::warn!(
                reason = describe(&error),
                "the folder of checkpoints could not be looked through"
            );
        }
        checkpoints.held()
    })
    .await;
    for asked in held.chunks(Departed::ASKED_MAX) {
        let Departed(gone) = ask(link, asked.to_vec()).await?;
        on_disk(checkpoints, move |checkpoints| {
            for vm in gone {
                tracing::info!(%vm, "it is no more: what was kept of its memory is erased");
                checkpoints.remove(vm);
            }
        })
        .await;
    }
    Ok(())
}

async fn on_disk<T: Default + Send + 'static>(
    checkpoints: &Checkpoints,
    work: impl FnOnce(&Checkpoints) -> T + Send + 'static,
) -> T {
    let checkpoints = checkpoints.clone();
    tokio::task::spawn_blocking(move || work(&checkpoints)).await.unwrap_or_default()
}

async fn ask(link: &mut watch::Receiver<Option<Link>>, asked: Vec<VmId>) -> Result<Departed, LinkError> {
    let stopping =
        || LinkError::Broken { doing: "asking for machines", reason: "the agent is stopping".into() };
    let link =
        link.wait_for(Option::is_some).await.ok().and_then(|link| link.clone()).ok_or_else(stopping)?;
    let exchange = async {
        let mut stream = link.open(StreamKind::Control).await?;
        stream.send(&ControlRequest::Checkpoints(asked)).await?;
        stream.finish();
        stream.recv::<Departed>().await
    };
    let late = |_| LinkError::Broken { doing: "asking for machines", reason: "no answer in time".into() };
    tokio::time::timeout(DEADLINE, exchange).await.map_err(late)?
}
