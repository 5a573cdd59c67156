//! Collections by sequence number.

use std::collections::{HashMap, HashSet};

/// A map by sequence number.
pub(crate) type BySequence<T> = HashMap<u64, T, SequenceHasher>;

/// A set of sequence numbers.
pub(crate) type Sequences = HashSet<u64, SequenceHasher>;

/// Hashes sequence numbers: our own, and ascending, so nobody can make them collide. Fibonacci
/// hashing (Knuth, The Art of Computer Programming, vol. 3, 6.4) spreads them at the cost of one
/// multiplication.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SequenceHasher(u64);

impl std::hash::BuildHasher for SequenceHasher {
    type Hasher = Self;

    fn build_hasher(&self) -> Self {
        SequenceHasher(0)
    }
}

impl std::hash::Hasher for SequenceHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(self.0 ^ u64::from(*byte));
        }
    }

    fn write_u64(&mut self, sequence: u64) {
        let mixed = sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 32);
    }
}
