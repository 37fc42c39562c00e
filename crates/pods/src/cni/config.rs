//! The network configuration as the plugin gets it on standard input.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::call::is_name;
use super::{CniError, CniResult, Dns, Version, code};
use crate::attachment::{Bandwidth, Key, PortMapping, Protocol};

/// Fields of the protocol that say nothing to this plugin.
const PASSED_OVER: [&str; 4] = ["type", "capabilities", "args", "cniVersions"];

/// A pool of addresses to choose from, as the capability `ipRanges` gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subnet {
    /// First and last address that may be given.
    pub first: IpAddr,
    /// Inclusive.
    pub last: IpAddr,
}

/// What the runtime adds for the capabilities of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeConfig {
    /// `portMappings`.
    pub ports: Vec<PortMapping>,
    /// `ips`: requested addresses.
    pub ips: Vec<IpAddr>,
    /// `mac`: requested hardware address.
    pub mac: Option<[u8; 6]>,
    /// `dns`.
    pub dns: Option<Dns>,
    /// `ipRanges`: one list of pools for each address to give.
    pub ranges: Vec<Vec<Subnet>>,
    /// `bandwidth`.
    pub bandwidth: Option<Bandwidth>,
}

/// An attachment the runtime still knows, for GC.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ValidAttachment {
    /// Container.
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// Interface.
    pub ifname: String,
}

impl ValidAttachment {
    /// As our own key.
    pub fn key(&self) -> Key {
        Key {
            container: self.container_id.clone(),
            ifname: self.ifname.clone(),
        }
    }
}

/// A network configuration, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetConf {
    /// `cniVersion`.
    pub version: Version,
    /// `name`.
    pub name: String,
    /// `agentSocket`: where the agent listens.
    pub agent_socket: PathBuf,
    /// `stateDir`: where release markers go while the agent is away.
    pub state_dir: PathBuf,
    /// `dns`, copied into the result.
    pub dns: Dns,
    /// `runtimeConfig`.
    pub runtime: RuntimeConfig,
    /// `prevResult`, as it came: DEL must not fail over it, so it is read where it is needed.
    pub prev_result: Option<Value>,
    /// `cni.dev/valid-attachments`.
    pub valid_attachments: Option<Vec<ValidAttachment>>,
}

impl NetConf {
    /// Reads a configuration; the error names field and cause.
    pub fn parse(stdin: &[u8]) -> Result<NetConf, CniError> {
        let value: Value = serde_json::from_slice(stdin).map_err(|error| {
            CniError::new(code::DECODE, "network configuration is not JSON")
                .details(error.to_string())
        })?;
        let Value::Object(fields) = value else {
            return Err(CniError::new(
                code::DECODE,
                "network configuration: a JSON object wanted",
            ));
        };
        // Before anything else: another version may mean other fields.
        let version = match fields.get("cniVersion") {
            None | Some(Value::Null) => Version::parse("0.1.0")?,
            Some(Value::String(text)) => Version::parse(text)?,
            Some(_) => return Err(CniError::new(code::DECODE, "cniVersion: text wanted")),
        };
        let mut conf = NetConf {
            version,
            name: String::new(),
            agent_socket: PathBuf::from("/run/flatnet/agent.sock"),
            state_dir: PathBuf::from("/var/lib/flatnet"),
            dns: Dns::default(),
            runtime: RuntimeConfig::default(),
            prev_result: None,
            valid_attachments: None,
        };
        for (name, value) in fields {
            conf.take(&name, value)?;
        }
        if conf.name.is_empty() {
            return Err(invalid("name", "missing network name"));
        }
        Ok(conf)
    }

