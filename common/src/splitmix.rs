//! SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014), once for all that need
//! numbers which look like chance and are the same for the same seed: the jitter of `core`, the simulation's faults,
//! the plans of the ledger's tests, the generated cron lines.

/// What the generator adds to its state each time: 2^64 over the golden ratio, made odd.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// The number that a generator with this state gives next: also a good hash of one word.
#[must_use]
pub const fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(STEP);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// The generator: short, and good enough to choose faults with. Not for secrets.
#[derive(Debug, Clone)]
pub struct SplitMix64(u64);

impl SplitMix64 {
    /// From a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub const fn bits(&mut self) -> u64 {
        let bits = mix(self.0);
        self.0 = self.0.wrapping_add(STEP);
        bits
    }

    /// One of `0..limit`; 0 if there is none.
    pub const fn below(&mut self, limit: u64) -> u64 {
        if limit == 0 { 0 } else { self.bits() % limit }
    }

    /// The place of one of `len` items; 0 if there is none.
    pub fn index(&mut self, len: usize) -> usize {
        // Fits: the remainder is below a usize.
        usize::try_from(self.below(len as u64)).unwrap_or_default()
    }

    /// One of `from..=to`, which is not all of `u64`.
    pub const fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to - from + 1)
    }

    /// True in `percent` of 100 cases.
    pub const fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// Puts `items` into another order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.index(last + 1));
        }
    }

    /// Another generator, whose draws do not disturb this one's.
    #[must_use]
    pub const fn fork(&mut self) -> Self {
        Self(self.bits())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first numbers that the authors' program prints for the seed 1234567.
    #[test]
    fn the_numbers_are_those_of_the_paper() {
        let mut random = SplitMix64::new(1_234_567);
        let expected = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423_u64];
        assert_eq!(expected.map(|_| random.bits()), expected);
        assert_eq!(SplitMix64::new(0).bits(), mix(0));
    }

    #[test]
    fn draws_stay_within_their_bounds() {
        let mut random = SplitMix64::new(1);
        assert_eq!((random.below(0), random.index(0)), (0, 0));
        let drawn: Vec<u64> = (0..1000).map(|_| random.between(3, 5)).collect();
        assert_eq!([3, 4, 5].map(|number| drawn.contains(&number)), [true; 3]);
        assert!(drawn.iter().all(|number| (3..=5).contains(number)));
        assert!((0..1000).all(|_| !random.percent(0) && random.percent(100)));
    }

    #[test]
    fn a_seed_is_an_order() {
        let order = |seed| {
            let mut items: Vec<u32> = (0..20).collect();
            SplitMix64::new(seed).shuffle(&mut items);
            items
        };
        assert_eq!(order(7), order(7));
        assert_ne!(order(7), order(8));
        let mut sorted = order(7);
        sorted.sort_unstable();
        assert_eq!(sorted, (0..20).collect::<Vec<_>>());
    }

    #[test]
    fn a_fork_goes_its_own_way() {
        let mut random = SplitMix64::new(1);
        let mut fork = random.fork();
        let mut undisturbed = random.clone();
        assert_ne!(fork.bits(), random.bits());
        undisturbed.bits();
        assert_eq!(undisturbed.bits(), random.bits());
    }
}
