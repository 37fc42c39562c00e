//! The child's side of a container and of a command in one: from the fork to its program.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid, chdir, setgroups, setresgid, setresuid, setsid};

use super::caps::Capabilities;
use super::process::{self, Child, PidNamespace, Report};
use super::rootfs::{self, Place};
use super::{ContainerSpec, SandboxSpec, cgroup};
use crate::images;

/// Where commands are looked for when the container's environment has no PATH.
pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Descriptors for standard input, output and error of a child without a terminal.
pub(super) type Stdio = [OwnedFd; 3];

/// Everything a container's child needs.
pub(super) struct Start<'a> {
    pub sandbox: &'a SandboxSpec,
    pub spec: &'a ContainerSpec,
    pub pause: BorrowedFd<'a>,
    pub cgroup: &'a Path,
    pub place: Place<'a>,
    pub stdio: Option<Stdio>,
}

/// Starts a container.
pub(super) fn start(start: Start<'_>) -> io::Result<Child> {
    let namespace = match (start.sandbox.host_pid, start.sandbox.share_pid) {
        (true, _) => PidNamespace::Machine,
        (false, true) => PidNamespace::Of(start.pause),
        (false, false) => PidNamespace::New,
    };
    process::spawn(namespace, |report| {
        let end = prepare_start(&start).and_then(|()| {
            let Start { spec, stdio, .. } = &start;
            let program = Program {
                argv: &spec.argv,
                env: environment(spec, &start.sandbox.hostname),
                spec,
                tty: spec.tty,
                stdio: stdio.as_ref(),
            };
            program.prepare(&report)
        });
        finish(end, report)
    })
}

/// Starts a command in the container whose first process is `of`.
pub(super) fn exec(
    start: Start<'_>,
    of: BorrowedFd<'_>,
    argv: &[String],
    tty: bool,
) -> io::Result<Child> {
    process::spawn(PidNamespace::Of(of), |report| {
        let end = prepare_exec(&start, of).and_then(|()| {
            let Start { spec, stdio, .. } = &start;
            let mut env = environment(spec, &start.sandbox.hostname);
            if tty && !env.iter().any(|(n, _)| n == "TERM") {
                env.push(("TERM".into(), "xterm".into()));
            }
            let program = Program {
                argv,
                env,
                spec,
                tty,
                stdio: stdio.as_ref(),
            };
            program.prepare(&report)
        });
        finish(end, report)
    })
}

/// A program that is found and may be started.
enum Ready {
    /// One of this binary's, by name: this process goes on as it.
    BuiltIn {
        name: String,
        argv: Vec<String>,
        env: Vec<(String, String)>,
    },
    /// A file.
    File {
        path: CString,
        name: String,
        argv: Vec<CString>,
        env: Vec<CString>,
    },
}

/// The last step, after which there is no way back.
fn finish(ready: Result<Ready, String>, report: Report) -> Result<i32, (Report, String)> {
    match ready {
        Err(text) => Err((report, format!("unable to start container process: {text}"))),
        Ok(Ready::File {
            path,
            name,
            argv,
            env,
        }) => {
            let Err(e): Result<Infallible, Errno> = nix::unistd::execve(&path, &argv, &env);
            let text = format!("exec {name:?}: {}", cause(e));
            Err((report, format!("unable to start container process: {text}")))
        }
        Ok(Ready::BuiltIn { name, argv, env }) => {
            process::set_title(&argv);
            process::forget_program();
            process::show_memory();
            for (variable, _) in std::env::vars_os() {
                // SAFETY: this process has one thread.
                unsafe { std::env::remove_var(variable) };
            }
            for (variable, value) in env {
                // SAFETY: as above.
                unsafe { std::env::set_var(variable, value) };
            }
            report.started();
            process::close_from(3);
            Ok(images::main(&name, argv.get(1..).unwrap_or_default()))
        }
    }
}

fn prepare_start(start: &Start<'_>) -> Result<(), String> {
    process::hide_memory();
    let step =
        |what: &str, done: nix::Result<()>| done.map_err(|e| format!("{what}: {}", cause(e)));
    step("starting a session", setsid().map(drop))?;
    cgroup::enter(start.cgroup)
        .map_err(|e| format!("entering cgroup {}: {e}", start.cgroup.display()))?;
    let adjust = start.spec.oom_score_adj.to_string();
    fs::write("/proc/self/oom_score_adj", adjust).map_err(|e| format!("oom_score_adj: {e}"))?;
    let pod = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
    step("joining the pod's namespaces", setns(start.pause, pod))?;
    let own = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWCGROUP;
    step("making the container's namespaces", unshare(own))?;
    rootfs::enter(start.spec, &start.place)
}

