//! What client and shim say to each other: frames of JSON with a length in front, file
//! descriptors beside them. One connection carries one request and its answers.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{self, ControlMessage, ControlMessageOwned, MsgFlags};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{ContainerSpec, ExecSpec, SandboxState};

/// The longest frame: a container's environment with every Service of a large cluster fits.
const MAX_FRAME: usize = 16 << 20;
/// Descriptors beside one frame at most.
const MAX_FDS: usize = 4;

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Request {
    /// The state, once.
    State,
    /// The state now and after each change.
    Watch,
    /// Start a container.
    Start(Box<ContainerSpec>),
    /// Signal a container's first process, or kill every process it has.
    Signal {
        container: String,
        signal: i32,
        all: bool,
    },
    /// Run a command in a container.
    Exec(ExecSpec),
    /// Kill the command this connection runs.
    KillExec,
    /// Take part in a container's standard streams.
    Attach { container: String, stdin: bool },
    /// Forget an ended container, or kill and forget a running one.
    Remove { container: String },
    /// End everything, and the shim.
    Stop,
}

/// What the shim answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Reply {
    /// The state.
    State(Box<SandboxState>),
    /// A container runs.
    Started { pid: i32 },
    /// Descriptors follow in this order: standard input, output, error, terminal.
    Streams {
        stdin: bool,
        stdout: bool,
        stderr: bool,
        terminal: bool,
    },
    /// A command ended.
    Exited { code: i32 },
    /// Done.
    Done,
    /// The program could not be started.
    StartFailed(String),
    /// No such container.
    NotFound(String),
    /// Anything else went wrong.
    Failed(String),
}

/// A message as bytes.
pub(super) fn encode<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let body = serde_json::to_vec(message)?;
    let length = u32::try_from(body.len())
        .ok()
        .filter(|n| *n as usize <= MAX_FRAME)
        .ok_or_else(|| io::Error::other(format!("message of {} bytes is too long", body.len())))?;
    let mut frame = Vec::with_capacity(body.len() + 4);
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&body);
    Ok(frame)
}

/// Bytes and descriptors as they arrive, cut into messages.
#[derive(Default)]
pub(super) struct Inbox {
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
}

impl Inbox {
    /// The next whole message.
    pub fn next<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        let Some(head) = self.bytes.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*head) as usize;
        if length > MAX_FRAME {
            return Err(io::Error::other(format!(
                "message of {length} bytes is too long"
            )));
        }
        let Some(body) = self.bytes.get(4..4 + length) else {
            return Ok(None);
        };
        let message = serde_json::from_slice(body)?;
        self.bytes.drain(..4 + length);
        Ok(Some(message))
    }

    /// The descriptors that came so far.
    pub fn take_fds(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.fds)
    }

    /// The bytes that are no message: a child's report.
    pub fn rest(self) -> Vec<u8> {
        self.bytes
    }

    /// Reads what is there; false at the end of the stream.
    pub fn fill(&mut self, socket: RawFd) -> io::Result<bool> {
        let mut chunk = [0u8; 16 << 10];
        let mut space = cmsg_space!([RawFd; MAX_FDS]);
        let mut parts = [IoSliceMut::new(&mut chunk)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
        let received = loop {
            match socket::recvmsg::<()>(socket, &mut parts, Some(&mut space), flags) {
                Err(Errno::EINTR) => {}
                other => break other?,
            }
        };
        for message in received.cmsgs()? {
            if let ControlMessageOwned::ScmRights(fds) = message {
                // SAFETY: the kernel just made these descriptors for us; nobody else owns them.
                self.fds.extend(
                    fds.into_iter()
                        .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }),
                );
            }
        }
        let count = received.bytes;
        self.bytes.extend_from_slice(&chunk[..count]);
        Ok(count > 0)
    }
}

/// Sends bytes with descriptors beside the first of them; how many bytes went.
pub(super) fn send(socket: RawFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    loop {
        match socket::sendmsg::<()>(socket, &[IoSlice::new(bytes)], control, flags, None) {
            Err(Errno::EINTR) => {}
            other => return Ok(other?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_any_cut() {
        let messages = [
            Request::Signal {
                container: "a-0".into(),
                signal: 15,
                all: false,
            },
            Request::Stop,
        ];
        let bytes: Vec<u8> = messages.iter().flat_map(|m| encode(m).unwrap()).collect();
        let mut inbox = Inbox::default();
        let mut seen = Vec::new();
        for byte in bytes {
            inbox.bytes.push(byte);
            seen.extend(inbox.next::<Request>().unwrap());
        }
        assert_eq!(seen, messages);
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused() {
        let mut inbox = Inbox {
            bytes: vec![0xff; 8],
            fds: Vec::new(),
        };
        assert!(inbox.next::<Request>().is_err());
    }
}
