//! Saving the tree that is watched. The supervisor waits for CRIU meanwhile: its tree stands still, and nobody else may end
//! CRIU, which would leave half a process behind.

use super::Watch;
use crate::hypervisor::namespace::{
    checkpoint::{
        criu::{Criu, LOG, save_words},
        hook, mounts,
        record::{Answer, Ask, Checkpoint, Made, answer, asked},
        scan::{Fault, scan},
    },
    outcome::Ending,
    spawn::Word,
    step::{Doing, StepError},
};
use nix::sys::stat::fstat;
use std::{
    io,
    path::Path,
    time::{Duration, Instant},
};

/// How long what may pass is given, and how often it is looked at.
const PASSES_WITHIN: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

impl Watch<'_> {
    /// As with the request to end, the signal alone says nothing.
    pub(super) fn heed_save_request(&mut self) {
        let Some(ask) = asked(self.charge.folder) else { return };
        let saved = self.save(ask);
        if saved.is_ok() && !ask.leave_running {
            self.ending.get_or_insert(Ending::Killed);
        }
        let refused = saved.err().map(|error| error.chain());
        if let Err(error) = answer(self.charge.folder, &Answer { refused }) {
            tracing::warn!(%error, "could not say whether the machine is saved");
        }
    }

    fn save(&mut self, ask: Ask) -> Result<(), StepError> {
        let checkpoint = Checkpoint::of(Path::new(".."));
        let saved = self.try_save(ask, &checkpoint);
        if saved.is_err() {
            // For people. The next attempt has its own.
            let _there_is_none = std::fs::rename(checkpoint.draft().join(LOG), LOG);
            // CRIU may have failed after its hook had finished the checkpoint.
            let put_right = checkpoint.suspend(false).and_then(|()| checkpoint.sweep());
            put_right.doing("remove what was begun of a checkpoint")?;
        }
        saved
    }

    /// What keeps the machine here, given a moment to pass if it may.
    fn lasting_faults(&self, init: i32) -> io::Result<Vec<Fault>> {
        let began = Instant::now();
        loop {
            let faults = scan(Path::new("/proc"), init, &self.charge.group.members())?;
            let lasts = faults.is_empty() || !faults.iter().all(Fault::may_pass);
            if lasts || began.elapsed() > PASSES_WITHIN {
                return Ok(faults);
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    fn try_save(&mut self, ask: Ask, checkpoint: &Checkpoint) -> Result<(), StepError> {
        let refuse = |why: &'static str| Err(StepError::new("save the machine", why));
        let Some(word) = &self.tree.word else {
            return refuse("it was not started as a migratable machine");
        };
        if self.word != Some(Word::Started) || self.ending.is_some() {
            return refuse("it is about to end");
        }
        if self.charge.group.is_frozen() {
            return refuse("it is paused: resume it first");
        }
        let init = self.tree.init.pid.as_raw();
        let faults = self.lasting_faults(init).doing("look at its processes")?;
        if !faults.is_empty() {
            let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
            return Err(StepError::new("save the machine", faults.join("; ")));
        }
        let criu = Criu::find().doing("save the machine")?;
        let table = std::fs::read_to_string(format!("/proc/{init}/mountinfo")).doing("read its mounts")?;
        let made = Made {
            output: fstat(&self.tree.output).doing("look at its output")?.st_ino,
            word: fstat(word).doing("look at its last word")?.st_ino,
            externals: mounts::externals(&table),
            keeps_disk: ask.leave_running,
        };
        let images = checkpoint.begin().doing("make a folder for the checkpoint")?;
        checkpoint.write(&made).doing("begin a checkpoint")?;
        let has_card = self.charge.isolated.card.is_some();
        let words =
            save_words(init, images.path(), &hook::program()?, &made.externals, has_card, ask.leave_running);
        let saved = criu.run("save", &words, images.path(), ());
        match std::fs::read_to_string(images.path().join(hook::FAILED)) {
            Ok(reason) => Err(StepError::new("save the machine", reason)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => saved.doing("save the machine"),
            Err(error) => Err(error).doing("save the machine"),
        }
    }
}