fn prepare_exec(start: &Start<'_>, of: BorrowedFd<'_>) -> Result<(), String> {
    process::hide_memory();
    let step =
        |what: &str, done: nix::Result<()>| done.map_err(|e| format!("{what}: {}", cause(e)));
    step("starting a session", setsid().map(drop))?;
    cgroup::enter(start.cgroup)
        .map_err(|e| format!("entering cgroup {}: {e}", start.cgroup.display()))?;
    let all = CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWCGROUP;
    step("joining the container's namespaces", setns(of, all))
}

/// What is to run, once the process is in the container's namespaces.
struct Program<'a> {
    argv: &'a [String],
    env: Vec<(String, String)>,
    spec: &'a ContainerSpec,
    tty: bool,
    stdio: Option<&'a Stdio>,
}

impl Program<'_> {
    fn prepare(self, report: &Report) -> Result<Ready, String> {
        self.streams(report)
            .map_err(|e| format!("connecting the standard streams: {e}"))?;
        limits();
        let cwd = if self.spec.cwd.as_os_str().is_empty() {
            Path::new("/")
        } else {
            &self.spec.cwd
        };
        chdir(cwd).map_err(|e| format!("chdir to cwd ({:?}): {}", cwd, cause(e)))?;
        self.become_user()?;
        let ready = self.find()?;
        process::die_with_parent();
        Ok(ready)
    }

    fn streams(&self, report: &Report) -> io::Result<()> {
        if !self.tty {
            for (number, fd) in self.stdio.into_iter().flatten().enumerate() {
                dup2(fd.as_fd(), number as i32)?;
            }
            return Ok(());
        }
        let caller = open(
            "/dev/pts/ptmx",
            OFlag::O_RDWR | OFlag::O_NOCTTY,
            Mode::empty(),
        )?;
        let unlocked: libc::c_int = 0;
        // SAFETY: TIOCSPTLCK reads one int, which lives until the call returns.
        Errno::result(unsafe {
            libc::ioctl(caller.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked)
        })?;
        // SAFETY: takes numbers only and answers a new descriptor.
        let peer = Errno::result(unsafe {
            libc::ioctl(
                caller.as_raw_fd(),
                libc::TIOCGPTPEER,
                libc::O_RDWR | libc::O_NOCTTY,
            )
        })?;
        // SAFETY: the kernel just made it for us.
        let peer = unsafe { OwnedFd::from_raw_fd(peer) };
        // SAFETY: takes numbers only.
        Errno::result(unsafe { libc::ioctl(peer.as_raw_fd(), libc::TIOCSCTTY, 0) })?;
        if let Some((uid, _)) = self.spec.user {
            nix::unistd::fchown(&peer, Some(Uid::from_raw(uid)), None)?;
        }
        for number in 0..3 {
            dup2(peer.as_fd(), number)?;
        }
        report.terminal(&caller)
    }

    /// Gives up what the container may not have.
    fn become_user(&self) -> Result<(), String> {
        let spec = self.spec;
        let set = Capabilities::of(spec.privileged, &spec.cap_add, &spec.cap_drop)?;
        let step =
            |what: &str, done: nix::Result<()>| done.map_err(|e| format!("{what}: {}", cause(e)));
        step("dropping capabilities", set.bound())?;
        let (uid, gid) = spec.user.unwrap_or((0, 0));
        let groups: Vec<Gid> = spec.groups.iter().map(|g| Gid::from_raw(*g)).collect();
        step("setting supplementary groups", setgroups(&groups))?;
        let gid = Gid::from_raw(gid);
        step("setting the group", setresgid(gid, gid, gid))?;
        let root = uid == 0;
        let uid = Uid::from_raw(uid);
        step("setting the user", setresuid(uid, uid, uid))?;
        // Another user than root lost its capabilities with the change, as in containerd.
        if root {
            step("setting capabilities", set.take())?;
        }
        if !spec.allow_privilege_escalation && !spec.privileged {
            step("setting no_new_privs", nix::sys::prctl::set_no_new_privs())?;
        }
        Ok(())
    }

    fn find(self) -> Result<Ready, String> {
        let path = self
            .env
            .iter()
            .rfind(|(n, _)| n == "PATH")
            .map_or(PATH, |(_, v)| v.as_str());
        let name = self.argv.first().ok_or("no command specified")?;
        let found = find_program(name, path)?;
        let real = fs::canonicalize(&found).unwrap_or_else(|_| found.clone());
        if let Some(built_in) = images::built_in(&real) {
            let name = built_in.to_owned();
            return Ok(Ready::BuiltIn {
                name,
                argv: self.argv.to_vec(),
                env: self.env,
            });
        }
        let text = |s: &[u8]| {
            CString::new(s).map_err(|_| format!("{:?} has a NUL byte", String::from_utf8_lossy(s)))
        };
        let argv = self
            .argv
            .iter()
            .map(|a| text(a.as_bytes()))
            .collect::<Result<_, _>>()?;
        let env = self
            .env
            .iter()
            .map(|(n, v)| text(format!("{n}={v}").as_bytes()))
            .collect::<Result<_, _>>()?;
        Ok(Ready::File {
            path: text(found.as_os_str().as_bytes())?,
            name: name.clone(),
            argv,
            env,
        })
    }
}

