//! The shim process.

use std::path::Path;

/// `flatnet lab shim --dir DIR`: serves the pod of that folder until it is stopped. To be
/// called before any thread is started: everything in the pod is a fork of this process.
pub fn main(dir: &Path) -> i32 {
    let _ = dir;
    1
}
