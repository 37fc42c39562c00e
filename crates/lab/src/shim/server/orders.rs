//! What clients may ask of the shim.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::sys::signal::Signal;

use super::output::Output;
use super::{Command, Container, Server, now, null, pipe};
use crate::shim::container::{self, Start, Stdio};
use crate::shim::logs::Log;
use crate::shim::process;
use crate::shim::rootfs::Place;
use crate::shim::wire::{Reply, Request};
use crate::shim::{ContainerSpec, ContainerState, ContainerStatus, ExecSpec, cgroup};

impl Server {
    pub(super) fn order(&mut self, number: u64, request: Request) {
        self.rests = false;
        let reply = match request {
            Request::State => Some(Reply::State(Box::new(self.state.clone()))),
            Request::Watch => {
                if let Some(connection) = self.connections.get_mut(&number) {
                    connection.watching = true;
                }
                Some(Reply::State(Box::new(self.state.clone())))
            }
            Request::Start(spec) => self.start_container(number, *spec),
            Request::Signal {
                container,
                signal,
                all,
            } => Some(self.signal(&container, signal, all)),
            Request::Exec(spec) => self.exec(number, &spec),
            Request::KillExec => {
                self.kill_command(number);
                None
            }
            Request::Attach { container, stdin } => {
                let (reply, fds) = self.attach(&container, stdin);
                self.answer(Some(number), &reply, fds);
                None
            }
            Request::Remove { container } => Some(self.remove(&container)),
            Request::Stop => {
                self.stop_all();
                Some(Reply::Done)
            }
        };
        if let Some(reply) = reply {
            self.answer(Some(number), &reply, Vec::new());
        }
    }

    /// Begins to start a container; answers only where that failed at once.
    fn start_container(&mut self, number: u64, spec: ContainerSpec) -> Option<Reply> {
        if self.stopping.is_some() || self.state.pause_pid == 0 {
            return Some(Reply::Failed("the sandbox has ended".into()));
        }
        if let Err(text) = check_id(&spec.id) {
            return Some(Reply::Failed(text));
        }
        if self.containers.contains_key(&spec.id) {
            return Some(Reply::Failed(format!(
                "container {:?} is there already",
                spec.id
            )));
        }
        let id = spec.id.clone();
        let status = ContainerStatus {
            state: ContainerState::Starting,
            log: spec.log.clone(),
            labels: spec.labels.clone(),
        };
        self.state.containers.insert(id.clone(), status);
        self.changed = true;
        match self.fork_container(spec) {
            Ok(mut container) => {
                container.waits = Some(number);
                self.containers.insert(id, container);
                None
            }
            Err(e) => {
                let message = format!("container {id}: {e}");
                self.set_state(
                    &id,
                    ContainerState::Failed {
                        message: message.clone(),
                        at: now(),
                    },
                );
                Some(Reply::StartFailed(message))
            }
        }
    }

    fn fork_container(&self, spec: ContainerSpec) -> io::Result<Container> {
        let dir = self.container_dir(&spec.id);
        let root = dir.join("root");
        fs::create_dir_all(&root)?;
        let shm = self.dir.join("shm");
        make_shm(&shm)?;
        let termination = self.termination_file(&spec.id);
        writable_by_all(&termination)?;
        let mut output = Output::new(Log::open(&spec.log)?);
        let folder = self.state.spec.cgroup.join(&spec.id);
        cgroup::create(&folder)?;
        let stdio = if spec.tty {
            None
        } else {
            Some(container_stdio(&spec, &mut output)?)
        };
        let child = container::start(Start {
            sandbox: &self.state.spec,
            spec: &spec,
            pause: self.pause.pidfd.as_fd(),
            cgroup: &folder,
            place: Place {
                folder: &root,
                shm: &shm,
                termination: &termination,
            },
            stdio,
        })?;
        let started = now();
        Ok(Container {
            spec,
            child: Some(child),
            started,
            waits: None,
            cgroup: folder,
            output,
        })
    }

    fn signal(&mut self, id: &str, signal: i32, all: bool) -> Reply {
        let Some(container) = self.containers.get(id) else {
            return no_container(id);
        };
        let Some(child) = &container.child else {
            return not_running(id);
        };
        let done = if all && signal == libc::SIGKILL {
            let done = cgroup::kill(&container.cgroup);
            process::kill(child);
            done
        } else {
            Signal::try_from(signal)
                .and_then(|signal| nix::sys::signal::kill(child.pid, signal))
                .map_err(io::Error::from)
        };
        match done {
            Ok(()) => Reply::Done,
            Err(e) => Reply::Failed(format!("sending signal {signal} to container {id}: {e}")),
        }
    }

    /// Begins to run a command; answers only where that failed at once.
    fn exec(&mut self, number: u64, spec: &ExecSpec) -> Option<Reply> {
        let id = &spec.container;
        let Some(container) = self.containers.get(id) else {
            return Some(no_container(id));
        };
        let (Some(child), None) = (&container.child, container.waits) else {
            return Some(not_running(id));
        };
        let started = command_stdio(spec).and_then(|(stdio, reply, fds)| {
            let dir = self.container_dir(id);
            let start = Start {
                sandbox: &self.state.spec,
                spec: &container.spec,
                pause: self.pause.pidfd.as_fd(),
                cgroup: &container.cgroup,
                place: Place {
                    folder: &dir,
                    shm: &dir,
                    termination: &dir,
                },
                stdio,
            };
            let child = container::exec(start, child.pidfd.as_fd(), &spec.argv, spec.tty)?;
            Ok((child, reply, fds))
        });
        match started {
            Ok((child, reply, fds)) => {
                let pid = child.pid.as_raw();
                let streams = Some((reply, fds));
                let command = Command {
                    child,
                    connection: Some(number),
                    streams,
                    reporting: true,
                };
                self.commands.insert(pid, command);
                if let Some(connection) = self.connections.get_mut(&number) {
                    connection.command = Some(pid);
                }
                None
            }
            Err(e) => Some(Reply::Failed(format!(
                "running a command in container {id}: {e}"
            ))),
        }
    }

