//! What the kernel has beside what a plan asks for: a look that changes nothing.

use std::net::IpAddr;

use linux::{Error, Kernel};
use nft::{ElementKey, Family, Op, diff};

use crate::plan::Plan;
use crate::render::nftables::{TABLE, compiled, generation};

/// What deviates, in sentences; nothing where the kernel judges as the plan says.
pub fn inspect(kernel: &mut dyn Kernel, plan: &Plan) -> Result<Vec<String>, Error> {
    let have = kernel.nft_table(Family::Inet, TABLE)?;
    let current = have.as_ref().and_then(generation);
    let Some(want) = compiled(plan, current.unwrap_or(1)) else {
        let left =
            have.map(|_| format!("table {TABLE} is there, and no policy is about any pod here"));
        return Ok(left.into_iter().collect());
    };
    if have.is_none() {
        let pods = plan.subjects().len();
        return Ok(vec![format!(
            "table {TABLE} is missing: nothing is enforced for the {pods} addresses of pods here that policies are about"
        )]);
    }
    let mut found = Vec::new();
    for op in diff(have.as_ref(), &want, |_| true).ops {
        match op {
            Op::AddSet(set, _) => found.push(format!("set {set} is missing")),
            Op::AddChain(chain, _) => found.push(format!("chain {chain} is missing")),
            Op::FlushChain(chain) => found.push(format!("chain {chain} has other rules")),
            Op::DeleteChain(chain) => found.push(format!("chain {chain} is not planned")),
            Op::DeleteSet(set) => found.push(format!("set {set} is not planned")),
            Op::AddElements(set, new) => {
                let new = new.iter().map(|(key, _)| key);
                found.extend(elements(plan, &set, "lacks", new));
            }
            Op::DeleteElements(set, gone) => {
                found.extend(elements(
                    plan,
                    &set,
                    "has, which is not planned,",
                    gone.iter(),
                ));
            }
            _ => {}
        }
    }
    Ok(found)
}

/// A set and elements of it; those that are addresses by their pods here.
fn elements<'a>(
    plan: &Plan,
    set: &str,
    verb: &str,
    keys: impl ExactSizeIterator<Item = &'a ElementKey>,
) -> Vec<String> {
    const MOST: usize = 10;
    let all = keys.len();
    let mut lines: Vec<String> = Vec::new();
    for key in keys.take(MOST) {
        let ip = address(&key.key);
        let pod = ip.and_then(|ip| plan.pod_at(ip));
        lines.push(match (ip, pod) {
            (Some(ip), Some((namespace, name))) => {
                format!("set {set} {verb} {ip} of pod {namespace}/{name}")
            }
            (Some(ip), None) => format!("set {set} {verb} {ip}"),
            (None, _) => return vec![format!("set {set} {verb} {all} elements")],
        });
    }
    if all > MOST {
        lines.push(format!("set {set} {verb} {} more", all - MOST));
    }
    lines
}

/// The address that is a key.
fn address(key: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(key).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(key).map(IpAddr::from))
        .ok()
}
