//! Links: veth pairs, bridges, VXLAN ends and whatever else is there.

use std::net::IpAddr;
use std::os::fd::AsRawFd;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, InfoVxlan,
    LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};

use crate::error::{Error, Result};
use crate::mac::Mac;
use crate::netlink::{About, Netlink};
use crate::netns::NetNs;

/// Longest name of a link.
const NAME_MAX: usize = 15;

/// What a link is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One end of a pair.
    Veth,
    /// A bridge.
    Bridge,
    /// A VXLAN end.
    Vxlan(Vxlan),
    /// An intermediate functional block, where received packets are queued.
    Ifb,
    /// Anything else, by the kernel's name of it; empty for devices without a kind (`lo`).
    Other(String),
}

/// What makes a VXLAN end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vxlan {
    /// Network identifier.
    pub id: u32,
    /// UDP port.
    pub port: u16,
    /// Source address of tunnelled packets.
    pub local: Option<IpAddr>,
    /// Index of the link tunnelled packets leave by.
    pub parent: Option<u32>,
    /// Whether it learns from what it receives.
    pub learning: bool,
}

/// A link, as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Index, unique in its namespace.
    pub index: u32,
    /// Name.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// MTU.
    pub mtu: u32,
    /// Hardware address, where it has one of six bytes.
    pub mac: Option<Mac>,
    /// Set up.
    pub up: bool,
    /// The other side is up as well.
    pub carrier: bool,
    /// Index of a veth's peer or of a tunnel's parent.
    pub peer: Option<u32>,
    /// The kernel's identifier of the namespace in which `peer` is, where it is another one.
    pub peer_netns: Option<i32>,
    /// Index of the bridge it is a port of.
    pub master: Option<u32>,
    /// As a bridge's port: frames may leave by it that came by it.
    pub hairpin: bool,
    /// Free text (`ip link set alias`).
    pub alias: Option<String>,
}

/// The other end of a new veth pair. It starts down: the kernel refuses to set it up before the
/// pair is tied, so that is a request of its own ([`Netlink::set_up`] in its namespace).
#[derive(Clone, Debug, Default)]
pub struct VethEnd<'a> {
    /// Name.
    pub name: &'a str,
    /// Where it appears; the same namespace where absent.
    pub netns: Option<&'a NetNs>,
    /// MTU; the kernel's default where absent.
    pub mtu: Option<u32>,
    /// Hardware address; random where absent.
    pub mac: Option<Mac>,
}

/// A link to be made.
#[derive(Clone, Debug)]
pub struct NewLink<'a> {
    /// Name.
    pub name: &'a str,
    /// What it is.
    pub kind: NewKind<'a>,
    /// MTU; the kernel's default where absent.
    pub mtu: Option<u32>,
    /// Hardware address; random where absent.
    pub mac: Option<Mac>,
    /// Index of the bridge it becomes a port of.
    pub master: Option<u32>,
    /// Set up at once.
    pub up: bool,
}

/// What a new link is.
#[derive(Clone, Debug)]
pub enum NewKind<'a> {
    /// A pair; the other end.
    Veth(VethEnd<'a>),
    /// A bridge.
    Bridge,
    /// A VXLAN end. Checksums stay as the kernel sets them: switching them off costs
    /// segmentation offload and with it most of the throughput.
    Vxlan(Vxlan),
    /// An intermediate functional block.
    Ifb,
}

impl<'a> NewLink<'a> {
    /// A link with the kernel's defaults, set up at once.
    pub fn new(name: &'a str, kind: NewKind<'a>) -> Self {
        Self {
            name,
            kind,
            mtu: None,
            mac: None,
            master: None,
            up: true,
        }
    }
}

/// What to change on a link; what is absent stays.
#[derive(Clone, Debug, Default)]
pub struct LinkChange<'a> {
    /// Set up or down. The kernel does it after the other changes of the same request.
    pub up: Option<bool>,
    /// MTU.
    pub mtu: Option<u32>,
    /// Hardware address.
    pub mac: Option<Mac>,
    /// New name; the link must be down in older kernels.
    pub name: Option<&'a str>,
    /// Bridge by index, 0 for none.
    pub master: Option<u32>,
    /// As a bridge's port: whether frames may leave by it that came by it.
    pub hairpin: Option<bool>,
    /// Namespace it moves to.
    pub netns: Option<&'a NetNs>,
    /// Free text.
    pub alias: Option<&'a str>,
}

