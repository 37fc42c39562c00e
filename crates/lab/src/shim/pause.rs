//! The pause process: holds the pod's namespaces while containers come and go.

use std::path::Path;

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigHandler, Signal, signal};

use super::process::{self, Child, PidNamespace, Report};
use super::{SandboxSpec, cgroup};

/// What containerd sets for pods with a network of their own: any user may listen on low
/// ports and send pings.
const DEFAULT_SYSCTLS: [(&str, &str); 2] = [
    ("net.ipv4.ip_unprivileged_port_start", "0"),
    ("net.ipv4.ping_group_range", "0 2147483647"),
];

/// Starts the pause process; it has its namespaces once it reports.
pub(super) fn spawn(spec: &SandboxSpec, folder: &Path) -> std::io::Result<Child> {
    let namespace = if spec.share_pid {
        PidNamespace::New
    } else {
        PidNamespace::Machine
    };
    process::spawn(namespace, |report| run(spec, folder, report))
}

fn run(spec: &SandboxSpec, folder: &Path, report: Report) -> Result<i32, (Report, String)> {
    process::hide_memory();
    if let Err(text) = prepare(spec, folder) {
        return Err((report, text));
    }
    process::set_title(&["/pause".to_owned()]);
    report.started();
    process::forget_program();
    process::close_from(0);
    // As first process of a shared PID namespace it inherits what containers leave: the
    // kernel reaps it. SAFETY: ignoring a signal runs no code of ours.
    let _ = unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) };
    loop {
        nix::unistd::pause();
    }
}

fn prepare(spec: &SandboxSpec, folder: &Path) -> Result<(), String> {
    cgroup::enter(folder).map_err(|e| format!("entering cgroup {}: {e}", folder.display()))?;
    let mut flags = CloneFlags::CLONE_NEWUTS;
    flags.set(CloneFlags::CLONE_NEWNET, !spec.host_network);
    flags.set(CloneFlags::CLONE_NEWIPC, !spec.host_ipc);
    unshare(flags).map_err(|e| format!("making the pod's namespaces: {e}"))?;
    nix::unistd::sethostname(&spec.hostname)
        .map_err(|e| format!("setting host name {:?}: {e}", spec.hostname))?;
    if !spec.host_network {
        loopback_up().map_err(|e| format!("setting lo up: {e}"))?;
        for (name, value) in DEFAULT_SYSCTLS {
            // A kernel without one of these still runs pods.
            let _ = sysctl(name, value);
        }
    }
    for (name, value) in &spec.sysctls {
        sysctl(name, value).map_err(|e| format!("setting sysctl {name}={value}: {e}"))?;
    }
    Ok(())
}

fn sysctl(name: &str, value: &str) -> std::io::Result<()> {
    let known = [
        "net.",
        "kernel.shm",
        "kernel.msg",
        "kernel.sem",
        "fs.mqueue.",
    ];
    if !known.iter().any(|p| name.starts_with(p)) || name.contains("..") {
        return Err(std::io::Error::other(
            "it belongs to no namespace of the pod",
        ));
    }
    // In `net.ipv4.conf.eth0/1.x` the slash is a dot of the interface's name.
    let path: String = name
        .chars()
        .map(|c| match c {
            '.' => '/',
            '/' => '.',
            c => c,
        })
        .collect();
    std::fs::write(Path::new("/proc/sys").join(path), value)
}

fn loopback_up() -> nix::Result<()> {
    use std::os::fd::AsRawFd;

    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    let socket = socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    // SAFETY: all-zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads one ifreq, which lives until the call returns.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    nix::errno::Errno::result(done).map(drop)
}
