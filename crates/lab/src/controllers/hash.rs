//! Short names for templates.

use serde::Serialize;

use super::action::value;

/// Letters Kubernetes uses, so that no word arises.
const LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// A short, stable name of `object`; `collisions` tells apart what happens to share one.
pub fn of<T: Serialize>(object: &T, collisions: Option<i32>) -> String {
    // JSON objects are sorted by key: the same object always has the same text.
    let mut text = value(object).to_string();
    if let Some(count) = collisions.filter(|count| *count > 0) {
        text.push_str(&count.to_string());
    }
    encode(fnv1a(text.as_bytes()))
}

fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

fn encode(hash: u32) -> String {
    let digits = hash.to_string();
    digits
        .bytes()
        .map(|byte| char::from(LETTERS[usize::from(byte) % LETTERS.len()]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_name_depends_on_content_and_collisions_only() {
        let a = of(&json!({"a": 1, "b": 2}), None);
        assert_eq!(a, of(&json!({"b": 2, "a": 1}), Some(0)));
        assert_ne!(a, of(&json!({"a": 1, "b": 2}), Some(1)));
        assert_ne!(a, of(&json!({"a": 1, "b": 3}), None));
        assert!(a.bytes().all(|byte| LETTERS.contains(&byte)), "{a}");
    }
}
