//! `loadbalance`: the order of addresses in an answer.

mod weights;

use ipnet::IpNet;
use rand::Rng;

pub use weights::Weights;

use crate::query::{Answer, Query};
use crate::wire::{Data, Rcode, Record, Type};

/// Puts addresses and MX records into a random order, behind CNAMEs and all others.
pub fn shuffle(query: &Query, answer: &mut Answer, rng: &mut impl Rng) {
    if answer.rcode != Rcode::NOERROR || is_transfer(query) {
        return;
    }
    for section in [
        &mut answer.answers,
        &mut answer.authorities,
        &mut answer.additionals,
    ] {
        if section.len() > 1 {
            let (addresses, mx) = arrange(section, rank_rest_first);
            permute(&mut section[addresses], rng);
            permute(&mut section[mx], rng);
        }
    }
}

/// Puts one address in front, an address with twice the weight twice as often.
pub fn weigh(query: &Query, answer: &mut Answer, weights: &Weights, rng: &mut impl Rng) {
    let kinds = [Type::A, Type::AAAA, Type::SRV];
    if answer.rcode != Rcode::NOERROR || !kinds.contains(&query.question.kind) {
        return;
    }
    for section in [&mut answer.answers, &mut answer.additionals] {
        if section.iter().any(|record| record.data.ip().is_some()) {
            let (addresses, _) = arrange(section, rank_rest_first);
            let addresses = &mut section[addresses];
            let first = weights.pick(addresses, rng);
            addresses.swap(0, first);
        }
    }
}

/// Puts addresses in these networks in front, in the networks' order.
pub fn prefer(query: &Query, answer: &mut Answer, networks: &[IpNet]) {
    if answer.rcode != Rcode::NOERROR || is_transfer(query) {
        return;
    }
    for section in [&mut answer.answers, &mut answer.additionals] {
        let (addresses, _) = arrange(section, rank_rest_last);
        section[addresses].sort_by_key(|record| {
            let ip = record.data.ip();
            let within = |net: &IpNet| ip.is_some_and(|ip| net.contains(&ip));
            networks.iter().position(within).unwrap_or(networks.len())
        });
    }
}

fn is_transfer(query: &Query) -> bool {
    [Type::AXFR, Type::IXFR].contains(&query.question.kind)
}

/// CNAME, anything else, addresses, MX.
fn rank_rest_first(data: &Data) -> u8 {
    match data {
        Data::Cname(_) => 0,
        Data::A(_) | Data::Aaaa(_) => 2,
        Data::Mx(..) => 3,
        _ => 1,
    }
}

/// CNAME, addresses, MX, anything else.
fn rank_rest_last(data: &Data) -> u8 {
    match data {
        Data::Cname(_) => 0,
        Data::A(_) | Data::Aaaa(_) => 2,
        Data::Mx(..) => 3,
        _ => 4,
    }
}

/// Sorts by rank, keeping the order within one; tells where addresses and MX records are then.
fn arrange(
    records: &mut [Record],
    rank: fn(&Data) -> u8,
) -> (std::ops::Range<usize>, std::ops::Range<usize>) {
    // Nearly always all are addresses of one kind, in order already.
    if !records.is_sorted_by_key(|record| rank(&record.data)) {
        records.sort_by_key(|record| rank(&record.data));
    }
    let start = |wanted| records.partition_point(|record| rank(&record.data) < wanted);
    let (addresses, mx, end) = (start(2), start(3), start(4));
    (addresses..mx, mx..end)
}

fn permute(records: &mut [Record], rng: &mut impl Rng) {
    match records.len() {
        0 | 1 => {}
        2 => {
            if rng.random() {
                records.swap(0, 1);
            }
        }
        len => {
            for at in 0..len - 1 {
                records.swap(at, rng.random_range(at..len));
            }
        }
    }
}
