//! Made-up trees of processes: what keeps each where it is, and what does not.

use super::*;
use std::os::unix::fs::symlink;
use tempfile::TempDir;

/// A machine whose first process is 100, and its command 101.
struct Machine(TempDir);

impl Machine {
    fn new() -> Self {
        let machine = Self(TempDir::new().unwrap());
        machine.process(100, 1, "S (sleeping)", 0);
        machine.process(101, 100, "S (sleeping)", 0);
        let net = machine.0.path().join("100/net");
        fs::create_dir(&net).unwrap();
        let unix = "Num RefCount Protocol Flags Type St Inode Path\n0: 2 0 0 1 3 500\n";
        let tcp = "sl local rem st tx tr tm uid timeout inode\n0: 1 2 0A 0 0 0 0 0 501 1\n";
        let packet = "sk RefCnt Type Proto Iface R Rmem User Inode\n0 3 3 3 2 1 0 0 502\n";
        for (table, text) in [("unix", unix), ("tcp", tcp), ("packet", packet)] {
            fs::write(net.join(table), text).unwrap();
        }
        machine
    }

    fn process(&self, pid: i32, parent: i32, state: &str, tracer: i32) {
        let folder = self.0.path().join(pid.to_string());
        fs::create_dir_all(folder.join("fd")).unwrap();
        fs::create_dir_all(folder.join("ns")).unwrap();
        symlink("net:[7]", folder.join("ns/net")).unwrap();
        let status = format!("Name:\tapp\nState:\t{state}\nPPid:\t{parent}\nTracerPid:\t{tracer}\n");
        fs::write(folder.join("status"), status).unwrap();
        fs::write(folder.join("maps"), "").unwrap();
    }

    fn opened(&self, targets: &[&str]) {
        for (number, target) in targets.iter().enumerate() {
            symlink(target, self.0.path().join(format!("101/fd/{number}"))).unwrap();
        }
    }

    fn mapped(&self, files: &[&str]) {
        let line = |file: &&str| format!("7f00-7f01 rw-s 00000000 00:01 42    {file}\n");
        fs::write(self.0.path().join("101/maps"), files.iter().map(line).collect::<String>()).unwrap();
    }

    fn scan(&self, members: &[i32]) -> Vec<Fault> {
        scan(self.0.path(), 100, members).unwrap()
    }

    fn what(&self) -> Vec<String> {
        self.scan(&[100, 101]).into_iter().map(|fault| fault.what).collect()
    }
}

#[test]
fn what_an_ordinary_program_holds_keeps_it_nowhere() {
    let machine = Machine::new();
    machine.opened(&[
        "/dev/null",
        "/dev/urandom",
        "/dev/shm/queue",
        "/var/log/app",
        "/var/lib/gone (deleted)",
        "pipe:[9]",
        "socket:[500]",
        "socket:[501]",
        "anon_inode:[eventfd]",
        "anon_inode:[eventpoll]",
        "anon_inode:inotify",
        "/memfd:buffer (deleted)",
    ]);
    machine.mapped(&[
        "/usr/bin/app",
        "/dev/novacron/init",
        "/dev/zero (deleted)",
        "/SYSV0000002a (deleted)",
        "[heap]",
        "[vdso]",
        "",
    ]);
    assert_eq!(machine.scan(&[100, 101]), []);
}

#[test]
fn each_descriptor_that_cannot_be_saved_is_named_with_its_process() {
    for (target, why) in [
        ("anon_inode:[io_uring]", "io_uring"),
        ("anon_inode:[perf_event]", "counters"),
        ("anon_inode:bpf-prog", "in the kernel"),
        ("anon_inode:[userfaultfd]", "page faults"),
        ("anon_inode:kvm-vm", "does not know"),
        ("/dev/fuse", "device"),
        ("/dev/pts/3", "terminal"),
        ("/dev/tty", "terminal"),
        ("socket:[502]", "packet"),
        ("socket:[999]", "leads out"),
    ] {
        let machine = Machine::new();
        machine.opened(&["/dev/null", target]);
        let faults = machine.scan(&[100, 101]);
        assert_eq!(faults.len(), 1, "{target}: {faults:?}");
        assert_eq!((faults[0].pid, faults[0].what.clone()), (101, format!("has {target} open")));
        assert!(faults[0].why.contains(why), "{}", faults[0]);
    }
}

#[test]
fn deleted_files_and_devices_that_are_mapped_are_named() {
    let machine = Machine::new();
    machine.mapped(&["/opt/old.so (deleted)", "/dev/mem", "/opt/old.so (deleted)", "anon_inode:[io_uring]"]);
    let named =
        ["has /dev/mem mapped", "has /opt/old.so (deleted) mapped", "has anon_inode:[io_uring] mapped"];
    assert_eq!(machine.what(), named);
}

#[test]
fn the_traced_the_foreign_and_those_behind_walls_of_their_own_are_named() {
    let machine = Machine::new();
    machine.process(102, 101, "t (tracing stop)", 77);
    machine.process(103, 55, "S (sleeping)", 0);
    machine.process(104, 103, "S (sleeping)", 0);
    machine.process(105, 101, "Z (zombie)", 77);
    machine.process(106, 101, "S (sleeping)", 0);
    let net = machine.0.path().join("106/ns/net");
    fs::remove_file(&net).unwrap();
    symlink("net:[8]", net).unwrap();
    let faults = machine.scan(&[100, 101, 102, 103, 104, 105, 106, 107]);
    let found: Vec<_> = faults.iter().map(|fault| (fault.pid, fault.what.as_str())).collect();
    assert!(faults.iter().all(|fault| fault.may_pass() == [103, 104].contains(&fault.pid)));
    let outside = "came in from outside";
    assert_eq!(
        found,
        [
            (102, "is traced by process 77"),
            (103, outside),
            (104, outside),
            (106, "has a net namespace of its own"),
        ]
    );
}

#[test]
fn a_process_cannot_write_to_the_terminal_of_whoever_asks_nor_flood_it() {
    let machine = Machine::new();
    fs::write(machine.0.path().join("101/status"), "Name:\t\u{1b}[2Jx\nPPid:\t100\n").unwrap();
    let many: Vec<String> = (0..40).map(|n| format!("/dev/\u{7}card{n}")).collect();
    machine.opened(&many.iter().map(String::as_str).collect::<Vec<_>>());
    let faults = machine.scan(&[100, 101]);
    assert_eq!(faults.len(), FAULTS_MAX);
    let told = faults[0].to_string();
    assert!(told.starts_with("process 101 (?[2Jx) has /dev/?card0 open: "), "{told}");
}
