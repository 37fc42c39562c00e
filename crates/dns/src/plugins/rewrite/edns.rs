//! Options of EDNS in queries, and what of them is undone in answers.

use std::net::IpAddr;

use crate::corefile::plugins::{EdnsAction, EdnsData, EdnsRewrite};
use crate::query::{Answer, Query, Transport};
use crate::wire::{Edns, EdnsOption};

/// What the buffer is said to be where a rule adds EDNS to a query.
const UDP_SIZE: u16 = 4096;

/// What a rule does with a query's options.
#[derive(Debug)]
pub(super) enum Change {
    /// No option of this code is left.
    Remove(u16),
    /// This option is there, in place of one of its code or as another.
    Put {
        option: EdnsOption,
        /// What the rule undoes in the answer.
        revert: Option<RevertOption>,
    },
}

/// What is undone in the answer's options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RevertOption {
    /// The option of this code goes.
    Remove(u16),
    /// The option of this one's code becomes this one.
    Replace(EdnsOption),
}

impl Change {
    /// Changes the query; says what is to be undone.
    pub(super) fn make(self, query: &mut Query) -> Option<RevertOption> {
        let edns = query.edns.get_or_insert_with(|| Edns {
            udp_size: UDP_SIZE,
            ..Edns::default()
        });
        match self {
            Self::Remove(code) => {
                edns.options.retain(|option| option.code != code);
                None
            }
            Self::Put { option, revert } => {
                let there = edns
                    .options
                    .iter_mut()
                    .find(|there| there.code == option.code);
                match there {
                    Some(there) => *there = option,
                    None => edns.options.push(option),
                }
                revert
            }
        }
    }
}

impl RevertOption {
    /// Changes an answer's options back.
    pub(super) fn apply(&self, answer: &mut Answer) {
        let code = match self {
            Self::Remove(code) => *code,
            Self::Replace(option) => option.code,
        };
        let Some(at) = answer.options.iter().position(|option| option.code == code) else {
            return;
        };
        match self {
            Self::Remove(_) => {
                answer.options.remove(at);
            }
            Self::Replace(option) => answer.options[at] = option.clone(),
        }
    }
}

/// What a rule does with a query; nothing if it is not for it.
pub(super) fn change(rule: &EdnsRewrite, query: &Query) -> Option<Change> {
    let code = code(&rule.data);
    let mut options = query.edns.iter().flat_map(|edns| &edns.options);
    let before = options.find(|option| option.code == code);
    match (rule.action, before) {
        (EdnsAction::Unset, _) => return Some(Change::Remove(code)),
        (EdnsAction::Append, Some(_)) | (EdnsAction::Replace, None) => return None,
        _ => {}
    }
    let data = data(&rule.data, query)?.into();
    let undone = || match before {
        Some(option) => RevertOption::Replace(option.clone()),
        None => RevertOption::Remove(code),
    };
    Some(Change::Put {
        option: EdnsOption { code, data },
        revert: rule.revert.then(undone),
    })
}

fn code(data: &EdnsData) -> u16 {
    match data {
        EdnsData::Local { code, .. } | EdnsData::Variable { code, .. } => *code,
        EdnsData::Nsid => EdnsOption::NSID,
        EdnsData::Subnet { .. } => EdnsOption::CLIENT_SUBNET,
    }
}

fn data(data: &EdnsData, query: &Query) -> Option<Vec<u8>> {
    Some(match data {
        EdnsData::Local { data, .. } => data.clone(),
        EdnsData::Variable { variable, .. } => return value(variable, query),
        EdnsData::Nsid => Vec::new(),
        EdnsData::Subnet { v4, v6 } => subnet(query.client.ip().to_canonical(), *v4, *v6),
    })
}

/// A value of the query; nothing where it is of metadata, which there is none of.
fn value(variable: &str, query: &Query) -> Option<Vec<u8>> {
    let ip = |ip: IpAddr| match ip.to_canonical() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let number = |number: u16| number.to_be_bytes().to_vec();
    Some(match variable {
        "qname" => query.question.name.to_string().into_bytes(),
        "qtype" => number(query.question.kind.0),
        "client_ip" => ip(query.client.ip()),
        "client_port" => number(query.client.port()),
        "server_ip" => ip(query.server.ip()),
        "server_port" => number(query.server.port()),
        "protocol" if query.transport == Transport::Udp => b"udp".to_vec(),
        "protocol" => b"tcp".to_vec(),
        _ => return None,
    })
}

/// The option's data (RFC 7871, section 6): so many bits of the address, in whole bytes.
fn subnet(ip: IpAddr, v4: u8, v6: u8) -> Vec<u8> {
    let (family, bits, octets) = match ip {
        IpAddr::V4(ip) => (1_u8, v4.min(32), ip.octets().to_vec()),
        IpAddr::V6(ip) => (2_u8, v6.min(128), ip.octets().to_vec()),
    };
    let mut data = vec![0, family, bits, 0];
    let whole = usize::from(bits / 8);
    data.extend_from_slice(&octets[..whole]);
    if !bits.is_multiple_of(8) {
        data.push(octets[whole] & !(0xff >> (bits % 8)));
    }
    data
}
