//! A container's root: the machine's programs, read-only below an overlay, and nothing of
//! the machine's data.
//!
//! The overlay's writable layer is a tmpfs of the container's own mount namespace. Only
//! bin, lib, usr, opt and etc show through; other folders are empty in the container, by
//! opaque folders and whiteouts in the upper layer, which cost no mount.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::{chdir, pivot_root};

use super::ContainerSpec;
use super::mounts::{self, Attributes};

/// Top-level folders of the machine that containers see.
const SHOWN: [&str; 11] = [
    "bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr", "opt", "etc", "nix", "gnu",
];
/// Folders every container has, empty and its own.
const OWN: [(&str, u32); 21] = [
    ("boot", 0o755),
    ("dev", 0o755),
    ("home", 0o755),
    ("media", 0o755),
    ("mnt", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("run/lock", 0o1777),
    ("srv", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("var", 0o755),
    ("var/cache", 0o755),
    ("var/lib", 0o755),
    ("var/log", 0o755),
    ("var/mail", 0o2775),
    ("var/opt", 0o755),
    ("var/spool", 0o755),
    ("var/tmp", 0o1777),
    ("var/www", 0o755),
];
/// Folders of /etc that hold the machine's secrets and settings: empty in containers.
const SECRET_FOLDERS: [&str; 7] = [
    "etc/ssh",
    "etc/ssl/private",
    "etc/kubernetes",
    "etc/cni",
    "etc/wireguard",
    "etc/sudoers.d",
    "etc/flatnet",
];
/// Files of /etc that containers do not have.
const SECRET_FILES: [&str; 5] = [
    "etc/shadow",
    "etc/shadow-",
    "etc/gshadow",
    "etc/gshadow-",
    "etc/sudoers",
];
/// As containerd masks them.
const MASKED: [&str; 10] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/scsi",
    "/proc/sched_debug",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/firmware",
];
/// As containerd makes them read-only.
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// What building a root needs besides the container's spec.
pub(super) struct Place<'a> {
    /// An empty folder on the machine: the tmpfs is mounted there, unseen by others.
    pub folder: &'a Path,
    /// The pod's /dev/shm on the machine.
    pub shm: &'a Path,
    /// The file that takes the termination message.
    pub termination: &'a Path,
}

/// Builds the root and makes it this process's. The process has a new mount namespace.
pub(super) fn enter(spec: &ContainerSpec, place: &Place<'_>) -> Result<(), String> {
    build(spec, place).map_err(|e| format!("{}: {}", e.what, e.source))
}

struct Step {
    what: String,
    source: io::Error,
}

fn at<T, E: Into<io::Error>>(what: impl Into<String>, done: Result<T, E>) -> Result<T, Step> {
    done.map_err(|e| Step {
        what: what.into(),
        source: e.into(),
    })
}

fn build(spec: &ContainerSpec, place: &Place<'_>) -> Result<(), Step> {
    let none = None::<&str>;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    at(
        "making the mounts private",
        mount(none, "/", none, private, none),
    )?;
    let taken = take_all(spec, place)?;

    let plain = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let size = "mode=0755,size=2g";
    at(
        "mounting the container's tmpfs",
        mounts::file_system("tmpfs", place.folder, plain, size),
    )?;
    // Names from here, so that no character of the pod's path can be taken for an option.
    at("entering the container's tmpfs", chdir(place.folder))?;
    for folder in ["upper", "work", "root"] {
        at(format!("making folder {folder}"), fs::create_dir(folder))?;
    }
    at(
        "laying out the container's root",
        lay_out(Path::new("upper")),
    )?;
    let layers = "lowerdir=/,upperdir=upper,workdir=work";
    let flags = if spec.privileged {
        MsFlags::empty()
    } else {
        MsFlags::MS_NODEV
    };
    let root = Path::new("root");
    at(
        "mounting the container's root",
        mounts::file_system("overlay", root, flags, layers),
    )?;

    at("entering the container's root", chdir(root))?;
    at("changing the root", pivot_root(".", "."))?;
    at(
        "leaving the machine's root",
        umount2(".", MntFlags::MNT_DETACH),
    )?;
    at("entering the container's root", chdir("/"))?;

    kernel_file_systems(spec)?;
    for (tree, target, folder) in &taken {
        let what = || format!("mounting {}", target.display());
        at(what(), mounts::make_point(target, *folder))?;
        at(what(), mounts::put(tree, target))?;
    }
    for (link, to) in &spec.links {
        at(
            format!("making link {}", link.display()),
            make_link(link, to),
        )?;
    }
    if !spec.privileged {
        mask()?;
    }
    if !spec.cwd.as_os_str().is_empty() {
        let what = format!("making working directory {}", spec.cwd.display());
        at(
            what,
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(&spec.cwd),
        )?;
    }
    if spec.read_only_root {
        at(
            "making the root read-only",
            mounts::set_read_only(Path::new("/"), false),
        )?;
    }
    Ok(())
}

