//! What is remembered of clusters: which there are, what each is to be, and the lock that
//! keeps two commands from changing one cluster at once.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use super::check::check_name;
use super::error::{Error, Result, at};
use super::spec::ClusterSpec;
use crate::paths::{self, ClusterPaths};

/// The clusters on this machine, by name; those half made or half removed included.
pub fn clusters() -> Vec<String> {
    let mut names: Vec<String> = [paths::STATE, paths::RUN]
        .iter()
        .filter_map(|folder| fs::read_dir(folder).ok())
        .flat_map(|entries| entries.flatten())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| check_name("--name", name, 20).is_ok())
        .collect();
    names.sort();
    names.dedup();
    names
}

fn file(paths: &ClusterPaths) -> PathBuf {
    paths.state.join("cluster.json")
}

/// What the cluster is to be; nothing where there is no such cluster.
pub fn load(paths: &ClusterPaths) -> Result<Option<ClusterSpec>> {
    let path = file(paths);
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        result => at("read", &path, result)?,
    };
    let spec = serde_json::from_str(&text).map_err(|error| Error::Content {
        path,
        message: format!(
            "{error}; flatnet down --name {} clears the cluster away",
            paths.name
        ),
    })?;
    Ok(Some(spec))
}

/// What the cluster is to be, or the sentence that says how to make one.
pub fn existing(paths: &ClusterPaths) -> Result<ClusterSpec> {
    load(paths)?.ok_or_else(|| Error::NoCluster {
        name: paths.name.clone(),
        others: clusters()
            .into_iter()
            .filter(|name| *name != paths.name)
            .collect(),
    })
}

/// Remembers what the cluster is to be; a crash leaves the old or the new text.
pub fn save(paths: &ClusterPaths, spec: &ClusterSpec) -> Result<()> {
    at("make", &paths.state, fs::create_dir_all(&paths.state))?;
    let (path, new) = (file(paths), paths.state.join("cluster.json.new"));
    let text = serde_json::to_string_pretty(spec).map_err(|error| Error::Content {
        path: path.clone(),
        message: error.to_string(),
    })?;
    at("write", &new, fs::write(&new, text))?;
    at("rename", &path, fs::rename(&new, &path))
}

/// A lock, held until it is dropped.
pub struct Lock(#[expect(dead_code, reason = "held for its drop")] Flock<File>);

/// Waits for the lock that is shared by all clusters: held while one chooses what no other
/// may have.
pub fn lock_all() -> Result<Lock> {
    let path = Path::new(paths::STATE);
    at("make", path, fs::create_dir_all(path))?;
    let folder = at("open", path, File::open(path))?;
    let held = Flock::lock(folder, FlockArg::LockExclusive);
    Ok(Lock(at(
        "lock",
        path,
        held.map_err(|(_, errno)| errno.into()),
    )?))
}

/// Waits for the cluster's lock and takes it. `waits` is called once if it has to wait.
pub fn lock(paths: &ClusterPaths, waits: impl FnOnce()) -> Result<Lock> {
    let path = paths.run.join("lock");
    let mut waits = Some(waits);
    loop {
        at("make", &paths.run, fs::create_dir_all(&paths.run))?;
        let open = || {
            File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path)
        };
        let file = match open() {
            // `down` removed the folder between the two calls.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            result => at("open", &path, result)?,
        };
        let held = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(held) => held,
            Err((file, _)) => {
                if let Some(waits) = waits.take() {
                    waits();
                }
                let locked = Flock::lock(file, FlockArg::LockExclusive);
                at("lock", &path, locked.map_err(|(_, errno)| errno.into()))?
            }
        };
        // The file may have been removed by the one who held it: then it locks nothing.
        let same = |held: &File| {
            let (held, there) = (held.metadata().ok()?, fs::metadata(&path).ok()?);
            Some(held.ino() == there.ino())
        };
        if same(&held) == Some(true) {
            return Ok(Lock(held));
        }
    }
}
