//! The proof that what is rebuilt is what QEMU wrote: every frame carries a tag of its original bytes, numbered, so that
//! no byte reaches the receiving QEMU unproven and none is left out, doubled or moved.
//!
//! The tag is GMAC (AES-128-GCM without plaintext, NIST SP 800-38D): at several GB/s a core it costs a fifth of what
//! SHA-256 would, and the guest, who can choose the pages, does not know the key. Against a host it proves nothing that
//! QUIC does not: both ends hold the key.

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};

/// Bytes of a tag.
pub const TAG: usize = 16;
/// A proof, or a page's print.
pub type Tag = [u8; TAG];

const KEY: usize = 16;
const SALT: &[u8] = b"novacron page codec 1";

/// What the two ends of a migration share and a guest does not know.
#[derive(Clone)]
pub struct Secret(pub [u8; 32]);

impl std::fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Secret(..)")
    }
}

/// The key of the prints in an offer: the two agents of one migration know it, and no guest.
#[derive(Clone, Copy)]
pub struct PrintKey(pub [u8; KEY]);

impl std::fmt::Debug for PrintKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("PrintKey(..)")
    }
}

#[derive(Clone, Copy)]
enum Use {
    Proof,
    Print,
}

/// A key of its own for each use, lane and generation: none of them sees a nonce twice.
fn key(secret: &Secret, purpose: Use, lane: u32, generation: u32) -> LessSafeKey {
    struct Length;
    impl aws_lc_rs::hkdf::KeyType for Length {
        fn len(&self) -> usize {
            KEY
        }
    }
    let (purpose, lane, generation) = ([purpose as u8], lane.to_le_bytes(), generation.to_le_bytes());
    let info = [purpose.as_slice(), &lane, &generation];
    let mut key = [0; KEY];
    let derived = Salt::new(HKDF_SHA256, SALT).extract(&secret.0);
    let filled = derived.expand(&info, Length).and_then(|bytes| bytes.fill(&mut key));
    filled.expect("HKDF gives sixteen bytes");
    LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &key).expect("a key of sixteen bytes"))
}

fn gmac(key: &LessSafeKey, number: u64, bytes: &[u8]) -> Tag {
    let mut nonce = [0; NONCE_LEN];
    nonce[..8].copy_from_slice(&number.to_le_bytes());
    let nonce = Nonce::assume_unique_for_key(nonce);
    let sealed = key.seal_in_place_separate_tag(nonce, Aad::from(bytes), &mut []);
    let tag = sealed.expect("GCM authenticates a batch of any size");
    tag.as_ref().try_into().expect("a tag of sixteen bytes")
}

/// Tags what passes, in order.
pub struct Prover {
    key: LessSafeKey,
    passed: u64,
}

impl Prover {
    /// For one generation of one lane.
    pub fn new(secret: &Secret, lane: u32, generation: u32) -> Self {
        Self::behind(secret, lane, generation, 0)
    }

    /// As [`Prover::new`], behind so many tags.
    pub fn behind(secret: &Secret, lane: u32, generation: u32, passed: u64) -> Self {
        Self { key: key(secret, Use::Proof, lane, generation), passed }
    }

    /// How many tags there were.
    pub fn passed(&self) -> u64 {
        self.passed
    }

    /// The tag of the next bytes.
    pub fn next(&mut self, plain: &[u8]) -> Tag {
        self.passed += 1;
        gmac(&self.key, self.passed, plain)
    }
}

/// Prints of pages, under which equal ones are found. The bytes are compared before a print is trusted.
pub struct Printer(LessSafeKey);

impl Printer {
    /// For one generation of one lane.
    pub fn new(secret: &Secret, lane: u32, generation: u32) -> Self {
        Self(key(secret, Use::Print, lane, generation))
    }

    /// For the pages of an offer.
    #[must_use]
    pub fn shared(key: &PrintKey) -> Self {
        Self(LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &key.0).expect("a key of sixteen bytes")))
    }

    /// A page's print. One nonce serves them all: prints are seen by nobody who does not have the key.
    #[must_use]
    pub fn of(&self, page: &[u8]) -> Tag {
        gmac(&self.0, 0, page)
    }
}
