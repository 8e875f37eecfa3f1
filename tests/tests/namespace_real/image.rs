//! Commands on a root file system that is not the host's.

use crate::world::{World, exe, libraries, shell, start};
use novacron_agent::attempt::Settings;
use novacron_common::{
    record::{AttemptEnd, AttemptOutcome},
    spec::{CommandTarget, Root},
};
use std::{fs, os::unix::fs::PermissionsExt, path::Path};
use tempfile::TempDir;

/// A folder of root file systems with one in it: `tiny`, a shell and what it is linked with.
fn roots() -> TempDir {
    let roots = TempDir::new().unwrap();
    let tiny = roots.path().join("tiny");
    for folder in ["bin", "etc", "dev", "proc", "sys", "tmp", "var/tmp"] {
        fs::create_dir_all(tiny.join(folder)).unwrap();
    }
    for file in libraries("/bin/sh").into_iter().chain(["/bin/sh".into()]) {
        let to = tiny.join(file.strip_prefix("/").unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(&file, to).unwrap();
    }
    fs::write(tiny.join("etc/motto"), "small is beautiful\n").unwrap();
    roots
}

async fn world(roots: &Path) -> World {
    World::with(TempDir::new().unwrap(), Settings { roots: roots.into(), ..Settings::new(exe()) }).await
}

/// Runs a script of the shell's own words on the root file system `image`.
async fn run(world: &mut World, image: &str, script: &str) -> AttemptEnd {
    world.run(start(CommandTarget { root: Root::Image(image.parse().unwrap()), ..shell(script) })).await
}

#[tokio::test]
async fn a_command_sees_the_root_file_system_it_asked_for_and_leaves_it_as_it_was() {
    novacron_tests::require!(root);
    let roots = roots();
    let mut world = world(roots.path()).await;
    let script = "read motto </etc/motto; echo $motto; test -e /usr/sbin && echo HOST
                  echo mine >/etc/new && read new </etc/new && echo $new; test -e /proc/self/status && echo PROC";
    for _ in 0..2 {
        let end = run(&mut world, "tiny", script).await;
        let output = end.output.to_text();
        assert_eq!(end.outcome, AttemptOutcome::Exited(0), "{output}");
        assert_eq!(output, "small is beautiful\nmine\nPROC\n");
    }
    assert!(!roots.path().join("tiny/etc/new").exists(), "what the command wrote is in the image");
    world.leave_no_trace().await;
}

#[tokio::test]
async fn a_root_file_system_that_is_missing_or_not_roots_alone_is_a_failed_start_that_says_so() {
    novacron_tests::require!(root);
    let roots = roots();
    let mut world = world(roots.path()).await;
    fs::create_dir(roots.path().join("shared")).unwrap();
    fs::set_permissions(roots.path().join("shared"), PermissionsExt::from_mode(0o777)).unwrap();
    std::os::unix::fs::symlink("/", roots.path().join("link")).unwrap();
    let whys =
        [("absent", "No such file"), ("shared", "writable by nobody else"), ("link", "Not a directory")];
    for (image, why) in whys {
        let end = run(&mut world, image, "echo ran").await;
        let AttemptOutcome::FailedToStart { reason } = end.outcome else {
            panic!("{image}: {:?}", end.outcome)
        };
        assert!(reason.contains(why) && reason.contains(image), "{image}: {reason}");
    }
    world.leave_no_trace().await;
}
