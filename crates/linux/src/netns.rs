//! Network namespaces: named (as `ip netns` keeps them), of a process, or without a name.

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::{io, thread};

use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use crate::error::{Error, Result};

/// Where names live.
const NAMES: &str = "/run/netns";
const CURRENT: &str = "/proc/thread-self/ns/net";

/// A network namespace, kept alive by this handle.
#[derive(Debug)]
pub struct NetNs {
    file: File,
    label: String,
}

impl NetNs {
    /// The namespace behind a path such as `/proc/PID/ns/net`.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let label = path.display().to_string();
        let object = || format!("network namespace {label}");
        let file = File::open(path).map_err(|error| Error::io(object(), "open", &error))?;
        // A name without its mount is an ordinary empty file; setns would only say EINVAL.
        if !is_namespace(&file) {
            return Err(Error::other(object(), "open", "not a namespace"));
        }
        Ok(Self { file, label })
    }

    /// The namespace of the calling thread.
    pub fn current() -> Result<Self> {
        Self::open(CURRENT)
    }

    /// The namespace of a process.
    pub fn of_process(pid: u32) -> Result<Self> {
        Self::open(format!("/proc/{pid}/ns/net"))
    }

    /// The namespace called `name`.
    pub fn named(name: &str) -> Result<Self> {
        Self::open(path_of(name)?)
    }

    /// A new namespace that lives only as long as its handles, sockets and processes.
    pub fn anonymous() -> Result<Self> {
        on_fresh_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| {
                Error::kernel("network namespace", "create", errno as i32, None)
            })?;
            Self::current()
        })
    }

    /// A new namespace called `name`, seen by `ip netns` too. The name must be free.
    pub fn create(name: &str) -> Result<Self> {
        let path = path_of(name)?;
        let object = || format!("network namespace {name}");
        share_names()?;
        fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o444)
            .open(&path)
            .map_err(|error| Error::io(object(), "create", &error))?;
        let created = on_fresh_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            mount(
                Some(CURRENT),
                &path,
                None::<&str>,
                MsFlags::MS_BIND,
                None::<&str>,
            )
        });
        if let Err(errno) = created {
            let _ = fs::remove_file(&path);
            return Err(Error::kernel(object(), "create", errno as i32, None));
        }
        Self::named(name)
    }

    /// Takes the name away; the namespace ends with its last process, socket and handle.
    /// A name that is not there is no error.
    pub fn delete(name: &str) -> Result<()> {
        let path = path_of(name)?;
        let object = || format!("network namespace {name}");
        // EINVAL: nothing mounted there, only the file is left.
        match umount2(&path, MntFlags::MNT_DETACH) {
            Ok(()) | Err(nix::Error::EINVAL) => {}
            Err(nix::Error::ENOENT) => return Ok(()),
            Err(errno) => return Err(Error::kernel(object(), "unmount", errno as i32, None)),
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::io(object(), "delete", &error))
            }
            _ => Ok(()),
        }
    }

    /// All names, sorted.
    pub fn list() -> Result<Vec<String>> {
        let entries = match fs::read_dir(NAMES) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::io(NAMES, "list", &error)),
        };
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        names.sort();
        Ok(names)
    }

    /// Moves the calling thread into this namespace. A process that wants to live in it does so
    /// before its first other thread starts.
    pub fn enter(&self) -> Result<()> {
        setns(&self.file, CloneFlags::CLONE_NEWNET)
            .map_err(|errno| Error::kernel(self.object(), "enter", errno as i32, None))
    }

    /// Device and inode: equal for two handles of the same namespace.
    pub fn id(&self) -> Result<(u64, u64)> {
        let metadata = self
            .file
            .metadata()
            .map_err(|error| Error::io(self.object(), "read", &error))?;
        Ok((metadata.dev(), metadata.ino()))
    }

    fn object(&self) -> String {
        format!("network namespace {}", self.label)
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl AsRawFd for NetNs {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

/// Runs `work` on a fresh thread inside `netns` and returns its result; the calling thread stays
/// where it is. Sockets that `work` opens stay bound to that namespace.
pub fn run_in<T: Send>(netns: &NetNs, work: impl FnOnce() -> T + Send) -> Result<T> {
    on_fresh_thread(|| {
        netns.enter()?;
        Ok(work())
    })
}

/// The path of a name, for example `/run/netns/fn-flatnet-node1`.
fn path_of(name: &str) -> Result<PathBuf> {
    let fits = !name.is_empty()
        && name.len() < 256
        && name != "."
        && name != ".."
        && !name.contains(['/', '\0']);
    if fits {
        Ok(Path::new(NAMES).join(name))
    } else {
        Err(Error::other(
            format!("network namespace {name:?}"),
            "name",
            "not usable as a file name",
        ))
    }
}

fn on_fresh_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| match scope.spawn(work).join() {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

fn is_namespace(file: &File) -> bool {
    const NSFS_MAGIC: i64 = 0x6e73_6673;
    const PROC_MAGIC: i64 = 0x9fa0;
    nix::sys::statfs::fstatfs(file).is_ok_and(|stat| {
        let kind = stat.filesystem_type().0;
        kind == NSFS_MAGIC || kind == PROC_MAGIC
    })
}

/// Makes `/run/netns` a shared mount, as `ip netns` does, so that names given in one mount
/// namespace are seen, and can be taken away, in all.
fn share_names() -> Result<()> {
    let failed = |operation| move |error| Error::io(NAMES, operation, &error);
    fs::create_dir_all(NAMES).map_err(failed("create"))?;
    let directory = File::open(NAMES).map_err(failed("open"))?;
    // Two programs at once would stack two mounts.
    let _lock = Flock::lock(directory, FlockArg::LockExclusive)
        .map_err(|(_, errno)| Error::kernel(NAMES, "lock", errno as i32, None))?;
    let share = || {
        mount(
            None::<&str>,
            NAMES,
            None::<&str>,
            MsFlags::MS_SHARED | MsFlags::MS_REC,
            None::<&str>,
        )
    };
    match share() {
        Ok(()) => Ok(()),
        // Not a mount point yet.
        Err(nix::Error::EINVAL) => mount(
            Some(NAMES),
            NAMES,
            None::<&str>,
            MsFlags::MS_BIND | MsFlags::MS_REC,
            None::<&str>,
        )
        .and_then(|()| share()),
        Err(errno) => Err(errno),
    }
    .map_err(|errno| Error::kernel(NAMES, "mount", errno as i32, None))
}
