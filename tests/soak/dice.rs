//! Random numbers that a seed repeats.

/// SplitMix64: small, and good enough to choose what happens next.
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    /// The dice of one round: a round is the same whatever the rounds before it have drawn.
    pub(crate) fn of(seed: u64, version: (u32, u32), round: u64) -> Self {
        let mut dice = Self(seed);
        for part in [u64::from(version.0), u64::from(version.1), round] {
            dice.0 = dice.next() ^ part;
        }
        dice
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    /// A number from `from` up to, but not including, `to`.
    pub(crate) fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.next() % (to - from)
    }

    /// True in so many of a hundred cases.
    pub(crate) fn percent(&mut self, chance: u64) -> bool {
        self.between(0, 100) < chance
    }

    pub(crate) fn one<T: Clone>(&mut self, of: &[T]) -> T {
        of[usize::try_from(self.between(0, of.len() as u64)).expect("an index")].clone()
    }

    /// Some of them, at least one, in their order.
    pub(crate) fn some<T: Clone>(&mut self, of: &[T]) -> Vec<T> {
        loop {
            let some: Vec<T> = of.iter().filter(|_| self.percent(50)).cloned().collect();
            if !some.is_empty() {
                return some;
            }
        }
    }
}
