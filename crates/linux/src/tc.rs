//! Traffic control, as far as a pod's bandwidth needs it: a token bucket on what a link sends,
//! and on what it receives by way of an intermediate link.
//!
//! Of a pod's pair, what the host's side sends is what the pod receives.

use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, Nla, NlasIterator};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage};

use crate::error::Result;
use crate::netlink::{About, Netlink};

const TCA_OPTIONS: u16 = 2;
const TBF_PARMS: u16 = 1;
const TBF_RATE64: u16 = 4;
const TBF_BURST: u16 = 6;
/// Longest time a packet waits in the bucket's queue, as the CNI bandwidth plugin has it.
const LATENCY_MS: u64 = 25;

/// A token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tbf {
    /// Bytes a second.
    pub rate: u64,
    /// Bytes that may go at once; at least a packet.
    pub burst: u32,
}

impl Netlink {
    /// Limits what a link sends; replaces the limit that is there.
    pub fn set_tbf(&mut self, dev: u32, tbf: Tbf) -> Result<()> {
        let message = qdisc(dev, TcHandle::ROOT, handle(1, 0), "tbf", tbf_options(tbf));
        self.change(
            RouteNetlinkMessage::NewQueueDiscipline(message),
            NLM_F_CREATE | NLM_F_REPLACE,
            &About {
                object: &|| format!("bandwidth of link #{dev}"),
                operation: "set",
            },
        )
    }

