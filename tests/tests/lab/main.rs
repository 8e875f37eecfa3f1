//! The lab proves itself: hosts are separate, a guest boots, ticks, is reached and ends by ACPI, and nothing is left behind.

mod guest;
mod namespace;
mod traces;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufReader, Write as _};
use std::net::{TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use novacron_tests::lab::{Host, HostOptions, Lab, QemuUser, Watch, addr};
use novacron_tests::require;
use novacron_tests::serial::{Recorder, longest_silence_ms};

use guest::{
    BOOT_LIMIT, GUEST, ask, boot_guest, connect, console_of, domain_xml, give_kernel, make_bridge,
    start_guest,
};
use traces::Traces;

fn is_off(host: &Host) -> bool {
    host.virsh(&["domstate", "lab"]).is_ok_and(|state| state.trim() == "shut off")
}

fn wait_until_off(host: &Host) -> Result<()> {
    for _ in 0..300 {
        if is_off(host) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    anyhow::bail!("the guest did not power off within 30 s")
}

fn a_guest_lives_and_ends(lab: &Lab, host: &Host) -> Result<()> {
    make_bridge(host)?;
    let recorder = boot_guest(host)?;
    recorder.wait_for_ticks(40, BOOT_LIMIT)?;
    lab.outside().exec("ping", &["-c", "1", "-W", "10", &GUEST.to_string()]).or_else(|fault| {
        // `ping` may be absent; the echo below proves more.
        if fault.to_string().contains("starting ping") { Ok(String::new()) } else { Err(fault) }
    })?;
    let mut stream = BufReader::new(connect(lab)?);
    ensure!(ask(&mut stream, "hello")? == "1 hello");
    ensure!(ask(&mut stream, "again")? == "2 again");
    let verdict = recorder.judge();
    ensure!(verdict.is_continuous(), "{verdict:?}");
    ensure!(
        verdict.last.pages > 0 && verdict.last.disk_writes > 0 && verdict.last.disk_reads > 0,
        "{verdict:?}"
    );
    ensure!(host.qemu_pids()?.len() == 1);
    host.virsh(&["shutdown", "lab", "--mode", "acpi"])?;
    recorder.wait_for(Duration::ZERO, Duration::from_secs(30), |line| line == "OFF button")?;
    wait_until_off(host)?;
    let verdict = recorder.judge();
    ensure!(verdict.is_continuous(), "{verdict:?}");
    Ok(())
}

#[test]
fn a_guest_ticks_echoes_and_ends_by_acpi_and_nothing_is_left() -> Result<()> {
    require!(root, libvirt, qemu, apt);
    let mut lab = Lab::new("lab-test")?;
    let h1 = lab.host("h1", HostOptions::default())?;
    let h2 = lab.host("h2", HostOptions { qemu_user: QemuUser::LibvirtQemu })?;
    let traces = Traces::of(&lab, &[&h1, &h2])?;
    a_guest_lives_and_ends(&lab, &h1)?;
    a_guest_is_run_by_its_own_user(&h2)?;
    drop((h1, h2, lab));
    traces.assert_gone()
}

/// The second host has libvirt's own defaults: QEMU must run as `libvirt-qemu`, and the disk is its for that time.
fn a_guest_is_run_by_its_own_user(host: &Host) -> Result<()> {
    make_bridge(host)?;
    let recorder = boot_guest(host)?;
    recorder.wait_for_ticks(5, BOOT_LIMIT)?;
    let pid = host.qemu_pids()?.first().copied().context("no QEMU on the host")?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let user = nix::unistd::User::from_name("libvirt-qemu")?.context("no user libvirt-qemu")?;
    ensure!(status.contains(&format!("Uid:\t{}\t", user.uid)), "QEMU runs as another user: {status}");
    host.virsh(&["destroy", "lab"]).map(|_| ())
}

/// libvirt's own migration, unencrypted over TCP: the control for what the product's tests look for.
fn move_by_libvirt_alone(from: &Host, to: &Host) -> Result<()> {
    let mut virsh = std::process::Command::new("virsh");
    virsh.args(["-q", "-c", &from.libvirt_uri(), "migrate", "--live", "lab", &to.libvirt_uri()]);
    virsh.args(["--migrateuri", &format!("tcp://{}:49200", to.address())]);
    let output = virsh.output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

#[test]
fn a_guest_moved_by_libvirt_alone_is_continuous_and_its_memory_is_seen_on_the_wire() -> Result<()> {
    require!(root, libvirt, qemu, apt, libvirt_qemu_user);
    let mut lab = Lab::new("lab-move")?;
    let h1 = lab.host("h1", HostOptions::default())?;
    let h2 = lab.host("h2", HostOptions { qemu_user: QemuUser::LibvirtQemu })?;
    make_bridge(&h1)?;
    make_bridge(&h2)?;
    let recorder = Recorder::start(vec![console_of(&h1), console_of(&h2)]);
    give_kernel(&h1)?;
    give_kernel(&h2)?;
    let recorder = start_guest(&h1, &domain_xml(None), recorder)?;
    recorder.wait_for_ticks(20, BOOT_LIMIT)?;
    let mut stream = BufReader::new(connect(&lab)?);
    ensure!(ask(&mut stream, "before")? == "1 before");
    let watch = Watch { agent_ports: Vec::new(), needle: novacron_guest::content::NEEDLE.to_vec() };
    let capture = lab.capture(&[h1.node(), h2.node()], watch)?;
    let began = recorder.now();
    move_by_libvirt_alone(&h1, &h2)?;
    let there = recorder.now();
    recorder.wait_for_ticks(20, BOOT_LIMIT)?;
    ensure!(ask(&mut stream, "there")? == "2 there");
    move_by_libvirt_alone(&h2, &h1)?;
    recorder.wait_for_ticks(20, BOOT_LIMIT)?;
    ensure!(ask(&mut stream, "back")? == "3 back");
    let counts = capture.finish()?;
    ensure!(counts.tcp > 0 && counts.needles > 0 && counts.udp_agent == 0, "{counts:?}");
    let verdict = recorder.judge();
    ensure!(verdict.is_continuous() && verdict.boots == 1, "{verdict:?}");
    let chunks = recorder.finish();
    let sources: BTreeSet<usize> = chunks.iter().map(|chunk| chunk.source).collect();
    ensure!(sources.len() == 2, "ticks came from one host only");
    let silence = longest_silence_ms(&chunks, &(began..there));
    ensure!(silence > 0.0 && silence <= verdict.blackout_ms_max, "{silence} {verdict:?}");
    Ok(())
}

#[test]
fn hosts_are_separate_and_reach_each_other_over_one_counted_link() -> Result<()> {
    require!(root, libvirt, qemu);
    let mut lab = Lab::new("lab-net")?;
    let h1 = lab.host("h1", HostOptions::default())?;
    let c2 = lab.node("c2")?;
    ensure!(h1.exec("hostname", &[])?.trim() == "h1" && c2.exec("hostname", &[])?.trim() == "c2");
    ensure!((h1.address(), c2.address()) == (addr::of_node(1), addr::of_node(2)));
    let bind = |address| UdpSocket::bind((address, 7000)).context("binding");
    let (from, to) = (h1.on_network(|| bind(h1.address()))?, c2.on_network(|| bind(c2.address()))?);
    let watch = Watch { agent_ports: vec![7000], needle: b"plain secret".to_vec() };
    let capture = lab.capture(&[h1.node(), &c2], watch)?;
    from.send_to(b"nothing to see", to.local_addr()?)?;
    from.send_to(b"a plain secret!", to.local_addr()?)?;
    to.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut buffer = [0; 64];
    ensure!(to.recv(&mut buffer)? == 14 && to.recv(&mut buffer)? == 15);
    let counts = capture.finish()?;
    ensure!(
        (counts.udp_agent, counts.udp_other, counts.tcp, counts.needles, counts.dropped) == (2, 0, 0, 1, 0),
        "{counts:?}"
    );
    Ok(())
}

#[test]
fn a_shaped_link_is_slow_and_a_cut_one_is_silent() -> Result<()> {
    require!(root);
    let mut lab = Lab::new("lab-shape")?;
    let (a, b) = (lab.node("a")?, lab.node("b")?);
    let listener = b.on_network(|| std::net::TcpListener::bind((b.address(), 9)).context("listening"))?;
    lab.shape(&a, 8)?;
    let slow = send_a_mebibyte(&a, &listener)?;
    // One MiB at 8 Mbit/s takes a second; the bucket gives the first packets away.
    ensure!(slow >= 0.6, "1 MiB at 8 Mbit/s took {slow} s");
    lab.unshape(&a)?;
    lab.set_link(&a, false)?;
    let to = listener.local_addr()?;
    let cut = a.on_network(|| Ok(TcpStream::connect_timeout(&to, Duration::from_millis(300)).is_err()))?;
    ensure!(cut, "a cut link still carried a connection");
    lab.set_link(&a, true)?;
    let free = send_a_mebibyte(&a, &listener)?;
    ensure!(free < slow, "1 MiB over a free link took {free} s, over a shaped one {slow} s");
    Ok(())
}

fn send_a_mebibyte(from: &novacron_tests::lab::Node, to: &std::net::TcpListener) -> Result<f64> {
    let address = to.local_addr()?;
    let mut sender = from.on_network(|| TcpStream::connect(address).context("connecting"))?;
    let (mut receiver, _) = to.accept()?;
    let began = std::time::Instant::now();
    let writer = std::thread::spawn(move || sender.write_all(&vec![7; 1 << 20]));
    let received = std::io::copy(&mut receiver, &mut std::io::sink())?;
    ensure!(
        received == 1 << 20 && writer.join().is_ok_and(|written| written.is_ok()),
        "{received} bytes arrived"
    );
    Ok(began.elapsed().as_secs_f64())
}

#[test]
fn a_crashed_host_loses_its_processes_and_boots_again_with_its_files() -> Result<()> {
    require!(root, libvirt, qemu);
    let mut lab = Lab::new("lab-crash")?;
    let mut host = lab.host("h1", HostOptions::default())?;
    host.exec("touch", &["/var/lib/novacron/mark", "/run/gone"])?;
    let sleeper = host.spawn("sleep", &["1000"], &[])?;
    host.crash();
    ensure!(sleeper.wait_for(Duration::from_secs(60)).is_some(), "a process outlived its host");
    ensure!(host.virsh(&["list"]).is_err());
    lab.boot(&mut host)?;
    ensure!(host.exec("ls", &["/var/lib/novacron"])?.trim() == "mark");
    ensure!(host.exec("ls", &["/run/gone"]).is_err(), "/run survived a boot");
    host.virsh(&["list"]).map(|_| ())
}

#[test]
fn libvirtd_dies_alone_and_comes_back() -> Result<()> {
    require!(root, libvirt, qemu);
    let mut lab = Lab::new("lab-lvd")?;
    let mut host = lab.host("h1", HostOptions::default())?;
    let sleeper = host.spawn("sleep", &["1000"], &[])?;
    host.kill9_libvirtd()?;
    ensure!(host.virsh(&["list"]).is_err(), "libvirtd answered after its death");
    ensure!(sleeper.ended().is_none());
    host.start_libvirtd()?;
    host.virsh(&["list"]).map(|_| ())
}
