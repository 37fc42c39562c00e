//! What both kinds of policies have in common: address ranges and ports.

use ipnet::IpNet;
use model::Protocol;
use serde_json::Value;

use super::field::{Path, Problems, Told, text};
use crate::convert::slim::address;

pub(super) const PROTOCOLS: &[(&str, Protocol)] = &[
    ("TCP", Protocol::Tcp),
    ("UDP", Protocol::Udp),
    ("SCTP", Protocol::Sctp),
];

/// A range of addresses; bits behind the prefix mean nothing, as in Kubernetes.
pub(super) fn range(value: &Value, at: &Path<'_>, problems: &mut Problems) -> Result<IpNet, Told> {
    let text = text(value, at, problems)?;
    let parsed = text.split_once('/').and_then(|(ip, length)| {
        let digits = length.bytes().all(|byte| byte.is_ascii_digit());
        let length = length.parse().ok().filter(|_| digits)?;
        IpNet::new(address(ip).ok()?, length).ok()
    });
    match parsed {
        Some(net) => Ok(net.trunc()),
        None => problems.tell(
            at,
            format!("{text:?} is not a CIDR such as 192.0.2.0/24 or 2001:db8::/64"),
        ),
    }
}

/// A port from 1 to 65535.
pub(super) fn port(value: &Value, at: &Path<'_>, problems: &mut Problems) -> Result<u16, Told> {
    let number = value.as_i64().and_then(|number| u16::try_from(number).ok());
    match number.filter(|number| *number != 0) {
        Some(number) => Ok(number),
        None if value.is_null() => problems.tell(at, "is missing: write a port from 1 to 65535"),
        None => problems.tell(at, format!("{value} is no port: choose 1 to 65535")),
    }
}

/// The name of a container's port.
pub(super) fn port_name(name: &str, at: &Path<'_>, problems: &mut Problems) -> Result<(), Told> {
    let known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let valid = name.len() <= 15
        && name.bytes().all(known)
        && name.bytes().any(|byte| byte.is_ascii_lowercase())
        && !name.contains("--")
        && !name.starts_with('-')
        && !name.ends_with('-');
    if valid {
        return Ok(());
    }
    let cause = format!(
        "{name:?} cannot be a port's name: write up to 15 small letters, digits and '-', \
         with a letter among them and no '-' at either end or twice in a row"
    );
    problems.tell(at, cause)
}
