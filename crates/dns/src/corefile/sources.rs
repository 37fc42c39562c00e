//! What a Corefile refers to outside of itself.

use std::io;

/// What a Corefile refers to outside of itself.
pub trait Sources {
    /// The value of an environment variable; empty when it is not set.
    fn variable(&self, name: &str) -> String;

    /// The paths that a pattern of the form of Go's `filepath.Glob` matches, sorted; a pattern
    /// without wildcards matches itself if there is such a file.
    fn matching(&self, pattern: &str) -> io::Result<Vec<String>>;

    /// The content of a file, of which at most `limit` bytes are of interest; a folder is an
    /// error.
    fn read(&self, path: &str, limit: usize) -> io::Result<Vec<u8>>;
}

/// Nothing at all: no variable is set, no file is there.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoSources;

impl Sources for NoSources {
    fn variable(&self, _name: &str) -> String {
        String::new()
    }

    fn matching(&self, _pattern: &str) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn read(&self, _path: &str, _limit: usize) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::NotFound.into())
    }
}
