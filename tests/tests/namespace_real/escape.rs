//! What user 0 of a machine tries in order to get out of it, and what it must be able to do within.

use crate::{
    place::{Place, place},
    world::{Bystander, exe},
};
use novacron_agent::hypervisor::{Hypervisor, namespace::Namespace};
use novacron_common::{ids::VmId, record::VmState};

const PROGRAMS: &[&str] = &["/bin/sh", "/usr/bin/perl"];

/// Then the attempts, one a line; `BYSTANDER` stands for the id of a process of the host. Perl passes the address of a
/// variable's text, and refuses to pass that of a literal.
const HEAD: &str = r#"#!/usr/bin/perl
open(STDOUT, '>', '/tmp/told'); $| = 1;
($mnt, $tmpfs, $dot, $tmp, $disk, $root) = ('/srv', 'tmpfs', '.', '/tmp', '/srv/disk', '/');
$limit = pack('QQ', 1 << 30, 1 << 30);
sub try { my ($name, $result) = @_; printf "%s: %s\n", $name, ($result // -1) == -1 ? "errno " . ($! + 0) : 'done' }
sub of { my ($path, $mode) = @_; open(my $file, $mode, $path) ? 1 : -1 }
"#;

const TAIL: &str = "print \"END\\n\"; $SIG{TERM} = sub { exit 0 }; sleep 1 while 1;\n";

/// What is tried, by which Perl, and the errno with which it ends.
const ESCAPES: &[(&str, &str, i32)] = &[
    ("mount", "syscall(165, $tmpfs, $mnt, $tmpfs, 0, 0)", libc::EPERM),
    ("bind mount", "syscall(165, $root, $mnt, $tmpfs, 4096, 0)", libc::EPERM),
    ("unmount", "syscall(166, $root, 2)", libc::EPERM),
    ("pivot_root", "syscall(155, $dot, $dot)", libc::EPERM),
    ("chroot", "syscall(161, $tmp)", libc::EPERM),
    ("new user namespace", "syscall(272, 0x10000000)", libc::EPERM),
    ("new mount namespace by clone", "syscall(56, 0x00020011, 0, 0, 0, 0)", libc::EPERM),
    ("new namespace by clone3", "syscall(435, 0, 0)", libc::ENOSYS),
    ("make a block device", "syscall(133, $disk, 0060600, 0x800)", libc::EPERM),
    ("make a character device", "syscall(133, $disk, 0020600, 0x101)", libc::EPERM),
    ("open /dev/mem", "of('/dev/mem', '<')", libc::ENOENT),
    ("attach to a process of the host", "syscall(101, 16, BYSTANDER, 0, 0)", libc::EPERM),
    ("signal a process of the host", "kill('KILL', BYSTANDER) ? 1 : -1", libc::ESRCH),
    ("read the memory of init", "of('/proc/1/mem', '<')", libc::EACCES),
    ("write to a descriptor of init", "of('/proc/1/fd/3', '>')", libc::EACCES),
    ("leave by init's root", "of('/proc/1/root/etc/motto', '<')", libc::EACCES),
    ("core_pattern", "of('/proc/sys/kernel/core_pattern', '>')", libc::EROFS),
    ("overcommit_memory", "of('/proc/sys/vm/overcommit_memory', '>')", libc::EROFS),
    ("a raw socket", "syscall(41, 2, 3, 1)", libc::EPERM),
    ("a packet socket", "syscall(41, 17, 3, 0)", libc::EPERM),
    ("load a module", "syscall(313, 0, $dot, 0)", libc::EPERM),
    ("set the clock", "syscall(164, 0, 0)", libc::EPERM),
    ("a higher limit", "syscall(302, 0, 4, $limit, 0)", libc::EPERM),
];

/// A machine of this image that runs to where it has told all.
async fn told_by(place: &Place) -> (Namespace, VmId, String) {
    let host = Namespace::open(place.folder.path(), exe()).await.unwrap();
    let wanted = place.definition();
    host.define(&wanted).await.unwrap();
    host.start(wanted.vm).await.unwrap();
    let told = place.told(wanted.vm).await;
    (host, wanted.vm, told)
}

#[tokio::test]
async fn user_0_of_a_machine_gets_nowhere() {
    novacron_tests::require!(root);
    let mut bystander = Bystander::new();
    let tries = ESCAPES.iter().map(|(name, call, _)| format!("$! = 0; try(\"{name}\", {call});\n"));
    let tries: String = tries.collect();
    let script = format!("{HEAD}{tries}{TAIL}").replace("BYSTANDER", &bystander.id().to_string());
    let place = place(&script, PROGRAMS);
    let (host, vm, told) = told_by(&place).await;
    for (name, _, errno) in ESCAPES {
        let line = told.lines().find(|line| line.starts_with(&format!("{name}: ")));
        assert_eq!(line, Some(format!("{name}: errno {errno}").as_str()), "{told}");
    }
    assert_eq!(host.state(vm).await.unwrap(), VmState::Running);
    assert!(bystander.lives(), "the bystander was hit");
    host.undefine(vm).await.unwrap();
}

#[tokio::test]
async fn user_0_of_a_machine_rules_within_and_set_user_id_programs_give_nothing() {
    novacron_tests::require!(root);
    let within = r#"
try('give a file away', chown(33, 34, '/srv/other') || -1);
my $port; try('a service port', socket($port, 2, 1, 0) && bind($port, pack('S n N x8', 2, 80, 0)) ? 1 : -1);
my $child = fork // die;
if (!$child) { ($(, $)) = (34, '34 34'); ($<, $>) = (33, 33); of('/tmp/ready', '>'); sleep 60; exit }
select(undef, undef, undef, 0.02) until (stat '/tmp/ready')[4] == 33;
try('end a process of another user', kill('KILL', $child) || -1); waitpid $child, 0;
open(my $from, '<', '/usr/bin/perl'); open(my $to, '>', '/srv/risen'); { local $/; print {$to} <$from> }
close $to; chmod 04755, '/srv/risen';
printf "set-user-id bit: %o\n", (stat '/srv/risen')[2] & 04000;
if (!fork) { ($(, $)) = (34, '34 34'); ($<, $>) = (33, 33); exec '/srv/risen', '-e', 'print "risen to $>\n"' }
wait;
opendir my $open, '/proc/self/fd'; my @open = map { readlink "/proc/self/fd/$_" } grep { $_ > 2 } readdir $open;
print "held: ", join(' ', sort grep { m{^(socket|pipe|anon_inode|/memfd|/dev)} } @open), "\n";
"#;
    let place = place(&format!("{HEAD}{within}{TAIL}"), PROGRAMS);
    let (host, vm, told) = told_by(&place).await;
    for line in [
        "give a file away: done",
        "a service port: done",
        "end a process of another user: done",
        "set-user-id bit: 4000",
        "risen to 33",
    ] {
        assert!(told.lines().any(|said| said == line), "{line}:\n{told}");
    }
    let held = told.lines().find_map(|line| line.strip_prefix("held: ")).unwrap_or("?");
    // Nothing but the port, which is its own.
    assert!(held.starts_with("socket:") && !held.contains(' '), "{told}");
    host.undefine(vm).await.unwrap();
}

const WHO: &str = r#"
print "home $ENV{HOME}\n"; open(my $status, '<', '/proc/self/status');
while (<$status>) { s/\s+/ /g; print "$_\n" if /^(Uid|Gid|Groups|CapEff|CapPrm):/ }
try('/dev/stderr by name', of('/dev/stderr', '>>')); try('/etc', of('/etc/new', '>'));
"#;

#[tokio::test]
async fn the_image_says_whom_its_command_runs_as() {
    novacron_tests::require!(root);
    let mut place = place(&format!("{HEAD}{WHO}{TAIL}"), PROGRAMS);
    let users = [
        (None, "Uid: 0 0 0 0", "Gid: 0 0 0 0", "Groups: ", "home /root", "a00005fb", "done"),
        (
            Some("www"),
            "Uid: 33 33 33 33",
            "Gid: 34 34 34 34",
            "Groups: 4",
            "home /srv/www",
            "00000000",
            "errno 13",
        ),
        (
            Some("33:0"),
            "Uid: 33 33 33 33",
            "Gid: 0 0 0 0",
            "Groups: ",
            "home /srv/www",
            "00000000",
            "errno 13",
        ),
    ];
    for (user, uid, gid, groups, home, capabilities, etc) in users {
        place.image.run.user = user.map(str::to_owned);
        let (host, vm, told) = told_by(&place).await;
        let effective = format!("CapEff: 00000000{capabilities}");
        let etc = format!("/etc: {etc}");
        for line in [uid, gid, groups, home, &effective, "/dev/stderr by name: done", &etc] {
            assert!(told.lines().any(|said| said.trim_end() == line.trim_end()), "{user:?} {line}:\n{told}");
        }
        host.undefine(vm).await.unwrap();
    }

    place.image.run.user = Some("nobody-of-that-name".to_owned());
    let host = Namespace::open(place.folder.path(), exe()).await.unwrap();
    let wanted = place.definition();
    host.define(&wanted).await.unwrap();
    let error = host.start(wanted.vm).await.unwrap_err();
    let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    assert!(cause.contains("/etc/passwd has no user \"nobody-of-that-name\""), "{error} {cause}");
    host.undefine(wanted.vm).await.unwrap();
}
