//! Stands in for the codec's proof: a fuzzer does not find tags of AES-GMAC, and behind them lies what it is to test.
//! Every tag is zero, and pages are found by a sum of their bytes, so that prints collide and the comparison must hold.

pub const TAG: usize = 16;
pub type Tag = [u8; TAG];

#[derive(Debug, Clone, Copy)]
pub struct PrintKey(pub [u8; 16]);

#[derive(Debug, Clone)]
pub struct Secret(pub [u8; 32]);

pub struct Prover(u64);

impl Prover {
    pub fn new(secret: &Secret, lane: u32, generation: u32) -> Self {
        Self::behind(secret, lane, generation, 0)
    }

    pub fn behind(_: &Secret, _: u32, _: u32, passed: u64) -> Self {
        Self(passed)
    }

    pub fn passed(&self) -> u64 {
        self.0
    }

    pub fn next(&mut self, _: &[u8]) -> Tag {
        [0; TAG]
    }
}

/// Prints of pages sent collide easily, as the bytes are compared; those of an offer do not (FNV-1a).
pub enum Printer {
    Sum,
    Offer,
}

impl Printer {
    pub fn new(_: &Secret, _: u32, _: u32) -> Self {
        Self::Sum
    }

    pub fn shared(_: &PrintKey) -> Self {
        Self::Offer
    }

    pub fn of(&self, page: &[u8]) -> Tag {
        const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
        const PRIME: u128 = 0x0100_0000_0000_0000_0000_013b;
        u128::to_le_bytes(match self {
            Self::Sum => page.iter().map(|byte| u128::from(*byte)).sum(),
            Self::Offer => {
                page.iter().fold(OFFSET, |print, byte| (print ^ u128::from(*byte)).wrapping_mul(PRIME))
            }
        })
    }
}
