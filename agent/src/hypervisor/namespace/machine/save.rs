//! Saving a machine's processes, and having them run again. The supervisor does both, so that neither depends on the agent's life.

use super::{
    life::{Live, Shared},
    upper,
};
use crate::hypervisor::{
    HvError, HypervisorEvent,
    namespace::{
        checkpoint::{
            criu::Criu,
            reaper,
            record::{Ask, Checkpoint, answered, ask},
        },
        request::Origin,
        sparse,
    },
};
use novacron_common::{
    ids::VmId,
    record::VmState,
    spec::{Mobility, StopTerms},
};
use std::{sync::Arc, time::Duration};
use tokio::{task::spawn_blocking, time::sleep};

/// How often a supervisor that saves its machine is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

const NO_CHECKPOINT: &str = "it has none: make one with `novactl vm checkpoint`";

impl Shared {
    pub(super) fn checkpoint_of(&self, vm: VmId) -> Checkpoint {
        Checkpoint::of(self.folder(vm).path())
    }

    /// Returns once it is on disk, and the machine has ended or runs on.
    pub(super) async fn save(&self, vm: VmId, leave_running: bool) -> Result<(), HvError> {
        let _turn = self.turns.of(vm).await;
        let doing = || format!("save {vm}");
        self.require_migratable(vm, &doing())?;
        match self.state(vm) {
            VmState::Running => {}
            VmState::Paused if self.is_suspended(vm) => return Ok(()),
            VmState::Paused => {
                return Err(HvError::State { vm, state: VmState::Paused, remedy: "resume it first" });
            }
            state => return Err(HvError::State { vm, state, remedy: "start it first" }),
        }
        let Some(Live { supervisor, .. }) = self.live().get(&vm).cloned() else {
            return Err(HvError::Unknown { vm });
        };
        let run = self.run_folder(vm);
        ask(&run, Ask { leave_running }).map_err(|cause| HvError::failed(doing(), cause))?;
        supervisor.nudge(&run);
        let answer = async {
            loop {
                match answered(&run) {
                    Ok(Some(answer)) => return Ok(answer),
                    Ok(None) => sleep(LOOK_AGAIN).await,
                    Err(cause) => return Err(HvError::failed(doing(), cause)),
                }
            }
        };
        let answer = tokio::select! {
            answer = answer => Some(answer?),
            () = supervisor.ended() => answered(&run).map_err(|cause| HvError::failed(doing(), cause))?,
        };
        match answer {
            Some(answer) => {
                if let Some(reason) = answer.refused {
                    return Err(HvError::failed(doing(), reason));
                }
            }
            None if self.is_suspended(vm) => {}
            None => return Err(HvError::failed(doing(), "it ended before it was saved")),
        }
        if !leave_running {
            supervisor.ended().await;
            self.note_end(vm, &supervisor);
            self.tidy().await;
        }
        let _nobody_listens = self.events.send(HypervisorEvent::Changed(vm));
        Ok(())
    }

    /// Returns once it runs. One that ran on when it was saved goes back to what it was then, disk and all.
    pub(super) async fn restore(self: &Arc<Self>, vm: VmId) -> Result<(), HvError> {
        let _turn = self.turns.of(vm).await;
        let doing = || format!("restore {vm}");
        self.require_migratable(vm, &doing())?;
        let checkpoint = self.checkpoint_of(vm);
        let made = checkpoint.made().map_err(|cause| HvError::failed(doing(), cause))?;
        let made = made.ok_or_else(|| HvError::failed(doing(), NO_CHECKPOINT))?;
        match self.state(vm) {
            VmState::Stopped => {
                return Err(HvError::State { vm, state: VmState::Stopped, remedy: "start it first" });
            }
            VmState::Paused if self.is_suspended(vm) => {}
            _ if !made.keeps_disk => return Err(HvError::failed(doing(), NO_CHECKPOINT)),
            _ => {
                // Whatever happens from here on, the machine is what was saved.
                checkpoint.suspend(true).map_err(|cause| HvError::failed(doing(), cause))?;
                self.end(vm, StopTerms::AT_ONCE).await?;
            }
        }
        if made.keeps_disk {
            self.put_disk_back(vm, &checkpoint).await?;
        }
        self.start_from(vm, Origin::Saved).await?;
        // Its disk goes on from here: these images fit it no more.
        let left = if made.keeps_disk { Ok(()) } else { checkpoint.remove() };
        left.map_err(|cause| HvError::failed(format!("remove the checkpoint of {vm}"), cause))
    }

    async fn put_disk_back(&self, vm: VmId, checkpoint: &Checkpoint) -> Result<(), HvError> {
        let (from, to) = (checkpoint.disk(), upper::path(self.folder(vm).path()));
        let copied = spawn_blocking(move || {
            let aside = to.with_extension("back");
            let _there_was_none = std::fs::remove_file(&aside);
            sparse::copy(&from, &aside)?;
            std::fs::File::open(&aside)?.sync_all()?;
            std::fs::rename(aside, to)
        });
        let copied = copied.await.unwrap_or_else(|cause| Err(std::io::Error::other(cause)));
        copied.map_err(|cause| HvError::failed(format!("put the disk of {vm} back"), cause))
    }

    /// Whether its processes are in a checkpoint, and nowhere else.
    pub(super) fn is_suspended(&self, vm: VmId) -> bool {
        !self.live().contains_key(&vm) && self.checkpoint_of(vm).is_suspended()
    }

    /// What is left of a checkpoint that a crash cut short, or of one that was restored by an agent that did not live to note it.
    pub(super) fn sweep_checkpoint(&self, vm: VmId) {
        let checkpoint = self.checkpoint_of(vm);
        let was_restored =
            matches!(checkpoint.made(), Ok(Some(made)) if !made.keeps_disk) && !checkpoint.is_suspended();
        let removed = if was_restored { checkpoint.remove() } else { Ok(()) };
        // A supervisor that lives may be making one.
        let swept = if self.live().contains_key(&vm) { Ok(()) } else { checkpoint.sweep() };
        if let Err(error) = removed.and(swept) {
            tracing::warn!(%vm, %error, "could not sweep a checkpoint");
        }
    }

    fn require_migratable(&self, vm: VmId, doing: &str) -> Result<(), HvError> {
        if self.defined(vm)?.spec.mobility != Mobility::Migratable {
            return Err(HvError::failed(
                doing,
                "it was not made with --migratable, and is not started so that it could be",
            ));
        }
        Criu::find().map(drop).map_err(|cause| HvError::failed(doing, cause))
    }
}

/// Why a machine cannot be started as a migratable one here.
pub(super) fn obstacle(has_image: bool) -> Option<&'static str> {
    match (reaper::EXISTS, has_image) {
        (false, _) => Some("a migratable machine needs a host with x86-64 processors"),
        (true, false) => {
            Some("a migratable machine needs an image: the host's own root cannot be carried along")
        }
        (true, true) => None,
    }
}
