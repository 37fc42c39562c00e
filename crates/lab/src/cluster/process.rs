//! Starting the cluster's processes: detached, in their cgroup and network namespace,
//! with a clean environment and their words in a log file.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::cgroup;
use super::error::{Error, Result, at};
use super::plan::Process;

/// The programs a cluster is made of.
#[derive(Clone, Debug)]
pub struct Programs {
    /// This program, `flatnet`.
    pub flatnet: PathBuf,
    /// The folder that holds `flatnet-cni`.
    pub cni: PathBuf,
    /// Values of `FLATNET_LOG` for the daemons.
    pub log: String,
}

/// True where the process runs.
pub fn runs(mount: &Path, process: &Process) -> bool {
    cgroup::populated(&mount.join(&process.cgroup))
}

/// Starts a process; it outlives the caller.
pub fn start(mount: &Path, programs: &Programs, process: &Process) -> Result<()> {
    let folder = mount.join(&process.cgroup);
    at("make", &folder, fs::create_dir_all(&folder))?;
    let procs = folder.join("cgroup.procs");
    let procs = at("open", &procs, OpenOptions::new().write(true).open(&procs))?;
    let netns = match &process.netns {
        Some(name) => {
            let path = Path::new("/run/netns").join(name);
            Some(at("open", &path, File::open(&path))?)
        }
        None => None,
    };
    let log = open_log(&process.log)?;
    let errors = at("open", &process.log, log.try_clone())?;

    let mut command = Command::new(&programs.flatnet);
    command
        .args(&process.args)
        .env_clear()
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .env("FLATNET_LOG", &programs.log)
        .env("CNI_PATH", &programs.cni)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors);
    // SAFETY: between fork and exec only system calls that are safe there are made, on
    // descriptors opened before: write, setns, setsid. Nothing allocates or locks.
    unsafe {
        command.pre_exec(move || {
            if libc::setsid() < 0 {
                return Err(std::io::Error::last_os_error());
            }
            // "0" stands for the writer itself.
            (&procs).write_all(b"0")?;
            if let Some(netns) = &netns
                && libc::setns(netns.as_raw_fd(), libc::CLONE_NEWNET) < 0
            {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        });
    }
    let child = command.spawn();
    let mut child =
        child.map_err(|error| Error::kernel(format!("start {}", process.name), error))?;
    // A child that ends while we still run would stay as a zombie; wait for it aside.
    let waiter = std::thread::Builder::new().name("reaper".into());
    let _ = waiter.spawn(move || child.wait());
    Ok(())
}

fn open_log(path: &Path) -> Result<File> {
    if let Some(folder) = path.parent() {
        at("make", folder, fs::create_dir_all(folder))?;
    }
    at(
        "open",
        path,
        OpenOptions::new().create(true).append(true).open(path),
    )
}

/// The last `count` lines of a log.
pub fn tail(path: &Path, count: usize) -> Vec<String> {
    const WINDOW: u64 = 16 * 1024;
    let Ok(mut file) = File::open(path) else {
        return Vec::new();
    };
    let length = file.metadata().map(|m| m.len()).unwrap_or(0);
    let mut bytes = Vec::new();
    let from = SeekFrom::Start(length.saturating_sub(WINDOW));
    if file.seek(from).is_err() || file.take(WINDOW).read_to_end(&mut bytes).is_err() {
        return Vec::new();
    }
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..]
        .iter()
        .map(|line| (*line).to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_of_a_log_is_its_last_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.log");
        assert!(tail(&path, 3).is_empty());
        let lines: Vec<String> = (0..9000).map(|n| format!("line {n}")).collect();
        fs::write(&path, lines.join("\n")).unwrap();
        assert_eq!(tail(&path, 2), ["line 8998", "line 8999"]);
    }
}
