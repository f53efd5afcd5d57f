//! Mutations that are the same every time.

/// A small generator (xorshift64*): the same seed gives the same numbers on every machine.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Starts from a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`, or 0.
    pub fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.number() % bound).unwrap_or(0)
    }

    fn byte(&mut self) -> u8 {
        self.number().to_le_bytes()[3]
    }
}

/// Values that sit at the edges of what fields can hold.
const EDGES: &[u64] = &[
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    u64::MAX,
];

/// Changes an input in one to four places: flips, edge values, cuts, repeats, moves.
pub fn mutate(input: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(4) {
        if input.is_empty() {
            input.push(random.byte());
            continue;
        }
        let at = random.below(input.len());
        match random.below(7) {
            0 => input[at] ^= 1 << random.below(8),
            1 => input[at] = random.byte(),
            2 | 3 => {
                let edge = EDGES[random.below(EDGES.len())].to_le_bytes();
                let bytes = [1, 2, 4, 8][random.below(4)];
                for (to, from) in input[at..].iter_mut().zip(&edge[..bytes]) {
                    *to = *from;
                }
            }
            4 => input.truncate(at),
            5 => {
                let end = at + random.below(input.len() - at + 1).min(4096);
                let piece = input[at..end].to_vec();
                let to = random.below(input.len());
                input.splice(to..to, piece);
            }
            _ => {
                let end = at + random.below(input.len() - at + 1).min(512);
                drop(input.drain(at..end));
            }
        }
    }
}