    fn kill_command(&mut self, number: u64) {
        let pid = self.connections.get(&number).and_then(|c| c.command);
        if let Some(command) = pid.and_then(|pid| self.commands.get(&pid)) {
            process::kill(&command.child);
        }
    }

    fn attach(&mut self, id: &str, stdin: bool) -> (Reply, Vec<OwnedFd>) {
        let Some(container) = self.containers.get_mut(id) else {
            return (no_container(id), Vec::new());
        };
        if container.child.is_none() || container.waits.is_some() {
            return (not_running(id), Vec::new());
        }
        attach_streams(container, stdin).unwrap_or_else(|e| {
            (
                Reply::Failed(format!("attaching to container {id}: {e}")),
                Vec::new(),
            )
        })
    }

    fn remove(&mut self, id: &str) -> Reply {
        if let Some(container) = self.containers.remove(id) {
            if let Some(child) = &container.child {
                let _ = cgroup::kill(&container.cgroup);
                process::kill(child);
            }
            self.garbage.push(container.cgroup);
        }
        if self.state.containers.remove(id).is_some() {
            self.changed = true;
        }
        let dir = self.container_dir(id);
        match check_id(id).map(|()| fs::remove_dir_all(&dir)) {
            Ok(Err(e)) if e.kind() != io::ErrorKind::NotFound => {
                Reply::Failed(format!("removing {}: {e}", dir.display()))
            }
            Ok(_) => Reply::Done,
            Err(text) => Reply::Failed(text),
        }
    }
}

fn attach_streams(container: &mut Container, stdin: bool) -> io::Result<(Reply, Vec<OwnedFd>)> {
    let (stdout, stderr) = container.output.attach()?;
    let terminal = container
        .output
        .terminal
        .as_ref()
        .map(OwnedFd::try_clone)
        .transpose()?;
    let once = container.spec.stdin_once;
    let input = match (&terminal, stdin && container.spec.stdin) {
        (_, false) => None,
        (Some(terminal), true) => Some(terminal.try_clone()?),
        // The client's end is then the only one: it closes, the container's input ends.
        (None, true) if once => container.output.stdin.take(),
        (None, true) => container
            .output
            .stdin
            .as_ref()
            .map(OwnedFd::try_clone)
            .transpose()?,
    };
    let reply = Reply::Streams {
        stdin: input.is_some(),
        stdout: true,
        stderr: stderr.is_some(),
        terminal: terminal.is_some(),
    };
    let fds = [input, Some(stdout), stderr, terminal]
        .into_iter()
        .flatten()
        .collect();
    Ok((reply, fds))
}

/// The child's streams; the other ends go to the container's output.
fn container_stdio(spec: &ContainerSpec, output: &mut Output) -> io::Result<Stdio> {
    let stdin = if spec.stdin {
        let (read, write) = pipe()?;
        output.stdin = Some(write);
        read
    } else {
        null()?
    };
    let (stdout, stdout_write) = pipe()?;
    let (stderr, stderr_write) = pipe()?;
    output.read_from(stdout, stderr)?;
    Ok([stdin, stdout_write, stderr_write])
}

type CommandStdio = (Option<Stdio>, Reply, Vec<OwnedFd>);

/// The child's streams, and the client's ends of them.
fn command_stdio(spec: &ExecSpec) -> io::Result<CommandStdio> {
    if spec.tty {
        // The descriptors follow when the child has made its terminal.
        let reply = Reply::Streams {
            stdin: true,
            stdout: true,
            stderr: false,
            terminal: true,
        };
        return Ok((None, reply, Vec::new()));
    }
    let mut fds = Vec::new();
    let stdin = if spec.stdin {
        let (read, write) = pipe()?;
        fds.push(write);
        read
    } else {
        null()?
    };
    let (stdout, stdout_write) = pipe()?;
    let (stderr, stderr_write) = pipe()?;
    fds.extend([stdout, stderr]);
    let reply = Reply::Streams {
        stdin: spec.stdin,
        stdout: true,
        stderr: true,
        terminal: false,
    };
    Ok((Some([stdin, stdout_write, stderr_write]), reply, fds))
}

/// An id becomes the name of folders.
fn check_id(id: &str) -> Result<(), String> {
    let fine = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_' || c == '.';
    let reserved = ["shim", "pause"].contains(&id);
    if id.is_empty() || id.starts_with('.') || reserved || id.len() > 128 || !id.chars().all(fine) {
        return Err(format!(
            "container id {id:?}: letters, digits, '-', '_' and '.' only"
        ));
    }
    Ok(())
}

fn make_shm(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    if folder.exists() {
        return Ok(());
    }
    fs::create_dir_all(folder)?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o1777))
}

fn writable_by_all(file: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::write(file, "")?;
    fs::set_permissions(file, fs::Permissions::from_mode(0o666))
}

fn no_container(id: &str) -> Reply {
    Reply::NotFound(format!("container {id:?} is not known"))
}

fn not_running(id: &str) -> Reply {
    Reply::NotFound(format!("container {id:?} is not running"))
}
