//! Changes to inputs, drawn from a seed: what people, disks and other programs get wrong.
//!
//! Called by: `run`. Calls: nothing.
//! Invariant: the same seed draws the same changes.

/// Ends of ranges, and lengths that are one too many.
const NUMBERS: [i64; 17] = [
    0,
    1,
    -1,
    2,
    -2,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    -0x8000,
    0xffff,
    0xf_ffff,
    0x10_0000,
    0x7fff_ffff,
    -0x8000_0000,
    i64::MAX,
    i64::MIN,
];
/// An input may grow to this.
const INPUT_BYTES_MAX: usize = 64 << 10;
/// Changes of one input.
const CHANGES_MAX: u64 = 4;

/// Draws numbers (splitmix64).
pub struct Draw(pub u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// One of `0..count`; 0 of none.
    pub fn below(&mut self, count: usize) -> usize {
        let count = count.max(1) as u64;
        usize::try_from(self.next() % count).unwrap_or_default()
    }

    /// Two places of `0..=length`, in order.
    fn range(&mut self, length: usize) -> std::ops::Range<usize> {
        let (a, b) = (self.below(length + 1), self.below(length + 1));
        a.min(b)..a.max(b)
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next().to_le_bytes()[0]).collect()
    }
}

/// `input` with one to four changes, some of them out of `other`.
pub fn mutated(input: &[u8], other: &[u8], draw: &mut Draw) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=draw.next() % CHANGES_MAX {
        change(&mut bytes, other, draw);
    }
    bytes.truncate(INPUT_BYTES_MAX);
    bytes
}

fn change(bytes: &mut Vec<u8>, other: &[u8], draw: &mut Draw) {
    let at = draw.below(bytes.len());
    match draw.below(9) {
        0 => {
            let bit = draw.below(8);
            bytes.get_mut(at).into_iter().for_each(|byte| *byte ^= 1 << bit);
        }
        1 => {
            let value = draw.bytes(1)[0];
            bytes.get_mut(at).into_iter().for_each(|byte| *byte = value);
        }
        2 => number(bytes, at, draw),
        3 => bytes.truncate(at),
        4 => drop(bytes.drain(draw.range(bytes.len()))),
        5 => {
            let again = bytes[draw.range(bytes.len())].to_vec();
            drop(bytes.splice(at..at, again));
        }
        6 => {
            let count = draw.below(16);
            let new = draw.bytes(count);
            drop(bytes.splice(at..at, new));
        }
        7 => {
            let taken = other[draw.range(other.len())].to_vec();
            let replaced = draw.range(bytes.len());
            drop(bytes.splice(replaced, taken));
        }
        _ => {
            let value = draw.bytes(1)[0];
            let range = draw.range(bytes.len());
            bytes[range].fill(value);
        }
    }
}

/// Puts a number of 2, 4 or 8 bytes there, or changes the one that is there a little.
fn number(bytes: &mut [u8], at: usize, draw: &mut Draw) {
    let width = [2, 4, 8][draw.below(3)];
    let Some(place) = bytes.get_mut(at..at + width) else { return };
    let value = if draw.below(3) == 0 {
        let mut wide = [0; 8];
        wide[8 - width..].copy_from_slice(place);
        i64::from_be_bytes(wide).wrapping_add([-1, 1, 16, -16][draw.below(4)])
    } else {
        NUMBERS[draw.below(NUMBERS.len())]
    };
    if draw.below(2) == 0 {
        place.copy_from_slice(&value.to_be_bytes()[8 - width..]);
    } else {
        place.copy_from_slice(&value.to_le_bytes()[..width]);
    }
}