impl Netlink {
    /// All links.
    pub fn links(&mut self) -> Result<Vec<Link>> {
        let answers = self.dump(
            &RouteNetlinkMessage::GetLink(LinkMessage::default()),
            &About {
                object: &|| "links".to_owned(),
                operation: "list",
            },
        )?;
        Ok(answers
            .into_iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewLink(message) => parse(&message),
                _ => None,
            })
            .collect())
    }

    /// The link called `name`; `None` where there is none.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>> {
        let mut message = LinkMessage::default();
        message
            .attributes
            .push(LinkAttribute::IfName(checked(name)?));
        self.one_link(message, &|| format!("link {name}"))
    }

    /// The link with an index; `None` where there is none.
    pub fn link_by_index(&mut self, index: u32) -> Result<Option<Link>> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        self.one_link(message, &|| format!("link #{index}"))
    }

    /// The link called `name`, where its absence is an error.
    pub fn expect_link(&mut self, name: &str) -> Result<Link> {
        self.link(name)?
            .ok_or_else(|| Error::kernel(format!("link {name}"), "find", libc::ENODEV, None))
    }

    /// Makes a link; a name that is taken is an error (`is_exists`).
    pub fn create_link(&mut self, new: &NewLink<'_>) -> Result<()> {
        let mut message = LinkMessage::default();
        let (kind, data) = match &new.kind {
            NewKind::Veth(end) => (
                InfoKind::Veth,
                Some(InfoData::Veth(InfoVeth::Peer(veth_end(end)?))),
            ),
            NewKind::Bridge => (InfoKind::Bridge, None),
            NewKind::Vxlan(vxlan) => (InfoKind::Vxlan, Some(InfoData::Vxlan(vxlan_data(vxlan)))),
            NewKind::Ifb => (InfoKind::Ifb, None),
        };
        describe(&mut message, new.name, new.mtu, new.mac, new.up)?;
        if let Some(master) = new.master {
            message.attributes.push(LinkAttribute::Controller(master));
        }
        let mut info = vec![LinkInfo::Kind(kind)];
        info.extend(data.map(LinkInfo::Data));
        message.attributes.push(LinkAttribute::LinkInfo(info));
        let created = self.change(
            RouteNetlinkMessage::NewLink(message),
            NLM_F_CREATE | NLM_F_EXCL,
            &About {
                object: &|| format!("link {}", new.name),
                operation: "create",
            },
        );
        created.map_err(|error| match error.errno {
            Some(libc::EOPNOTSUPP) => error.hint(missing_module(&new.kind)),
            _ => error,
        })
    }

    /// Changes a link.
    pub fn change_link(&mut self, index: u32, change: &LinkChange<'_>) -> Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        if let Some(up) = change.up {
            message.header.change_mask = LinkFlags::Up;
            message.header.flags = if up {
                LinkFlags::Up
            } else {
                LinkFlags::empty()
            };
        }
        let attributes = &mut message.attributes;
        attributes.extend(change.mtu.map(LinkAttribute::Mtu));
        attributes.extend(change.mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
        attributes.extend(change.master.map(LinkAttribute::Controller));
        attributes.extend(
            change
                .alias
                .map(|alias| LinkAttribute::IfAlias(alias.to_owned())),
        );
        attributes.extend(
            change
                .netns
                .map(|netns| LinkAttribute::NetNsFd(netns.as_raw_fd())),
        );
        if let Some(name) = change.name {
            attributes.push(LinkAttribute::IfName(checked(name)?));
        }
        let changed = self.change(
            RouteNetlinkMessage::SetLink(message),
            0,
            &About {
                object: &|| format!("link #{index}"),
                operation: "change",
            },
        );
        let changed = changed.and_then(|()| match change.hairpin {
            Some(hairpin) => self.set_hairpin(index, hairpin),
            None => Ok(()),
        });
        // The name says more than the index; it costs a request only where something failed.
        changed.map_err(|error| match self.link_by_index(index) {
            Ok(Some(link)) => Error {
                object: format!("link {}", link.name),
                ..error
            },
            _ => error,
        })
    }

    /// A request of its own: the kernel takes settings of a port only from one that is a port
    /// already, and only with the request that also makes links.
    fn set_hairpin(&mut self, index: u32, hairpin: bool) -> Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(InfoPortData::BridgePort(vec![InfoBridgePort::HairpinMode(
                hairpin,
            )])),
        ]));
        self.change(
            RouteNetlinkMessage::NewLink(message),
            0,
            &About {
                object: &|| format!("link #{index}"),
                operation: "set hairpin mode of",
            },
        )
    }

    /// Sets a link up.
    pub fn set_up(&mut self, index: u32) -> Result<()> {
        self.change_link(
            index,
            &LinkChange {
                up: Some(true),
                ..LinkChange::default()
            },
        )
    }

    /// Deletes a link by name; false where there was none.
    pub fn delete_link(&mut self, name: &str) -> Result<bool> {
        let mut message = LinkMessage::default();
        message
            .attributes
            .push(LinkAttribute::IfName(checked(name)?));
        let deleted = self.change(
            RouteNetlinkMessage::DelLink(message),
            0,
            &About {
                object: &|| format!("link {name}"),
                operation: "delete",
            },
        );
        match deleted {
            Ok(()) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn one_link(
        &mut self,
        message: LinkMessage,
        object: &dyn Fn() -> String,
    ) -> Result<Option<Link>> {
        let answer = self.get(
            RouteNetlinkMessage::GetLink(message),
            &About {
                object,
                operation: "find",
            },
        );
        match answer {
            Ok(Some(RouteNetlinkMessage::NewLink(message))) => Ok(parse(&message)),
            Ok(_) => Ok(None),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Refuses a name the kernel would cut or misread.
fn checked(name: &str) -> Result<String> {
    let fits = !name.is_empty()
        && name.len() <= NAME_MAX
        && name != "."
        && name != ".."
        && !name.contains(|c: char| c == '/' || c == ':' || c == '\0' || c.is_whitespace());
    if fits {
        Ok(name.to_owned())
    } else {
        Err(Error::other(
            format!("link {name:?}"),
            "name",
            format!("a link's name has 1 to {NAME_MAX} bytes without space, slash and colon"),
        ))
    }
}

fn missing_module(kind: &NewKind<'_>) -> &'static str {
    match kind {
        NewKind::Veth(_) => "is the veth module in this kernel?",
        NewKind::Bridge => "is the bridge module in this kernel?",
        NewKind::Vxlan(_) => "is the vxlan module in this kernel?",
        NewKind::Ifb => "is the ifb module in this kernel?",
    }
}

fn describe(
    message: &mut LinkMessage,
    name: &str,
    mtu: Option<u32>,
    mac: Option<Mac>,
    up: bool,
) -> Result<()> {
    message
        .attributes
        .push(LinkAttribute::IfName(checked(name)?));
    message.attributes.extend(mtu.map(LinkAttribute::Mtu));
    message
        .attributes
        .extend(mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
    if up {
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
    }
    Ok(())
}

fn veth_end(end: &VethEnd<'_>) -> Result<LinkMessage> {
    let mut message = LinkMessage::default();
    describe(&mut message, end.name, end.mtu, end.mac, false)?;
    message.attributes.extend(
        end.netns
            .map(|netns| LinkAttribute::NetNsFd(netns.as_raw_fd())),
    );
    Ok(message)
}

fn vxlan_data(vxlan: &Vxlan) -> Vec<InfoVxlan> {
    let mut data = vec![
        InfoVxlan::Id(vxlan.id),
        InfoVxlan::Port(vxlan.port),
        InfoVxlan::Learning(vxlan.learning),
    ];
    data.extend(vxlan.parent.map(InfoVxlan::Link));
    data.extend(vxlan.local.map(|local| match local {
        IpAddr::V4(local) => InfoVxlan::Local(local),
        IpAddr::V6(local) => InfoVxlan::Local6(local),
    }));
    data
}

pub(crate) fn parse(message: &LinkMessage) -> Option<Link> {
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        kind: Kind::Other(String::new()),
        mtu: 0,
        mac: None,
        up: message.header.flags.contains(LinkFlags::Up),
        carrier: message.header.flags.contains(LinkFlags::LowerUp),
        peer: None,
        peer_netns: None,
        master: None,
        hairpin: false,
        alias: None,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Address(bytes) => link.mac = Mac::from_slice(bytes),
            LinkAttribute::Link(peer) => link.peer = Some(*peer).filter(|peer| *peer != 0),
            LinkAttribute::LinkNetNsId(id) => link.peer_netns = Some(*id),
            LinkAttribute::Controller(master) => link.master = Some(*master),
            LinkAttribute::IfAlias(alias) => link.alias = Some(alias.clone()),
            LinkAttribute::LinkInfo(info) => {
                link.kind = kind(info);
                link.hairpin = is_hairpin(info);
            }
            _ => {}
        }
    }
    (!link.name.is_empty()).then_some(link)
}

fn kind(info: &[LinkInfo]) -> Kind {
    let name = info.iter().find_map(|item| match item {
        LinkInfo::Kind(kind) => Some(kind),
        _ => None,
    });
    let data = info.iter().find_map(|item| match item {
        LinkInfo::Data(InfoData::Vxlan(data)) => Some(data.as_slice()),
        _ => None,
    });
    match name {
        Some(InfoKind::Veth) => Kind::Veth,
        Some(InfoKind::Bridge) => Kind::Bridge,
        Some(InfoKind::Ifb) => Kind::Ifb,
        Some(InfoKind::Vxlan) => Kind::Vxlan(parse_vxlan(data.unwrap_or_default())),
        Some(other) => Kind::Other(other.to_string()),
        None => Kind::Other(String::new()),
    }
}

fn is_hairpin(info: &[LinkInfo]) -> bool {
    info.iter().any(|item| match item {
        LinkInfo::PortData(InfoPortData::BridgePort(port)) => {
            port.contains(&InfoBridgePort::HairpinMode(true))
        }
        _ => false,
    })
}

fn parse_vxlan(data: &[InfoVxlan]) -> Vxlan {
    let mut vxlan = Vxlan {
        id: 0,
        port: 0,
        local: None,
        parent: None,
        learning: false,
    };
    for item in data {
        match item {
            InfoVxlan::Id(id) => vxlan.id = *id,
            InfoVxlan::Port(port) => vxlan.port = *port,
            InfoVxlan::Local(ip) => vxlan.local = Some((*ip).into()),
            InfoVxlan::Local6(ip) => vxlan.local = Some((*ip).into()),
            InfoVxlan::Link(parent) => vxlan.parent = Some(*parent),
            InfoVxlan::Learning(learning) => vxlan.learning = *learning,
            _ => {}
        }
    }
    vxlan
}
