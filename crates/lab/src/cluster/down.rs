//! The end of a cluster: everything of it goes, whatever state it was in.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use linux::Netlink;
use nix::mount::{MntFlags, umount2};

use super::error::{Error, Result};
use super::{cgroup, state, underlay};
use crate::paths::{self, ClusterPaths};

/// Ends the cluster and removes all it made; errors are collected and the rest goes on.
/// True where there was anything.
pub fn down(paths: &ClusterPaths) -> Result<bool> {
    if parts(paths).is_empty() {
        return Ok(false);
    }
    let lock = state::lock(paths, || {})?;
    let mut errors = Vec::new();
    let mut keep = |result: Result<()>| errors.extend(result.err());
    if let Ok(mount) = cgroup::mount() {
        let folder = mount.join(paths.cgroup());
        keep(cgroup::kill(&folder));
        keep(cgroup::remove(&folder));
        // Shared by all clusters: goes with the last one.
        let _ = fs::remove_dir(mount.join("flatnet"));
    }
    for place in mounts(paths) {
        keep(unmount(&place));
    }
    match underlay::namespaces(&prefix(paths)) {
        Ok(names) => names.iter().for_each(|name| keep(underlay::remove(name))),
        Err(error) => keep(Err(error)),
    }
    for folder in [&paths.state, &paths.run] {
        keep(remove_folder(folder));
    }
    drop(lock);
    underlay::tidy();
    // Folders shared by all clusters go with the last one; one that is not empty stays.
    for folder in [paths::STATE, "/var/lib/flatnet", paths::RUN, "/run/flatnet"] {
        let _ = fs::remove_dir(folder);
    }
    Error::collect(errors).map(|()| true)
}

/// What must not be there after `down`: anything of the cluster, and any link of ours in the
/// machine's own namespace. For tests.
pub fn leftovers(paths: &ClusterPaths) -> Vec<String> {
    let mut found = parts(paths);
    let links = Netlink::open()
        .and_then(|mut links| links.links())
        .unwrap_or_default();
    let ours = links.iter().filter(|link| link.name.starts_with("fn-"));
    found.extend(ours.map(|link| format!("link {} on the machine itself", link.name)));
    found
}

/// What is there of a cluster: folders, namespaces, processes, cgroups, mounts.
fn parts(paths: &ClusterPaths) -> Vec<String> {
    let mut found = Vec::new();
    for folder in [&paths.state, &paths.run] {
        if folder.exists() {
            found.push(format!("folder {}", folder.display()));
        }
    }
    let names = underlay::namespaces(&prefix(paths)).unwrap_or_default();
    found.extend(names.iter().map(|name| format!("network namespace {name}")));
    if let Ok(mount) = cgroup::mount() {
        let folder = mount.join(paths.cgroup());
        if folder.exists() {
            found.push(format!("cgroup {}", folder.display()));
        }
        if cgroup::populated(&folder) {
            found.push(format!("processes in {}", folder.display()));
        }
    }
    found.extend(
        mounts(paths)
            .iter()
            .map(|place| format!("mount {}", place.display())),
    );
    found
}

fn prefix(paths: &ClusterPaths) -> String {
    paths.netns("")
}

/// Mounts below the cluster's folders, innermost first.
fn mounts(paths: &ClusterPaths) -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounts_below(&text, &[&paths.state, &paths.run])
}

fn mounts_below(mountinfo: &str, folders: &[&Path]) -> Vec<PathBuf> {
    let places = mountinfo.lines().filter_map(|line| line.split(' ').nth(4));
    let mut found: Vec<PathBuf> = places
        .map(unescape)
        .filter(|place| folders.iter().any(|folder| place.starts_with(folder)))
        .collect();
    found.reverse();
    found
}

/// mountinfo writes space, tab, newline and backslash as `\040` and so on.
fn unescape(text: &str) -> PathBuf {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let code = rest
            .get(at + 1..at + 4)
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                out.push(char::from(code));
                rest = &rest[at + 4..];
            }
            None => {
                out.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    out.push_str(rest);
    PathBuf::from(out)
}

/// Unmounts a place; what is not mounted (any more) is no error.
pub(super) fn unmount(place: &Path) -> Result<()> {
    match umount2(place, MntFlags::MNT_DETACH) {
        Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => Ok(()),
        Err(errno) => Err(Error::kernel(
            format!("unmount {}", place.display()),
            errno.desc(),
        )),
    }
}

/// Removes a folder and all in it; one that is not there is no error.
pub(super) fn remove_folder(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(source) if source.kind() != ErrorKind::NotFound => Err(Error::File {
            what: "remove",
            path: folder.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

/// Unmounts everything below a folder.
pub(super) fn unmount_below(folder: &Path) -> Result<()> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let places = mounts_below(&text, &[folder]);
    Error::collect(
        places
            .iter()
            .filter_map(|place| unmount(place).err())
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_found_innermost_first_and_only_below() {
        let text = "22 1 0:21 / /proc rw - proc proc rw\n\
                    30 1 0:30 / /var/lib/flatnet/clusters/a/x rw - tmpfs tmpfs rw\n\
                    31 30 0:31 / /var/lib/flatnet/clusters/a/x/y\\040z rw - tmpfs tmpfs rw\n\
                    32 1 0:32 / /var/lib/flatnet/clusters/ab rw - tmpfs tmpfs rw\n";
        let found = mounts_below(text, &[Path::new("/var/lib/flatnet/clusters/a")]);
        assert_eq!(
            found,
            [
                PathBuf::from("/var/lib/flatnet/clusters/a/x/y z"),
                PathBuf::from("/var/lib/flatnet/clusters/a/x"),
            ]
        );
    }
}
