//! Writes what QEMU 10.0 would write, for a guest of our making.

use novacron_codec::{PAGE, Page};

pub const CONTINUE: u64 = 0x20;
const ZERO: u64 = 0x02;
const MEM_SIZE: u64 = 0x04;
const PAGE_FLAG: u64 = 0x08;
const EOS: u64 = 0x10;
const XBZRLE: u64 = 0x40;
const MULTIFD_FLUSH: u64 = 0x200;
const RAM: &str = "pc.ram";
const RAM_SECTION: u32 = 2;

/// SplitMix64: the same bytes in every run.
pub struct Noise(pub u64);

impl Noise {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// A page that nothing makes smaller.
    pub fn page(&mut self) -> Page {
        let mut page = [0; PAGE];
        page.chunks_exact_mut(8).for_each(|word| word.copy_from_slice(&self.next().to_le_bytes()));
        page
    }

    /// A page like text: few different bytes, words that come again.
    pub fn text(&mut self) -> Page {
        const WORDS: &[&[u8]] =
            &[b"the ", b"machine ", b"that ", b"moves ", b"keeps ", b"its ", b"appointments\n"];
        let mut bytes = Vec::new();
        while bytes.len() < PAGE {
            bytes.extend(WORDS[self.below(WORDS.len() as u64) as usize]);
        }
        bytes.truncate(PAGE);
        bytes.try_into().expect("as long as a page")
    }
}

/// A page's content.
pub enum Content {
    Zero,
    Of(Box<Page>),
}

impl Content {
    pub fn of(page: Page) -> Self {
        Self::Of(Box::new(page))
    }
}

/// The main channel, as it is written.
pub struct Main {
    pub bytes: Vec<u8>,
    /// Whether the next record must name the block.
    named: bool,
}

impl Main {
    /// Header, configuration and the list of blocks.
    pub fn begin(pages: u64) -> Self {
        let mut bytes = b"QEVM\0\0\0\x03\x07\0\0\0\x0bpc-q35-10.0".to_vec();
        // Ping 1, as libvirt's migrations begin.
        bytes.extend([8, 0, 2, 0, 4, 0, 0, 0, 1]);
        bytes.extend([1, 0, 0, 0, RAM_SECTION as u8, 3]);
        bytes.extend(b"ram\0\0\0\0\0\0\0\x04");
        let total = (pages + 64) * PAGE as u64;
        bytes.extend((total | MEM_SIZE).to_be_bytes());
        for (name, size) in [(RAM, pages), ("/rom@etc/acpi/tables", 64)] {
            bytes.push(name.len() as u8);
            bytes.extend(name.as_bytes());
            bytes.extend((size * PAGE as u64).to_be_bytes());
        }
        let mut main = Self { bytes, named: false };
        main.bytes.extend(MULTIFD_FLUSH.to_be_bytes());
        main.end_section();
        main
    }

    fn end_section(&mut self) {
        self.bytes.extend(EOS.to_be_bytes());
        self.bytes.push(0x7e);
        self.bytes.extend(RAM_SECTION.to_be_bytes());
        self.named = false;
    }

    fn head(&mut self, page: u64, flag: u64) {
        let name = !std::mem::replace(&mut self.named, true);
        let flags = if name { flag } else { flag | CONTINUE };
        self.bytes.extend(((page * PAGE as u64) | flags).to_be_bytes());
        if name {
            self.bytes.push(RAM.len() as u8);
            self.bytes.extend(RAM.as_bytes());
        }
    }

    pub fn page(&mut self, page: u64, content: &Content) {
        match content {
            Content::Zero => {
                self.head(page, ZERO);
                self.bytes.push(0);
            }
            Content::Of(bytes) => {
                self.head(page, PAGE_FLAG);
                self.bytes.extend(bytes.iter());
            }
        }
    }

    /// A page that QEMU has encoded itself.
    pub fn xbzrle(&mut self, page: u64, encoded: &[u8]) {
        self.head(page, XBZRLE);
        self.bytes.push(1);
        self.bytes.extend((encoded.len() as u16).to_be_bytes());
        self.bytes.extend(encoded);
    }

    /// A section with these pages.
    pub fn part<'a>(&mut self, pages: impl IntoIterator<Item = (u64, &'a Content)>) {
        self.bytes.extend([2, 0, 0, 0, RAM_SECTION as u8]);
        pages.into_iter().for_each(|(page, content)| self.page(page, content));
        self.end_section();
    }

    /// What post-copy does: device state inside a package, pages behind it.
    pub fn package(&mut self, state: &[u8]) {
        self.bytes.extend([8, 0, 7, 0, 4]);
        self.bytes.extend((state.len() as u32).to_be_bytes());
        self.bytes.extend(state);
    }

    /// The state of the devices, and the end.
    pub fn finish(mut self, state: &[u8]) -> Vec<u8> {
        self.bytes.extend(b"\x04\0\0\0\x05\x05timer\0\0\0\0\0\0\0\x02");
        self.bytes.extend(state);
        self.bytes
    }
}

/// The greeting of a multifd channel.
pub fn multifd_greeting() -> Vec<u8> {
    let mut bytes = vec![0x11, 0x22, 0x33, 0x44, 0, 0, 0, 1];
    bytes.resize(64, 5);
    bytes
}

/// A packet of a multifd channel: header and payload.
pub fn multifd_packet(flags: u32, normal: &[u64], zero: &[u64], payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x11, 0x22, 0x33, 0x44, 0, 0, 0, 1];
    for field in [flags, 128, normal.len() as u32, payload.len() as u32, 0, 9, zero.len() as u32] {
        bytes.extend(field.to_be_bytes());
    }
    bytes.resize(64, 0);
    if !normal.is_empty() || !zero.is_empty() {
        bytes.extend(RAM.as_bytes());
    }
    bytes.resize(64 + 256, 0);
    normal.iter().chain(zero).for_each(|page| bytes.extend((page * PAGE as u64).to_be_bytes()));
    bytes.resize(64 + 256 + 8 * 128, 0);
    bytes.extend(payload);
    bytes
}

/// The preempt channel: records, each naming its block.
pub fn preempt(pages: &[(u64, Page)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (page, content) in pages {
        bytes.extend(((page * PAGE as u64) | PAGE_FLAG).to_be_bytes());
        bytes.push(RAM.len() as u8);
        bytes.extend(RAM.as_bytes());
        bytes.extend(content);
    }
    bytes.extend(EOS.to_be_bytes());
    bytes
}
