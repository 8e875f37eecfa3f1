//! What a command sees, and what it is refused.

use crate::world::{Bystander, World, shell, start};
use nix::sys::stat::{Mode, umask};
use novacron_common::record::{AttemptEnd, AttemptOutcome};
use std::{
    fs,
    path::{Path, PathBuf},
};

fn text(end: &AttemptEnd) -> String {
    assert!(matches!(end.outcome, AttemptOutcome::Exited(_)), "{:?}\n{}", end.outcome, end.output.to_text());
    end.output.to_text()
}

/// A secret folder of ours on the host, where the host has none.
struct Planted(Option<PathBuf>);

impl Planted {
    fn at(path: &str) -> Self {
        let path = PathBuf::from(path);
        if path.exists() {
            return Self(None);
        }
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("secret"), "planted-secret\n").unwrap();
        Self(Some(path))
    }
}

impl Drop for Planted {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            let _gone = fs::remove_dir_all(path);
        }
    }
}

#[tokio::test]
async fn its_users_can_enter_what_is_built_however_secretive_the_agent_is() {
    novacron_tests::require!(root);
    let mut world = World::new().await;
    // As the agent's unit has it, and the tests' own shell has not.
    umask(Mode::S_IRWXG | Mode::S_IRWXO);
    let output = text(&world.sh("echo fine >/dev/null && echo fine >/tmp/x && cat /tmp/x; umask").await);
    assert_eq!(output, "fine\n0022\n");
    world.leave_no_trace().await;
}

#[tokio::test]
async fn no_masked_path_can_be_read() {
    novacron_tests::require!(root);
    let mut world = World::new().await;
    let _planted = [Planted::at("/etc/novacron"), Planted::at("/var/lib/novacron")];
    fs::write(world.folder.path().join("secret"), "planted-secret\n").unwrap();
    let folders = format!("/etc/novacron /var/lib/novacron /root /run {}", world.folder.path().display());
    let script = format!(
        "for way in '' /proc/1/root /proc/self/root /proc/self/cwd/..; do
           for file in /etc/shadow /etc/shadow- /etc/gshadow /etc/gshadow-; do
             test -e $way$file && cat $way$file && echo READ $way$file
           done
           for folder in {folders}; do
             test -e $way$folder || echo ABSENT $way$folder
             ls -A $way$folder && echo READ $way$folder
             cat $way$folder/secret && echo READ $way$folder/secret
           done
         done; cat /etc/hostname >/dev/null && echo FINE"
    );
    let output = text(&world.sh(&script).await);
    assert!(output.contains("FINE"), "{output}");
    assert!(!output.contains("READ"), "{output}");
    assert!(!output.contains("planted-secret"), "{output}");
    // Absent would be a pass for the wrong reason; /proc/1/root itself must be out of reach.
    assert!(!output.contains("ABSENT /etc/novacron"), "{output}");
    assert!(output.contains("ABSENT /proc/1/root"), "{output}");
    world.leave_no_trace().await;
}

#[tokio::test]
async fn no_process_of_the_host_can_be_seen_or_signalled() {
    novacron_tests::require!(root);
    let mut world = World::new().await;
    let mut bystander = Bystander::new();
    let script = format!(
        "test -d /proc/{pid} && echo SEEN; kill -0 {pid} && echo SIGNALLED; kill -9 {pid}; kill -9 -1; \
         ls /proc | grep -c '^[0-9][0-9]*$'",
        pid = bystander.id()
    );
    // pid 1 survives `kill -1` (and so does the shell, which kill -1 spares); nobody outside is hit.
    let output = text(&world.sh(&script).await);
    assert!(!output.contains("SEEN") && !output.contains("SIGNALLED"), "{output}");
    let seen: u32 = output.lines().last().unwrap().trim().parse().unwrap();
    assert!(seen <= 6, "{seen} processes in sight");
    assert!(bystander.lives(), "the bystander was hit");
    world.leave_no_trace().await;
}

