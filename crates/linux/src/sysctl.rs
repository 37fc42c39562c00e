//! Kernel settings below `/proc/sys`, in the calling thread's network namespace.
//!
//! A key is written with slashes (`net/ipv4/conf/eth0/rp_filter`), because an interface's name
//! may contain dots.

use std::fs;
use std::io;

use crate::error::{Error, Result};

/// The value, trimmed; `None` where this kernel or namespace has no such setting.
pub fn read(key: &str) -> Result<Option<String>> {
    match fs::read_to_string(path(key)?) {
        Ok(value) => Ok(Some(value.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(object(key), "read", &error)),
    }
}

/// Sets a value; true where it was another one before. The kernel is asked first, so a value
/// that is right already needs no permission.
pub fn write(key: &str, value: &str) -> Result<bool> {
    if read(key)?.as_deref() == Some(value) {
        return Ok(false);
    }
    fs::write(path(key)?, value)
        .map(|()| true)
        .map_err(|error| Error::io(object(key), "write", &error))
}

/// The same, where a setting that this kernel does not have, or that may not be written here
/// (`nf_conntrack_max` in a child namespace), is no error; true where it holds now.
pub fn write_if_possible(key: &str, value: &str) -> Result<bool> {
    match write(key, value) {
        Ok(_) => Ok(true),
        Err(error)
            if matches!(
                error.errno,
                Some(libc::ENOENT | libc::EACCES | libc::EPERM | libc::EROFS)
            ) =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Switches duplicate address detection off for this namespace and the links it will get: to be
/// called before they are made. Until its link-local address is through the detection (one to
/// two seconds) a host asks for no neighbour on behalf of a packet it forwards, so a pod's
/// first IPv6 packets would be lost. The greater of `all` and the link's own value counts, so
/// both are needed.
pub fn without_dad() -> Result<()> {
    for link in ["all", "default"] {
        write_if_possible(&format!("net/ipv6/conf/{link}/accept_dad"), "0")?;
    }
    Ok(())
}

fn object(key: &str) -> String {
    format!("sysctl {key}")
}

fn path(key: &str) -> Result<String> {
    if key.is_empty() || key.starts_with('/') || key.split('/').any(|part| part == "..") {
        return Err(Error::other(object(key), "name", "not a setting's name"));
    }
    Ok(format!("/proc/sys/{key}"))
}
