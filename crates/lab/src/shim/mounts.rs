//! Mounts as descriptors: taken from the machine before the root changes, put in place
//! after, so that a link in the container can never lead a mount out of it.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};

/// Flags a mount gets besides those of its source.
#[derive(Clone, Copy, Default)]
pub(super) struct Attributes {
    pub read_only: bool,
    pub no_exec: bool,
}

/// A copy of the mount at `path`, with what is mounted below it, in no tree yet.
pub(super) fn take(path: &Path, attributes: Attributes) -> io::Result<OwnedFd> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | libc::AT_RECURSIVE as u32;
    // SAFETY: reads the path, which lives until the call returns; answers a descriptor.
    let fd = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, name.as_ptr(), flags) };
    // SAFETY: the kernel just made it for us.
    let tree = unsafe { OwnedFd::from_raw_fd(Errno::result(fd)? as i32) };
    let mut set = libc::MOUNT_ATTR_NODEV;
    if attributes.read_only {
        set |= libc::MOUNT_ATTR_RDONLY;
    }
    if attributes.no_exec {
        set |= libc::MOUNT_ATTR_NOEXEC;
    }
    let change = libc::mount_attr {
        attr_set: set,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    let flags = libc::AT_EMPTY_PATH | libc::AT_RECURSIVE;
    // SAFETY: reads one mount_attr of the size given; the path is empty.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const change,
            size_of::<libc::mount_attr>(),
        )
    };
    Errno::result(done)?;
    Ok(tree)
}

/// Puts a taken mount at `target`, which exists.
pub(super) fn put(tree: &OwnedFd, target: &Path) -> io::Result<()> {
    let name = CString::new(target.as_os_str().as_bytes())?;
    // SAFETY: reads two paths, which live until the call returns.
    let done = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            name.as_ptr(),
            libc::MOVE_MOUNT_F_EMPTY_PATH,
        )
    };
    Errno::result(done)?;
    Ok(())
}

/// Makes the mount point: a folder, or a file where a file is to be mounted. A link that
/// leads nowhere, as /etc/resolv.conf into the machine's /run, gives way.
pub(super) fn make_point(target: &Path, folder: bool) -> io::Result<()> {
    if target.metadata().is_ok() {
        return Ok(());
    }
    if target.symlink_metadata().is_ok_and(|m| m.is_symlink()) {
        std::fs::remove_file(target)?;
    }
    if folder {
        return std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(target);
    }
    if let Some(parent) = target.parent() {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(parent)?;
    }
    std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(target)
        .map(drop)
}

/// A new file system at `target`.
pub(super) fn file_system(kind: &str, target: &Path, flags: MsFlags, data: &str) -> io::Result<()> {
    mount(Some(kind), target, Some(kind), flags, Some(data))?;
    Ok(())
}

/// Makes a mounted path read-only as it is seen in this namespace.
pub(super) fn set_read_only(target: &Path, recursive: bool) -> io::Result<()> {
    let name = CString::new(target.as_os_str().as_bytes())?;
    let set = libc::MOUNT_ATTR_RDONLY;
    let change = libc::mount_attr {
        attr_set: set,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    let flags = if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: reads a path and one mount_attr of the size given.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            name.as_ptr(),
            flags,
            &raw const change,
            size_of::<libc::mount_attr>(),
        )
    };
    Errno::result(done)?;
    Ok(())
}

/// Mounts `source` over `target` in the same root.
pub(super) fn bind(source: &Path, target: &Path) -> io::Result<()> {
    mount(
        Some(source),
        target,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )?;
    Ok(())
}

/// Folders of the machine that hold programs and are file systems of their own, which an
/// overlay of `/` does not show.
pub(super) fn program_mounts(below: &[&str]) -> Vec<PathBuf> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut found: Vec<PathBuf> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|path| PathBuf::from(path.replace("\\040", " ")))
        .filter(|path| match path.components().nth(1) {
            Some(Component::Normal(top)) => below.iter().any(|b| top == *b),
            _ => false,
        })
        .filter(|path| {
            path.metadata()
                .is_ok_and(|m| m.is_dir() && m.mode() & 0o005 == 0o005)
        })
        .collect();
    found.sort();
    found.dedup();
    // A taken mount brings those below it.
    let all = found.clone();
    found.retain(|p| !all.iter().any(|q| q != p && p.starts_with(q)));
    found
}