type Taken = (OwnedFd, PathBuf, bool);

/// Everything of the machine that is to be mounted in the container.
fn take_all(spec: &ContainerSpec, place: &Place<'_>) -> Result<Vec<Taken>, Step> {
    let mut taken = Vec::new();
    let mut take = |source: &Path, target: &Path, attributes| -> Result<(), Step> {
        let what = || format!("mounting {} at {}", source.display(), target.display());
        let folder = at(what(), fs::metadata(source))?.is_dir();
        let tree = at(what(), mounts::take(source, attributes))?;
        taken.push((tree, target.to_owned(), folder));
        Ok(())
    };
    for path in mounts::program_mounts(&SHOWN) {
        take(
            &path,
            &path,
            Attributes {
                read_only: true,
                no_exec: false,
            },
        )?;
    }
    let shm = Attributes {
        read_only: false,
        no_exec: true,
    };
    take(place.shm, Path::new("/dev/shm"), shm)?;
    for m in &spec.mounts {
        // `/` in front: a target is always meant from the container's root.
        let target = Path::new("/").join(&m.target);
        take(
            &m.source,
            &target,
            Attributes {
                read_only: m.read_only,
                no_exec: false,
            },
        )?;
    }
    if !spec.termination_message.as_os_str().is_empty() {
        let target = Path::new("/").join(&spec.termination_message);
        take(place.termination, &target, Attributes::default())?;
    }
    Ok(taken)
}

/// Fills the overlay's upper layer: what of the machine is hidden, and what is the
/// container's own.
fn lay_out(upper: &Path) -> io::Result<()> {
    for entry in fs::read_dir("/")? {
        let name = entry?.file_name();
        let shown = SHOWN.iter().any(|s| name == *s);
        let own = OWN.iter().any(|(o, _)| name == *o);
        if !shown && !own {
            whiteout(&upper.join(&name))?;
        }
    }
    for (path, mode) in OWN {
        let path = upper.join(path);
        own_folder(&path, mode)?;
    }
    copy_parents(upper, Path::new("etc/hostname"))?;
    let name = nix::unistd::gethostname()?;
    fs::write(
        upper.join("etc/hostname"),
        format!("{}\n", name.to_string_lossy()),
    )?;
    symlink("/run", upper.join("var/run"))?;
    symlink("/run/lock", upper.join("var/lock"))?;
    for path in SECRET_FOLDERS {
        if fs::symlink_metadata(Path::new("/").join(path)).is_ok_and(|m| m.is_dir()) {
            copy_parents(upper, Path::new(path))?;
            own_folder(&upper.join(path), 0o755)?;
        }
    }
    for path in SECRET_FILES {
        if fs::symlink_metadata(Path::new("/").join(path)).is_ok() {
            copy_parents(upper, Path::new(path))?;
            whiteout(&upper.join(path))?;
        }
    }
    Ok(())
}

