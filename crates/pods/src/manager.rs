//! The node's attachments: every CNI operation, from the parsed call to the answer.
//!
//! One owner, one thread: operations come one after the other, so an address can be looked at
//! and taken without a lock, and the journal has one writer.

mod reconcile;

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use model::config::PodMode;
use serde_json::Value;
use tracing::{info, warn};

use crate::attachment::{Attachment, Key, PodRef};
use crate::cni::{Call, CniError, Command, NetConf, PodArgs, address, code, parse_mac};
use crate::interface::{BRIDGE, Interface, Settings, Wires, plan, result};
use crate::ipam::{Entry, Journal, Ledger, Seconds, Wanted};
use crate::ports::Ports;

pub use reconcile::Reconciled;

/// Where the plugin leaves word of a DEL that the agent did not hear.
pub const RELEASED: &str = "released";
const SETTINGS: &str = "node.json";

/// Whether pods can be attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// They can.
    Ready,
    /// They can, but the fabric does not carry their traffic.
    Limited(String),
    /// They cannot.
    NotReady(String),
}

/// Something that is no longer as it was.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Noticed {
    /// The route to an address is gone.
    Route(IpAddr),
    /// A link, by index, is down or has lost an address.
    Link(u32),
    /// Anything.
    Everything,
}

/// The node's attachments, on disk and in the kernel.
#[derive(Debug)]
pub struct Manager {
    dir: PathBuf,
    ledger: Ledger,
    journal: Journal,
    wires: Wires,
    ports: Ports,
    settings: Option<Settings>,
    readiness: Readiness,
}

impl Manager {
    /// Takes over what is in `dir` and in the kernel of the calling thread's namespace.
    pub fn open(dir: &Path, now: Seconds) -> Result<(Manager, Reconciled), String> {
        let opened = Journal::open(dir).map_err(|error| error.to_string())?;
        if opened.damaged > 0 {
            warn!(lines = opened.damaged, dir = %dir.display(), "damaged journal lines were passed over");
        }
        let mut manager = Manager {
            dir: dir.to_owned(),
            ledger: Ledger::replay(opened.entries),
            journal: opened.journal,
            wires: Wires::open().map_err(|error| error.to_string())?,
            ports: Ports::open().map_err(|error| error.to_string())?,
            settings: None,
            readiness: Readiness::NotReady("the node's pod CIDR is not known yet".to_owned()),
        };
        if let Some(settings) = read_settings(&dir.join(SETTINGS)) {
            manager.use_settings(settings);
        }
        let reconciled = manager.reconcile(now)?;
        manager.heal();
        Ok((manager, reconciled))
    }

    /// The node's settings, new or changed. They are kept on disk for the next start.
    pub fn set_settings(&mut self, settings: Settings) -> Result<(), String> {
        if self.settings.as_ref() != Some(&settings) {
            let path = self.dir.join(SETTINGS);
            let new = path.with_extension("new");
            let json = serde_json::to_vec(&settings).map_err(|error| error.to_string())?;
            fs::write(&new, json)
                .and_then(|()| fs::rename(&new, &path))
                .map_err(|error| format!("{}: write: {error}", path.display()))?;
        }
        self.prepare_node(&settings)
            .map_err(|error| error.to_string())?;
        self.use_settings(settings);
        // A new MTU reaches the pods that are there.
        self.heal();
        Ok(())
    }

    fn prepare_node(&mut self, settings: &Settings) -> Result<(), linux::Error> {
        // Those from before a change of mode count too.
        let mut attachments = self.ledger.attachments();
        let bridged = attachments.any(|attachment| attachment.mode == PodMode::Bridge);
        self.wires.prepare_node(settings, bridged)
    }

    fn use_settings(&mut self, settings: Settings) {
        self.ledger.set_ranges(&settings.pod_cidrs);
        self.settings = Some(settings);
        self.readiness = Readiness::Ready;
    }

    /// What STATUS answers while there are settings.
    pub fn set_readiness(&mut self, readiness: Readiness) {
        self.readiness = readiness;
    }

    /// The node's settings, where they are known.
    pub fn settings(&self) -> Option<&Settings> {
        self.settings.as_ref()
    }

