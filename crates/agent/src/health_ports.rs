//! `spec.healthCheckNodePort`: balancers ask each node whether it has endpoints of the Service.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use hyper::StatusCode;
use hyper::header::HeaderValue;
use linux::Kernel;
use model::{Cluster, Key};
use services::plan::{HealthCheck, NodePorts};
use services::{Plan, Settings};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::http::{self, Answer};
use crate::proxy_health::ProxyHealth;
use crate::publish::Publisher;

/// A port in use is tried again after this time.
const RETRY: Duration = Duration::from_secs(5);

/// What is to be answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Wanted {
    /// Addresses of this node; a wildcard is all of its family.
    places: Vec<IpAddr>,
    services: BTreeMap<Key, Asked>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Asked {
    check: HealthCheck,
    uid: String,
}

/// The loop's end: what changed is passed on, nothing waits.
pub(crate) struct HealthPorts {
    wanted: watch::Sender<Wanted>,
    places: Option<NodePorts>,
}

impl HealthPorts {
    /// Starts the answering end.
    pub(crate) fn start(node: &str, publisher: Arc<Publisher>, health: Arc<ProxyHealth>) -> Self {
        let (wanted, heard) = watch::channel(Wanted::default());
        let doors = Doors {
            node: node.to_owned(),
            publisher,
            health,
            open: BTreeMap::new(),
            refused: BTreeMap::new(),
        };
        tokio::spawn(doors.run(heard));
        Self {
            wanted,
            places: None,
        }
    }

    /// The node's addresses are read again at the next update.
    pub(crate) fn addresses_changed(&mut self) -> bool {
        let ranges = matches!(self.places, Some(NodePorts::Ranges(_)));
        if ranges {
            self.places = None;
        }
        ranges
    }

    /// Takes from the plan what changed.
    pub(crate) fn update(
        &mut self,
        kernel: &mut dyn Kernel,
        cluster: &Cluster,
        plan: &Plan,
        whole: bool,
        changed: &BTreeSet<Key>,
    ) {
        let places = self.read_places(kernel, plan.settings());
        let asked = |key: &Key| {
            let check = plan.health().get(key)?.clone();
            let service = cluster.services.get(key);
            let uid = service.map(|service| service.uid.clone());
            Some(Asked {
                check,
                uid: uid.unwrap_or_default(),
            })
        };
        self.wanted.send_if_modified(|wanted| {
            let mut differs = false;
            if let Some(places) = places {
                differs |= wanted.places != places;
                wanted.places = places;
            }
            if whole {
                let all = plan.health().keys();
                let all = all.filter_map(|key| Some((key.clone(), asked(key)?)));
                let all: BTreeMap<Key, Asked> = all.collect();
                differs |= wanted.services != all;
                wanted.services = all;
                return differs;
            }
            for key in changed {
                let new = asked(key);
                if wanted.services.get(key) != new.as_ref() {
                    differs = true;
                    match new {
                        Some(new) => wanted.services.insert(key.clone(), new),
                        None => wanted.services.remove(key),
                    };
                }
            }
            differs
        });
    }

    /// Where to listen, where that may have changed: as kube-proxy, where node ports are.
    fn read_places(&mut self, kernel: &mut dyn Kernel, settings: &Settings) -> Option<Vec<IpAddr>> {
        if self.places.as_ref() == Some(&settings.node_ports) {
            return None;
        }
        let places = match &settings.node_ports {
            NodePorts::All => vec![
                IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            ],
            NodePorts::Ranges(ranges) => match kernel.addresses(None) {
                Ok(addresses) => {
                    let mut ips: Vec<IpAddr> = addresses
                        .iter()
                        .map(|address| address.net.addr())
                        .filter(|ip| ranges.iter().any(|range| range.contains(ip)))
                        .collect();
                    ips.sort_unstable();
                    ips.dedup();
                    ips
                }
                Err(error) => {
                    warn!(%error, "health check ports: this node's addresses are not known");
                    return None;
                }
            },
        };
        self.places = Some(settings.node_ports.clone());
        Some(places)
    }
}

/// How many endpoints are here, where the family is served: a balancer is told of those that it
/// can reach by the address it asks.
fn count(check: &HealthCheck, place: &IpAddr) -> Option<usize> {
    if place.is_ipv4() {
        check.local_endpoints
    } else {
        check.local_endpoints_v6
    }
}