    fn take(&mut self, name: &str, value: Value) -> Result<(), CniError> {
        match name {
            "cniVersion" => {}
            "name" => {
                self.name = text(name, &value)?;
                if !is_name(&self.name) {
                    return Err(invalid(
                        name,
                        &format!(
                            "{:?} has characters other than letters, digits, '_', '.', '-'",
                            self.name
                        ),
                    ));
                }
            }
            "agentSocket" => self.agent_socket = absolute(name, &value)?,
            "stateDir" => self.state_dir = absolute(name, &value)?,
            "dns" => self.dns = decode(name, &value)?,
            "runtimeConfig" => self.runtime = RuntimeConfig::parse(name, &value)?,
            "prevResult" => self.prev_result = Some(value).filter(|value| !value.is_null()),
            "cni.dev/valid-attachments" => self.valid_attachments = Some(decode(name, &value)?),
            // Another name for the same list, used by some runtimes.
            "cni.dev/attachments" => {
                self.valid_attachments.get_or_insert(decode(name, &value)?);
            }
            _ if PASSED_OVER.contains(&name) || name.starts_with("cni.dev/") => {}
            _ => return Err(unsupported(name, &value)),
        }
        Ok(())
    }

    /// `prevResult`, read.
    pub fn prev_result(&self) -> Result<Option<CniResult>, CniError> {
        self.prev_result
            .as_ref()
            .map(|value| CniResult::parse("prevResult", value))
            .transpose()
    }
}

impl RuntimeConfig {
    fn parse(path: &str, value: &Value) -> Result<RuntimeConfig, CniError> {
        let mut config = RuntimeConfig::default();
        for (name, value) in object(path, value)? {
            let path = format!("{path}.{name}");
            if value.is_null() {
                continue;
            }
            match name.as_str() {
                "portMappings" => {
                    for (at, item) in list(&path, value)?.iter().enumerate() {
                        config
                            .ports
                            .extend(port_mapping(&format!("{path}[{at}]"), item)?);
                    }
                }
                "ips" => {
                    for (at, item) in list(&path, value)?.iter().enumerate() {
                        let path = format!("{path}[{at}]");
                        config.ips.push(address(&path, &text(&path, item)?)?);
                    }
                }
                "mac" => config.mac = parse_mac(&path, &text(&path, value)?)?,
                "dns" => config.dns = Some(dns(&path, value)?),
                "ipRanges" => {
                    for (at, pool) in list(&path, value)?.iter().enumerate() {
                        let path = format!("{path}[{at}]");
                        let subnets = list(&path, pool)?.iter().enumerate();
                        let pool = subnets.map(|(at, item)| subnet(&format!("{path}[{at}]"), item));
                        config.ranges.push(pool.collect::<Result<_, _>>()?);
                    }
                }
                "bandwidth" => config.bandwidth = bandwidth(&path, value)?,
                // Names for the pod; the cluster's DNS knows them already.
                "aliases" => {}
                _ => return Err(unsupported(&path, value)),
            }
        }
        Ok(config)
    }
}

/// A hardware address in the usual writing; empty is none.
pub(crate) fn parse_mac(path: &str, text: &str) -> Result<Option<[u8; 6]>, CniError> {
    if text.is_empty() {
        return Ok(None);
    }
    let bytes: Option<Vec<u8>> = text
        .split([':', '-'])
        .map(|part| {
            if part.len() == 2 {
                u8::from_str_radix(part, 16).ok()
            } else {
                None
            }
        })
        .collect();
    let mac: [u8; 6] = bytes
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| {
            invalid(
                path,
                &format!("{text:?} is not a hardware address, for example c2:11:22:33:44:55"),
            )
        })?;
    if mac[0] & 1 == 1 || mac == [0; 6] {
        return Err(invalid(
            path,
            &format!("{text:?} cannot be an interface's address: it is zero or a group's"),
        ));
    }
    Ok(Some(mac))
}

/// An address, with or without a prefix length.
pub(crate) fn address(path: &str, text: &str) -> Result<IpAddr, CniError> {
    text.parse::<IpAddr>()
        .or_else(|_| text.parse::<IpNet>().map(|net| net.addr()))
        .map_err(|_| invalid(path, &format!("{text:?} is not an IP address")))
}

