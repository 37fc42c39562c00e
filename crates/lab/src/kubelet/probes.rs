//! Probes: how results are counted (pure), what a probe is aimed at (pure), and the
//! loop that asks on time.

use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, HTTPGetAction, HTTPHeader, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// What a probe decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Holds the other two back until it passes.
    Startup,
    /// Its failure restarts the container.
    Liveness,
    /// Its failure takes the pod out of Services.
    Readiness,
}

impl Kind {
    /// The name Events use.
    pub fn title(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }

    /// The name sentences about restarts use.
    pub fn word(self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Liveness => "liveness",
            Self::Readiness => "readiness",
        }
    }

    /// The container's probe of this kind.
    pub fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            Self::Startup => container.startup_probe.as_ref(),
            Self::Liveness => container.liveness_probe.as_ref(),
            Self::Readiness => container.readiness_probe.as_ref(),
        }
    }
}

/// One try's outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It answered well.
    Success,
    /// It answered badly, or not at all.
    Failure(String),
    /// It could not be asked.
    Error(String),
}

/// Counts results against the thresholds.
#[derive(Clone, Debug)]
pub struct Tally {
    success_threshold: u32,
    failure_threshold: u32,
    last: Option<bool>,
    run: u32,
}

impl Tally {
    /// A fresh count for a probe.
    pub fn new(probe: &Probe) -> Self {
        let threshold = |value: Option<i32>, default: u32| {
            value
                .and_then(|v| u32::try_from(v).ok())
                .filter(|v| *v > 0)
                .unwrap_or(default)
        };
        Self {
            success_threshold: threshold(probe.success_threshold, 1),
            failure_threshold: threshold(probe.failure_threshold, 3),
            last: None,
            run: 0,
        }
    }

    /// Takes a result in; a verdict where its threshold is reached.
    pub fn observe(&mut self, success: bool) -> Option<bool> {
        if self.last == Some(success) {
            self.run = self.run.saturating_add(1);
        } else {
            self.last = Some(success);
            self.run = 1;
        }
        let threshold = if success {
            self.success_threshold
        } else {
            self.failure_threshold
        };
        (self.run >= threshold).then_some(success)
    }
}

/// When a probe is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// After the container's start.
    pub initial_delay: Duration,
    /// Between two tries.
    pub period: Duration,
    /// The longest try.
    pub timeout: Duration,
}

impl Timing {
    /// A probe's timing, with Kubernetes' defaults.
    pub fn of(probe: &Probe) -> Self {
        let seconds = |value: Option<i32>, default: u64| {
            let value = value.and_then(|v| u64::try_from(v).ok()).filter(|v| *v > 0);
            Duration::from_secs(value.unwrap_or(default))
        };
        Self {
            initial_delay: seconds(probe.initial_delay_seconds, 0),
            period: seconds(probe.period_seconds, 10),
            timeout: seconds(probe.timeout_seconds, 1),
        }
    }
}

/// What a probe, or a lifecycle hook, is aimed at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// An HTTP request.
    Http {
        /// `http` or `https`.
        https: bool,
        /// Where to.
        host: String,
        /// Port.
        port: u16,
        /// Path and query.
        path: String,
        /// Extra headers.
        headers: Vec<(String, String)>,
    },
    /// A connection.
    Tcp {
        /// Where to.
        host: String,
        /// Port.
        port: u16,
    },
    /// A command in the container.
    Exec(Vec<String>),
    /// A gRPC health check.
    Grpc {
        /// Where to.
        host: String,
        /// Port.
        port: u16,
        /// Service asked about.
        service: String,
    },
    /// Doing nothing for a while (lifecycle hooks only).
    Sleep(Duration),
}

/// A probe's target.
pub fn target(probe: &Probe, container: &Container, ip: Option<IpAddr>) -> Result<Target, String> {
    if let Some(exec) = &probe.exec {
        return Ok(Target::Exec(exec.command.clone().unwrap_or_default()));
    }
    if let Some(get) = &probe.http_get {
        return http_target(get, container, ip);
    }
    if let Some(tcp) = &probe.tcp_socket {
        return Ok(Target::Tcp {
            host: host(tcp.host.as_deref(), ip)?,
            port: port(&tcp.port, container)?,
        });
    }
    if let Some(grpc) = &probe.grpc {
        return Ok(Target::Grpc {
            host: host(None, ip)?,
            port: u16::try_from(grpc.port)
                .map_err(|_| format!("invalid port number: {}", grpc.port))?,
            service: grpc.service.clone().unwrap_or_default(),
        });
    }
    Err(format!(
        "missing probe handler for container {}",
        container.name
    ))
}

