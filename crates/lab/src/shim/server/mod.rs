//! The shim process: one thread, one loop over poll(2), so that it may fork at any time.
//!
//! ```text
//! client ──request──▶ Server ──fork──▶ pause, containers, commands
//!        ◀──reply────        ◀─report─ (until the program runs)
//!                            ◀─exit─── (SIGCHLD)
//!                            ◀─output─ (pipes, terminal) ──▶ log, attached clients
//! ```

mod children;
mod connection;
mod orders;
mod output;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::stat::{Mode, umask};
use nix::unistd::setsid;

use self::connection::Connection;
use self::output::Output;
use super::process::{self, Child, Heard};
use super::wire::Reply;
use super::{
    ContainerSpec, ContainerState, SOCKET, SPEC, STATE, SandboxSpec, SandboxState, cgroup, pause,
};

/// Clients at a time at most.
const MAX_CONNECTIONS: usize = 256;
/// How long a stop waits for killed processes to be gone.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// `flatnet lab shim DIR`: serves the pod of that folder until it is stopped. To be
/// called before any thread is started: everything in the pod is a fork of this process.
pub fn main(dir: &Path) -> i32 {
    let done = Server::start(dir);
    let mut stdout = io::stdout();
    match done {
        Ok(mut server) => {
            let said = writeln!(stdout, "ready {}", server.state.pause_pid);
            if said
                .and_then(|()| stdout.flush())
                .and_then(|()| forget_stdout())
                .is_err()
            {
                // Nobody waits for this pod any more.
                server.stop_all();
                return 1;
            }
            server.run();
            0
        }
        Err(text) => {
            let _ = writeln!(stdout, "{text}");
            1
        }
    }
}

fn forget_stdout() -> io::Result<()> {
    let null = fs::OpenOptions::new().write(true).open("/dev/null")?;
    // SAFETY: replaces this process's standard output by another open file.
    Errno::result(unsafe { libc::dup2(null.as_raw_fd(), 1) })?;
    Ok(())
}

/// A container's processes and streams. Its place in the state says how it stands.
struct Container {
    spec: ContainerSpec,
    child: Option<Child>,
    started: i64,
    /// The client that waits for its start.
    waits: Option<u64>,
    cgroup: PathBuf,
    output: Output,
}

/// A command in a container.
struct Command {
    child: Child,
    connection: Option<u64>,
    /// What the client gets when it runs: descriptors, and which they are.
    streams: Option<(Reply, Vec<OwnedFd>)>,
    reporting: bool,
}

/// The pod.
struct Server {
    dir: PathBuf,
    state: SandboxState,
    changed: bool,
    pause: Child,
    listener: UnixListener,
    signals: SignalFd,
    connections: BTreeMap<u64, Connection>,
    last_connection: u64,
    containers: BTreeMap<String, Container>,
    commands: BTreeMap<i32, Command>,
    /// Cgroup folders whose last process is not quite gone.
    garbage: Vec<PathBuf>,
    /// Since when the pod is being stopped.
    stopping: Option<Instant>,
    /// Nothing was asked since memory was given back.
    rests: bool,
}

