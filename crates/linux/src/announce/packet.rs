//! ARP (RFC 826, RFC 5227) and neighbour discovery (RFC 4861) on the wire. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::mac::Mac;

const BROADCAST: Mac = Mac([0xff; 6]);
const NOBODY: Mac = Mac([0; 6]);
const ETHERNET: usize = 14;
const ARP: [u8; 2] = [0x08, 0x06];
const IPV6: [u8; 2] = [0x86, 0xdd];
/// Ethernet over IPv4, addresses of 6 and 4 bytes.
const ARP_HEAD: [u8; 6] = [0, 1, 0x08, 0, 6, 4];
const REQUEST: u8 = 1;
const REPLY: u8 = 2;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;
const SOURCE_LINK: u8 = 1;
const TARGET_LINK: u8 = 2;

/// No frame of ours is longer.
pub(super) const FRAME_MAX: usize = 86;

/// One who asks for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    mac: Mac,
    /// Unspecified in a probe.
    ip: IpAddr,
}

/// What somebody on the link said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Who has this address?
    Asked(IpAddr, Asker),
    /// This address is at that hardware address.
    Claimed(IpAddr, Mac),
}

/// What a frame says; nothing where it is malformed or about something else.
pub(super) fn hear(frame: &[u8], heard: &mut Vec<Heard>) {
    let Some((head, rest)) = frame.split_at_checked(ETHERNET) else {
        return;
    };
    match [head[12], head[13]] {
        ARP => hear_arp(rest, heard),
        IPV6 => {
            let sender = Mac::from_slice(&head[6..12]);
            if let Some(said) = sender.and_then(|sender| hear_ndp(rest, sender)) {
                heard.push(said);
            }
        }
        _ => {}
    }
}

fn hear_arp(packet: &[u8], heard: &mut Vec<Heard>) {
    let Some(packet) = packet.get(..28) else {
        return;
    };
    if packet[..6] != ARP_HEAD || packet[6] != 0 {
        return;
    }
    let ip = |at: usize| Ipv4Addr::new(packet[at], packet[at + 1], packet[at + 2], packet[at + 3]);
    let Some(mac) = Mac::from_slice(&packet[8..14]) else {
        return;
    };
    let (sender, target) = (ip(14), ip(24));
    // Also who asks says where it is.
    if !sender.is_unspecified() {
        heard.push(Heard::Claimed(sender.into(), mac));
    }
    if packet[7] == REQUEST && sender != target {
        let ip = sender.into();
        heard.push(Heard::Asked(target.into(), Asker { mac, ip }));
    }
}

fn hear_ndp(packet: &[u8], sender: Mac) -> Option<Heard> {
    let (head, rest) = packet.split_at_checked(40)?;
    let length = usize::from(u16::from_be_bytes([head[4], head[5]]));
    let message = rest.get(..length)?;
    // The checks of RFC 4861, section 7.1: the hop limit shows that it comes from this link.
    let fits = head[0] >> 4 == 6 && head[6] == 58 && head[7] == 255 && message.len() >= 24;
    if !fits || message[1] != 0 {
        return None;
    }
    let source = address(head, 8)?;
    let destination = address(head, 24)?;
    if checksum(source, destination, message) != 0 {
        return None;
    }
    let target = address(message, 8)?;
    if target.is_multicast() {
        return None;
    }
    let link = |kind| option(&message[24..], kind).unwrap_or(sender);
    match message[0] {
        SOLICITATION => {
            let asker = Asker {
                mac: link(SOURCE_LINK),
                ip: source.into(),
            };
            Some(Heard::Asked(target.into(), asker))
        }
        ADVERTISEMENT => Some(Heard::Claimed(target.into(), link(TARGET_LINK))),
        _ => None,
    }
}

fn address(bytes: &[u8], at: usize) -> Option<Ipv6Addr> {
    let bytes: [u8; 16] = bytes.get(at..at + 16)?.try_into().ok()?;
    Some(Ipv6Addr::from(bytes))
}

/// The hardware address in an option of this kind.
fn option(mut options: &[u8], kind: u8) -> Option<Mac> {
    while let [this, length, ..] = *options {
        let (option, rest) = options.split_at_checked(usize::from(length) * 8)?;
        if option.is_empty() {
            return None;
        }
        if this == kind {
            return Mac::from_slice(option.get(2..8)?);
        }
        options = rest;
    }
    None
}