fn port_mapping(path: &str, value: &Value) -> Result<Option<PortMapping>, CniError> {
    let fields = object(path, value)?;
    let mut mapping = PortMapping {
        host_port: 0,
        container_port: 0,
        protocol: Protocol::Tcp,
        host_ip: None,
    };
    for (name, value) in fields {
        let path = format!("{path}.{name}");
        match name.as_str() {
            // Absent, 0 and below mean: not on the node (as the portmap plugin takes it).
            "hostPort" if value.as_i64().is_some_and(|port| port <= 0) => {}
            "hostPort" => mapping.host_port = port(&path, value)?,
            "containerPort" => mapping.container_port = port(&path, value)?,
            "protocol" => {
                let name = text(&path, value)?;
                mapping.protocol = Protocol::parse(&name)
                    .ok_or_else(|| invalid(&path, &format!("{name:?} is not tcp, udp or sctp")))?;
            }
            "hostIP" => {
                let ip = text(&path, value)?;
                if !ip.is_empty() {
                    let ip = address(&path, &ip)?;
                    mapping.host_ip = Some(ip).filter(|ip| !ip.is_unspecified());
                }
            }
            _ => return Err(unsupported(&path, value)),
        }
    }
    if mapping.host_port == 0 {
        return Ok(None);
    }
    if mapping.container_port == 0 {
        return Err(invalid(&format!("{path}.containerPort"), "missing"));
    }
    Ok(Some(mapping))
}

fn port(path: &str, value: &Value) -> Result<u16, CniError> {
    value
        .as_u64()
        .and_then(|port| u16::try_from(port).ok())
        .filter(|port| *port > 0)
        .ok_or_else(|| invalid(path, &format!("{value} is not a port, 1 to 65535")))
}

fn subnet(path: &str, value: &Value) -> Result<Subnet, CniError> {
    let fields = object(path, value)?;
    let get = |name: &str| -> Result<Option<String>, CniError> {
        fields
            .get(name)
            .map(|value| text(&format!("{path}.{name}"), value))
            .transpose()
    };
    let net: IpNet = get("subnet")?
        .ok_or_else(|| invalid(&format!("{path}.subnet"), "missing"))
        .and_then(|text| {
            text.parse().map_err(|_| {
                invalid(
                    &format!("{path}.subnet"),
                    &format!("{text:?} is not a CIDR"),
                )
            })
        })?;
    let bound = |name: &str, otherwise: IpAddr| -> Result<IpAddr, CniError> {
        let Some(text) = get(name)?.filter(|text| !text.is_empty()) else {
            return Ok(otherwise);
        };
        let path = format!("{path}.{name}");
        let ip = address(&path, &text)?;
        if net.contains(&ip) {
            Ok(ip)
        } else {
            Err(invalid(&path, &format!("{ip} is outside {net}")))
        }
    };
    let (first, last) = (
        bound("rangeStart", net.network())?,
        bound("rangeEnd", net.broadcast())?,
    );
    if first > last {
        return Err(invalid(
            &format!("{path}.rangeEnd"),
            &format!("{last} is before {first}"),
        ));
    }
    Ok(Subnet { first, last })
}

fn bandwidth(path: &str, value: &Value) -> Result<Option<Bandwidth>, CniError> {
    for (name, value) in object(path, value)? {
        let path = format!("{path}.{name}");
        if !["ingressRate", "ingressBurst", "egressRate", "egressBurst"].contains(&name.as_str()) {
            return Err(unsupported(&path, value));
        }
        if value.as_u64().is_none() {
            return Err(invalid(&path, &format!("{value} is not a number of bits")));
        }
    }
    let limits: Bandwidth = decode(path, value)?;
    for (name, rate, burst) in [
        ("ingress", limits.ingress_rate, limits.ingress_burst),
        ("egress", limits.egress_rate, limits.egress_burst),
    ] {
        if rate > 0 && burst == 0 {
            return Err(invalid(
                &format!("{path}.{name}Burst"),
                &format!("missing: {name}Rate needs it"),
            ));
        }
        if rate == 0 && burst > 0 {
            return Err(invalid(
                &format!("{path}.{name}Rate"),
                &format!("missing: {name}Burst needs it"),
            ));
        }
        // tc counts a bucket in bytes in 32 bits.
        if burst / 8 > u64::from(u32::MAX) {
            return Err(invalid(&format!("{path}.{name}Burst"), "more than 4 GiB"));
        }
        if rate > 0 && rate < 8 {
            return Err(invalid(
                &format!("{path}.{name}Rate"),
                "less than one byte a second",
            ));
        }
    }
    Ok(Some(limits).filter(|limits| limits.ingress_rate > 0 || limits.egress_rate > 0))
}

