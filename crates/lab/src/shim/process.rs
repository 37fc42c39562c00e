//! Forks of the shim: into a PID namespace, with a channel on which the child reports
//! until its program runs.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::panic::AssertUnwindSafe;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::{ForkResult, Pid, fork};

use super::wire::{self, Inbox};

/// The PID namespace a child is to live in.
#[derive(Clone, Copy)]
pub(super) enum PidNamespace<'a> {
    /// The machine's.
    Machine,
    /// One of its own, as its first process.
    New,
    /// That of a process.
    Of(BorrowedFd<'a>),
}

/// The child's end of the report channel. It closes by itself when the program starts.
pub(super) struct Report(OwnedFd);

/// What the parent hears.
pub(super) enum Heard {
    /// Nothing yet.
    Nothing,
    /// The caller's side of the child's terminal.
    Terminal(OwnedFd),
    /// The child could not start its program.
    Error(String),
    /// The program runs (or the child is dead: the parent will see that too).
    Started,
}

impl Report {
    /// Sends the caller's side of the terminal.
    pub fn terminal(&self, fd: &OwnedFd) -> io::Result<()> {
        wire::send(self.0.as_raw_fd(), b"T", &[fd.as_fd()])?;
        Ok(())
    }

    fn error(&self, text: &str) {
        let mut message = vec![b'E'];
        message.extend_from_slice(&text.as_bytes()[..text.len().min(4096)]);
        // Nobody is left to tell where the shim has gone.
        let _ = wire::send(self.0.as_raw_fd(), &message, &[]);
    }

    /// For a program that is part of this binary: it starts now.
    pub fn started(self) {}
}

/// Reads what a child reports. One message a call.
pub(super) fn hear(channel: &OwnedFd) -> Heard {
    let mut inbox = Inbox::default();
    match inbox.fill(channel.as_raw_fd()) {
        Ok(true) => {}
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Heard::Nothing,
        Ok(false) | Err(_) => return Heard::Started,
    }
    if let Some(fd) = inbox.take_fds().pop() {
        return Heard::Terminal(fd);
    }
    let text = inbox.rest();
    match text.split_first() {
        Some((b'E', text)) => Heard::Error(String::from_utf8_lossy(text).into_owned()),
        _ => Heard::Started,
    }
}

/// A started child.
pub(super) struct Child {
    pub pid: Pid,
    pub pidfd: OwnedFd,
    pub report: OwnedFd,
}

/// Forks. The child is killed when the shim ends, has no signal blocked or handled, and
/// runs `body`, whose error it reports before it ends with 128.
pub(super) fn spawn(
    namespace: PidNamespace<'_>,
    body: impl FnOnce(Report) -> Result<i32, (Report, String)>,
) -> io::Result<Child> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
    let own = std::fs::File::open("/proc/self/ns/pid")?;
    match namespace {
        PidNamespace::Machine => {}
        PidNamespace::New => unshare(CloneFlags::CLONE_NEWPID)?,
        PidNamespace::Of(process) => setns(process, CloneFlags::CLONE_NEWPID)?,
    }
    // SAFETY: the shim has one thread, so the child may do anything its parent could.
    let forked = unsafe { fork() };
    if !matches!(namespace, PidNamespace::Machine) && !matches!(forked, Ok(ForkResult::Child)) {
        setns(&own, CloneFlags::CLONE_NEWPID)?;
    }
    match forked? {
        ForkResult::Parent { child } => {
            drop(theirs);
            Ok(Child {
                pid: child,
                pidfd: pidfd_open(child)?,
                report: ours,
            })
        }
        ForkResult::Child => {
            drop(ours);
            let run = AssertUnwindSafe(|| {
                die_with_parent();
                reset_signals();
                body(Report(theirs))
            });
            let code = match std::panic::catch_unwind(run) {
                Ok(Ok(code)) => code,
                Ok(Err((report, text))) => {
                    report.error(&text);
                    128
                }
                Err(_) => 128,
            };
            // SAFETY: ends this process without running its parent's exit handlers.
            unsafe { libc::_exit(code) }
        }
    }
}

