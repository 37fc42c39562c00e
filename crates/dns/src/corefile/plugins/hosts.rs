//! `hosts`: names out of a hosts file.

use std::net::IpAddr;
use std::time::Duration;

use crate::corefile::Zone;

/// Names out of a hosts file and of the Corefile itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Hosts {
    /// The file; it need not be there.
    pub file: String,
    /// The zones: names outside are left out.
    pub zones: Vec<Zone>,
    /// Entries within the Corefile.
    pub entries: Vec<HostsEntry>,
    /// The TTL of answers.
    pub ttl: u32,
    /// How often the file is looked at; zero is never again.
    pub reload: Duration,
    /// PTR answers too.
    pub reverse: bool,
    /// Zones in which the next plugin is asked for a name that is not here; empty is none.
    pub fallthrough: Vec<Zone>,
    /// The next plugin is asked for types other than A, AAAA and PTR too.
    pub fallthrough_unsupported: bool,
}

/// One line of a hosts file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostsEntry {
    /// The address.
    pub address: IpAddr,
    /// Its names, absolute and in lower case; the first label may be `*`.
    pub names: Vec<Zone>,
}

impl Default for Hosts {
    fn default() -> Self {
        Self {
            file: "/etc/hosts".to_owned(),
            zones: Vec::new(),
            entries: Vec::new(),
            ttl: 3600,
            reload: Duration::from_secs(5),
            reverse: true,
            fallthrough: Vec::new(),
            fallthrough_unsupported: false,
        }
    }
}