/// A Service's open port.
struct Door {
    port: u16,
    /// Where, and how many endpoints are told there.
    places: Vec<(IpAddr, Arc<AtomicUsize>)>,
    tasks: Vec<JoinHandle<()>>,
}

impl Door {
    /// Whether it is open as it is asked for; the counts may differ.
    fn fits(&self, asked: &Asked, places: &[IpAddr]) -> bool {
        let wanted = places
            .iter()
            .filter(|place| count(&asked.check, place).is_some());
        self.port == asked.check.port && wanted.eq(self.places.iter().map(|(place, _)| place))
    }

    fn set(&self, check: &HealthCheck) {
        for (place, local) in &self.places {
            local.store(count(check, place).unwrap_or_default(), Ordering::Relaxed);
        }
    }

    /// Closed when this returns: the port is free for another Service.
    async fn close(self) {
        for task in self.tasks {
            task.abort();
            let _ = task.await;
        }
    }
}

/// The answering end.
struct Doors {
    node: String,
    publisher: Arc<Publisher>,
    health: Arc<ProxyHealth>,
    open: BTreeMap<Key, Door>,
    /// Why a Service's port is not open; told once.
    refused: BTreeMap<Key, String>,
}

impl Doors {
    async fn run(mut self, mut heard: watch::Receiver<Wanted>) {
        loop {
            let wanted = heard.borrow_and_update().clone();
            self.close(&wanted).await;
            for (key, asked) in &wanted.services {
                match self.open.get(key) {
                    Some(door) => door.set(&asked.check),
                    None => self.open(key, asked, &wanted.places).await,
                }
            }
            let missing = wanted.services.len() > self.open.len();
            tokio::select! {
                changed = heard.changed() => if changed.is_err() {
                    return;
                },
                () = tokio::time::sleep(RETRY), if missing => {}
            }
        }
    }

    async fn close(&mut self, wanted: &Wanted) {
        let stays = |key: &Key, door: &Door| {
            let asked = wanted.services.get(key);
            asked.is_some_and(|asked| door.fits(asked, &wanted.places))
        };
        let gone: Vec<Key> = self
            .open
            .iter()
            .filter(|(key, door)| !stays(key, door))
            .map(|(key, _)| key.clone())
            .collect();
        for key in gone {
            if let Some(door) = self.open.remove(&key) {
                door.close().await;
            }
        }
        self.refused
            .retain(|key, _| wanted.services.contains_key(key));
    }

    async fn open(&mut self, key: &Key, asked: &Asked, places: &[IpAddr]) {
        let port = asked.check.port;
        let mut door = Door {
            port,
            places: Vec::new(),
            tasks: Vec::new(),
        };
        for place in places {
            let Some(local) = count(&asked.check, place) else {
                continue;
            };
            match listen(SocketAddr::new(*place, port)) {
                Ok(listener) => {
                    let local = Arc::new(AtomicUsize::new(local));
                    door.places.push((*place, local.clone()));
                    let key = key.clone();
                    let health = self.health.clone();
                    let answer = move |_: &str| {
                        let told = health.told(Instant::now(), SystemTime::now());
                        answer(&key, local.load(Ordering::Relaxed), told.healthy)
                    };
                    door.tasks
                        .push(tokio::spawn(http::accept(listener, answer)));
                }
                Err(error) => {
                    door.close().await;
                    self.refuse(key, asked, &error);
                    return;
                }
            }
        }
        info!(namespace = %key.0, service = %key.1, port, "health check port");
        self.refused.remove(key);
        self.open.insert(key.clone(), door);
    }

    fn refuse(&mut self, key: &Key, asked: &Asked, error: &std::io::Error) {
        let (port, node) = (asked.check.port, &self.node);
        let problem = format!(
            "node {node} failed to start healthcheck \"{}/{}\" on port {port}: {error}",
            key.0, key.1
        );
        if self.refused.get(key) != Some(&problem) {
            warn!("{problem}");
            self.publisher.service_event(
                key,
                &asked.uid,
                "FailedToStartServiceHealthcheck",
                &problem,
            );
            self.refused.insert(key.clone(), problem);
        }
    }
}

/// Listens at an address of one family only: the other's has a count of its own.
fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        let socket = TcpSocket::new_v6()?;
        nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::Ipv6V6Only, &true)?;
        socket
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(128)
}