    /// Attachments and pools.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Answers one call. `config` is what came on the plugin's standard input.
    pub fn cni(
        &mut self,
        call: &Call,
        config: &[u8],
        now: Seconds,
    ) -> Result<Option<Value>, CniError> {
        call.validate()?;
        let conf = NetConf::parse(config)?;
        match call.command {
            Command::Add => self.add(call, &conf, now).map(Some),
            Command::Del => self.del(call, now).map(|()| None),
            Command::Check => self.check(call, &conf).map(|()| None),
            Command::Status => self.status().map(|()| None),
            Command::Gc => self.gc(&conf, now).map(|()| None),
            Command::Version => Ok(Some(crate::cni::version_answer(config))),
        }
    }

    fn add(&mut self, call: &Call, conf: &NetConf, now: Seconds) -> Result<Value, CniError> {
        let Some(settings) = self.settings.clone() else {
            return Err(self.not_ready(code::TRY_AGAIN));
        };
        let args = PodArgs::parse(&call.args)?;
        let previous = conf.prev_result()?;
        let key = Key {
            container: call.container_id.clone(),
            ifname: call.ifname.clone(),
        };
        for port in &conf.runtime.ports {
            if let Some(other) = self.ledger.port_clash(port, &key) {
                return Err(CniError::new(
                    code::HOST_PORT,
                    format!("host port {port} is in use by {}", other.holder()),
                ));
            }
        }
        let mut ips = conf.runtime.ips.clone();
        if let Some(ip) = args.ip.as_deref().filter(|ip| !ip.is_empty()) {
            ips.push(address("CNI_ARGS IP", ip)?);
        }
        let mac = match (conf.runtime.mac, &args.mac) {
            (None, Some(mac)) => parse_mac("CNI_ARGS MAC", mac)?,
            (mac, _) => mac,
        };
        // An ADD that was written down and then cut short by a kill is begun anew.
        if self.ledger.get(&key).is_some() && self.is_unmade(&key)? {
            self.forget(&key, now)?;
        }
        if let Some(old) = self.ledger.get(&key) {
            return Err(crate::interface::ApplyError::Exists(old.key.ifname.clone()).into());
        }
        let addresses = self.ledger.choose(
            Wanted {
                ips: &ips,
                ranges: &conf.runtime.ranges,
            },
            now,
        )?;
        let attachment = Attachment {
            host_link: key.host_link(),
            key,
            network: conf.name.clone(),
            netns: call.netns.clone(),
            pod: PodRef {
                namespace: args.namespace,
                name: args.name,
                uid: args.uid,
            },
            mode: settings.mode,
            addresses,
            mac,
            ports: conf.runtime.ports.clone(),
            bandwidth: conf.runtime.bandwidth,
        };
        let interface = plan(&attachment, &settings);
        self.attach(attachment, &interface, now)?;
        let dns = conf.runtime.dns.clone().unwrap_or_else(|| conf.dns.clone());
        Ok(result(&interface, &call.netns, dns, previous).to_json(conf.version))
    }

    /// Written down first, then made: whatever happens between, no address is given twice.
    fn attach(
        &mut self,
        attachment: Attachment,
        interface: &Interface,
        now: Seconds,
    ) -> Result<(), CniError> {
        if let Err(error) = self
            .journal
            .append(&[Entry::Attach(Box::new(attachment.clone()))])
        {
            self.ledger.undo(&attachment.addresses);
            return Err(
                CniError::new(code::IO, "the attachment cannot be written down")
                    .details(error.to_string()),
            );
        }
        let (key, netns) = (attachment.key.clone(), attachment.netns.clone());
        self.ledger.insert(attachment);
        if let Err(error) = self.wires.make(interface, &netns) {
            self.forget(&key, now)?;
            return Err(error.into());
        }
        if interface.has_ports
            && let Err(error) = self.ports.apply(self.ledger.attachments())
        {
            self.detach(&key, &netns, now)?;
            return Err(kernel(error));
        }
        self.compact_if_long();
        Ok(())
    }

    /// True where the attachment is written down but its link was never made, or is gone.
    fn is_unmade(&mut self, key: &Key) -> Result<bool, CniError> {
        Ok(!self.wires.is_there(&key.host_link()).map_err(kernel)?)
    }

