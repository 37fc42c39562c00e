//! What goes wrong on the way to an upstream, in the words of `CoreDNS`'s log.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use nix::errno::Errno;

/// Why an upstream gave no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// A connection that was kept had been closed meanwhile: another one may do.
    KeptClosed,
    /// Something else, told as it is.
    Failed(String),
}

/// What was done when it went wrong.
#[derive(Clone, Copy, Debug)]
pub(super) struct Doing {
    pub what: &'static str,
    pub stream: bool,
    pub from: Option<SocketAddr>,
    pub to: SocketAddr,
}

impl fmt::Display for Doing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let network = if self.stream { "tcp" } else { "udp" };
        write!(f, "{} {network} ", self.what)?;
        if let Some(from) = self.from {
            write!(f, "{from}->")?;
        }
        write!(f, "{}", self.to)
    }
}

impl Doing {
    /// It took too long.
    pub(super) fn late(self) -> Fault {
        Fault::Failed(format!("{self}: i/o timeout"))
    }

    /// The system said no, to a call of this name.
    pub(super) fn refused(self, call: &str, error: &io::Error) -> Fault {
        Fault::Failed(match error.raw_os_error() {
            Some(code) => {
                let words = Errno::from_raw(code).desc().to_ascii_lowercase();
                format!("{self}: {call}: {words}")
            }
            None if error.kind() == io::ErrorKind::UnexpectedEof => "EOF".to_owned(),
            None => format!("{self}: {error}"),
        })
    }
}

/// Whether the other side had closed the connection.
pub(super) fn is_closed(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected};
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof
            | BrokenPipe
            | ConnectionReset
            | ConnectionAborted
            | NotConnected
    )
}
