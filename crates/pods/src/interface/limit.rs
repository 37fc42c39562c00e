//! Bandwidth: token buckets on both ways of a pod.
//!
//! What the pod receives waits on the host link. What it sends arrives there and cannot wait, so
//! it is led through a link of its own (`ifb`) and waits on that one.

use linux::link::NewKind;
use linux::tc::Tbf;
use linux::{LinkChange, NewLink};

use super::apply::Wires;
use super::plan::Interface;

/// A bucket must hold a packet, however small the burst that was asked for.
const LEAST_BURST: u64 = 2048;

/// The limit as the kernel takes it: bytes, not bits.
fn bucket(rate: u64, burst: u64) -> Option<Tbf> {
    (rate > 0).then(|| Tbf {
        rate: (rate / 8).max(1),
        burst: u32::try_from((burst / 8).max(LEAST_BURST)).unwrap_or(u32::MAX),
    })
}

impl Wires {
    /// Makes the limits of an interface. Idempotent.
    pub(super) fn limit(&mut self, interface: &Interface, link: u32) -> Result<(), linux::Error> {
        let Some(limits) = interface.bandwidth else {
            return Ok(());
        };
        if let Some(bucket) = bucket(limits.ingress_rate, limits.ingress_burst) {
            self.node().set_tbf(link, bucket)?;
        }
        if let Some(bucket) = bucket(limits.egress_rate, limits.egress_burst) {
            let made = self.node().create_link(&NewLink {
                mtu: Some(interface.mtu),
                ..NewLink::new(&interface.shaper, NewKind::Ifb)
            });
            match made {
                Err(error) if !error.is_exists() => return Err(error),
                _ => {}
            }
            let shaper = self.node().expect_link(&interface.shaper)?.index;
            self.node().change_link(
                shaper,
                &LinkChange {
                    up: Some(true),
                    ..LinkChange::default()
                },
            )?;
            self.node().set_tbf(shaper, bucket)?;
            self.node().redirect_received(link, shaper)?;
        }
        Ok(())
    }

    /// What of the limits is missing or different.
    pub(super) fn check_limits(
        &mut self,
        interface: &Interface,
        link: u32,
    ) -> Result<Vec<String>, linux::Error> {
        let mut wrong = Vec::new();
        let Some(limits) = interface.bandwidth else {
            return Ok(wrong);
        };
        let wanted = bucket(limits.ingress_rate, limits.ingress_burst);
        if wanted.is_some()
            && self.node().tbf(link)?.map(|tbf| tbf.rate) != wanted.map(|tbf| tbf.rate)
        {
            wrong.push(format!(
                "the limit on what {} receives is not {} bit/s",
                interface.ifname, limits.ingress_rate
            ));
        }
        let wanted = bucket(limits.egress_rate, limits.egress_burst);
        if wanted.is_some() {
            let there = match self.node().link(&interface.shaper)? {
                Some(shaper) => self.node().tbf(shaper.index)?,
                None => None,
            };
            if there.map(|tbf| tbf.rate) != wanted.map(|tbf| tbf.rate) {
                wrong.push(format!(
                    "the limit on what {} sends is not {} bit/s",
                    interface.ifname, limits.egress_rate
                ));
            }
        }
        Ok(wrong)
    }
}