fn pidfd_open(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: takes numbers only, answers a new descriptor or -1.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    let fd = Errno::result(fd)?;
    // SAFETY: the kernel just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Kills a child and what shares its session.
pub(super) fn kill(child: &Child) {
    use nix::sys::signal::{kill, killpg};
    let _ = killpg(child.pid, Signal::SIGKILL);
    let _ = kill(child.pid, Signal::SIGKILL);
}

/// The kernel kills this process when the shim ends. Changing user clears that, so it is
/// asked for again afterwards.
pub(super) fn die_with_parent() {
    // SAFETY: takes numbers only.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
}

/// Keeps other processes of the container from reading this one's memory, which is a copy
/// of the shim's, until a program replaces it.
pub(super) fn hide_memory() {
    // SAFETY: takes numbers only.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0) };
}

/// For a program that is part of this binary: others of the container see it as they see
/// any program, `ss -p` its sockets.
pub(super) fn show_memory() {
    // SAFETY: takes numbers only.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1) };
}

fn reset_signals() {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    for signal in Signal::iterator() {
        // SAFETY: the default disposition runs no code of ours. KILL and STOP refuse.
        let _ = unsafe { sigaction(signal, &default) };
    }
    let _ = SigSet::empty().thread_set_mask();
}

/// Closes every descriptor from `first` on.
pub(super) fn close_from(first: u32) {
    // SAFETY: only called in a child that uses none of them any more.
    unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
}

/// Shows `argv` as this process's command line, in the place of the shim's own.
pub(super) fn set_title(argv: &[String]) {
    let base = argv.first().map_or("", String::as_str);
    let base = base.rsplit('/').next().unwrap_or(base);
    if let Ok(name) = CString::new(base) {
        set_name(&name);
    }
    let Ok(stat) = std::fs::read_to_string("/proc/self/stat") else {
        return;
    };
    // Fields are counted from 1; the second, in parentheses, may hold blanks.
    let Some((_, after)) = stat.rsplit_once(") ") else {
        return;
    };
    let field = |n: usize| {
        after
            .split(' ')
            .nth(n - 3)
            .and_then(|v| v.parse::<usize>().ok())
    };
    let (Some(start), Some(end)) = (field(48), field(49)) else {
        return;
    };
    if start == 0 || end < start + 3 {
        return;
    }
    let write = |separator: &str, last: u8| {
        let mut text = argv.join(separator).into_bytes();
        text.truncate(end - start - 2);
        text.push(0);
        // SAFETY: start..end is this process's argument area as the kernel reports it,
        // writable stack memory that nothing reads any more: arguments were copied at the
        // shim's start. `text` is shorter than the area.
        unsafe {
            std::ptr::copy_nonoverlapping(text.as_ptr(), start as *mut u8, text.len());
            std::ptr::write((end - 1) as *mut u8, last);
        }
        start + text.len()
    };
    let shown = write("\0", 0);
    // SAFETY: takes numbers only.
    let done = unsafe { libc::prctl(libc::PR_SET_MM, libc::PR_SET_MM_ARG_END, shown, 0, 0) };
    if done != 0 {
        // Without CAP_SYS_RESOURCE: where the area's last byte is not zero, the kernel shows
        // it up to its first zero. Blanks part the arguments then.
        write(" ", b'.');
    }
}

/// Gives back the pages of this program's files that starting it has touched: a shim and
/// its pause process then do nearly nothing, a thousand times on one machine. What they
/// need comes back from the page cache.
pub(super) fn forget_program() {
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else {
        return;
    };
    let mut done_with = "";
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (Some(range), Some(rights), Some(file)) = (words.next(), words.next(), words.nth(3))
        else {
            continue;
        };
        // What lies below a file's code and the code itself were never written; data above
        // it that is read-only now was, by the loader, and would be lost.
        if !file.starts_with('/') || file == done_with {
            continue;
        }
        let ends = range.split_once('-').map(|(from, to)| {
            (
                usize::from_str_radix(from, 16),
                usize::from_str_radix(to, 16),
            )
        });
        if let (Some((Ok(from), Ok(to))), true) = (ends, rights.starts_with("r-")) {
            // SAFETY: the range is a mapping of an unchanged file: reading it again gives
            // the same bytes.
            unsafe { libc::madvise(from as *mut libc::c_void, to - from, libc::MADV_DONTNEED) };
        }
        if rights.contains('x') {
            done_with = file;
        }
    }
}

fn set_name(name: &CStr) {
    // SAFETY: reads the string up to its end or 16 bytes.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}
