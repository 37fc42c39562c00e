//! Keys of server blocks as addresses, and whether two blocks are for the same.

use std::collections::{BTreeMap, HashMap};

use super::blocks::FileNames;
use super::lexer::Token;
use super::plugins;
use super::problem::{Error, ErrorKind, Report, Warning};
use super::zone::{Transport, transport, zones_and_port};
use super::{Address, Position, Scheme, ServerBlock};

/// The addresses of a block's keys. What is none is told and left out.
pub(super) fn addresses(
    keys: &[Token],
    files: &FileNames,
    port: u16,
    report: &mut Report,
) -> Vec<Address> {
    let mut addresses = Vec::new();
    for key in keys {
        if report.has_all_zones() {
            break;
        }
        let at = files.position(key);
        match key_addresses(&key.text, port) {
            Ok(found) => match report.count_zones(found.len()) {
                Ok(()) => addresses.extend(found),
                Err(message) => report.error(Error {
                    kind: ErrorKind::TooLarge,
                    ..error(at.clone(), message)
                }),
            },
            Err(message) => report.error(error(at.clone(), message)),
        }
        if keys.len() > 1 && plugins::known(&key.text).is_some() {
            report.warn(Warning {
                at,
                plugin: None,
                message: format!(
                    "{:?} is taken for a zone: plugins stand on lines of their own",
                    key.text
                ),
            });
        }
    }
    addresses
}

fn error(at: Position, message: String) -> Error {
    Error {
        at,
        kind: ErrorKind::Address,
        message,
    }
}

fn key_addresses(key: &str, dns_port: u16) -> Result<Vec<Address>, String> {
    let (scheme, rest) = match transport(key) {
        (Transport::Supported(scheme), rest) => (scheme, rest),
        (Transport::Unsupported(name), _) => {
            return Err(format!(
                "{key:?}: the transport {name} is not supported (known: dns, tls, https)"
            ));
        }
    };
    let (zones, port) = zones_and_port(rest)?;
    let port = match (port, scheme) {
        (None, Scheme::Dns) => dns_port,
        (None, other) => other.default_port(),
        (Some(port), _) => u16::try_from(port)
            .map_err(|_| format!("the port of {key:?} is not within 0 and 65535"))?,
    };
    let address = |zone| Address { scheme, zone, port };
    Ok(zones.into_iter().map(address).collect())
}

/// Tells of zones that two blocks, or one twice, serve on the same port. Blocks with a `view` may
/// share a zone with others; blocks that bind to different addresses may too.
pub(super) fn overlaps(servers: &[ServerBlock], report: &mut Report) {
    // By zone and port: the addresses bound to so far, and where.
    let mut taken: HashMap<&Address, BTreeMap<&str, &Position>> = HashMap::new();
    for server in servers {
        let viewed = server.plugins.view.is_some();
        for address in &server.addresses {
            let before = taken.entry(address).or_default();
            for bound in bound(server) {
                let same = before.get(bound);
                let clash = match same {
                    Some(at) => (!viewed).then_some(at),
                    None if bound.is_empty() => before.values().next(),
                    None => before.get(""),
                };
                if let Some(at) = clash {
                    let shown = shown(address, bound);
                    let message = format!("{shown} is served by the block at {at} already");
                    report.error(error(server.at.clone(), message));
                } else if !viewed {
                    before.insert(bound, &server.at);
                }
            }
        }
    }
}

/// The addresses a block binds to, as they are written; empty text is all of them.
fn bound(server: &ServerBlock) -> Vec<&str> {
    let mut bound = Vec::new();
    for bind in &server.plugins.bind {
        let left = bind
            .addresses
            .iter()
            .filter(|one| !bind.except.contains(one));
        bound.extend(left.map(String::as_str));
    }
    if server.plugins.bind.is_empty() {
        bound.push("");
    }
    bound
}

fn shown(address: &Address, bound: &str) -> String {
    let Address { scheme, zone, port } = address;
    let on = if bound.is_empty() { "" } else { " on " };
    format!("{}://{zone}:{port}{on}{bound}", scheme.as_str())
}

/// Tells of a transport that needs a certificate where there is none.
pub(super) fn transports(server: &ServerBlock, report: &mut Report) {
    let encrypted = server
        .addresses
        .iter()
        .find(|one| one.scheme != Scheme::Dns);
    if let (Some(address), None) = (encrypted, &server.plugins.tls) {
        report.warn(Warning {
            at: server.at.clone(),
            plugin: None,
            message: format!(
                "{}:// without the plugin tls, which names its certificate",
                address.scheme.as_str()
            ),
        });
    }
}