    /// The limit on what a link sends.
    pub fn tbf(&mut self, dev: u32) -> Result<Option<Tbf>> {
        let mut message = TcMessage::default();
        message.header.index = dev as i32;
        let answers = self.dump(
            &RouteNetlinkMessage::GetQueueDiscipline(message),
            &About {
                object: &|| format!("bandwidth of link #{dev}"),
                operation: "read",
            },
        )?;
        Ok(answers.iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewQueueDiscipline(message)
                if message.header.index == dev as i32 =>
            {
                parse_tbf(message)
            }
            _ => None,
        }))
    }

    /// Takes the limit on what a link sends away; false where there was none.
    pub fn delete_tbf(&mut self, dev: u32) -> Result<bool> {
        let message = qdisc(dev, TcHandle::ROOT, handle(1, 0), "tbf", Vec::new());
        let deleted = self.change(
            RouteNetlinkMessage::DelQueueDiscipline(message),
            0,
            &About {
                object: &|| format!("bandwidth of link #{dev}"),
                operation: "delete",
            },
        );
        match deleted {
            Ok(()) => Ok(true),
            Err(error) if error.is_not_found() || error.is(libc::EINVAL) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Sends what a link receives through another one (an `ifb`), whose own limit then applies.
    pub fn redirect_received(&mut self, dev: u32, through: u32) -> Result<()> {
        let about = About {
            object: &|| format!("received packets of link #{dev}"),
            operation: "redirect",
        };
        let ingress = qdisc(
            dev,
            TcHandle::INGRESS,
            handle(0xffff, 0),
            "ingress",
            Vec::new(),
        );
        let made = self.change(
            RouteNetlinkMessage::NewQueueDiscipline(ingress),
            NLM_F_CREATE | NLM_F_EXCL,
            &about,
        );
        match made {
            Err(error) if !error.is_exists() => return Err(error),
            _ => {}
        }
        let mut filter = qdisc(
            dev,
            handle(0xffff, 0),
            handle(0, 0),
            "u32",
            redirect_options(through),
        );
        // Priority 1, packets of every protocol.
        filter.header.info = 1 << 16 | u32::from((libc::ETH_P_ALL as u16).to_be());
        self.change(
            RouteNetlinkMessage::NewTrafficFilter(filter),
            NLM_F_CREATE | NLM_F_EXCL,
            &about,
        )
    }
}

fn handle(major: u16, minor: u16) -> TcHandle {
    TcHandle { major, minor }
}

fn qdisc(dev: u32, parent: TcHandle, handle: TcHandle, kind: &str, options: Vec<u8>) -> TcMessage {
    let mut message = TcMessage::default();
    message.header.index = dev as i32;
    message.header.parent = parent;
    message.header.handle = handle;
    message.attributes.push(TcAttribute::Kind(kind.to_owned()));
    if !options.is_empty() {
        let options = DefaultNla::new(TCA_OPTIONS, options);
        message.attributes.push(TcAttribute::Other(options));
    }
    message
}

/// `TCA_TBF_PARMS`, and the parts that do not fit it.
fn tbf_options(tbf: Tbf) -> Vec<u8> {
    let rate = u32::try_from(tbf.rate).unwrap_or(u32::MAX);
    let limit = tbf.rate.saturating_mul(LATENCY_MS) / 1000 + u64::from(tbf.burst);
    // struct tc_tbf_qopt: two struct tc_ratespec of 12 bytes, limit, buffer, mtu.
    let mut parms = vec![0; 36];
    parms[1] = 1; // TC_LINKLAYER_ETHERNET
    parms[8..12].copy_from_slice(&rate.to_ne_bytes());
    let limit = u32::try_from(limit).unwrap_or(u32::MAX);
    parms[24..28].copy_from_slice(&limit.to_ne_bytes());
    let mut options = attribute(TBF_PARMS, &parms);
    if tbf.rate > u64::from(u32::MAX) {
        options.extend(attribute(TBF_RATE64, &tbf.rate.to_ne_bytes()));
    }
    options.extend(attribute(TBF_BURST, &tbf.burst.to_ne_bytes()));
    options
}

fn parse_tbf(message: &TcMessage) -> Option<Tbf> {
    let mut is_tbf = false;
    let mut parms = Vec::new();
    let mut rate64 = None;
    for attribute in &message.attributes {
        if let TcAttribute::Kind(kind) = attribute {
            is_tbf = kind == "tbf";
        }
        // Options of a kind the codec does not know come as one, unparsed.
        let TcAttribute::Options(raw) = attribute else {
            continue;
        };
        let Some(raw) = raw.first() else {
            continue;
        };
        let mut options = vec![0; raw.value_len()];
        raw.emit_value(&mut options);
        for option in NlasIterator::new(options.as_slice()).flatten() {
            match option.kind() {
                TBF_PARMS => parms = option.value().to_vec(),
                TBF_RATE64 => {
                    rate64 = <[u8; 8]>::try_from(option.value())
                        .ok()
                        .map(u64::from_ne_bytes);
                }
                _ => {}
            }
        }
    }
    let word = |at: usize| {
        let bytes = parms.get(at..at + 4)?;
        Some(u32::from_ne_bytes(bytes.try_into().ok()?))
    };
    let rate = rate64.or(word(8).map(u64::from)).filter(|_| is_tbf)?;
    // The kernel lists the burst as the time it takes at this rate, in ticks of 64 ns.
    let nanoseconds = u64::from(word(28)?) * 64;
    let burst = u128::from(nanoseconds) * u128::from(rate) / 1_000_000_000;
    Some(Tbf {
        rate,
        burst: u32::try_from(burst).unwrap_or(u32::MAX),
    })
}

/// A `u32` filter that matches everything and redirects it.
fn redirect_options(through: u32) -> Vec<u8> {
    const SEL: u16 = 5;
    const ACT: u16 = 7;
    const TERMINAL: u8 = 1;
    // struct tc_u32_sel of 16 bytes, then one struct tc_u32_key that is all zero.
    let mut selector = vec![0; 32];
    selector[0] = TERMINAL;
    selector[2] = 1;
    // struct tc_mirred: index, capab, action, refcnt, bindcnt, eaction, ifindex.
    const STOLEN: u32 = 4;
    const EGRESS_REDIRECT: u32 = 1;
    let mirred: Vec<u8> = [0, 0, STOLEN, 0, 0, EGRESS_REDIRECT, through]
        .iter()
        .flat_map(|word| word.to_ne_bytes())
        .collect();
    let mut action = attribute(1, b"mirred\0");
    action.extend(attribute(2, &attribute(2, &mirred)));
    let mut options = attribute(SEL, &selector);
    options.extend(attribute(ACT, &attribute(1, &action)));
    options
}

/// One attribute, padded.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(4 + value.len().next_multiple_of(4));
    bytes.extend_from_slice(&((4 + value.len()) as u16).to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}