/// Looks a program up as a shell would, and says what is wrong in the words users of
/// Kubernetes know.
fn find_program(name: &str, path: &str) -> Result<PathBuf, String> {
    if name.contains('/') {
        let found = fs::metadata(name);
        let found = found.map_err(|e| format!("exec: {name:?}: stat {name}: {}", io_cause(&e)))?;
        if found.is_dir() {
            return Err(format!("exec: {name:?}: is a directory"));
        }
        return if executable(&found) {
            Ok(PathBuf::from(name))
        } else {
            Err(format!("exec: {name:?}: permission denied"))
        };
    }
    let mut denied = false;
    for folder in path.split(':') {
        let candidate = Path::new(if folder.is_empty() { "." } else { folder }).join(name);
        match fs::metadata(&candidate) {
            Ok(found) if found.is_file() && executable(&found) => return Ok(candidate),
            Ok(found) if found.is_file() => denied = true,
            _ => {}
        }
    }
    if denied {
        return Err(format!("exec: {name:?}: permission denied"));
    }
    let hint = images::package_of(name)
        .map(|package| {
            format!(" (programs come from this machine: install Debian's package {package:?})")
        })
        .unwrap_or_default();
    Err(format!(
        "exec: {name:?}: executable file not found in $PATH{hint}"
    ))
}

/// Whether this process may run the file. Root may wherever anybody may.
fn executable(file: &fs::Metadata) -> bool {
    let mode = file.permissions().mode();
    if Uid::effective().is_root() {
        return mode & 0o111 != 0;
    }
    if file.uid() == Uid::effective().as_raw() {
        return mode & 0o100 != 0;
    }
    let groups = nix::unistd::getgroups().unwrap_or_default();
    let member =
        file.gid() == Gid::effective().as_raw() || groups.iter().any(|g| g.as_raw() == file.gid());
    mode & if member { 0o010 } else { 0o001 } != 0
}

/// The environment with what every runtime adds.
fn environment(spec: &ContainerSpec, hostname: &str) -> Vec<(String, String)> {
    let mut env = spec.env.clone();
    let mut add = |name: &str, value: &str| {
        if !env.iter().any(|(n, _)| n == name) {
            env.push((name.to_owned(), value.to_owned()));
        }
    };
    add("PATH", PATH);
    add("HOSTNAME", hostname);
    add(
        "HOME",
        if spec.user.is_none_or(|(uid, _)| uid == 0) {
            "/root"
        } else {
            "/"
        },
    );
    if spec.tty {
        add("TERM", "xterm");
    }
    env
}

/// As many open files as the machine allows the shim, and no core files.
fn limits() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(
            Resource::RLIMIT_NOFILE,
            hard.min(1 << 20),
            hard.min(1 << 20),
        );
    }
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
}

fn dup2(fd: BorrowedFd<'_>, number: i32) -> io::Result<()> {
    // SAFETY: replaces a standard stream of this process, which uses none of its own.
    Errno::result(unsafe { libc::dup2(fd.as_raw_fd(), number) })?;
    Ok(())
}

/// The kernel's words, as Go and so Kubernetes writes them: in lower case, no number.
fn cause(e: Errno) -> String {
    e.desc().to_lowercase()
}

fn io_cause(e: &io::Error) -> String {
    e.raw_os_error()
        .map_or_else(|| e.to_string(), |n| cause(Errno::from_raw(n)))
}
