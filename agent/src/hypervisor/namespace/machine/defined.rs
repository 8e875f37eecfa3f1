//! What a machine was defined as, and what follows from that for each of its runs. Pure.

use crate::hypervisor::{RootImage, namespace::request::PATH};
use novacron_common::spec::{HealthCheck, HealthSpec, Program, Signal, StopTerms, VmSpec};
use serde::{Deserialize, Serialize};

/// The record in a machine's folder that makes it known.
pub const DEFINITION: &str = "definition";

/// What the record says: everything that a start depends on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Defined {
    pub spec: VmSpec,
    /// Its image; without one it is over the host's root.
    pub root: Option<RootImage>,
}

impl Defined {
    /// What it runs: the spec's words, or else the image's; in the image's environment and folder.
    pub fn program(&self) -> Program {
        let mut program = self.root.as_ref().map(|image| image.run.program.clone()).unwrap_or_default();
        if let Some(words) = &self.spec.cmdline {
            program.argv = words.split_ascii_whitespace().map(str::to_owned).collect();
        }
        if program.variable("PATH").is_none() {
            program.env.push(("PATH".into(), PATH.into()));
        }
        program
    }

    /// With the signal that it ends on: the one that was asked for, or else the image's. Init alone, without a command to pass it
    /// on to, ends on TERM only.
    pub fn terms(&self, asked: StopTerms) -> StopTerms {
        if self.program().argv.is_empty() {
            return StopTerms { signal: Some(Signal::Term), ..asked };
        }
        let own = self.root.as_ref().and_then(|image| image.run.stop_signal);
        asked.or_signal(own.unwrap_or(Signal::Term))
    }

    /// How it is asked whether it is well: as the spec says, and for the rest as the image does.
    pub fn health_check(&self) -> Option<HealthCheck> {
        let silent = HealthSpec::default();
        self.spec.health.over(self.root.as_ref().map_or(&silent, |image| &image.run.health))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use novacron_common::{
        spec::{BootSource, ImageRun, MachineKind, Mobility, NetworkSpec, RestartPolicy, TemplateSpec},
        units::ByteCount,
    };

    fn defined(cmdline: Option<&str>, run: Option<ImageRun>) -> Defined {
        let spec = VmSpec {
            name: "box".parse().unwrap(),
            kind: MachineKind::Namespace,
            cpus: 1,
            memory: ByteCount::mib(64),
            storage: ByteCount(0),
            template: TemplateSpec { name: "t".parse().unwrap(), boot: BootSource::Disk, disk: None },
            cmdline: cmdline.map(str::to_owned),
            network: NetworkSpec::default(),
            cloud_init: None,
            restart: RestartPolicy::Never,
            mobility: Mobility::Usual,
            health: HealthSpec::default(),
            volumes: Vec::new(),
        };
        Defined { spec, root: run.map(|run| RootImage { layers: Vec::new(), run }) }
    }

    fn image() -> ImageRun {
        let program = Program {
            argv: vec!["/bin/app".into(), "--serve".into()],
            env: vec![("A".into(), "b".into())],
            working_dir: Some("/srv".into()),
            stdin: None,
        };
        ImageRun { program, stop_signal: Some(Signal::Quit), ..ImageRun::default() }
    }

    #[test]
    fn the_specs_words_come_before_the_images_and_its_environment_stays() {
        let own = defined(None, Some(image())).program();
        assert_eq!((own.argv, own.env[1].1.as_str()), (image().program.argv, PATH));
        let given = defined(Some("sleep  7"), Some(image())).program();
        assert_eq!((given.argv.join(" "), given.variable("A")), ("sleep 7".to_owned(), Some("b")));
        assert_eq!(given.working_dir.as_deref(), Some("/srv"));
        // Without either, init alone is the machine.
        for alone in [defined(None, None), defined(Some(""), Some(image()))] {
            assert!(alone.program().argv.is_empty());
        }
    }

    #[test]
    fn the_signal_to_end_on_is_the_askers_or_else_the_images_or_else_term() {
        let silent = ImageRun { stop_signal: None, ..image() };
        let usr1 = StopTerms { signal: Some(Signal::Usr1), grace_ms: 7 };
        let usual = StopTerms::within_ms(7);
        for (cmdline, run, asked, sent) in [
            (None, Some(image()), usual, Signal::Quit),
            (Some("other words"), Some(image()), usual, Signal::Quit),
            (None, Some(image()), usr1, Signal::Usr1),
            (None, Some(silent), usual, Signal::Term),
            (Some("sleep 7"), None, usual, Signal::Term),
            (Some("sleep 7"), None, usr1, Signal::Usr1),
            // Init alone.
            (Some(""), Some(image()), usual, Signal::Term),
            (None, None, usr1, Signal::Term),
        ] {
            let terms = defined(cmdline, run.clone()).terms(asked);
            assert_eq!(terms, StopTerms { signal: Some(sent), grace_ms: 7 }, "{cmdline:?} {run:?}");
        }
    }
}
