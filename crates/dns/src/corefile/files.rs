//! What a Corefile refers to, out of the file system and the environment.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::Sources;

/// The file system and the environment of this process.
#[derive(Debug, Clone, Copy, Default)]
pub struct Files;

impl Sources for Files {
    fn variable(&self, name: &str) -> String {
        std::env::var_os(name)
            .map(|value| value.to_string_lossy().into_owned())
            .unwrap_or_default()
    }

    fn matching(&self, pattern: &str) -> io::Result<Vec<String>> {
        let mut found = vec![if pattern.starts_with('/') {
            PathBuf::from("/")
        } else {
            PathBuf::new()
        }];
        for part in pattern.split('/').filter(|part| !part.is_empty()) {
            let mut next = Vec::new();
            for folder in found {
                next.extend(within(&folder, part));
            }
            found = next;
        }
        found.sort();
        Ok(found
            .into_iter()
            .filter_map(|path| path.into_os_string().into_string().ok())
            .collect())
    }

    fn read(&self, path: &str, limit: usize) -> io::Result<Vec<u8>> {
        let file = fs::File::open(path)?;
        if file.metadata()?.is_dir() {
            return Err(io::Error::other("it is a folder"));
        }
        let mut content = Vec::new();
        file.take(limit as u64).read_to_end(&mut content)?;
        Ok(content)
    }
}

/// The entries of a folder that one part of a pattern matches. A folder that cannot be read has
/// none, as with Go's `filepath.Glob`.
fn within(folder: &Path, part: &str) -> Vec<PathBuf> {
    if !part.contains(['*', '?', '\\']) {
        let path = folder.join(part);
        return if fs::symlink_metadata(&path).is_ok() {
            vec![path]
        } else {
            Vec::new()
        };
    }
    let listed = if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    };
    let Ok(entries) = fs::read_dir(listed) else {
        return Vec::new();
    };
    let pattern: Vec<char> = part.chars().collect();
    entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| matches(&pattern, &name.chars().collect::<Vec<_>>()))
        .map(|name| folder.join(name))
        .collect()
}

/// Whether a name matches a pattern of `*`, `?`, `\c` and letters.
fn matches(pattern: &[char], name: &[char]) -> bool {
    match pattern {
        [] => name.is_empty(),
        ['*', rest @ ..] => (0..=name.len()).any(|skipped| matches(rest, &name[skipped..])),
        ['?', rest @ ..] => !name.is_empty() && matches(rest, &name[1..]),
        ['\\', c, rest @ ..] | [c, rest @ ..] => {
            name.first() == Some(c) && matches(rest, &name[1..])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_sorted_files() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for name in ["b.conf", "a.conf", "c.txt", "ab.conf"] {
            fs::write(root.join(name), name).unwrap();
        }
        fs::create_dir(root.join("sub")).unwrap();
        fs::write(root.join("sub/x"), "x").unwrap();
        let found = |pattern: &str| -> Vec<String> {
            let root = root.to_str().unwrap();
            let found = Files.matching(&format!("{root}/{pattern}")).unwrap();
            let names = found.iter().map(|path| path[root.len() + 1..].to_owned());
            names.collect()
        };
        assert_eq!(found("*.conf"), ["a.conf", "ab.conf", "b.conf"]);
        assert_eq!(found("?.conf"), ["a.conf", "b.conf"]);
        assert_eq!(found("a.conf"), ["a.conf"]);
        assert_eq!(found("sub/../a.conf"), ["sub/../a.conf"]);
        assert_eq!(found("*/x"), ["sub/x"]);
        assert!(found("none").is_empty());
        assert!(found("none/*").is_empty());
        assert!(Files.read(root.to_str().unwrap(), 10).is_err());
        let c = root.join("c.txt");
        assert_eq!(Files.read(c.to_str().unwrap(), 2).unwrap(), b"c.");
    }
}