/// The target of an `httpGet` action.
pub fn http_target(
    get: &HTTPGetAction,
    container: &Container,
    ip: Option<IpAddr>,
) -> Result<Target, String> {
    let path = get.path.as_deref().unwrap_or("/");
    let pair = |header: &HTTPHeader| (header.name.clone(), header.value.clone());
    Ok(Target::Http {
        https: get
            .scheme
            .as_deref()
            .is_some_and(|s| s.eq_ignore_ascii_case("https")),
        host: host(get.host.as_deref(), ip)?,
        port: port(&get.port, container)?,
        path: if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("/{path}")
        },
        headers: get.http_headers.iter().flatten().map(pair).collect(),
    })
}

fn host(named: Option<&str>, ip: Option<IpAddr>) -> Result<String, String> {
    match (named.filter(|host| !host.is_empty()), ip) {
        (Some(host), _) => Ok(host.to_owned()),
        (None, Some(ip)) => Ok(ip.to_string()),
        (None, None) => Err("the pod has no address yet".to_owned()),
    }
}

/// A port by number or by the name the container gives it.
pub fn port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let mut ports = container.ports.iter().flatten();
            let named = ports.find(|p| p.name.as_deref() == Some(name.as_str()));
            match (named, name.parse()) {
                (Some(port), _) => port.container_port,
                (None, Ok(number)) => number,
                (None, Err(_)) => return Err(format!("couldn't find port: {name:?}")),
            }
        }
    };
    u16::try_from(number)
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| format!("invalid port number: {number}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn probe(value: serde_json::Value) -> Probe {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_verdict_needs_its_threshold_in_a_row() {
        let mut tally = Tally::new(&probe(
            json!({"successThreshold": 2, "failureThreshold": 3}),
        ));
        let verdicts: Vec<_> = [false, false, true, false, false, false, true, true, true]
            .into_iter()
            .map(|success| tally.observe(success))
            .collect();
        assert_eq!(
            verdicts,
            [
                None,
                None,
                None,
                None,
                None,
                Some(false),
                None,
                Some(true),
                Some(true)
            ]
        );
    }

    #[test]
    fn defaults_are_those_of_kubernetes() {
        let timing = Timing::of(&probe(json!({})));
        assert_eq!(timing.initial_delay, Duration::ZERO);
        assert_eq!(timing.period, Duration::from_secs(10));
        assert_eq!(timing.timeout, Duration::from_secs(1));
        let mut tally = Tally::new(&probe(json!({})));
        assert_eq!(tally.observe(true), Some(true));
        assert_eq!(tally.observe(false), None);
        assert_eq!(tally.observe(false), None);
        assert_eq!(tally.observe(false), Some(false));
    }

    #[test]
    fn targets_resolve_named_ports_and_the_pods_address() {
        let container: Container = serde_json::from_value(json!({"name": "web",
            "ports": [{"name": "http", "containerPort": 8080}]}))
        .unwrap();
        let ip = Some("10.244.1.5".parse().unwrap());
        let get = probe(
            json!({"httpGet": {"port": "http", "path": "ready", "scheme": "HTTPS",
            "httpHeaders": [{"name": "X", "value": "y"}]}}),
        );
        assert_eq!(
            target(&get, &container, ip),
            Ok(Target::Http {
                https: true,
                host: "10.244.1.5".to_owned(),
                port: 8080,
                path: "/ready".to_owned(),
                headers: vec![("X".to_owned(), "y".to_owned())],
            })
        );
        let missing = probe(json!({"tcpSocket": {"port": "nope"}}));
        let refused = target(&missing, &container, ip).unwrap_err();
        assert_eq!(refused, "couldn't find port: \"nope\"");
        let localhost = probe(json!({"tcpSocket": {"port": 80, "host": "127.0.0.1"}}));
        assert_eq!(
            target(&localhost, &container, None),
            Ok(Target::Tcp {
                host: "127.0.0.1".to_owned(),
                port: 80
            })
        );
    }
}
