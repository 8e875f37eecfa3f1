//! The page codec between two real QEMUs: every byte of every channel goes through an encoder and a decoder on its way, the
//! guest runs on at the other end with its memory intact, and what was recorded comes back under every means and cut.

mod qemu;
mod recording;
mod tee;

use std::time::Duration;

use anyhow::{Result, ensure};
use novacron_codec::Means;
use novacron_codec::parse::Channel;
use novacron_tests::require;
use novacron_tests::serial::Recorder;

use qemu::{GUEST_MIB, Pair};
use recording::{Recording, comes_back, total};

/// The guest's whole memory, in pages.
const PAGES: u64 = GUEST_MIB * 256;
const BOOT_LIMIT: Duration = Duration::from_secs(180);
const TICKS_AFTER: u64 = 20;

/// Moves a guest with these capabilities and parameters, and returns what its channels carried.
fn moved(capabilities: &[&str], parameters: serde_json::Value, post_copy: bool) -> Result<Vec<Recording>> {
    let mut pair = Pair::boot(capabilities, parameters)?;
    let recorder = Recorder::start(pair.consoles());
    recorder.wait_for_ticks(5, BOOT_LIMIT)?;
    let recordings = pair.migrate(post_copy)?;
    let before = recorder.judge();
    recorder.wait_for_ticks(before.ticks + TICKS_AFTER, BOOT_LIMIT)?;
    let verdict = recorder.judge();
    ensure!(verdict.is_continuous() && verdict.bad_pages == 0, "the guest has suffered: {verdict:?}");
    for recording in &recordings {
        comes_back(recording)?;
    }
    Ok(recordings)
}

fn of(recordings: &[Recording], channel: Channel) -> Vec<&Recording> {
    recordings.iter().filter(|recording| recording.channel == channel).collect()
}

#[test]
fn a_plain_migration_is_parsed_to_the_last_page() -> Result<()> {
    require!(root, qemu, apt);
    let recordings = moved(&[], serde_json::json!({}), false)?;
    ensure!(recordings.len() == 1 && recordings[0].channel == Channel::Main, "one main channel");
    let stats = recordings[0].stats;
    let parsed = total(&stats);
    ensure!(parsed * 100 >= PAGES * 99, "{parsed} of {PAGES} pages were recognised: {stats:?}");
    ensure!(
        stats.zero.pages > 0 && stats.reference.pages > 0 && stats.delta.pages > 0,
        "each kind: {stats:?}"
    );
    ensure!(stats.ratio().is_some_and(|ratio| ratio < 0.6), "the guest's text is compressed: {stats:?}");
    Ok(())
}

#[test]
fn a_migration_that_qemu_encodes_itself_passes() -> Result<()> {
    require!(root, qemu, apt);
    let recordings = moved(&["xbzrle"], serde_json::json!({ "xbzrle-cache-size": 64 << 20 }), false)?;
    let stats = recordings[0].stats;
    ensure!(recordings[0].channel == Channel::Main && total(&stats) * 100 >= PAGES * 99, "{stats:?}");
    Ok(())
}

#[test]
fn multifd_channels_are_parsed() -> Result<()> {
    require!(root, qemu, apt);
    let recordings = moved(&["multifd"], serde_json::json!({ "multifd-channels": 4 }), false)?;
    let channels = of(&recordings, Channel::Multifd);
    ensure!(of(&recordings, Channel::Main).len() == 1 && channels.len() == 4, "five channels");
    ensure!(channels.iter().all(|recording| !recording.lost), "a channel was not understood to its end");
    let pages: u64 = channels.iter().map(|recording| total(&recording.stats)).sum();
    ensure!(pages > 8 * 256, "the guest's working set alone is more than {pages} pages");
    Ok(())
}

#[test]
fn multifd_with_zstd_passes_as_it_is() -> Result<()> {
    require!(root, qemu, apt);
    let parameters = serde_json::json!({ "multifd-channels": 2, "multifd-compression": "zstd" });
    let recordings = moved(&["multifd"], parameters, false)?;
    let channels = of(&recordings, Channel::Multifd);
    ensure!(channels.len() == 2 && channels.iter().all(|recording| !recording.lost), "both understood");
    ensure!(channels.iter().all(|recording| total(&recording.stats) == 0), "no page is taken apart");
    Ok(())
}

#[test]
fn post_copy_with_its_own_channel_passes() -> Result<()> {
    require!(root, qemu, apt);
    let recordings = moved(&["postcopy-ram", "postcopy-preempt"], serde_json::json!({}), true)?;
    let main = of(&recordings, Channel::Main);
    ensure!(main.len() == 1 && recordings.len() == 2, "{} channels", recordings.len());
    let pages = recordings.iter().map(|recording| total(&recording.stats)).sum::<u64>();
    ensure!(pages > 8 * 256 && main[0].means == Means::Full, "{pages} pages");
    Ok(())
}
