//! A guest of plain libvirt: the lab must not depend on the product that it tests.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use novacron_tests::guest_image::{DiskFormat, GuestImage};
use novacron_tests::lab::{Host, Lab};
use novacron_tests::serial::Recorder;

pub const GUEST: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 50);
/// Where QEMU reads its files, as the host sees it.
const IMAGES: &str = "/var/lib/libvirt/images";
pub const BOOT_LIMIT: Duration = Duration::from_secs(180);

pub fn make_bridge(host: &Host) -> Result<()> {
    for words in [
        "link add novabr0 type bridge forward_delay 0",
        "link set eth1 master novabr0",
        "link set novabr0 up",
    ] {
        host.exec("ip", &words.split(' ').collect::<Vec<_>>())?;
    }
    Ok(())
}

/// A guest on emulated hardware, defined by hand: the lab must not depend on the product that it tests.
pub fn domain_xml(disk: Option<&str>) -> String {
    let settings = "nova.mb=16 nova.rate=2 nova.tick=50";
    let cmdline =
        format!("console=ttyS0 quiet {settings} nova.disk={} nova.addr={GUEST}/24", u8::from(disk.is_some()));
    let disk = disk.map_or(String::new(), |file| {
        format!(
            "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{file}'/>\
             <target dev='vda' bus='virtio'/></disk>"
        )
    });
    format!(
        "<domain type='qemu'><name>lab</name><memory unit='MiB'>160</memory><vcpu>1</vcpu>\
         <os><type arch='x86_64' machine='q35'>hvm</type><kernel>{IMAGES}/vmlinuz</kernel>\
         <initrd>{IMAGES}/initramfs</initrd><cmdline>{cmdline}</cmdline></os><features><acpi/></features><on_reboot>destroy</on_reboot><devices>\
         {disk}<interface type='bridge'><source bridge='novabr0'/><model type='virtio'/></interface>\
         <serial type='pty'><log file='/var/log/libvirt/lab-serial.log' append='on'/></serial>\
         <memballoon model='none'/></devices></domain>",
    )
}

/// Puts the kernel and its initramfs where QEMU reads them on this host. They were made below the clone, and a clone in
/// root's home is closed to `libvirt-qemu`.
pub fn give_kernel(host: &Host) -> Result<()> {
    let image = GuestImage::build()?;
    let folder = images(host)?;
    fs::copy(&image.kernel.path, folder.join("vmlinuz"))?;
    fs::copy(&image.initramfs.path, folder.join("initramfs"))?;
    Ok(())
}

/// The host's [`IMAGES`], on the machine.
fn images(host: &Host) -> Result<PathBuf> {
    let folder = host.dir().join("lib-libvirt/images");
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// Where a host keeps the guest's console, on the machine.
pub fn console_of(host: &Host) -> PathBuf {
    host.dir().join("log-libvirt/lab-serial.log")
}

/// Defines and starts the guest on `host`, with a disk, and follows its console.
pub fn boot_guest(host: &Host) -> Result<Recorder> {
    give_kernel(host)?;
    GuestImage::empty_disk(&images(host)?.join("lab.qcow2"), DiskFormat::Qcow2, 32)?;
    let xml = domain_xml(Some(&format!("{IMAGES}/lab.qcow2")));
    start_guest(host, &xml, Recorder::start(vec![console_of(host)]))
}

pub fn start_guest(host: &Host, xml: &str, recorder: Recorder) -> Result<Recorder> {
    fs::write(host.dir().join("lib-novacron/lab.xml"), xml)?;
    host.virsh(&["define", "/var/lib/novacron/lab.xml"])?;
    host.virsh(&["start", "lab"])?;
    recorder.wait_for(Duration::ZERO, BOOT_LIMIT, |line| line.starts_with("READY"))?;
    Ok(recorder)
}

/// A TCP connection from the outside node to the guest's echo service.
pub fn connect(lab: &Lab) -> Result<TcpStream> {
    let stream = lab.outside().on_network(|| {
        let to = SocketAddr::from((GUEST, 7));
        TcpStream::connect_timeout(&to, Duration::from_secs(20)).context("connecting to the guest")
    })?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    Ok(stream)
}

pub fn ask(stream: &mut BufReader<TcpStream>, word: &str) -> Result<String> {
    stream.get_mut().write_all(format!("{word}\n").as_bytes())?;
    let mut reply = String::new();
    stream.read_line(&mut reply)?;
    Ok(reply.trim().to_owned())
}
