//! The cluster's folders in cgroup v2: which processes belong to what, and their end.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::error::{Error, Lack, Result, at};

/// Where cgroup v2 is mounted on this machine.
pub fn mount() -> Result<PathBuf> {
    let mounts = Path::new("/proc/mounts");
    let text = at("read", mounts, fs::read_to_string(mounts))?;
    mount_in(&text).ok_or_else(|| {
        Error::Machine(vec![Lack {
            what: "cgroup v2".into(),
            cause: "no cgroup2 file system in /proc/mounts".into(),
            next: "mount it: mount -t cgroup2 none /sys/fs/cgroup/unified".into(),
        }])
    })
}

fn mount_in(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (_, place, kind) = (fields.next()?, fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(place))
    })
}

/// Process ids directly in a folder; none where the folder is not there.
pub fn processes(folder: &Path) -> Vec<i32> {
    let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// True where a process lives in the folder or below it.
pub fn populated(folder: &Path) -> bool {
    let text = fs::read_to_string(folder.join("cgroup.events")).unwrap_or_default();
    text.lines().any(|line| line == "populated 1")
}

/// Ends every process in the folder and below, and waits until they are gone.
pub fn kill(folder: &Path) -> Result<()> {
    let file = folder.join("cgroup.kill");
    match fs::write(&file, "1") {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        result => at("write", &file, result)?,
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    // cgroup.events can be polled for a change, but a change between reading and polling
    // would be missed only until the next; processes are gone within a millisecond or two.
    while populated(folder) {
        if Instant::now() > deadline {
            return Err(Error::kernel(
                format!("end the processes in {}", folder.display()),
                format!("{:?} are still there after 10 s", processes(folder)),
            ));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Removes a folder and all below it; no processes may be left in them.
pub fn remove(folder: &Path) -> Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        result => at("read", folder, result)?,
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path())?;
        }
    }
    // The last process may still be on its way out of the folder.
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        match fs::remove_dir(folder) {
            Err(error) if is_busy(&error) && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            result => return at("remove", folder, result),
        }
    }
}

fn is_busy(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EBUSY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_is_found_in_hybrid_and_in_unified_layouts() {
        let hybrid = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(mount_in(hybrid), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(
            mount_in("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n"),
            Some("/sys/fs/cgroup".into())
        );
        assert_eq!(mount_in("proc /proc proc rw 0 0\n"), None);
    }
}
