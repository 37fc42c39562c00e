//! `hosts`: names out of a hosts file.

use std::net::IpAddr;
use std::time::Duration;

use crate::corefile::reader::{Reader, Result};
use crate::corefile::{Zone, value};

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

const OPTIONS: [&str; 5] = [
    "fallthrough",
    "fallthrough_unsupported",
    "no_reverse",
    "ttl",
    "reload",
];

pub(super) fn parse(reader: &mut Reader<'_>) -> Option<Hosts> {
    let mut found = None;
    reader.once(|reader| {
        let mut hosts = Hosts::default();
        let args = reader.args();
        if let Some(file) = args.first() {
            hosts.file = reader.file(file);
        }
        hosts.zones = reader.zones(args.get(1..).unwrap_or_default());
        reader.options(|reader, name| option(reader, name, &mut hosts));
        if hosts.fallthrough_unsupported && hosts.fallthrough.is_empty() {
            let error = reader.error("fallthrough_unsupported is there without fallthrough");
            reader.report.error(error);
        }
        found = Some(hosts);
        Ok(())
    });
    found
}

fn option(reader: &mut Reader<'_>, name: &str, hosts: &mut Hosts) -> Result<()> {
    match name {
        "fallthrough" => hosts.fallthrough = reader.fallthrough(),
        "fallthrough_unsupported" => {
            reader.no_args()?;
            hosts.fallthrough_unsupported = true;
        }
        "no_reverse" => hosts.reverse = false,
        "ttl" => {
            let args = reader.some_args("a number of seconds")?;
            hosts.ttl = reader.check(value::number(args[0], "the TTL", 1, 65535))?;
        }
        "reload" => {
            let text = reader.one_arg("a duration; 0s is never again")?;
            hosts.reload = reader.check(value::positive_duration(text))?;
        }
        // After `fallthrough` there are no entries any more.
        _ if !hosts.fallthrough.is_empty() => {
            let hint = match name.parse::<IpAddr>() {
                Ok(_) => "; entries have to be before fallthrough",
                Err(_) => "",
            };
            let mut error = reader.unknown_option(&OPTIONS);
            error.message.push_str(hint);
            return Err(error);
        }
        address => {
            let names = reader.args();
            // The interface of a link-local address is left out, as in CoreDNS.
            let plain = address.split('%').next().unwrap_or(address);
            match plain.parse() {
                Ok(address) => hosts.entries.push(entry(reader, address, &names)),
                Err(_) => {
                    let hint = reader.report.hint(address, &OPTIONS);
                    reader.warn(format!(
                        "{address:?} is neither an option nor an address{hint}: the line is left \
                         out"
                    ));
                }
            }
        }
    }
    Ok(())
}

fn entry(reader: &mut Reader<'_>, address: IpAddr, names: &[&str]) -> HostsEntry {
    let mut entry = HostsEntry {
        address,
        names: Vec::new(),
    };
    for name in names {
        match name.parse::<Zone>() {
            Ok(name) => entry.names.push(name.lower()),
            Err(error) => reader.warn(format!("{name:?} is no name: {error}: it is left out")),
        }
    }
    entry
}