    /// Takes an attachment out of ledger and journal; its addresses rest.
    fn forget(&mut self, key: &Key, now: Seconds) -> Result<Option<Attachment>, CniError> {
        let Some(attachment) = self.ledger.detach(key, now) else {
            return Ok(None);
        };
        // A journal that cannot be written must not keep a pod from going: at the next start
        // the attachment is found without its link and released again.
        if let Err(error) = self.journal.append(&[Entry::Detach {
            key: key.clone(),
            at: now,
        }]) {
            warn!(%error, attachment = %key, "the release is not written down");
        }
        self.compact_if_long();
        Ok(Some(attachment))
    }

    fn compact_if_long(&mut self) {
        if self.journal.is_long()
            && let Err(error) = self.journal.compact(&self.ledger.snapshot())
        {
            warn!(%error, "the journal stays long");
        }
    }

    fn del(&mut self, call: &Call, now: Seconds) -> Result<(), CniError> {
        let key = Key {
            container: call.container_id.clone(),
            ifname: call.ifname.clone(),
        };
        self.detach(&key, &call.netns, now)
    }

    /// Removes interface and attachment, either of which may be gone already.
    pub fn detach(&mut self, key: &Key, netns: &str, now: Seconds) -> Result<(), CniError> {
        // The link first: while it is there, nobody else may have the address.
        let known = self.ledger.get(key).or_else(|| self.adopted(key)).cloned();
        let link = known.as_ref().map_or_else(
            || key.host_link(),
            |attachment| attachment.host_link.clone(),
        );
        let limited = known
            .as_ref()
            .is_none_or(|attachment| attachment.bandwidth.is_some());
        let removed = self.wires.remove(&link, limited).map_err(kernel)?;
        let Some(attachment) = known else {
            return Ok(());
        };
        if !removed && !netns.is_empty() {
            crate::interface::remove_in_namespace(netns, &key.ifname).map_err(kernel)?;
        }
        self.forget(&attachment.key, now)?;
        if attachment.mode == PodMode::Bridge {
            attachment
                .ips()
                .filter(IpAddr::is_ipv6)
                .for_each(|ip| self.wires.forget_neighbour(ip));
        }
        if !attachment.ports.is_empty() {
            self.ports
                .apply(self.ledger.attachments())
                .map_err(kernel)?;
        }
        Ok(())
    }

    fn check(&mut self, call: &Call, conf: &NetConf) -> Result<(), CniError> {
        if conf.version < crate::cni::Version::V0_4_0 {
            return Err(CniError::new(
                code::INCOMPATIBLE_VERSION,
                "config version does not allow CHECK",
            ));
        }
        let Some(previous) = conf.prev_result()? else {
            return Err(CniError::new(
                code::INVALID_CONFIG,
                "prevResult: missing; CHECK compares with it",
            ));
        };
        let key = Key {
            container: call.container_id.clone(),
            ifname: call.ifname.clone(),
        };
        let Some(attachment) = self.ledger.get(&key).cloned() else {
            return Err(CniError::new(
                code::UNKNOWN_CONTAINER,
                format!("container {key} is not attached"),
            ));
        };
        let Some(settings) = self.settings.clone() else {
            return Err(self.not_ready(code::TRY_AGAIN));
        };
        let interface = plan(&attachment, &settings);
        let mut wrong = self
            .wires
            .check(&interface, &call.netns, &previous)
            .map_err(|error| CniError::new(code::CHECK, error.to_string()))?;
        for ip in attachment.ips() {
            if !previous
                .ips
                .iter()
                .any(|listed| listed.address.addr() == ip)
            {
                wrong.push(format!(
                    "address {ip} of the attachment is not in prevResult"
                ));
            }
        }
        if wrong.is_empty() {
            return Ok(());
        }
        Err(
            CniError::new(code::CHECK, format!("{key} is not as ADD left it"))
                .details(wrong.join("; ")),
        )
    }

