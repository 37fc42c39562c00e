//! The kubelet's side of a shim.

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;

use super::wire::{self, Inbox, Reply, Request};
use super::{
    ContainerSpec, Error, ExecSpec, SOCKET, SPEC, STATE, SandboxSpec, SandboxState, Stream,
    Terminal, cgroup, read_state,
};

/// A running sandbox. Cheap to clone; each call is a connection of its own.
#[derive(Clone, Debug)]
pub struct Sandbox {
    dir: PathBuf,
    shim_pid: i32,
    pause_pid: i32,
}

impl Sandbox {
    /// Starts a shim in the pod's folder `dir` (which exists) and waits until its pause
    /// process holds the namespaces. `program` is the flatnet binary. The shim stays in
    /// the caller's network namespace, and in a session and a cgroup of its own. After an
    /// error, [`stop`] clears away what there is.
    pub async fn start(program: &Path, dir: &Path, spec: &SandboxSpec) -> Result<Self, Error> {
        write_spec(dir, spec)
            .map_err(|e| Error::io(format!("writing {}", dir.join(SPEC).display()), e))?;
        let what = || format!("starting the shim of pod {}", spec.uid);
        let mut child = tokio::process::Command::new(program)
            .args(["lab", "shim"])
            .arg(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .current_dir("/")
            .env_clear()
            .spawn()
            .map_err(|e| Error::io(what(), e))?;
        // The shim says one line, the pause process's id or what went wrong, and closes.
        let mut said = String::new();
        if let Some(stdout) = child.stdout.take() {
            let mut limited = stdout.take(64 << 10);
            limited
                .read_to_string(&mut said)
                .await
                .map_err(|e| Error::io(what(), e))?;
        }
        if let Some(pid) = said
            .strip_prefix("ready ")
            .and_then(|n| n.trim().parse().ok())
        {
            let shim_pid = child
                .id()
                .and_then(|n| i32::try_from(n).ok())
                .unwrap_or_default();
            return Ok(Self {
                dir: dir.to_owned(),
                shim_pid,
                pause_pid: pid,
            });
        }
        let status = child.wait().await.map_err(|e| Error::io(what(), e))?;
        let cause = if said.trim().is_empty() {
            status.to_string()
        } else {
            said.trim().into()
        };
        Err(Error::io(what(), std::io::Error::other(cause)))
    }

    /// Finds the sandbox of a pod's folder again. [`Error::Gone`] where no shim answers.
    pub async fn connect(dir: &Path) -> Result<(Self, SandboxState), Error> {
        let mut call = Call::open(dir, &Request::State).await?;
        let state = call.state().await?;
        let sandbox = Self {
            dir: dir.to_owned(),
            shim_pid: state.shim_pid,
            pause_pid: state.pause_pid,
        };
        Ok((sandbox, state))
    }

    /// The pod's folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The pause process.
    pub fn pause_pid(&self) -> i32 {
        self.pause_pid
    }

    /// The shim process.
    pub fn shim_pid(&self) -> i32 {
        self.shim_pid
    }

    /// The pod's network namespace, for CNI.
    pub fn netns(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.pause_pid))
    }

    /// The state now.
    pub async fn state(&self) -> Result<SandboxState, Error> {
        Call::open(&self.dir, &Request::State).await?.state().await
    }

    /// The state now and after each change.
    pub async fn watch(&self) -> Result<Watch, Error> {
        Ok(Watch(Call::open(&self.dir, &Request::Watch).await?))
    }

    /// Starts a container and answers its process id once its program runs.
    /// [`Error::Start`] carries the text for the user.
    pub async fn start_container(&self, spec: &ContainerSpec) -> Result<i32, Error> {
        let request = Request::Start(Box::new(spec.clone()));
        let mut call = Call::open(&self.dir, &request).await?;
        match call.reply().await? {
            Reply::Started { pid } => Ok(pid),
            other => Err(call.unexpected(other)),
        }
    }

    /// Signals a container's first process.
    pub async fn signal(&self, container: &str, signal: i32) -> Result<(), Error> {
        self.done(&Request::Signal {
            container: container.into(),
            signal,
            all: false,
        })
        .await
    }

    /// Kills every process of a container.
    pub async fn kill(&self, container: &str) -> Result<(), Error> {
        let container = container.into();
        self.done(&Request::Signal {
            container,
            signal: libc::SIGKILL,
            all: true,
        })
        .await
    }

    /// Forgets a container, killing it where it still runs. Its log stays. Not an error
    /// where there is none of that id.
    pub async fn remove(&self, container: &str) -> Result<(), Error> {
        self.done(&Request::Remove {
            container: container.into(),
        })
        .await
    }

    /// Runs a command in a container.
    pub async fn exec(&self, spec: &ExecSpec) -> Result<Exec, Error> {
        let mut call = Call::open(&self.dir, &Request::Exec(spec.clone())).await?;
        let io = call.streams(spec.stdin).await?;
        Ok(Exec {
            io,
            handle: ExecHandle(call),
        })
    }

    /// Runs a command to its end, for probes and hooks; its output is kept up to 64 KiB a
    /// stream. After `timeout` the command is killed and the answer is [`Error::Timeout`].
    pub async fn exec_sync(
        &self,
        container: &str,
        argv: &[String],
        timeout: Duration,
    ) -> Result<ExecOutput, Error> {
        let spec = ExecSpec {
            container: container.into(),
            argv: argv.to_vec(),
            ..Default::default()
        };
        let Exec { io, mut handle } = self.exec(&spec).await?;
        let run = async {
            let (code, stdout, stderr) =
                tokio::join!(handle.wait(), keep(io.stdout), keep(io.stderr));
            Ok(ExecOutput {
                code: code?,
                stdout,
                stderr,
            })
        };
        match tokio::time::timeout(timeout, run).await {
            Ok(done) => done,
            Err(_) => {
                handle.kill().await?;
                Err(Error::Timeout(timeout))
            }
        }
    }

    /// Takes part in a running container's streams, from now on.
    pub async fn attach(&self, container: &str, stdin: bool) -> Result<Streams, Error> {
        let request = Request::Attach {
            container: container.into(),
            stdin,
        };
        Call::open(&self.dir, &request).await?.streams(stdin).await
    }

    /// Ends every process of the pod and the shim, and removes the cgroups. Not an error
    /// where that has happened before, nor where the shim was killed.
    pub async fn stop(&self) -> Result<(), Error> {
        stop(&self.dir).await
    }

    async fn done(&self, request: &Request) -> Result<(), Error> {
        let mut call = Call::open(&self.dir, request).await?;
        match call.reply().await? {
            Reply::Done => Ok(()),
            other => Err(call.unexpected(other)),
        }
    }
}