/// Each line: a name, and a Perl expression that makes the call. Perl is in every Debian (`perl-base`).
const REFUSED: &[(&str, &str)] = &[
    ("mount", "syscall(165, 0, $mnt, $tmpfs, 0, 0)"),
    ("umount2", "syscall(166, $proc, 2)"),
    ("pivot_root", "syscall(155, $dot, $dot)"),
    ("chroot", "syscall(161, $tmp)"),
    ("ptrace", "syscall(101, 0, 0, 0, 0)"),
    ("unshare", "syscall(272, 0x10000000)"),
    ("setns", "syscall(308, 0, 0)"),
    ("clone a user namespace", "syscall(56, 0x10000011, 0, 0, 0, 0)"),
    ("mknod a block device", "syscall(133, $disk, 0060600, 0x800)"),
    ("mknod a character device", "syscall(133, $null, 0020666, 0x103)"),
    ("bpf", "syscall(321, 0, 0, 0)"),
    ("keyctl", "syscall(250, 0, 0, 0, 0, 0)"),
    ("add_key", "syscall(248, $x, $x, $x, 1, -3)"),
    ("userfaultfd", "syscall(323, 0)"),
    ("perf_event_open", "syscall(298, 0, 0, 0, 0, 0)"),
    ("init_module", "syscall(175, 0, 0, 0)"),
    ("finit_module", "syscall(313, 0, $x, 0)"),
    ("kexec_load", "syscall(246, 0, 0, 0, 0)"),
    ("open_by_handle_at", "syscall(304, 0, 0, 0)"),
    ("process_vm_readv", "syscall(310, 1, 0, 0, 0, 0, 0)"),
    ("process_vm_writev", "syscall(311, 1, 0, 0, 0, 0, 0)"),
    ("io_uring_setup", "syscall(425, 1, 0)"),
    ("open_tree", "syscall(428, -100, $root, 0)"),
    ("fsopen", "syscall(430, $tmpfs, 0)"),
    ("move_mount", "syscall(429, 0, 0, 0, 0, 0)"),
    ("mount_setattr", "syscall(442, 0, 0, 0, 0, 0)"),
    ("sethostname", "syscall(170, $x, 1)"),
    ("reboot", "syscall(169, 0, 0, 0, 0)"),
    ("delete_module", "syscall(176, $x, 0)"),
    ("kexec_file_load", "syscall(320, 0, 0, 0, $x, 0)"),
    ("pidfd_getfd", "syscall(438, 0, 0, 0)"),
    ("swapon", "syscall(167, $x, 0)"),
    ("acct", "syscall(163, $x)"),
    ("iopl", "syscall(172, 3)"),
    ("ioperm", "syscall(173, 0, 1, 1)"),
    ("modify_ldt", "syscall(154, 0, 0, 0)"),
    ("syslog", "syscall(103, 3, 0, 0)"),
    ("clock_settime", "syscall(227, 0, 0)"),
    ("quotactl", "syscall(179, 0, 0, 0, 0)"),
    ("a cipher socket", "syscall(41, 38, 5, 0)"),
    ("another personality", "syscall(135, 0x0040000)"),
    ("a vsock socket", "syscall(41, 40, 1, 0)"),
    ("a packet socket", "syscall(41, 17, 3, 0)"),
    ("a raw socket", "syscall(41, 2, 3, 1)"),
    ("sched real time", "syscall(144, 0, 1, $fifty)"),
    ("settimeofday", "syscall(164, 0, 0)"),
];

#[tokio::test]
async fn dangerous_system_calls_are_refused() {
    novacron_tests::require!(root);
    let mut world = World::new().await;
    // Perl passes the address of a variable's text, and refuses to pass that of a literal.
    let texts = "$mnt = '/mnt'; $tmpfs = 'tmpfs'; $proc = '/proc'; $dot = '.'; $tmp = '/tmp'; $disk = '/tmp/disk'; \
                 $null = '/tmp/null'; $x = 'x'; $root = '/'; $fifty = pack('i', 50);\n";
    let calls: String = REFUSED
        .iter()
        .map(|(name, call)| format!("$! = 0; $r = {call}; printf \"%s|%d|%d\\n\", '{name}', $r, $!;\n"))
        .collect();
    let mut target = shell("");
    target.program.argv = vec!["perl".into(), "-e".into(), format!("{texts}{calls}")];
    let output = text(&world.run(start(target)).await);
    for (name, _) in REFUSED {
        let line = output.lines().find(|line| line.starts_with(&format!("{name}|")));
        assert_eq!(line, Some(format!("{name}|-1|{}", libc::EPERM).as_str()), "{output}");
    }
    world.leave_no_trace().await;
}

/// A program of 64 bits that makes one call of i386, or does nothing in its place, and exits with 0.
fn elf(call: &str) -> String {
    let header = "7f454c46020101000000000000000000 02003e0001000000 7800400000000000 4000000000000000 \
                  0000000000000000 00000000 4000 3800 0100 0000 0000 0000";
    let segment = "01000000 05000000 0000000000000000 0000400000000000 0000400000000000 \
                   8800000000000000 8800000000000000 0010000000000000";
    // mov eax, 20 (getpid); CALL; xor edi, edi; mov eax, 60 (exit); syscall
    format!("{header}{segment}b814000000{call}31ffb83c0000000f05").replace(' ', "")
}

