//! The fuzz targets over their corpus and some mutations of it, as CI has no fuzzer.

use std::path::Path;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

#[path = "../../fuzz/targets.rs"]
mod targets;

/// Each input of the corpus, and so many mutations of it.
const MUTATIONS: usize = 400;
/// The slowest of all, in a build without optimisation on a busy machine.
const SLOWEST: Duration = Duration::from_secs(2);

fn run(name: &str, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(name);
    let mut corpus: Vec<(String, Vec<u8>)> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, std::fs::read(entry.path()).unwrap())
        })
        .collect();
    corpus.sort();
    assert!(!corpus.is_empty());
    // The same ones each time: a failure is one for everybody.
    let mut random = StdRng::seed_from_u64(5);
    for at in 0..corpus.len() {
        let (file, bytes) = &corpus[at];
        judge(file, bytes, target);
        for _ in 0..MUTATIONS {
            let other = &corpus[random.random_range(0..corpus.len())].1;
            judge(file, &mutated(bytes, other, &mut random), target);
        }
    }
}

fn judge(file: &str, bytes: &[u8], target: fn(&[u8])) {
    let start = Instant::now();
    let outcome = std::panic::catch_unwind(|| target(bytes));
    assert!(outcome.is_ok(), "{file}: {}", bytes.escape_ascii());
    let took = start.elapsed();
    assert!(
        took < SLOWEST,
        "{took:?} for {file}: {}",
        bytes.escape_ascii()
    );
}

/// Some bytes changed, taken out, put in, repeated, or taken from another input.
fn mutated(bytes: &[u8], other: &[u8], random: &mut StdRng) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..random.random_range(1..6) {
        let at = random.random_range(0..=bytes.len());
        match random.random_range(0..7) {
            0 if at < bytes.len() => bytes[at] = random.random(),
            1 if at < bytes.len() => bytes[at] ^= 1 << random.random_range(0..8),
            2 => bytes.truncate(at),
            3 => bytes.insert(
                at,
                [0, 1, 0x3f, 0x40, 0x80, 0xc0, 0xff][random.random_range(0..7)],
            ),
            4 if at < bytes.len() => drop(bytes.remove(at)),
            5 if !other.is_empty() => {
                let from = random.random_range(0..other.len());
                bytes.extend_from_slice(&other[from..]);
            }
            _ if bytes.len() < 4096 => bytes.extend_from_within(at..),
            _ => {}
        }
    }
    bytes
}

#[test]
fn messages() {
    run("message", targets::message);
    run("request", targets::message);
}

#[test]
fn requests() {
    run("request", targets::request);
    run("message", targets::request);
}

#[test]
fn corefiles() {
    run("corefile", targets::corefile);
}

/// The largest messages there can be, and the smallest.
#[test]
fn giants_and_dwarfs() {
    for length in [0, 1, 2, 11, 12, 13, 511, 512, 4096, 65_534, 65_535] {
        for byte in [0, 1, 0x3f, 0xc0, 0xff] {
            let bytes = vec![byte; length];
            judge("one byte", &bytes, targets::message);
            judge("one byte", &bytes, targets::request);
            if length < 12 {
                continue;
            }
            // A question, and then that byte to the end, as many records as can be counted.
            let mut bytes = bytes;
            bytes[..12].copy_from_slice(&[0, 1, 1, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
            judge("counts", &bytes, targets::message);
            judge("counts", &bytes, targets::request);
        }
    }
}
