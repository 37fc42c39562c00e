//! `file` and `transfer`: whole zones.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::corefile::Zone;

/// Zones out of master files.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct File {
    /// The files.
    pub files: Vec<ZoneFile>,
    /// Zones in which the next plugin is asked for a name that is not here; empty is none.
    pub fallthrough: Vec<Zone>,
}

/// A master file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZoneFile {
    /// The file; it need not be there from the start unless `reload` is zero.
    pub path: String,
    /// The zones it is read for.
    pub zones: Vec<Zone>,
    /// How often it is looked at; zero is never again.
    pub reload: Duration,
    /// It is read again when its time of change differs; else when the SOA's serial does.
    pub reload_by_mtime: bool,
}

/// Who may have whole zones, and who is told of changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    /// The zones.
    pub zones: Vec<Zone>,
    /// Who.
    pub to: Vec<TransferTo>,
    /// The address notifications are sent from.
    pub source: Option<IpAddr>,
}

/// Who may have whole zones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransferTo {
    /// Everyone; nobody is notified.
    Anyone,
    /// This server, which is notified of changes.
    Server(SocketAddr),
}