impl Server {
    fn start(dir: &Path) -> Result<Self, String> {
        let at = |what: String| move |e: io::Error| format!("{what}: {e}");
        let text = fs::read(dir.join(SPEC)).map_err(at(format!("reading {SPEC}")))?;
        let spec: SandboxSpec =
            serde_json::from_slice(&text).map_err(|e| format!("reading {SPEC}: {e}"))?;
        own_process(dir).map_err(at("becoming a process of its own".into()))?;
        let [own, pause_group] = ["shim", "pause"].map(|n| spec.cgroup.join(n));
        for folder in [&own, &pause_group] {
            cgroup::create(folder).map_err(at(format!("making cgroup {}", folder.display())))?;
        }
        cgroup::enter(&own).map_err(at(format!("entering cgroup {}", own.display())))?;
        let listener = listen(dir).map_err(at(format!("listening on {SOCKET}")))?;
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGCHLD);
        mask.add(Signal::SIGTERM);
        let signals = mask
            .thread_block()
            .and_then(|()| {
                SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            })
            .map_err(|e| format!("waiting for signals: {e}"))?;
        let pause =
            pause::spawn(&spec, &pause_group).map_err(at("starting the pause process".into()))?;
        wait_for_pause(&pause)?;
        let state = SandboxState {
            shim_pid: std::process::id().cast_signed(),
            pause_pid: pause.pid.as_raw(),
            spec,
            started: now(),
            containers: BTreeMap::new(),
        };
        let server = Self {
            dir: dir.to_owned(),
            state,
            changed: false,
            pause,
            listener,
            signals,
            connections: BTreeMap::new(),
            last_connection: 0,
            containers: BTreeMap::new(),
            commands: BTreeMap::new(),
            garbage: Vec::new(),
            stopping: None,
            rests: false,
        };
        server
            .write_state()
            .map_err(at(format!("writing {STATE}")))?;
        Ok(server)
    }

    fn run(&mut self) {
        loop {
            let wait = self.timeout();
            let ready = self.poll(wait);
            if ready.is_empty() && !self.rests {
                self.rests = true;
                process::forget_program();
            }
            self.read_signals();
            self.hear_children();
            for container in self.containers.values_mut() {
                container.output.pump();
            }
            self.reap();
            self.serve(&ready);
            self.sweep();
            if self
                .stopping
                .is_some_and(|since| self.is_empty() || since.elapsed() > STOP_PATIENCE)
            {
                return;
            }
            if std::mem::take(&mut self.changed) {
                self.publish();
            }
        }
    }

    /// Milliseconds until something has to be looked at again; -1 is never.
    fn timeout(&self) -> i32 {
        let soon = !self.garbage.is_empty() || self.stopping.is_some();
        let later = self.containers.values().any(|c| c.output.impatient());
        match (soon, later || !self.rests) {
            (true, _) => 5,
            (_, true) => 1000,
            _ => -1,
        }
    }

    /// Waits; answers the descriptors that something happened on.
    fn poll(&self, wait: i32) -> Vec<RawFd> {
        let mut interests = vec![
            (self.listener.as_raw_fd(), libc::POLLIN),
            (self.signals.as_raw_fd(), libc::POLLIN),
        ];
        for connection in self.connections.values() {
            let out = if connection.busy() { libc::POLLOUT } else { 0 };
            interests.push((connection.socket.as_raw_fd(), libc::POLLIN | out));
        }
        for container in self.containers.values() {
            container.output.interests(&mut interests);
            if let Some(child) = container
                .child
                .as_ref()
                .filter(|_| container.waits.is_some())
            {
                interests.push((child.report.as_raw_fd(), libc::POLLIN));
            }
        }
        let reporting = self.commands.values().filter(|c| c.reporting);
        interests.extend(reporting.map(|c| (c.child.report.as_raw_fd(), libc::POLLIN)));
        let mut entries: Vec<libc::pollfd> = interests
            .into_iter()
            .map(|(fd, events)| libc::pollfd {
                fd,
                events,
                revents: 0,
            })
            .collect();
        let count = entries.len() as libc::nfds_t;
        // SAFETY: `entries` has `count` records and lives until the call returns.
        unsafe { libc::poll(entries.as_mut_ptr(), count, wait) };
        entries
            .iter()
            .filter(|e| e.revents != 0)
            .map(|e| e.fd)
            .collect()
    }

    fn read_signals(&mut self) {
        while let Ok(Some(info)) = self.signals.read_signal() {
            if info.ssi_signo == Signal::SIGTERM as u32 {
                self.stop_all();
            }
        }
    }

    /// Accepts clients and does what they ask.
    fn serve(&mut self, ready: &[RawFd]) {
        if ready.contains(&self.listener.as_raw_fd()) {
            while let Ok((socket, _)) = self.listener.accept() {
                if self.connections.len() < MAX_CONNECTIONS {
                    self.last_connection += 1;
                    self.connections
                        .insert(self.last_connection, Connection::new(socket.into()));
                }
            }
        }
        // New clients as well: what they ask is there already as a rule.
        let all: Vec<u64> = self.connections.keys().copied().collect();
        for number in all {
            let Some(connection) = self.connections.get_mut(&number) else {
                continue;
            };
            match connection.flush() {
                Ok(false) => {}
                Ok(true) => {
                    let _ = connection.show(&self.state);
                }
                Err(_) => {
                    self.disconnected(number);
                    continue;
                }
            }
            match connection.requests() {
                Ok(requests) => {
                    for request in requests {
                        self.order(number, request);
                    }
                }
                Err(_) => self.disconnected(number),
            }
        }
    }

    fn disconnected(&mut self, number: u64) {
        self.connections.remove(&number);
        for command in self
            .commands
            .values_mut()
            .filter(|c| c.connection == Some(number))
        {
            command.connection = None;
        }
    }

    fn answer(&mut self, connection: Option<u64>, reply: &Reply, fds: Vec<OwnedFd>) {
        let Some(number) = connection else { return };
        let Some(connection) = self.connections.get_mut(&number) else {
            return;
        };
        if connection.reply(reply, fds).is_err() {
            self.disconnected(number);
        }
    }

    fn set_state(&mut self, id: &str, state: ContainerState) {
        if let Some(container) = self.state.containers.get_mut(id) {
            container.state = state;
            self.changed = true;
        }
    }

    fn publish(&mut self) {
        if let Err(e) = self.write_state() {
            eprintln!("writing {STATE}: {e}");
        }
        let watchers: Vec<u64> = self
            .connections
            .iter()
            .filter(|(_, c)| c.watching)
            .map(|(n, _)| *n)
            .collect();
        for number in watchers {
            let Some(connection) = self.connections.get_mut(&number) else {
                continue;
            };
            if connection.show(&self.state).is_err() {
                self.disconnected(number);
            }
        }
    }

    fn write_state(&self) -> io::Result<()> {
        let temporary = self.dir.join(format!("{STATE}.new"));
        fs::write(&temporary, serde_json::to_vec(&self.state)?)?;
        fs::rename(temporary, self.dir.join(STATE))
    }

    /// Removes what has become empty.
    fn sweep(&mut self) {
        self.garbage
            .retain(|folder| !cgroup::remove(folder).unwrap_or(true));
        for container in self.containers.values_mut().filter(|c| c.child.is_none()) {
            container.output.drain_taps();
        }
    }

    /// Kills every process of the pod but this one.
    fn stop_all(&mut self) {
        self.stopping.get_or_insert_with(Instant::now);
        let folders = self.containers.values().map(|c| c.cgroup.clone());
        let pause = self.state.spec.cgroup.join("pause");
        for folder in folders.chain([pause]) {
            if let Err(e) = cgroup::kill(&folder) {
                eprintln!("killing {}: {e}", folder.display());
            }
        }
        let children = self.containers.values().filter_map(|c| c.child.as_ref());
        let commands = self.commands.values().map(|c| &c.child);
        for child in children.chain(commands).chain([&self.pause]) {
            process::kill(child);
        }
    }

    /// True when no process of the pod but this one is left.
    fn is_empty(&self) -> bool {
        let running = self.containers.values().any(|c| c.child.is_some());
        self.state.pause_pid == 0 && !running && self.commands.is_empty()
    }

    fn container_dir(&self, id: &str) -> PathBuf {
        self.dir.join("containers").join(id)
    }

    fn termination_file(&self, id: &str) -> PathBuf {
        self.container_dir(id).join("termination")
    }
}

