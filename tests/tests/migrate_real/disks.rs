//! A machine with an overlay over a template's image, between a host whose QEMU is root and one with libvirt's own
//! ownership defaults: sockets and files must be right for both.

use std::fs;

use anyhow::{Result, ensure};
use novacron_guest::{content::PAGE_BYTES, hash::mix};
use novacron_tests::bins;
use novacron_tests::cluster::{Cluster, ClusterOptions, GuestOptions, TemplateOptions};
use novacron_tests::guest_image::{Checked, DiskFormat};
use novacron_tests::lab::{HostOptions, QemuUser};
use novacron_tests::require;

use crate::{live::SOON, returns::completed};

const IMAGE_MIB: usize = 32;
const AREA_MIB: usize = 16;
/// What a target says of each page that it holds, bytes.
const PRINT: usize = 16;

/// An image whose second half, which the guest reads and never writes to, is known, and no two pages of it the same.
fn image(name: &str) -> Result<(Checked, Vec<u8>)> {
    let half = AREA_MIB << 20;
    let known: Vec<u8> = (0..half as u64 / 8).flat_map(|word| mix(word).to_le_bytes()).collect();
    let path = bins::lab_dir()?.join(format!("{name}-{}.raw", std::process::id()));
    let content = [vec![0; (IMAGE_MIB << 20) - half], known.clone()].concat();
    fs::write(&path, content)?;
    Ok((Checked::of(path)?, known))
}

#[test]
fn an_overlay_moves_to_a_host_with_libvirts_own_user_which_offers_the_image_that_it_has() -> Result<()> {
    require!(root, libvirt, qemu, apt, libvirt_qemu_user);
    let own_user = HostOptions { qemu_user: QemuUser::LibvirtQemu };
    let hosts = vec![("h1".to_owned(), HostOptions::default()), ("h2".to_owned(), own_user)];
    let cluster = Cluster::start(&ClusterOptions { hosts, ..ClusterOptions::two_hosts("mv-user") })?;
    let (image, known) = image("overlay")?;
    let path = image.path.clone();
    let template = TemplateOptions { name: "based".to_owned(), disk: Some((image, DiskFormat::Raw)) };
    cluster.make_template(&template)?;
    let options = GuestOptions { read_mib: AREA_MIB as u32, ..GuestOptions::small("vm", "based", "h1") };
    let machine = cluster.boot_guest(&options)?;
    // Every host has its copy, or gets it from another: the original may go.
    fs::remove_file(path)?;
    for to in ["h2", "h1"] {
        let ended = completed(&cluster, &machine, to, &["--verify-disk"])?;
        println!("to {to}: {:?}, {:?} bytes of the disk compared", ended.memory, ended.compared_bytes);
        // Whether it is referred to is the codec's to choose, for which this guest's memory, mostly noise, is one to leave alone.
        let least = if to == "h2" { known.len() / PAGE_BYTES * PRINT } else { PRINT };
        ensure!(ended.memory.offer_bytes >= least as u64 && ended.compared_bytes > Some(0), "{ended:?}");
        machine.recorder.wait_for_ticks(25, SOON)?;
        let place = cluster.place_of(&machine)?;
        ensure!(place == (to.to_owned(), "running".to_owned()), "{place:?}");
    }
    let by_guest = cluster.settle_disk(&machine)?;
    cluster.novactl(&["vm", "stop", "vm", "--wait"])?;
    let whole = cluster.image_of(&machine, "h1")?;
    ensure!(
        novacron_guest::disk::area_hash(&whole[..AREA_MIB << 20]) == by_guest,
        "the guest's half differs"
    );
    ensure!(whole[AREA_MIB << 20..] == known, "the template's half differs");
    let verdict = machine.recorder.judge();
    ensure!(verdict.is_continuous() && verdict.last.disk_writes > 0, "{verdict:?}");
    cluster.delete(&machine)?;
    let remains = cluster.remains_of(&machine)?;
    ensure!(remains.is_empty(), "{remains:?}");
    Ok(())
}
