//! The node's links: which networks it is on, and a task for each link and family that answers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use linux::announce::{Heard, Speaker};
use linux::{Mac, Netlink};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until};

/// A takeover is told at once and again after these times: frames get lost, and some devices
/// listen only now and then.
const AGAIN: &[Duration] = &[
    Duration::from_millis(100),
    Duration::from_millis(1000),
    Duration::from_millis(3000),
];
/// Frames sent in one go.
const BURST: usize = 128;

/// One network that a link of this node is on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Lan {
    pub index: u32,
    pub mac: Mac,
    pub net: IpNet,
}

/// The networks this node is on, but those of pods.
pub(super) fn lans(netlink: &mut Netlink) -> linux::Result<Vec<Lan>> {
    let mut lans = Vec::new();
    let links = netlink.links()?;
    for address in netlink.addresses(None)? {
        let link = links.iter().find(|link| link.index == address.dev);
        let ours = |name: &str| name.starts_with("fn-") || name == "cni0" || name == "lo";
        if let Some(link) = link.filter(|link| link.up && !ours(&link.name))
            && let Some(mac) = link.mac
            && !address.local_scope
        {
            lans.push(Lan {
                index: link.index,
                mac,
                net: address.net.trunc(),
            });
        }
    }
    lans.sort();
    lans.dedup();
    Ok(lans)
}

/// Somebody else says that an address is at its hardware address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    pub ip: IpAddr,
    pub mac: Mac,
}

enum Order {
    Hold(Vec<IpAddr>),
    Drop(Vec<IpAddr>),
    Probe(IpAddr),
    Repeat(IpAddr),
}

/// All links that answer.
#[derive(Debug)]
pub(super) struct Links {
    lans: Vec<Lan>,
    tasks: BTreeMap<(u32, bool), (mpsc::UnboundedSender<Order>, AbortHandle)>,
    claims: mpsc::Sender<Claim>,
}

impl Links {
    /// Claims of others on addresses held or asked for go to `claims`.
    pub(super) fn new(claims: mpsc::Sender<Claim>) -> Self {
        Self {
            lans: Vec::new(),
            tasks: BTreeMap::new(),
            claims,
        }
    }

    pub(super) fn lans(&self) -> &[Lan] {
        &self.lans
    }

    /// Other networks than before: whatever was held must be held anew.
    pub(super) fn set_lans(&mut self, lans: Vec<Lan>) {
        self.lans = lans;
        self.stop();
    }

    /// No address is answered for any more.
    fn stop(&mut self) {
        for (_, (_, task)) in std::mem::take(&mut self.tasks) {
            task.abort();
        }
    }

    /// Answers for these addresses from now on, and tells everybody.
    pub(super) fn hold(&mut self, ips: impl IntoIterator<Item = IpAddr>) {
        self.order(ips, Order::Hold);
    }

    /// Answers no more for these.
    pub(super) fn drop(&mut self, ips: impl IntoIterator<Item = IpAddr>) {
        self.order(ips, Order::Drop);
    }

    /// Asks who else has the address.
    pub(super) fn probe(&mut self, ip: IpAddr) {
        self.order([ip], |ips| Order::Probe(ips[0]));
    }

    /// Tells everybody again where the address is.
    pub(super) fn repeat(&mut self, ip: IpAddr) {
        self.order([ip], |ips| Order::Repeat(ips[0]));
    }

    fn order(
        &mut self,
        ips: impl IntoIterator<Item = IpAddr>,
        make: impl Fn(Vec<IpAddr>) -> Order,
    ) {
        let mut by_link: BTreeMap<(u32, bool), (Mac, Vec<IpAddr>)> = BTreeMap::new();
        for ip in ips {
            let near = self.lans.iter().filter(|lan| lan.net.contains(&ip));
            if let Some(lan) = near.max_by_key(|lan| lan.net.prefix_len()) {
                let of_link = by_link.entry((lan.index, ip.is_ipv6()));
                of_link.or_insert((lan.mac, Vec::new())).1.push(ip);
            }
        }
        for (link, (mac, ips)) in by_link {
            if let Some(orders) = self.task(link, mac) {
                // It ended with its link; another look at the links makes a new one.
                let _ = orders.send(make(ips));
            }
        }
    }

