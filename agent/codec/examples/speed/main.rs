//! How much processor time the codec takes, and what it saves, over pages of three kinds: `cargo run --release -p
//! novacron-codec --example speed [FOLDER]`. The text is what the programs of FOLDER (default: /usr/bin) hold.

use std::path::Path;
use std::time::Duration;
use std::{env, fs};

use novacron_codec::{CACHE_DEFAULT, Decoder, Encoder, Means, PAGE, Policy, Secret, Settings};

const PAGES: usize = 40_000;
const CONTINUE: u64 = 0x20;
/// What a pump reads at once.
const PIECE: usize = 256 << 10;

fn main() {
    let folder = env::args().nth(1).unwrap_or_else(|| "/usr/bin".to_owned());
    let programs = programs(Path::new(&folder));
    let noise = noise(PAGES * PAGE);
    let mut mostly_zero = vec![0; PAGES * PAGE];
    for (number, page) in mostly_zero.chunks_exact_mut(PAGE).enumerate().filter(|(number, _)| number % 5 == 0)
    {
        page.copy_from_slice(&programs[number / 5 * PAGE..][..PAGE]);
    }
    println!(
        "{:<22} {:>6} {:>12} {:>12} {:>10} {:>8}",
        "pages", "means", "encode MB/s", "decode MB/s", "ratio", "MiB of RAM"
    );
    for (name, guest) in [("80 % zero", &mostly_zero), ("programs", &programs), ("noise", &noise)] {
        for (means, policy) in [
            ("off", Policy::Fixed(Means::Off)),
            ("pages", Policy::Fixed(Means::Pages)),
            ("full", Policy::Fixed(Means::Full)),
            ("choice", Policy::Adaptive),
        ] {
            run(name, means, policy, guest);
        }
    }
}

fn run(name: &str, means: &str, policy: Policy, guest: &[u8]) {
    let stream = stream(guest);
    let secret = Secret([1; 32]);
    let mut encoder = Encoder::new(Settings { policy, ..Settings::new(secret.clone(), 0) });
    let mut decoder = Decoder::new(secret, 0, CACHE_DEFAULT);
    let (mut wire, mut back, mut same) = (Vec::new(), Vec::new(), stream.as_slice());
    let (mut sent, mut encoding, mut decoding) = (0, Duration::ZERO, Duration::ZERO);
    let pieces = stream.chunks(PIECE).map(Some).chain([None]);
    for piece in pieces {
        let start = on_cpu();
        match piece {
            Some(piece) => encoder.push(piece, &mut wire),
            None => encoder.finish(&mut wire),
        }
        let between = on_cpu();
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            rest = &rest[decoder.decode(rest, &mut back).expect("the frames are good")..];
        }
        (encoding, decoding) = (encoding + (between - start), decoding + (on_cpu() - between));
        assert!(same.starts_with(&back), "another stream came back");
        (same, sent) = (&same[back.len()..], sent + wire.len());
        wire.clear();
        back.clear();
    }
    decoder.finish().expect("all of it came back");
    // Rates are of guest memory: a zero page counts as a page.
    let rate = |time: Duration| guest.len() as f64 / 1e6 / time.as_secs_f64();
    println!(
        "{name:<22} {means:>6} {:>12.0} {:>12.0} {:>10.4} {:>8}",
        rate(encoding),
        rate(decoding),
        sent as f64 / stream.len() as f64,
        guest.len() >> 20,
    );
}

/// Time that this thread has spent on a processor: what else runs on the machine does not count (proc(5), schedstat).
fn on_cpu() -> Duration {
    let times = fs::read_to_string("/proc/thread-self/schedstat").expect("Linux counts it");
    let nanos = times.split(' ').next().and_then(|first| first.parse().ok());
    Duration::from_nanos(nanos.expect("the first number is nanoseconds"))
}

/// What QEMU would write of these pages.
fn stream(guest: &[u8]) -> Vec<u8> {
    let mut out = b"QEVM\0\0\0\x03\x07\0\0\0\x03q35\x01\0\0\0\x02\x03ram\0\0\0\0\0\0\0\x04".to_vec();
    out.extend([0, 0, 0, 1, 0, 0, 0, 8, 5]);
    out.extend(b"first");
    out.extend([0; PAGE]);
    for (number, page) in guest.chunks_exact(PAGE).enumerate() {
        let zero = *page == [0; PAGE];
        let flags = CONTINUE | if zero { 2 } else { 8 };
        out.extend((((number as u64) << 12) | flags).to_be_bytes());
        out.extend(if zero { &[0] } else { page });
    }
    out
}

/// The bytes of programs, pages of zeros left out, until there are enough.
fn programs(folder: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut paths: Vec<_> =
        fs::read_dir(folder).expect("a folder").filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    for file in paths.iter().cycle().take(100_000).filter_map(|path| fs::read(path).ok()) {
        let pages = file.chunks_exact(PAGE).filter(|page| **page != [0; PAGE]);
        pages.for_each(|page| bytes.extend(page));
        if bytes.len() >= PAGES * PAGE {
            break;
        }
    }
    bytes.truncate(PAGES * PAGE);
    bytes
}

fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let words = std::iter::repeat_with(|| {
        state = state.wrapping_mul(0xd134_2543_de82_ef95).wrapping_add(1);
        (state ^ (state >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()
    });
    words.take(length / 8).flatten().collect()
}