/// kube-proxy's answer, to whatever path.
fn answer((namespace, name): &Key, local: usize, healthy: bool) -> Answer {
    let status = if local > 0 && healthy {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let (namespace, name) = (
        serde_json::Value::from(namespace.as_str()),
        serde_json::Value::from(name.as_str()),
    );
    let body = format!(
        "{{\n\t\"service\": {{\n\t\t\"namespace\": {namespace},\n\t\t\"name\": {name}\n\t}},\n\t\"localEndpoints\": {local},\n\t\"serviceProxyHealthy\": {healthy}\n}}"
    );
    let mut answer = http::response(status, "application/json", body);
    if let Ok(weight) = HeaderValue::from_str(&local.to_string()) {
        answer
            .headers_mut()
            .insert("x-load-balancing-endpoint-weight", weight);
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;
    use std::net::Ipv4Addr;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test]
    async fn a_balancer_is_told_as_kube_proxy_tells_it() {
        let key = ("shop".to_owned(), "web".to_owned());
        let told = answer(&key, 2, true);
        assert_eq!(told.status(), 200);
        assert_eq!(told.headers()["x-load-balancing-endpoint-weight"], "2");
        assert_eq!(told.headers()["content-type"], "application/json");
        let body = told.into_body().collect().await.unwrap().to_bytes();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            body,
            serde_json::json!({"service": {"namespace": "shop", "name": "web"},
                "localEndpoints": 2, "serviceProxyHealthy": true})
        );
        assert_eq!(answer(&key, 0, true).status(), 503);
        assert_eq!(answer(&key, 2, false).status(), 503);
    }

    async fn get(port: u16) -> Option<String> {
        let mut stream = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port))
            .await
            .ok()?;
        let request = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await.ok()?;
        Some(text)
    }

    fn doors() -> Doors {
        Doors {
            node: "node1".into(),
            publisher: Arc::new(Publisher::start(None, "node1")),
            health: Arc::new(ProxyHealth::new(Duration::from_secs(60))),
            open: BTreeMap::new(),
            refused: BTreeMap::new(),
        }
    }

    fn wanted(ports: &[(&str, u16, usize)]) -> Wanted {
        let services = ports.iter().map(|(name, port, local)| {
            let check = HealthCheck {
                port: *port,
                local_endpoints: Some(*local),
                local_endpoints_v6: None,
            };
            let uid = String::new();
            (("d".to_owned(), (*name).to_owned()), Asked { check, uid })
        });
        Wanted {
            places: vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
            services: services.collect(),
        }
    }

    async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
        let end = Instant::now() + Duration::from_secs(10);
        while !holds().await {
            assert!(Instant::now() < end, "{what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn ports_open_change_hands_and_close() {
        let free = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let (say, heard) = watch::channel(wanted(&[("a", port, 0)]));
        let task = tokio::spawn(doors().run(heard));
        let answers = async |text: &str| {
            let got = get(port).await;
            got.is_some_and(|got| got.contains(text))
        };
        eventually("a answers", async || answers("503 Service").await).await;
        say.send_replace(wanted(&[("a", port, 3)]));
        eventually("a has endpoints", async || {
            answers("\"localEndpoints\": 3").await
        })
        .await;
        say.send_replace(wanted(&[("b", port, 1)]));
        eventually("b has the port", async || answers("\"name\": \"b\"").await).await;
        say.send_replace(wanted(&[]));
        eventually("nobody listens", async || get(port).await.is_none()).await;
        task.abort();
    }

    #[tokio::test]
    async fn a_port_in_use_is_told_and_others_open() {
        let taken = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let mut doors = doors();
        let wanted = wanted(&[("a", port, 1)]);
        let (key, asked) = wanted.services.iter().next().unwrap();
        doors.open(key, asked, &wanted.places).await;
        assert!(doors.open.is_empty());
        let problem = &doors.refused[key];
        assert!(
            problem.starts_with(&format!(
                "node node1 failed to start healthcheck \"d/a\" on port {port}: "
            )),
            "{problem}"
        );
        drop(taken);
        doors.open(key, asked, &wanted.places).await;
        assert!(doors.refused.is_empty() && doors.open.len() == 1);
        for (_, door) in std::mem::take(&mut doors.open) {
            door.close().await;
        }
    }
}