#[cfg(target_arch = "x86_64")]
#[tokio::test]
async fn calls_of_other_abis_and_unknown_calls_do_not_exist() {
    novacron_tests::require!(root);
    let mut world = World::new().await;
    let script = format!(
        "for my $call (0x40000000 + 39, 0x40000000 + 165, 435, 9999) {{ $! = 0; syscall($call, 0, 0); print $! + 0, ' ' }}
         sub run {{ open(my $file, '>', '/tmp/x'); print $file pack('H*', $_[0]); close $file; chmod 0755, '/tmp/x';
                    print system('/tmp/x') & 127, ' ' }}
         run('{}'); run('{}');",
        elf("9090"),
        elf("cd80")
    );
    let mut target = shell("");
    target.program.argv = vec!["perl".into(), "-e".into(), format!("$| = 1; {script}")];
    let output = text(&world.run(start(target)).await);
    let seen: Vec<i32> = output.split_whitespace().map(|number| number.parse().unwrap()).collect();
    assert_eq!(seen[..5], [libc::ENOSYS, libc::ENOSYS, libc::ENOSYS, libc::ENOSYS, 0], "{output}");
    // SIGSYS by the filter; SIGSEGV where the kernel has no such calls.
    assert!([libc::SIGSYS, libc::SIGSEGV].contains(&seen[5]), "{output}");
    world.leave_no_trace().await;
}

#[tokio::test]
async fn no_capability_is_left_and_none_can_be_had() {
    novacron_tests::require!(root);
    let mut world = World::new().await;
    let output = text(&world.sh("cat /proc/self/status; id -u; cat /proc/self/uid_map").await);
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert!(output.contains(&format!("{set}:\t0000000000000000")), "{output}");
    }
    assert!(output.contains("NoNewPrivs:\t1") && output.contains("Seccomp:\t2"), "{output}");
    let map: Vec<u64> =
        output.lines().last().unwrap().split_whitespace().map(|n| n.parse().unwrap()).collect();
    assert!(map[0] == 0 && map[1] >= 0x7000_0000 && map[2] == 65_536, "{map:?}");
    world.leave_no_trace().await;
}

#[tokio::test]
async fn writes_land_in_a_layer_that_vanishes() {
    novacron_tests::require!(root);
    let mut world = World::new().await;
    let before = fs::read("/etc/hostname").unwrap();
    let passwd = fs::read("/etc/passwd").unwrap();
    let mark = format!("novacron-test-{}", std::process::id());
    let script = format!(
        "for place in /etc /var/lib /tmp /var/tmp /dev/shm /; do echo x > $place/{mark} && cat $place/{mark}; done
         rm -f /etc/hostname; test -e /etc/hostname || echo REMOVED
         echo root::0:0::/:/bin/sh >> /etc/passwd || echo KEPT
         echo 1 > /proc/sys/kernel/panic || echo KEPT
         echo b > /proc/sysrq-trigger || echo KEPT
         echo x > /sys/power/state || echo KEPT"
    );
    let output = text(&world.sh(&script).await);
    assert_eq!(output.lines().filter(|line| *line == "x").count(), 6, "{output}");
    assert_eq!(output.lines().filter(|line| *line == "KEPT").count(), 4, "{output}");
    assert!(output.contains("REMOVED"), "{output}");
    for place in ["/etc", "/var/lib", "/tmp", "/var/tmp", "/dev/shm", "/"] {
        assert!(!Path::new(place).join(&mark).exists(), "{place} was written to");
    }
    assert_eq!(fs::read("/etc/hostname").unwrap(), before);
    assert_eq!(fs::read("/etc/passwd").unwrap(), passwd);
    world.leave_no_trace().await;
}

#[tokio::test]
async fn it_has_no_network_no_descriptors_and_no_foreign_environment() {
    novacron_tests::require!(root);
    let mut world = World::new().await;
    let mut target = shell(
        "env | sort; echo FDS $(ls /proc/self/fd); echo NICS $(tail -n +3 /proc/net/dev | cut -d: -f1);
         echo HOST $(hostname) $(readlink /proc/self/fd/0) DEVICES $(ls /dev); echo CGROUP $(cat /proc/self/cgroup)",
    );
    target.program.env = vec![("GREETING".into(), "hello world".into())];
    let start = start(target);
    let attempt = start.attempt;
    let output = text(&world.run(start).await);
    let variables: Vec<&str> = output
        .lines()
        .take_while(|line| !line.starts_with("FDS"))
        .map(|line| line.split('=').next().unwrap())
        .collect();
    let ours = [
        "GREETING",
        "NOVACRON_ATTEMPT",
        "NOVACRON_EPOCH",
        "NOVACRON_FIRE_ID",
        "NOVACRON_JOB_ID",
        "NOVACRON_OUTPUT",
        "NOVACRON_SCHEDULED_AT",
        "PATH",
        "PWD", // the shell's own
    ];
    assert_eq!(variables, ours, "{output}");
    assert!(output.contains(&format!("NOVACRON_FIRE_ID={}", attempt.fire)), "{output}");
    assert!(output.contains("FDS 0 1 2 3\n"), "{output}"); // 3 is ls' own
    assert!(output.contains("NICS lo\n"), "{output}");
    assert!(output.contains("HOST novacron-job /dev/null"), "{output}");
    assert!(
        output.contains("DEVICES fd full null random shm stderr stdin stdout tty urandom zero"),
        "{output}"
    );
    let own_groups = output.lines().last().unwrap();
    assert!(!own_groups.contains("novacron-"), "the cgroup's path shows: {own_groups}");
    world.leave_no_trace().await;
}
