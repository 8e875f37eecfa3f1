//! A checkpoint while its machine leaves: worth nothing until the move has ended there.

use super::{
    DRAFT, Inner, KEY, PAGES,
    pages::{self, Pages},
    seal::Seal,
    sink::{self, Sink},
};
use crate::text::describe;
use novacron_common::ids::VmId;
use std::{fs, io, sync::Arc, time::Duration};
use tokio::{sync::oneshot, time::timeout};

/// How long the writer may take for what waits when the encoder is gone.
const LAST_PAGES: Duration = Duration::from_secs(30);

/// Thrown away when it is dropped.
#[derive(Debug)]
pub struct Draft {
    inner: Arc<Inner>,
    vm: VmId,
    key: [u8; pages::KEY],
    written: Option<oneshot::Receiver<u32>>,
}

impl Draft {
    pub(super) fn begin(inner: Arc<Inner>, vm: VmId) -> io::Result<(Self, Sink)> {
        inner.demand_reserve()?;
        let key = super::new_key()?;
        let pages = Pages::create(&inner.path(vm, DRAFT), &key)?;
        let mut draft = Self { inner, vm, key, written: None };
        let (sink, written) = sink::start(draft.inner.clone(), draft.inner.room(), Arc::new(pages))?;
        draft.written = Some(written);
        Ok((draft, sink))
    }

    /// The machine has left, and its sink is gone: makes it the checkpoint, in place of one before. Failing is logged.
    pub async fn seal(mut self) {
        let Some(written) = self.written.take() else { return };
        let Ok(Ok(pages)) = timeout(LAST_PAGES, written).await else { return };
        let sealed = tokio::task::spawn_blocking(move || self.finish(pages)).await;
        if let Ok(Err(error)) = sealed {
            tracing::warn!(reason = describe(&error), "a checkpoint could not be finished");
        }
    }

    fn finish(self, pages: u32) -> io::Result<()> {
        let Self { inner, vm, key, .. } = &self;
        if pages == 0 {
            return Ok(());
        }
        inner.remove(*vm);
        fs::rename(inner.path(*vm, DRAFT), inner.path(*vm, PAGES))?;
        let seal = Seal { vm: *vm, key: *key, pages, sealed_at: (inner.now)() };
        seal.write(&inner.path(*vm, KEY))?;
        tracing::info!(%vm, pages, "a checkpoint of its memory is kept for its return");
        inner.evict(Some(*vm))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if let Err(error) = super::remove_file(&self.inner.path(self.vm, DRAFT)) {
            tracing::warn!(vm = %self.vm, reason = describe(&error), "a draft of a checkpoint could not be removed");
        }
    }
}