/// The answer to `asker`: `ip` is at `mac`.
pub(super) fn answer(ip: IpAddr, mac: Mac, asker: &Asker) -> Vec<u8> {
    match (ip, asker.ip) {
        (IpAddr::V4(ip), IpAddr::V4(to)) => arp(asker.mac, REPLY, (mac, ip), (asker.mac, to)),
        (IpAddr::V6(ip), IpAddr::V6(to)) if !to.is_unspecified() => {
            advertisement(ip, mac, (asker.mac, to), SOLICITED | OVERRIDE)
        }
        // A probe has no address to answer to.
        (IpAddr::V6(ip), _) => advertisement(ip, mac, all_nodes(), OVERRIDE),
        (IpAddr::V4(ip), _) => arp(BROADCAST, REPLY, (mac, ip), (BROADCAST, ip)),
    }
}

/// What tells everybody that `ip` is at `mac` from now on.
pub(super) fn announcements(ip: IpAddr, mac: Mac) -> Vec<Vec<u8>> {
    match ip {
        IpAddr::V4(ip) => vec![
            arp(BROADCAST, REQUEST, (mac, ip), (NOBODY, ip)),
            arp(BROADCAST, REPLY, (mac, ip), (BROADCAST, ip)),
        ],
        IpAddr::V6(ip) => vec![advertisement(ip, mac, all_nodes(), OVERRIDE)],
    }
}

/// A question for `ip` from one who has no address yet.
pub(super) fn probe(ip: IpAddr, mac: Mac) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => {
            let sender = (mac, Ipv4Addr::UNSPECIFIED);
            arp(BROADCAST, REQUEST, sender, (NOBODY, ip))
        }
        IpAddr::V6(ip) => {
            let group = solicited_node(ip);
            let mut message = vec![SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
            message.extend(ip.octets());
            let to = (multicast(group), group);
            ndp(mac, Ipv6Addr::UNSPECIFIED, to, message)
        }
    }
}

/// The group that questions for an IPv6 address are sent to.
pub(super) fn solicited_node(ip: Ipv6Addr) -> Ipv6Addr {
    let low = u128::from(ip) & 0x00ff_ffff;
    let prefix = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0);
    Ipv6Addr::from(u128::from(prefix) | low)
}

fn all_nodes() -> (Mac, Ipv6Addr) {
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    (multicast(group), group)
}

fn multicast(group: Ipv6Addr) -> Mac {
    let [.., a, b, c, d] = group.octets();
    Mac([0x33, 0x33, a, b, c, d])
}

fn ethernet(to: Mac, from: Mac, kind: [u8; 2]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(FRAME_MAX);
    frame.extend(to.0);
    frame.extend(from.0);
    frame.extend(kind);
    frame
}

fn arp(to: Mac, operation: u8, sender: (Mac, Ipv4Addr), target: (Mac, Ipv4Addr)) -> Vec<u8> {
    let mut frame = ethernet(to, sender.0, ARP);
    frame.extend(ARP_HEAD);
    frame.extend([0, operation]);
    for (mac, ip) in [sender, target] {
        frame.extend(mac.0);
        frame.extend(ip.octets());
    }
    frame
}

fn advertisement(ip: Ipv6Addr, mac: Mac, to: (Mac, Ipv6Addr), flags: u8) -> Vec<u8> {
    let mut message = vec![ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0];
    message.extend(ip.octets());
    message.extend([TARGET_LINK, 1]);
    message.extend(mac.0);
    ndp(mac, ip, to, message)
}

