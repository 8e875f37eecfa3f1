//! Files into machines and out of them: what arrives, whose it is, and that no path, link or archive leads to the host.

use crate::{place::place, world::exe};
use novacron_agent::hypervisor::{Hypervisor, namespace::Namespace};
use novacron_common::{
    ids::VmId,
    wire::{EXEC_BYTES_MAX, ExecCommand, ExecEnd, ExecInput, ExecOutput, FileCopy},
};
use novacron_tests::talk::Talk;
use std::{fs, os::unix::fs::symlink, path::Path, process::Command};
use tempfile::TempDir;

/// Lays links that lead, in the machine, to its own root, and would on the host lead to the host's.
const LINKS: &str = r#"#!/usr/bin/perl
symlink '/etc', '/srv/etc'; symlink '../../../../../../../..', '/srv/up'; symlink '/proc/self/root', '/srv/self';
open(STDOUT, '>', '/tmp/told'); $| = 1; print "END\n"; $SIG{TERM} = sub { exit 0 }; sleep 1 while 1;
"#;

/// How a copy ended: what it complained of, and its exit code; and what came out.
struct Copied {
    archive: Vec<u8>,
    errors: String,
    end: Option<ExecEnd>,
}

impl Copied {
    fn is_done(&self) -> bool {
        self.end == Some(ExecEnd::Exited(0)) && self.errors.is_empty()
    }
}

struct Machine {
    host: Namespace,
    vm: VmId,
}

impl Machine {
    async fn copy(&self, copy: FileCopy, user: Option<&str>, archive: &[u8]) -> Copied {
        let input = matches!(copy, FileCopy::In { .. });
        let user = user.map(str::to_owned);
        let command = ExecCommand { copy: Some(copy), user, input, ..ExecCommand::default() };
        let mut talk = Talk::begun(self.host.exec(self.vm, &command).await.unwrap()).await.unwrap();
        if input {
            for piece in archive.chunks(EXEC_BYTES_MAX) {
                // One that has ended takes no more, and has said why.
                if talk.say(&ExecInput::Bytes(piece.to_vec())).await.is_err() {
                    break;
                }
            }
            let _ended = talk.say(&ExecInput::End).await;
        }
        let mut copied = Copied { archive: Vec::new(), errors: String::new(), end: None };
        while let Some(said) = talk.next().await.unwrap() {
            match said {
                ExecOutput::Output(bytes) => copied.archive.extend(bytes),
                ExecOutput::Errors(bytes) => copied.errors += &String::from_utf8_lossy(&bytes),
                ExecOutput::Ended(end) => {
                    copied.end = Some(end);
                    break;
                }
                ExecOutput::Started | ExecOutput::Failed(_) => panic!("{said:?} of one that runs"),
            }
        }
        copied
    }

    async fn copy_in(&self, path: &str, user: Option<&str>, archive: &[u8]) -> Copied {
        self.copy(FileCopy::In { path: path.into(), name: "named".into() }, user, archive).await
    }

    /// The text of a file of the machine's.
    async fn text(&self, path: &str) -> Option<String> {
        let copied = self.copy(FileCopy::Out { path: path.into() }, None, &[]).await;
        let place = TempDir::new().unwrap();
        let to = place.path().join("file");
        let unpacked = novacron_tree::unpack(copied.archive.as_slice(), &to);
        assert_eq!(unpacked.is_ok(), copied.is_done(), "{path}: {unpacked:?} {}", copied.errors);
        copied.is_done().then(|| fs::read_to_string(to).unwrap())
    }

    async fn owner(&self, path: &str) -> String {
        let argv =
            ["/usr/bin/perl", "-e", "print join ':', (lstat shift)[4, 5]", path].map(str::to_owned).to_vec();
        let command = ExecCommand { argv, ..ExecCommand::default() };
        let stream = self.host.exec(self.vm, &command).await.unwrap();
        Talk::begun(stream).await.unwrap().to_end().await.unwrap().output
    }
}

fn packed(path: &Path) -> Vec<u8> {
    let mut archive = Vec::new();
    novacron_tree::pack(path, &mut archive).unwrap();
    archive
}

/// What GNU tar makes of a file `x`, under a name that leads elsewhere.
fn astray(name: &str) -> Vec<u8> {
    let place = TempDir::new().unwrap();
    fs::write(place.path().join("x"), "astray").unwrap();
    let rename = format!("--transform=s,^x,{name},");
    let tar = Command::new("tar").args(["-P", "-cf", "-", &rename, "x"]).current_dir(place.path()).output();
    tar.unwrap().stdout
}

