//! Choices that worlds and queries are made from. A shorter tape, or one with smaller numbers,
//! makes a simpler query: so a failure is made small by cutting the tape.

/// Choices made in advance; past its end every choice is the first one.
#[derive(Debug, Clone)]
pub(super) struct Tape {
    choices: Vec<u32>,
    at: usize,
}

impl Tape {
    pub(super) fn of(choices: Vec<u32>) -> Self {
        Self { choices, at: 0 }
    }

    /// `length` choices that `seed` stands for.
    pub(super) fn random(seed: u64, length: usize) -> Self {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0xD1B5_4A32_D192_ED03;
        let mut next = || {
            // SplitMix64.
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            (z ^ (z >> 31)) as u32
        };
        Self::of((0..length).map(|_| next()).collect())
    }

    pub(super) fn choices(&self) -> &[u32] {
        &self.choices
    }

    /// One of `n`.
    pub(super) fn below(&mut self, n: usize) -> usize {
        let choice = self.choices.get(self.at).copied().unwrap_or(0);
        self.at += 1;
        choice as usize % n
    }

    pub(super) fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// True once in `n`; never past the end.
    pub(super) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == n - 1
    }
}
