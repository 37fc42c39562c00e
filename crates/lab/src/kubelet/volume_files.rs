//! The files of a volume that comes from the API: what they are (pure), and writing them
//! so that a reader sees the old set or the new one, never a mixture.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::core::v1::KeyToPath;

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Content.
    pub data: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
}

/// A volume's files by path.
pub type Files = BTreeMap<PathBuf, File>;

/// The keys of a ConfigMap or Secret as files: all of them, or the `items` named. The
/// error names a key that is missing.
pub fn select(
    data: &BTreeMap<String, Vec<u8>>,
    items: Option<&[KeyToPath]>,
    default_mode: u32,
    optional: bool,
) -> Result<Files, String> {
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        return Ok(data
            .iter()
            .map(|(key, data)| {
                let data = data.clone();
                (
                    PathBuf::from(key),
                    File {
                        data,
                        mode: default_mode,
                    },
                )
            })
            .collect());
    };
    let mut files = Files::new();
    for item in items {
        match data.get(&item.key) {
            Some(data) => {
                let mode = item.mode.and_then(|mode| u32::try_from(mode).ok());
                let file = File {
                    data: data.clone(),
                    mode: mode.unwrap_or(default_mode),
                };
                files.insert(relative(&item.path)?, file);
            }
            None if optional => {}
            None => return Err(format!("references non-existent config key: {}", item.key)),
        }
    }
    Ok(files)
}

/// A path that stays inside its volume.
pub fn relative(path: &str) -> Result<PathBuf, String> {
    let clean: PathBuf = Path::new(path)
        .components()
        .filter(|part| !matches!(part, Component::CurDir))
        .collect();
    let inside = clean
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    if !inside || clean.as_os_str().is_empty() || path.starts_with("..") {
        return Err(format!(
            "invalid path: {path:?} must be relative and stay in the volume"
        ));
    }
    Ok(clean)
}

const DATA: &str = "..data";

/// Brings `folder` to hold exactly `files`; false where it already did. `group` is the
/// pod's `fsGroup`.
pub fn write(folder: &Path, files: &Files, group: Option<u32>, stamp: &str) -> io::Result<bool> {
    fs::create_dir_all(folder)?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o777))?;
    let link = folder.join(DATA);
    let current = fs::read_link(&link).ok();
    if let Some(current) = &current
        && read(&folder.join(current))? == *files
    {
        return Ok(false);
    }
    let fresh = format!("..{stamp}");
    let target = folder.join(&fresh);
    fs::create_dir_all(&target)?;
    fs::set_permissions(&target, fs::Permissions::from_mode(0o755))?;
    for (path, file) in files {
        write_file(&target, path, file, group)?;
    }
    let temporary = folder.join("..data_tmp");
    let _ = fs::remove_file(&temporary);
    symlink(&fresh, &temporary)?;
    fs::rename(&temporary, &link)?;
    visible_links(folder, files)?;
    if let Some(old) = current.filter(|old| old.as_os_str() != fresh.as_str()) {
        fs::remove_dir_all(folder.join(old))?;
    }
    Ok(true)
}

fn write_file(target: &Path, path: &Path, file: &File, group: Option<u32>) -> io::Result<()> {
    let full = target.join(path);
    if let Some(parent) = full.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(&full, &file.data)?;
    let mode = match group {
        Some(group) => {
            chown(&full, None, Some(group))?;
            file.mode | 0o440
        }
        None => file.mode,
    };
    fs::set_permissions(&full, fs::Permissions::from_mode(mode))
}

/// `NAME -> ..data/NAME` for every first path component; links of keys that are gone go.
fn visible_links(folder: &Path, files: &Files) -> io::Result<()> {
    let wanted: BTreeSet<OsString> = files
        .keys()
        .filter_map(|path| Some(path.components().next()?.as_os_str().to_owned()))
        .collect();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let hidden = name.to_string_lossy().starts_with("..");
        if !hidden && entry.file_type()?.is_symlink() && !wanted.contains(&name) {
            fs::remove_file(entry.path())?;
        }
    }
    for name in wanted {
        let link = folder.join(&name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(&name), link)?;
        }
    }
    Ok(())
}

/// The files a version folder holds. Modes are compared without the bits `fsGroup` adds.
fn read(folder: &Path) -> io::Result<Files> {
    let mut files = Files::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(below) = folders.pop() {
        let entries = match fs::read_dir(folder.join(&below)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Files::new()),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let path = below.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                folders.push(path);
                continue;
            }
            let file = File {
                data: fs::read(entry.path())?,
                mode: entry.metadata()?.permissions().mode() & 0o7777,
            };
            files.insert(path, file);
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(list: &[(&str, &str, u32)]) -> Files {
        let file = |data: &str, mode| File {
            data: data.as_bytes().to_vec(),
            mode,
        };
        list.iter()
            .map(|(path, data, mode)| (PathBuf::from(path), file(data, *mode)))
            .collect()
    }

    #[test]
    fn an_update_swaps_every_file_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("vol");
        let first = files(&[("a", "1", 0o644), ("sub/b", "2", 0o600)]);
        assert!(write(&folder, &first, None, "one").unwrap());
        assert_eq!(fs::read_to_string(folder.join("sub/b")).unwrap(), "2");
        assert_eq!(
            fs::read_link(folder.join("a")).unwrap(),
            Path::new("..data/a")
        );
        let mode = fs::metadata(folder.join("sub/b"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(
            !write(&folder, &first, None, "two").unwrap(),
            "nothing changed"
        );
        assert_eq!(
            fs::read_link(folder.join(DATA)).unwrap(),
            Path::new("..one")
        );

        let second = files(&[("a", "3", 0o644), ("c", "4", 0o644)]);
        assert!(write(&folder, &second, None, "three").unwrap());
        let mut names: Vec<_> = fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["..data", "..three", "a", "c"]);
        assert_eq!(fs::read_to_string(folder.join("a")).unwrap(), "3");
    }

    #[test]
    fn items_choose_keys_paths_and_modes() {
        let data = BTreeMap::from([
            ("k1".to_owned(), b"v1".to_vec()),
            ("k2".to_owned(), b"v2".to_vec()),
        ]);
        assert_eq!(select(&data, None, 0o644, false).unwrap().len(), 2);
        let items = |key: &str| {
            vec![KeyToPath {
                key: key.to_owned(),
                path: "deep/er".to_owned(),
                mode: Some(0o400),
            }]
        };
        let chosen = select(&data, Some(&items("k2")), 0o644, false).unwrap();
        assert_eq!(chosen, files(&[("deep/er", "v2", 0o400)]));
        let missing = select(&data, Some(&items("k3")), 0o644, false).unwrap_err();
        assert_eq!(missing, "references non-existent config key: k3");
        assert!(
            select(&data, Some(&items("k3")), 0o644, true)
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn paths_may_not_leave_the_volume() {
        for bad in ["/etc/passwd", "../x", "a/../../b", "", "..data"] {
            assert!(relative(bad).is_err(), "{bad}");
        }
        assert_eq!(relative("./a/b").unwrap(), Path::new("a/b"));
    }
}