    fn status(&self) -> Result<(), CniError> {
        match &self.readiness {
            Readiness::Ready => Ok(()),
            Readiness::Limited(cause) => Err(CniError::new(
                code::LIMITED_CONNECTIVITY,
                "pods may be cut off",
            )
            .details(cause.clone())),
            Readiness::NotReady(_) => Err(self.not_ready(code::NOT_AVAILABLE)),
        }
    }

    fn not_ready(&self, code: u32) -> CniError {
        let cause = match &self.readiness {
            Readiness::NotReady(cause) | Readiness::Limited(cause) => cause.clone(),
            Readiness::Ready => String::new(),
        };
        CniError::new(code, "pods cannot be attached yet").details(cause)
    }

    /// Removes every attachment of this network that the runtime does not know; goes on past
    /// errors and reports them together.
    fn gc(&mut self, conf: &NetConf, now: Seconds) -> Result<(), CniError> {
        if conf.version < crate::cni::Version::V1_1_0 {
            return Err(CniError::new(
                code::INCOMPATIBLE_VERSION,
                "config version does not allow GC",
            ));
        }
        let Some(valid) = &conf.valid_attachments else {
            return Err(CniError::new(
                code::INVALID_CONFIG,
                "cni.dev/valid-attachments: missing; without it every pod would be removed",
            ));
        };
        let valid: BTreeSet<Key> = valid.iter().map(crate::cni::ValidAttachment::key).collect();
        let stale: Vec<Attachment> = self
            .ledger
            .attachments()
            .filter(|attachment| {
                attachment.network == conf.name && !valid.contains(&attachment.key)
            })
            .cloned()
            .collect();
        let mut errors = Vec::new();
        for attachment in stale {
            info!(attachment = %attachment.key, pod = %attachment.pod, "garbage collected");
            if let Err(error) = self.detach(&attachment.key, &attachment.netns, now) {
                errors.push(format!("{}: {error}", attachment.key));
            }
        }
        if errors.is_empty() {
            Ok(())
        } else {
            Err(
                CniError::new(code::KERNEL, "some attachments could not be removed")
                    .details(errors.join("; ")),
            )
        }
    }

    /// Heals where something of a pod's was changed. What is told here is mostly the manager's
    /// own doing, so each piece is looked at before anything else is.
    pub fn notice(&mut self, changes: &[Noticed]) {
        let concerns = |manager: &mut Manager, change: &Noticed| match change {
            Noticed::Everything => true,
            Noticed::Route(ip) => manager.ledger.holder(*ip).is_some(),
            Noticed::Link(index) => match manager.wires.link(*index) {
                Some(link) if link.name == BRIDGE => true,
                Some(link) => manager
                    .ledger
                    .attachments()
                    .any(|a| a.host_link == link.name),
                None => false,
            },
        };
        if changes.iter().any(|change| concerns(self, change)) {
            self.heal();
        }
    }

    /// Puts back what others took from the node's side of pods.
    pub fn heal(&mut self) {
        let Some(settings) = self.settings.clone() else {
            return;
        };
        if let Err(error) = self.prepare_node(&settings) {
            warn!(%error, "the node cannot be prepared for pods");
        }
        let interfaces: Vec<(Interface, &str)> = self
            .ledger
            .attachments()
            .map(|attachment| (plan(attachment, &settings), attachment.netns.as_str()))
            .collect();
        let (healed, mut errors) = self.wires.heal(&interfaces);
        self.ports.forget();
        errors.extend(self.ports.apply(self.ledger.attachments()).err());
        if !healed.is_empty() {
            info!(links = healed.join(" "), "healed");
        }
        for error in errors {
            warn!(%error, "not healed");
        }
    }
}

/// Whether a link's name is that of a pod's link on the node: `fn-` and 11 hex digits.
pub fn is_pod_link(name: &str) -> bool {
    name.strip_prefix("fn-")
        .is_some_and(|id| id.len() == 11 && id.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn kernel(error: linux::Error) -> CniError {
    CniError::new(code::KERNEL, error.to_string())
}

fn read_settings(path: &Path) -> Option<Settings> {
    let bytes = fs::read(path).ok()?;
    match serde_json::from_slice(&bytes) {
        Ok(settings) => Some(settings),
        Err(error) => {
            warn!(%error, file = %path.display(), "the node's last settings cannot be read; waiting for new ones");
            None
        }
    }
}
