//! A hash over everything that happened, in order: two runs with the same hash are the same run.

/// FNV-1a, 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    hash: u64,
    events: u64,
}

impl Default for Trace {
    fn default() -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, events: 0 }
    }
}

impl Trace {
    /// Something happened.
    pub fn note(&mut self, what: &[u64]) {
        self.events += 1;
        for byte in what.iter().flat_map(|word| word.to_le_bytes()) {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    /// Bytes were sent.
    pub fn note_bytes(&mut self, bytes: &[u8]) {
        self.events += 1;
        for byte in bytes {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    /// The hash so far.
    pub const fn hash(&self) -> u64 {
        self.hash
    }

    /// How much happened.
    pub const fn events(&self) -> u64 {
        self.events
    }
}