/// Leaves the caller's session and streams; errors go to a file in the pod's folder.
fn own_process(dir: &Path) -> io::Result<()> {
    setsid()?;
    umask(Mode::from_bits_truncate(0o022));
    // SAFETY: ignoring a signal runs no code of ours; children get the default back.
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigIgn) }?;
    let file = fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(dir.join("shim.log"))?;
    // SAFETY: replaces this process's standard error by another open file.
    Errno::result(unsafe { libc::dup2(file.as_raw_fd(), 2) })?;
    drop(file);
    process::close_from(3);
    Ok(())
}

/// A socket in the folder, by the folder's descriptor: a path may have 107 bytes only.
fn listen(dir: &Path) -> io::Result<UnixListener> {
    let folder = fs::File::open(dir)?;
    let path = format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd());
    if UnixStream::connect(&path).is_ok() {
        return Err(io::Error::other("the pod has a shim already"));
    }
    match fs::remove_file(dir.join(SOCKET)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn wait_for_pause(pause: &Child) -> Result<(), String> {
    let mut entry = libc::pollfd {
        fd: pause.report.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one pollfd, which lives until the call returns.
    match unsafe { libc::poll(&raw mut entry, 1, 10_000) } {
        1 => {}
        _ => return Err("the pause process did not start within 10 s".into()),
    }
    match process::hear(&pause.report) {
        Heard::Started => Ok(()),
        Heard::Error(text) => Err(text),
        Heard::Nothing | Heard::Terminal(_) => Err("the pause process reported nonsense".into()),
    }
}

/// The beginning of a file, as text.
fn first_of(path: &Path) -> String {
    use std::io::Read;
    let mut text = Vec::new();
    if let Ok(file) = fs::File::open(path) {
        let _ = file.take(4096).read_to_end(&mut text);
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// Milliseconds since the epoch.
fn now() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// A pipe whose ends close on exec: to read, to write.
fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?)
}

/// /dev/null, to read.
fn null() -> io::Result<OwnedFd> {
    Ok(nix::fcntl::open(
        "/dev/null",
        nix::fcntl::OFlag::O_CLOEXEC,
        Mode::empty(),
    )?)
}