/// The capability spells two fields otherwise than the result does.
fn dns(path: &str, value: &Value) -> Result<Dns, CniError> {
    let mut renamed = Map::new();
    for (name, value) in object(path, value)? {
        let name = match name.as_str() {
            "servers" => "nameservers",
            "searches" => "search",
            other => other,
        };
        renamed.insert(name.to_owned(), value.clone());
    }
    decode(path, &Value::Object(renamed))
}

fn object<'v>(path: &str, value: &'v Value) -> Result<&'v Map<String, Value>, CniError> {
    value
        .as_object()
        .ok_or_else(|| CniError::new(code::DECODE, format!("{path}: an object wanted")))
}

fn list<'v>(path: &str, value: &'v Value) -> Result<&'v Vec<Value>, CniError> {
    value
        .as_array()
        .ok_or_else(|| CniError::new(code::DECODE, format!("{path}: a list wanted")))
}

fn text(path: &str, value: &Value) -> Result<String, CniError> {
    value
        .as_str()
        .map(str::to_owned)
        .ok_or_else(|| CniError::new(code::DECODE, format!("{path}: text wanted, not {value}")))
}

fn absolute(path: &str, value: &Value) -> Result<PathBuf, CniError> {
    let file = PathBuf::from(text(path, value)?);
    if file.is_absolute() {
        Ok(file)
    } else {
        Err(invalid(
            path,
            &format!("{} is not an absolute path", file.display()),
        ))
    }
}

fn decode<T: serde::de::DeserializeOwned>(path: &str, value: &Value) -> Result<T, CniError> {
    T::deserialize(value).map_err(|error| CniError::new(code::DECODE, format!("{path}: {error}")))
}

fn invalid(path: &str, cause: &str) -> CniError {
    CniError::new(code::INVALID_CONFIG, format!("{path}: {cause}"))
}

