//! Names by content: what is equal is called equal, on every node and after every restart.

use std::hash::{Hash, Hasher};

use sha2::{Digest as _, Sha256};

/// The first eight bytes of a value's SHA-256.
pub(super) fn digest(value: &impl Hash) -> u64 {
    let mut hasher = Sha(Sha256::new());
    value.hash(&mut hasher);
    hasher.finish()
}

struct Sha(Sha256);

impl Hasher for Sha {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let digest = self.0.clone().finalize();
        digest
            .iter()
            .take(8)
            .fold(0, |number, byte| number << 8 | u64::from(*byte))
    }
}
