//! A pod's cgroup v2 folder: one below it for the shim, one for pause, one a container.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Makes the folder with those above it.
pub(super) fn create(folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)
}

/// Moves the calling process into the folder.
pub(super) fn enter(folder: &Path) -> io::Result<()> {
    std::fs::write(folder.join("cgroup.procs"), "0")
}

/// Kills every process in the folder and below; not an error where it is not there.
pub(super) fn kill(folder: &Path) -> io::Result<()> {
    match std::fs::write(folder.join("cgroup.kill"), "1") {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// True where a process of the folder was killed for memory. Without the memory
/// controller on the v2 hierarchy there is no such file, and no limit either.
pub(super) fn oom_killed(folder: &Path) -> bool {
    let events = std::fs::read_to_string(folder.join("memory.events")).unwrap_or_default();
    events
        .lines()
        .any(|l| l.strip_prefix("oom_kill ").is_some_and(|n| n.trim() != "0"))
}

/// Removes the folder and those below it once no process is left; true when it is gone.
pub(super) fn remove(folder: &Path) -> io::Result<bool> {
    let below = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(e) => return Err(e),
    };
    let folders: Vec<PathBuf> = below
        .flatten()
        .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
        .map(|e| e.path())
        .collect();
    for child in folders {
        remove(&child)?;
    }
    match std::fs::remove_dir(folder) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(e) if e.raw_os_error() == Some(libc::EBUSY) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Kills what is in the folder and removes it.
pub(super) async fn destroy(folder: &Path) -> io::Result<()> {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        kill(folder)?;
        if remove(folder)? {
            return Ok(());
        }
        if Instant::now() > until {
            return Err(io::Error::other("processes in it do not end"));
        }
        // The kernel tells nobody when the last dead process leaves a folder that has no
        // watcher; it takes a few milliseconds.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
