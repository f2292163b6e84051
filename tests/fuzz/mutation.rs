//! Owns how inputs are made from seeds: changed, cut and put together at random, the same way every time. Never tries
//! one. Enter at [`seeds`] and [`changed`].

use std::fs;
use std::path::Path;

/// The corpus of a target, in order.
pub(crate) fn seeds(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(name);
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let seeds: Vec<Vec<u8>> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
    assert!(!seeds.is_empty(), "{name}");
    seeds
}

pub(crate) fn changed(seeds: &[Vec<u8>], chance: &mut Chance) -> Vec<u8> {
    let mut input = seeds[chance.below(seeds.len())].clone();
    for _ in 0..=chance.below(4) {
        let at = chance.below(input.len() + 1);
        match chance.below(7) {
            0 => input.truncate(at),
            1 => input.insert(at, chance.byte()),
            2 if at < input.len() => input[at] = chance.byte(),
            3 if at < input.len() => input[at] ^= 1 << chance.below(8),
            4 => {
                let other = &seeds[chance.below(seeds.len())];
                let from = chance.below(other.len() + 1);
                input.splice(at.., other[from..].iter().copied());
            }
            5 => {
                let end = at + chance.below(input.len() - at + 1);
                let again = input[at..end].to_vec();
                input.splice(at..at, again);
            }
            _ => {
                let end = at + chance.below((input.len() - at).min(8) + 1);
                input.drain(at..end);
            }
        }
    }
    input
}

/// SplitMix64: the same inputs every time.
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let n = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let n = (n ^ (n >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((n ^ (n >> 31)) % limit as u64) as usize
    }

    /// Often one that means something somewhere.
    fn byte(&mut self) -> u8 {
        const ODD: &[u8] = b"\0\t\n\r \"#%&',-.:;=?[]{}\x7f\x80\xff09afAF";
        if self.below(2) == 0 { ODD[self.below(ODD.len())] } else { self.below(256) as u8 }
    }
}
