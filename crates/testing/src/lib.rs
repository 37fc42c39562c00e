//! What the tests of every crate share: how a test says that it cannot run here, the hosts of a
//! test's network, a process that can be killed, and what a busy machine does to figures.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::PathBuf;

mod driven;
mod pace;
pub mod station;

pub use driven::{Driven, say_done};
pub use pace::{Figure, Measured, Pace};

/// Says that `test` is skipped and why, past the test runner, which keeps what a passing test
/// prints to itself. CI counts these lines.
pub fn skip(test: &str, why: &str) {
    // One write: lines of tests that run side by side do not mix.
    let line = format!("skipped: {test}: {why}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// True for root; anyone else is told that `test` is skipped.
pub fn root(test: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        skip(test, "needs root");
    }
    root
}

/// Where `program` is on the PATH or in the project's `.tools/bin`; without it `test` is skipped.
pub fn program(test: &str, program: &str) -> Option<PathBuf> {
    let tools = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../.tools/bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::iter::once(tools)
        .chain(std::env::split_paths(&path))
        .map(|folder| folder.join(OsStr::new(program)))
        .find(|file| file.is_file());
    if found.is_none() {
        skip(test, &format!("needs {program}; make setup installs it"));
    }
    found
}
