//! Linux capabilities: names, the set a container gets, and taking it.

use nix::errno::Errno;

/// By number, as in linux/capability.h.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What containerd gives, without MKNOD: on a machine with cgroup v1 controllers no device
/// controller would keep a container from the machine's disks.
const DEFAULT: [&str; 13] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// A set of capabilities, one bit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Capabilities(u64);

impl Capabilities {
    const ALL: Self = Self((1 << NAMES.len()) - 1);

    /// The set of a container. `Err` names a capability that does not exist.
    pub fn of(privileged: bool, add: &[String], drop: &[String]) -> Result<Self, String> {
        if privileged {
            return Ok(Self::ALL);
        }
        let mut set = 0;
        for name in DEFAULT {
            set |= bit(name).unwrap_or(0);
        }
        // As Kubernetes: a dropped ALL goes first, then what is added, then single drops.
        if drop.iter().any(|n| n.eq_ignore_ascii_case("ALL")) {
            set = 0;
        }
        for name in add {
            set |= mask(name)?;
        }
        for name in drop.iter().filter(|n| !n.eq_ignore_ascii_case("ALL")) {
            set &= !mask(name)?;
        }
        Ok(Self(set))
    }

    /// Takes everything else from the bounding set, so that no program gets it back.
    pub fn bound(self) -> nix::Result<()> {
        for number in 0..64u32 {
            if number < 41 && self.0 & (1 << number) != 0 {
                continue;
            }
            // SAFETY: takes numbers only. EINVAL: the kernel knows no more capabilities.
            let done = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(number)) };
            match Errno::result(done) {
                Err(Errno::EINVAL) => break,
                other => other.map(drop)?,
            }
        }
        Ok(())
    }

    /// Makes it this process's permitted and effective set, with nothing inheritable.
    pub fn take(self) -> nix::Result<()> {
        #[repr(C)]
        struct Header {
            version: u32,
            pid: i32,
        }
        #[repr(C)]
        #[derive(Clone, Copy)]
        struct Data {
            effective: u32,
            permitted: u32,
            inheritable: u32,
        }
        const VERSION_3: u32 = 0x2008_0522;
        let header = Header {
            version: VERSION_3,
            pid: 0,
        };
        let nothing = Data {
            effective: 0,
            permitted: 0,
            inheritable: 0,
        };
        let mut data = [nothing; 2];
        // SAFETY: version 3 reads one header and writes two data records.
        let done = unsafe { libc::syscall(libc::SYS_capget, &raw const header, data.as_mut_ptr()) };
        Errno::result(done)?;
        // Where the machine itself lacks one, as in a container, so does a privileged pod.
        for (half, wanted) in data.iter_mut().zip([self.0 as u32, (self.0 >> 32) as u32]) {
            half.permitted &= wanted;
            half.effective = half.permitted;
            half.inheritable = 0;
        }
        // SAFETY: version 3 reads one header and two data records, which live until it returns.
        let done = unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) };
        Errno::result(done).map(drop)
    }
}

fn bit(name: &str) -> Option<u64> {
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
    NAMES.iter().position(|n| *n == short).map(|n| 1 << n)
}

fn mask(name: &str) -> Result<u64, String> {
    if name.eq_ignore_ascii_case("ALL") {
        return Ok(Capabilities::ALL.0);
    }
    bit(name).ok_or_else(|| format!("unknown capability {name:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(set: Capabilities) -> Vec<&'static str> {
        (0..NAMES.len())
            .filter(|n| set.0 & (1 << n) != 0)
            .map(|n| NAMES[n])
            .collect()
    }

    #[test]
    fn add_and_drop_as_kubernetes_orders_them() {
        let of = |add: &[&str], drop: &[&str]| {
            let own = |l: &[&str]| l.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
            Capabilities::of(false, &own(add), &own(drop)).unwrap()
        };
        assert!(names(of(&[], &[])).contains(&"NET_RAW"));
        assert!(!names(of(&[], &[])).contains(&"NET_ADMIN"));
        assert_eq!(
            names(of(&["NET_BIND_SERVICE"], &["ALL"])),
            ["NET_BIND_SERVICE"]
        );
        assert!(names(of(&["CAP_NET_ADMIN"], &[])).contains(&"NET_ADMIN"));
        assert!(!names(of(&[], &["net_raw"])).contains(&"NET_RAW"));
        assert_eq!(of(&["ALL"], &[]), Capabilities::ALL);
    }

    #[test]
    fn an_unknown_name_is_refused() {
        let refused = Capabilities::of(false, &["NET_ADMIM".to_owned()], &[]);
        assert_eq!(refused, Err("unknown capability \"NET_ADMIM\"".to_owned()));
    }
}
