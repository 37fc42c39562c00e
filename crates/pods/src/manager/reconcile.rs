//! What a start finds, and puts right.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;

use ipnet::IpNet;
use model::config::PodMode;
use tracing::warn;

use super::{Manager, RELEASED, is_pod_link};
use crate::attachment::{Attachment, Key, PodRef};
use crate::interface::shaper;
use crate::ipam::Seconds;

/// What a start found and put right.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// Attachments taken over as they are.
    pub adopted: usize,
    /// Addresses of attachments that are gone.
    pub released: Vec<IpAddr>,
    /// Links of living pods that the journal knew nothing of: it was lost or damaged.
    pub found: Vec<String>,
}

impl Manager {
    /// Compares ledger and kernel: attachments without a link are released (the link goes with
    /// its namespace, and a pod without it cannot use the address); links without an
    /// attachment hold their addresses (an ADD is written down before its link is made, so the
    /// journal was lost, and the pod may live); releases that the plugin left word of are done.
    pub(super) fn reconcile(&mut self, now: Seconds) -> Result<Reconciled, String> {
        let mut found = Reconciled::default();
        for key in self.take_markers() {
            if let Some(attachment) = self.ledger.get(&key).cloned() {
                found.released.extend(attachment.ips());
                self.detach(&key, &attachment.netns, now)
                    .map_err(|error| error.to_string())?;
            }
        }
        let links = self
            .wires
            .pod_addresses()
            .map_err(|error| error.to_string())?;
        let names: BTreeSet<&str> = links.iter().map(|(name, _)| name.as_str()).collect();
        let gone: Vec<Key> = self
            .ledger
            .attachments()
            .filter(|attachment| !names.contains(attachment.host_link.as_str()))
            .map(|attachment| attachment.key.clone())
            .collect();
        for key in gone {
            if let Ok(Some(attachment)) = self.forget(&key, now) {
                found.released.extend(attachment.ips());
            }
        }
        let known: BTreeSet<String> = self
            .ledger
            .attachments()
            .map(|a| a.host_link.clone())
            .collect();
        for (link, ips) in links
            .into_iter()
            .filter(|(link, _)| is_pod_link(link) && !known.contains(link))
        {
            self.adopt(&link, &ips);
            found.found.push(link);
        }
        self.remove_stray_shapers();
        found.adopted = self.ledger.attachments().count();
        Ok(found)
    }

    /// Holds the addresses of a link that no attachment is known for.
    fn adopt(&mut self, link: &str, ips: &[IpAddr]) {
        let range = |ip: &IpAddr| {
            let cidrs = self
                .settings
                .iter()
                .flat_map(|settings| &settings.pod_cidrs);
            let length = cidrs
                .filter(|cidr| cidr.contains(ip))
                .map(IpNet::prefix_len)
                .next();
            length
                .and_then(|length| IpNet::new(*ip, length).ok())
                .unwrap_or(IpNet::from(*ip))
        };
        let attachment = Attachment {
            key: adopted_key(link),
            network: String::new(),
            netns: String::new(),
            pod: PodRef::default(),
            mode: PodMode::Routed,
            addresses: ips.iter().map(range).collect(),
            mac: None,
            host_link: link.to_owned(),
            ports: Vec::new(),
            bandwidth: None,
        };
        self.ledger.insert(attachment);
    }

    /// The attachment that stands for `key` since its journal entry was lost.
    pub(super) fn adopted(&self, key: &Key) -> Option<&Attachment> {
        self.ledger.get(&adopted_key(&key.host_link()))
    }

    fn remove_stray_shapers(&mut self) {
        let known: BTreeSet<String> = self
            .ledger
            .attachments()
            .map(|a| shaper(&a.host_link))
            .collect();
        for stray in self.wires.shapers().unwrap_or_default() {
            if !known.contains(&stray)
                && let Err(error) = self.wires.remove(&stray, false)
            {
                warn!(%error, "a limiting link of no pod stays");
            }
        }
    }

    /// Reads and removes the plugin's release markers.
    fn take_markers(&self) -> Vec<Key> {
        let mut keys = Vec::new();
        for entry in fs::read_dir(self.dir.join(RELEASED))
            .into_iter()
            .flatten()
            .flatten()
        {
            let path = entry.path();
            match fs::read(&path)
                .ok()
                .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            {
                Some(key) => keys.push(key),
                None => warn!(file = %path.display(), "a release marker cannot be read"),
            }
            let _ = fs::remove_file(path);
        }
        keys
    }
}

fn adopted_key(link: &str) -> Key {
    Key {
        container: format!("link-{link}"),
        ifname: "eth0".to_owned(),
    }
}