fn unsupported(path: &str, value: &Value) -> CniError {
    let mut text = value.to_string();
    if text.len() > 200 {
        text = text.chars().take(200).chain("...".chars()).collect();
    }
    CniError::new(
        code::UNSUPPORTED_FIELD,
        format!("unsupported field {path}: {text}"),
    )
    .details("take the field out of the network configuration")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn parse(change: impl FnOnce(&mut Value)) -> Result<NetConf, (u32, String)> {
        let mut conf = json!({"cniVersion": "1.1.0", "name": "flatnet", "type": "flatnet-cni"});
        change(&mut conf);
        NetConf::parse(conf.to_string().as_bytes()).map_err(|error| (error.code, error.msg))
    }

    #[test]
    fn mistakes_name_their_field() {
        assert!(parse(|_| {}).is_ok());
        let wrong = |code, change: fn(&mut Value), start: &str| {
            let error = parse(change).unwrap_err();
            assert!(error.0 == code && error.1.starts_with(start), "{error:?}");
        };
        wrong(
            1,
            |c| c["cniVersion"] = "2.0.0".into(),
            "incompatible CNI versions",
        );
        wrong(7, |c| c["name"] = "".into(), "name: ");
        wrong(7, |c| c["name"] = "a/b".into(), "name: ");
        wrong(
            2,
            |c| c["ipam"] = json!({"type": "host-local"}),
            r#"unsupported field ipam: {"type":"host-local"}"#,
        );
        wrong(6, |c| c["dns"] = json!({"nameservers": "x"}), "dns: ");
        wrong(7, |c| c["agentSocket"] = "x".into(), "agentSocket: ");
        wrong(
            7,
            |c| c["runtimeConfig"] = json!({"mac": "01:00:00:00:00:00"}),
            "runtimeConfig.mac: ",
        );
        wrong(
            7,
            |c| c["runtimeConfig"] = json!({"ips": ["10.244.1"]}),
            "runtimeConfig.ips[0]: ",
        );
        wrong(
            2,
            |c| c["runtimeConfig"] = json!({"deviceID": "x"}),
            "unsupported field runtimeConfig.deviceID",
        );
        wrong(
            7,
            |c| c["runtimeConfig"] = json!({"portMappings": [{"hostPort": 80, "containerPort": 80, "protocol": "icmp"}]}),
            "runtimeConfig.portMappings[0].protocol: ",
        );
        wrong(
            7,
            |c| c["runtimeConfig"] = json!({"bandwidth": {"ingressRate": 1000}}),
            "runtimeConfig.bandwidth.ingressBurst: ",
        );
        assert_eq!(NetConf::parse(b"{").unwrap_err().code, 6);
        assert_eq!(NetConf::parse(b"[]").unwrap_err().code, 6);
        assert_eq!(NetConf::parse(b"{}").unwrap_err().code, 1);
    }

    #[test]
    fn capabilities_are_read() {
        let conf = parse(|c| {
            c["runtimeConfig"] = json!({
                "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "TCP", "hostIP": "0.0.0.0"},
                                 {"hostPort": 0, "containerPort": 81}],
                "ips": ["10.244.1.9/24", "fd00::9"],
                "mac": "c2:11:22:33:44:55",
                "dns": {"servers": ["10.96.0.10"], "searches": ["x.y"]},
                "bandwidth": {"ingressRate": 8000, "ingressBurst": 8000},
                "ipRanges": [[{"subnet": "10.244.1.0/24", "rangeStart": "10.244.1.50", "rangeEnd": "10.244.1.60"}]],
            });
            c["cni.dev/valid-attachments"] = json!([{"containerID": "a", "ifname": "eth0"}]);
        })
        .unwrap();
        assert_eq!(conf.runtime.ports.len(), 1);
        assert_eq!(conf.runtime.ports[0].host_ip, None);
        assert_eq!(conf.runtime.ips.len(), 2);
        assert_eq!(
            conf.runtime.dns.as_ref().unwrap().nameservers,
            ["10.96.0.10"]
        );
        assert_eq!(conf.runtime.ranges[0][0].last.to_string(), "10.244.1.60");
        assert_eq!(conf.valid_attachments.unwrap()[0].key().container, "a");
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[0-9a-f:./]{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 5, |inner| {
            let key = prop_oneof![
                Just("cniVersion"),
                Just("name"),
                Just("runtimeConfig"),
                Just("portMappings"),
                Just("hostPort"),
                Just("ips"),
                Just("ipRanges"),
                Just("subnet"),
                Just("rangeEnd"),
                Just("bandwidth"),
                Just("prevResult"),
                Just("interfaces"),
                Just("address"),
                Just("dns"),
            ];
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((key, inner), 0..5).prop_map(|pairs| Value::Object(
                    pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()
                )),
            ]
        })
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(mut value in any_json(), bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = NetConf::parse(&bytes);
            if let Value::Object(fields) = &mut value {
                fields.insert("cniVersion".to_owned(), "1.1.0".into());
                fields.insert("name".to_owned(), "n".into());
            }
            if let Ok(conf) = NetConf::parse(value.to_string().as_bytes()) {
                let _ = conf.prev_result();
            }
        }

        #[test]
        fn args_never_panic(text in ".{0,40}") {
            let _ = super::super::PodArgs::parse(&text);
        }
    }
}