    fn task(&mut self, link: (u32, bool), mac: Mac) -> Option<&mpsc::UnboundedSender<Order>> {
        let ended = |task: &(_, AbortHandle)| task.1.is_finished();
        if self.tasks.get(&link).is_none_or(ended) {
            let socket = Speaker::open(link.0, mac, link.1)
                // SAFETY: the speaker owns its descriptor, keeps it as long as it lives, and is
                // neither replaced nor taken out of the AsyncFd.
                .map(|speaker| unsafe { AsyncFd::register(speaker) });
            let socket = match socket {
                Ok(Ok(socket)) => socket,
                Ok(Err(error)) => {
                    tracing::warn!("answering on link {}: {error}", link.0);
                    return None;
                }
                Err(error) => {
                    tracing::warn!("{error}");
                    return None;
                }
            };
            let (orders, queue) = mpsc::unbounded_channel();
            let mouth = Mouth {
                socket,
                held: BTreeSet::new(),
                asked: BTreeSet::new(),
                again: BTreeSet::new(),
                claims: self.claims.clone(),
            };
            let task = tokio::spawn(mouth.run(queue)).abort_handle();
            self.tasks.insert(link, (orders, task));
        }
        self.tasks.get(&link).map(|(orders, _)| orders)
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.stop();
    }
}

/// One link in one family.
struct Mouth {
    socket: AsyncFd<Speaker>,
    held: BTreeSet<IpAddr>,
    /// Whose holder is asked for.
    asked: BTreeSet<IpAddr>,
    again: BTreeSet<(Instant, IpAddr)>,
    claims: mpsc::Sender<Claim>,
}

impl Mouth {
    async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        loop {
            let next = self.again.first().map(|(at, _)| *at);
            let result = tokio::select! {
                heard = heard(&mut self.socket) => heard.and_then(|heard| self.hear(heard)),
                order = orders.recv() => match order {
                    Some(order) => self.follow(order).await,
                    None => return,
                },
                () = async {
                    match next {
                        Some(at) => sleep_until(at).await,
                        None => std::future::pending().await,
                    }
                } => self.tell_again().await,
            };
            if let Err(error) = result {
                if error.is_not_found() {
                    tracing::warn!("{error}; not answering there any more");
                    return;
                }
                // Down for the moment, or its queue is full.
                tracing::debug!("{error}");
                sleep(Duration::from_millis(20)).await;
            }
        }
    }

    fn hear(&mut self, heard: Vec<Heard>) -> linux::Result<()> {
        let speaker = self.socket.get_ref();
        let mut result = Ok(());
        for heard in heard {
            match heard {
                Heard::Asked(ip, asker) if self.held.contains(&ip) => {
                    result = speaker.answer(ip, &asker).and(result);
                }
                Heard::Claimed(ip, mac)
                    if mac != speaker.mac()
                        && (self.held.contains(&ip) || self.asked.contains(&ip)) =>
                {
                    // One that does not fit is told again by the next packet.
                    let _ = self.claims.try_send(Claim { ip, mac });
                }
                _ => {}
            }
        }
        result
    }

    async fn follow(&mut self, order: Order) -> linux::Result<()> {
        match order {
            Order::Hold(ips) => {
                let mut result = Ok(());
                for ip in &ips {
                    self.asked.remove(ip);
                    if self.held.insert(*ip) {
                        result = self.socket.get_mut().listen(*ip).and(result);
                    }
                    let now = Instant::now();
                    self.again
                        .extend(AGAIN.iter().map(|after| (now + *after, *ip)));
                }
                self.announce(&ips).await.and(result)
            }
            Order::Drop(ips) => {
                for ip in &ips {
                    if self.held.remove(ip) {
                        self.socket.get_mut().unlisten(*ip);
                    }
                    self.asked.remove(ip);
                }
                let held = &self.held;
                self.again.retain(|(_, ip)| held.contains(ip));
                Ok(())
            }
            Order::Probe(ip) => {
                if !self.held.contains(&ip) {
                    self.asked.insert(ip);
                }
                self.socket.get_ref().probe(ip)
            }
            Order::Repeat(ip) if self.held.contains(&ip) => self.announce(&[ip]).await,
            Order::Repeat(_) => Ok(()),
        }
    }

    async fn tell_again(&mut self) -> linux::Result<()> {
        let now = Instant::now();
        let mut due = Vec::new();
        while let Some((at, ip)) = self.again.first().copied().filter(|(at, _)| *at <= now) {
            self.again.remove(&(at, ip));
            due.push(ip);
        }
        self.announce(&due).await
    }

    async fn announce(&self, ips: &[IpAddr]) -> linux::Result<()> {
        let mut result = Ok(());
        for burst in ips.chunks(BURST) {
            for ip in burst {
                result = self.socket.get_ref().announce(*ip).and(result);
            }
            if ips.len() > BURST {
                sleep(Duration::from_millis(1)).await;
            }
        }
        result
    }
}

async fn heard(socket: &mut AsyncFd<Speaker>) -> linux::Result<Vec<Heard>> {
    loop {
        let io = |error: std::io::Error| linux::Error::io("packet socket", "wait", &error);
        let mut ready = socket.readable_mut().await.map_err(io)?;
        let heard = ready.get_inner_mut().read()?;
        if heard.is_empty() {
            ready.clear_ready();
        } else {
            return Ok(heard);
        }
    }
}
