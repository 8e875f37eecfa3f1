//! What machines use, as it is counted: in this life, and of nobody else.

use crate::{place::place, world::exe};
use novacron_agent::hypervisor::{Hypervisor, namespace::Namespace};
use novacron_common::units::ByteCount;
use std::time::Duration;

/// Writes three quarters of its first life's storage to disk (`O_SYNC`), and nothing in its second.
const WRITES_ONCE: &str = r#"#!/usr/bin/perl
my $again = -e '/srv/big'; open(STDOUT, '>', '/tmp/told'); $| = 1; my $child = fork // die;
if (!$child) { sleep 1 while 1 }
if (!$again) { sysopen(my $file, '/srv/big', 0x101041) or die; syswrite $file, 'x' x (1 << 20) for 1 .. 6 }
print "END\n"; $SIG{TERM} = sub { exit 0 }; sleep 1 while 1;
"#;

#[tokio::test]
async fn a_machines_disk_and_processes_are_counted_since_its_start() {
    novacron_tests::require!(root);
    let place = place(WRITES_ONCE, &["/usr/bin/perl"]);
    let wanted = place.definition();
    let host = Namespace::open(place.folder.path(), exe()).await.unwrap();
    host.define(&wanted).await.unwrap();
    host.start(wanted.vm).await.unwrap();
    place.told(wanted.vm).await;
    let first = host.statistics(wanted.vm).await.unwrap();
    let disk = first.disk.unwrap();
    assert!((6..32).contains(&(disk.written.0 >> 20)) && disk.writes > 5, "{disk:?}");
    // Init, the command and its child; a network it has none.
    assert_eq!((first.processes, first.network), (Some(3), None));
    assert!(first.cpu_ms > 0 && first.memory > ByteCount::mib(1), "{first:?}");

    // The device has counted before, and the kernel does not forget that.
    host.stop(wanted.vm, Duration::from_secs(30).into()).await.unwrap();
    host.start(wanted.vm).await.unwrap();
    place.told(wanted.vm).await;
    let disk = host.statistics(wanted.vm).await.unwrap().disk.unwrap();
    assert!(disk.written < ByteCount::mib(3), "{disk:?}");
    host.undefine(wanted.vm).await.unwrap();
}