/// Ends the sandbox of a pod's folder, whether its shim still runs or not: every process,
/// every cgroup, socket and state file. Calling it again is not an error.
pub async fn stop(dir: &Path) -> Result<(), Error> {
    match Call::open(dir, &Request::Stop).await {
        Ok(mut call) => match call.reply().await {
            // Wait for the end of the connection: the shim itself has ended then.
            Ok(Reply::Done) => while call.reply().await.is_ok() {},
            Ok(other) => return Err(call.unexpected(other)),
            Err(Error::Gone(_)) => {}
            Err(e) => return Err(e),
        },
        Err(Error::Gone(_)) => {}
        Err(e) => return Err(e),
    }
    let spec = std::fs::read(dir.join(SPEC)).ok();
    let spec = spec.and_then(|text| serde_json::from_slice::<SandboxSpec>(&text).ok());
    let folder = spec
        .map(|s| s.cgroup)
        .or_else(|| read_state(dir).map(|s| s.spec.cgroup));
    if let Some(folder) = folder {
        cgroup::destroy(&folder)
            .await
            .map_err(|e| Error::io(format!("removing cgroup {}", folder.display()), e))?;
    }
    for file in [SOCKET, STATE, SPEC] {
        match std::fs::remove_file(dir.join(file)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io(
                    format!("removing {}", dir.join(file).display()),
                    e,
                ));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Changes of a sandbox, as they happen.
pub struct Watch(Call);

impl Watch {
    /// The next state; the first answer is the state now. Changes in between may be
    /// folded into one. [`Error::Gone`] when the shim has ended. Cancel safe.
    pub async fn next(&mut self) -> Result<SandboxState, Error> {
        self.0.state().await
    }
}

/// The streams of a command or a container.
#[derive(Debug)]
pub struct Streams {
    /// To its standard input; dropping it closes that.
    pub stdin: Option<Stream>,
    /// From its standard output, and error where there is a terminal.
    pub stdout: Option<Stream>,
    /// From its standard error.
    pub stderr: Option<Stream>,
    /// Its terminal, where it has one.
    pub terminal: Option<Terminal>,
}

/// A command running in a container. It goes on when this is dropped, without its streams.
pub struct Exec {
    /// Its streams.
    pub io: Streams,
    /// Its end.
    pub handle: ExecHandle,
}

/// Waits for the end of a command.
pub struct ExecHandle(Call);

impl ExecHandle {
    /// The exit code; 128 + signal where a signal ended it. Cancel safe.
    pub async fn wait(&mut self) -> Result<i32, Error> {
        match self.0.reply().await? {
            Reply::Exited { code } => Ok(code),
            other => Err(self.0.unexpected(other)),
        }
    }

    /// Kills the command and what it started in its session.
    pub async fn kill(&mut self) -> Result<(), Error> {
        self.0.send(&Request::KillExec).await
    }
}

/// What a command did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecOutput {
    /// Exit code.
    pub code: i32,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}

/// Reads to the end and keeps the beginning.
async fn keep(stream: Option<Stream>) -> Vec<u8> {
    const KEPT: usize = 64 << 10;
    let mut kept = Vec::new();
    let mut chunk = [0u8; 8 << 10];
    let Some(mut stream) = stream else {
        return kept;
    };
    while let Ok(count @ 1..) = stream.read(&mut chunk).await {
        let room = KEPT.saturating_sub(kept.len());
        kept.extend_from_slice(&chunk[..count.min(room)]);
    }
    kept
}

fn write_spec(dir: &Path, spec: &SandboxSpec) -> std::io::Result<()> {
    let temporary = dir.join(format!("{SPEC}.new"));
    let mut options = std::fs::OpenOptions::new();
    let file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    serde_json::to_writer(file, spec)?;
    std::fs::rename(temporary, dir.join(SPEC))
}

/// One connection: a request and its answers.
struct Call {
    dir: PathBuf,
    socket: UnixStream,
    inbox: Inbox,
}

impl Call {
    async fn open(dir: &Path, request: &Request) -> Result<Self, Error> {
        // Through the folder's descriptor: a socket's path may have 107 bytes only, which a
        // pod's folder with a long cluster name passes.
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let gone = || Error::Gone(dir.to_owned());
        let folder = nix::fcntl::open(dir, flags, Mode::empty()).map_err(|_| gone())?;
        let path = format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd());
        let socket = UnixStream::connect(path).await.map_err(|_| gone())?;
        let mut call = Self {
            dir: dir.to_owned(),
            socket,
            inbox: Inbox::default(),
        };
        call.send(request).await?;
        Ok(call)
    }

    async fn send(&mut self, request: &Request) -> Result<(), Error> {
        let frame = wire::encode(request).map_err(|e| Error::io("asking the pod's shim", e))?;
        self.socket
            .write_all(&frame)
            .await
            .map_err(|_| Error::Gone(self.dir.clone()))
    }

    async fn reply(&mut self) -> Result<Reply, Error> {
        let what = "reading the shim's answer";
        loop {
            if let Some(reply) = self.inbox.next().map_err(|e| Error::io(what, e))? {
                return Ok(reply);
            }
            let (socket, inbox) = (&self.socket, &mut self.inbox);
            let more = socket
                .async_io(Interest::READABLE, || inbox.fill(socket.as_raw_fd()))
                .await;
            match more {
                Ok(true) => {}
                Ok(false) => return Err(Error::Gone(self.dir.clone())),
                Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => {
                    return Err(Error::Gone(self.dir.clone()));
                }
                Err(e) => return Err(Error::io(what, e)),
            }
        }
    }

    async fn state(&mut self) -> Result<SandboxState, Error> {
        match self.reply().await? {
            Reply::State(state) => Ok(*state),
            other => Err(self.unexpected(other)),
        }
    }

    async fn streams(&mut self, stdin_wanted: bool) -> Result<Streams, Error> {
        let reply = self.reply().await?;
        let Reply::Streams {
            stdin,
            stdout,
            stderr,
            terminal,
        } = reply
        else {
            return Err(self.unexpected(reply));
        };
        let mut fds = self.inbox.take_fds().into_iter();
        let mut take = |there: bool| if there { fds.next() } else { None };
        let (stdin, stdout, stderr, terminal) =
            (take(stdin), take(stdout), take(stderr), take(terminal));
        let stream = |fd: Option<OwnedFd>| fd.map(Stream::new).transpose();
        let io = || -> std::io::Result<Streams> {
            let stdin = if stdin_wanted { stdin } else { None };
            Ok(Streams {
                stdin: stream(stdin)?,
                stdout: stream(stdout)?,
                stderr: stream(stderr)?,
                terminal: terminal.map(Terminal),
            })
        };
        io().map_err(|e| Error::io("taking over the container's streams", e))
    }

    fn unexpected(&self, reply: Reply) -> Error {
        match reply {
            Reply::StartFailed(text) => Error::Start(text),
            Reply::NotFound(text) => Error::NotFound(text),
            Reply::Failed(text) => Error::io("the pod's shim", std::io::Error::other(text)),
            other => {
                let text = format!("unexpected answer {other:?}");
                Error::io("the pod's shim", std::io::Error::other(text))
            }
        }
    }
}