#[tokio::test]
async fn what_is_copied_arrives_and_neither_link_nor_archive_leads_to_the_host() {
    novacron_tests::require!(root);
    let place = place(LINKS, &["/usr/bin/perl"]);
    let (wanted, host) = (place.definition(), Namespace::open(place.folder.path(), exe()).await.unwrap());
    host.define(&wanted).await.unwrap();
    host.start(wanted.vm).await.unwrap();
    place.told(wanted.vm).await;
    let machine = Machine { host, vm: wanted.vm };

    // A tree there and back, larger than what waits on the way.
    let here = TempDir::new().unwrap();
    let tree = here.path().join("tree");
    fs::create_dir_all(tree.join("sub")).unwrap();
    fs::write(tree.join("sub/large"), "0123456789abcdef".repeat(100_000)).unwrap();
    symlink("/etc/motto", tree.join("motto")).unwrap();
    let archive = packed(&tree);
    assert!(machine.copy_in("/srv/www", Some("www"), &archive).await.is_done());
    assert_eq!(machine.owner("/srv/www/sub/large").await, "33:34");
    let large = machine.text("/srv/www/sub/large").await.unwrap();
    assert_eq!(large.len(), 1_600_000);
    let back = machine.copy(FileCopy::Out { path: "/srv/www".into() }, None, &[]).await;
    novacron_tree::unpack(back.archive.as_slice(), &here.path().join("back")).unwrap();
    assert_eq!(fs::read_to_string(here.path().join("back/sub/large")).unwrap(), large);
    assert_eq!(fs::read_link(here.path().join("back/motto")).unwrap(), Path::new("/etc/motto"));

    // Into a folder that is there, under its own name; as the machine's user 0, who is nobody on the host.
    let file = here.path().join("file");
    fs::write(&file, "mine\n").unwrap();
    let archive = packed(&file);
    assert!(machine.copy_in("/srv", None, &archive).await.is_done());
    assert_eq!(
        (machine.text("/srv/named").await.as_deref(), machine.owner("/srv/named").await.as_str()),
        (Some("mine\n"), "0:0")
    );

    // By whatever way, the machine's files and no others.
    for way in
        ["/srv/www/motto", "/srv/etc/motto", "/srv/up/etc/motto", "/srv/self/etc/motto", "/../../etc/motto"]
    {
        assert_eq!(machine.text(way).await.as_deref(), Some("small is beautiful\n"), "{way}");
    }
    let secret = here.path().join("file");
    for way in [secret.display().to_string(), format!("/srv/up{}", secret.display()), "/etc/hostname".into()]
    {
        assert_eq!(machine.text(&way).await, None, "{way}");
    }
    let marker = "novacron-files-marker";
    for (way, found) in [("/srv/etc", "/etc"), ("/srv/up/etc", "/etc"), ("/srv/self/bin", "/bin")] {
        assert!(machine.copy_in(&format!("{way}/{marker}"), None, &archive).await.is_done(), "{way}");
        assert!(machine.text(&format!("{found}/{marker}")).await.is_some(), "{way}");
        assert!(!Path::new(found).join(marker).exists(), "{way} led to the host");
    }

    // An archive that wants out of its place, one that ends early, a place that is none, and one that may not be written to.
    for name in ["../../etc/astray", "/etc/astray", "top/../../etc/astray"] {
        let refused = machine.copy_in("/srv/astray", None, &astray(name)).await;
        assert_eq!(refused.end, Some(ExecEnd::Exited(1)), "{name}");
        assert!(refused.errors.contains("no place in the archive"), "{name}: {}", refused.errors);
        assert_eq!(machine.text("/etc/astray").await, None, "{name}");
    }
    for (path, user, archive, cause) in [
        ("/srv/cut", None, &archive[..600], "unexpected EOF"),
        ("/none/file", None, &archive[..], "no such folder"),
        ("/srv/www", None, &[][..], "empty"),
        ("/etc", Some("www"), &archive[..], "denied"),
    ] {
        let refused = machine.copy_in(path, user, archive).await;
        assert_eq!(refused.end, Some(ExecEnd::Exited(1)), "{path}");
        assert!(refused.errors.contains(cause), "{path}: {}", refused.errors);
    }
    machine.host.undefine(machine.vm).await.unwrap();
}

#[tokio::test]
async fn a_copy_ends_with_whoever_asked_for_it() {
    novacron_tests::require!(root);
    let place = place(LINKS, &["/usr/bin/perl"]);
    let (wanted, host) = (place.definition(), Namespace::open(place.folder.path(), exe()).await.unwrap());
    host.define(&wanted).await.unwrap();
    host.start(wanted.vm).await.unwrap();
    let processes = async || host.statistics(wanted.vm).await.unwrap().processes;
    let before = processes().await;
    let copy = Some(FileCopy::In { path: "/srv/file".into(), name: "file".into() });
    let command = ExecCommand { copy, input: true, ..ExecCommand::default() };
    let talk = Talk::begun(host.exec(wanted.vm, &command).await.unwrap()).await.unwrap();
    assert!(processes().await > before);
    drop(talk);
    for _ in 0..1000 {
        if processes().await == before {
            return host.undefine(wanted.vm).await.unwrap();
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("it is left behind");
}