/// A folder that hides the machine's of the same name.
fn own_folder(path: &Path, mode: u32) -> io::Result<()> {
    fs::create_dir(path)?;
    // Not by the call above: the umask would take bits away.
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    let name = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: reads two strings and one byte, which live until the call returns.
    let done = unsafe {
        libc::setxattr(
            name.as_ptr(),
            c"trusted.overlay.opaque".as_ptr(),
            c"y".as_ptr().cast(),
            1,
            0,
        )
    };
    Errno::result(done)?;
    Ok(())
}

/// Takes the machine's file of that name out of the container's sight.
fn whiteout(path: &Path) -> io::Result<()> {
    mknod(path, SFlag::S_IFCHR, Mode::empty(), makedev(0, 0))?;
    Ok(())
}

/// Makes the folders above `path` in the upper layer, looking as the machine's do.
fn copy_parents(upper: &Path, path: &Path) -> io::Result<()> {
    let mut parents: Vec<&Path> = path.ancestors().skip(1).collect();
    parents.reverse();
    for parent in parents.into_iter().filter(|p| !p.as_os_str().is_empty()) {
        let copy = upper.join(parent);
        if copy.symlink_metadata().is_ok() {
            continue;
        }
        let original = fs::metadata(Path::new("/").join(parent))?;
        fs::create_dir(&copy)?;
        fs::set_permissions(&copy, original.permissions())?;
        chown(&copy, Some(original.uid()), Some(original.gid()))?;
    }
    Ok(())
}

fn make_link(link: &Path, to: &Path) -> io::Result<()> {
    if let Some(parent) = link.parent() {
        fs::create_dir_all(parent)?;
    }
    match symlink(to, link) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// /proc, /sys and /dev.
fn kernel_file_systems(spec: &ContainerSpec) -> Result<(), Step> {
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let on = |kind: &'static str, target: &'static str, flags, data: &str| {
        at(
            format!("mounting {target}"),
            mounts::file_system(kind, Path::new(target), flags, data),
        )
    };
    on("proc", "/proc", quiet, "")?;
    let sys = if spec.privileged {
        quiet
    } else {
        quiet | MsFlags::MS_RDONLY
    };
    on("sysfs", "/sys", sys, "")?;
    on("tmpfs", "/dev", MsFlags::MS_NOSUID, "mode=755,size=64k")?;
    at("making the devices", devices())?;
    let silent = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    on(
        "devpts",
        "/dev/pts",
        silent,
        "newinstance,ptmxmode=0666,mode=0620,gid=5",
    )?;
    Ok(())
}

fn devices() -> io::Result<()> {
    let nodes: [(&str, u64, u64); 6] = [
        ("null", 1, 3),
        ("zero", 1, 5),
        ("full", 1, 7),
        ("random", 1, 8),
        ("urandom", 1, 9),
        ("tty", 5, 0),
    ];
    let open = Mode::from_bits_truncate(0o666);
    for (name, major, minor) in nodes {
        let path = Path::new("/dev").join(name);
        mknod(&path, SFlag::S_IFCHR, open, makedev(major, minor))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666))?;
    }
    let links = [
        ("ptmx", "pts/ptmx"),
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("core", "/proc/kcore"),
    ];
    for (name, to) in links {
        symlink(to, Path::new("/dev").join(name))?;
    }
    for folder in ["pts", "shm"] {
        fs::create_dir(Path::new("/dev").join(folder))?;
    }
    Ok(())
}

/// Hides what the kernel tells about the whole machine, and keeps its switches from change.
fn mask() -> Result<(), Step> {
    for path in MASKED {
        let Ok(found) = fs::metadata(path) else {
            continue;
        };
        let path = Path::new(path);
        let done = if found.is_dir() {
            mounts::file_system("tmpfs", path, MsFlags::MS_RDONLY, "size=0")
        } else {
            mounts::bind(Path::new("/dev/null"), path)
        };
        at(format!("masking {}", path.display()), done)?;
    }
    for path in READ_ONLY {
        let path = Path::new(path);
        if path.exists() {
            let done = mounts::bind(path, path).and_then(|()| mounts::set_read_only(path, false));
            at(format!("making {} read-only", path.display()), done)?;
        }
    }
    Ok(())
}