fn ndp(from: Mac, source: Ipv6Addr, to: (Mac, Ipv6Addr), mut message: Vec<u8>) -> Vec<u8> {
    let sum = checksum(source, to.1, &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut frame = ethernet(to.0, from, IPV6);
    frame.extend([0x60, 0, 0, 0]);
    frame.extend(
        u16::try_from(message.len())
            .unwrap_or_default()
            .to_be_bytes(),
    );
    frame.extend([58, 255]);
    frame.extend(source.octets());
    frame.extend(to.1.octets());
    frame.extend(message);
    frame
}

/// The checksum of an ICMPv6 message; 0 where the one in it is right.
fn checksum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    let words = |bytes: &[u8]| -> u64 {
        let pairs = bytes.chunks(2);
        pairs
            .map(|pair| u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0)))
            .sum()
    };
    let mut sum = words(&source.octets()) + words(&destination.octets()) + words(message);
    sum += message.len() as u64 + 58;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

    fn heard(frame: &[u8]) -> Vec<Heard> {
        let mut all = Vec::new();
        hear(frame, &mut all);
        all
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_probe_is_a_question_that_claims_nothing_and_its_answer_a_claim() {
        for text in ["10.0.1.200", "fd00:10:0:1::200"] {
            let said = heard(&probe(ip(text), MAC));
            let [Heard::Asked(asked, asker)] = said[..] else {
                panic!("{said:?}");
            };
            assert_eq!(asked, ip(text));
            let answerer = Mac([2, 0, 0, 0, 0, 2]);
            let answer = answer(asked, answerer, &asker);
            assert_eq!(heard(&answer), [Heard::Claimed(asked, answerer)]);
        }
    }

    #[test]
    fn announcements_are_claims_to_everybody() {
        for (text, to) in [
            ("10.0.1.200", BROADCAST),
            ("fd00::200", Mac([0x33, 0x33, 0, 0, 0, 1])),
        ] {
            for frame in announcements(ip(text), MAC) {
                assert_eq!(frame[..6], to.0);
                assert_eq!(heard(&frame), [Heard::Claimed(ip(text), MAC)]);
            }
        }
    }

    #[test]
    fn a_question_of_a_host_is_answered_to_it_alone() {
        let host = (Mac([2, 0, 0, 0, 0, 9]), Ipv4Addr::new(10, 0, 1, 1));
        let target = (NOBODY, Ipv4Addr::new(10, 0, 1, 200));
        let said = heard(&arp(BROADCAST, REQUEST, host, target));
        let asker = Asker {
            mac: host.0,
            ip: host.1.into(),
        };
        assert_eq!(
            said,
            [
                Heard::Claimed(host.1.into(), host.0),
                Heard::Asked(target.1.into(), asker)
            ]
        );
        let answer = answer(target.1.into(), MAC, &asker);
        assert_eq!(answer[..6], host.0.0);
        assert_eq!(answer.len(), 42);
    }

    #[test]
    fn what_was_forged_or_cut_off_is_not_heard() {
        let good = announcements(ip("fd00::200"), MAC).remove(0);
        assert_eq!(good.len(), FRAME_MAX);
        for at in [14 + 7, 54 + 1, 54 + 9, 80] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert_eq!(heard(&bad), [], "byte {at}");
        }
        let arp = announcements(ip("10.0.1.200"), MAC).remove(0);
        for frame in [good, arp] {
            for length in 0..frame.len() {
                assert_eq!(heard(&frame[..length]), []);
            }
        }
    }

    /// Whatever is on the wire, at most two things are heard, and nothing panics.
    #[test]
    fn no_frame_does_harm() {
        let mut frames = vec![probe(ip("fd00::200"), MAC), probe(ip("10.0.1.200"), MAC)];
        frames.extend(announcements(ip("fd00::200"), MAC));
        frames.extend(announcements(ip("10.0.1.200"), MAC));
        for frame in &frames {
            for at in 0..frame.len() {
                for value in [0, 1, 2, 7, 0x7f, 0x80, 0xfe, 0xff] {
                    let mut bad = frame.clone();
                    bad[at] = value;
                    assert!(heard(&bad).len() <= 2);
                }
            }
        }
        // Bytes by a linear congruence, behind the two headers that are looked at.
        let mut state = 1_u32;
        for length in 0..4000 {
            let mut frame = frames[length % frames.len()].clone();
            frame.truncate(20);
            for _ in 0..length % 200 {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                frame.push((state >> 24) as u8);
            }
            assert!(heard(&frame).len() <= 2);
        }
    }

    #[test]
    fn the_group_of_an_address_has_its_last_three_bytes() {
        let group = solicited_node("fd00::1:2345:6789".parse().unwrap());
        assert_eq!(group.to_string(), "ff02::1:ff45:6789");
        assert_eq!(multicast(group).to_string(), "33:33:ff:45:67:89");
    }
}
