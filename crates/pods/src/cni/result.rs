//! What ADD answers, in each version's form.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{CniError, Version, code};

/// A link made or seen by the chain so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Name.
    pub name: String,
    /// Hardware address, as text.
    pub mac: String,
    /// MTU; written from 1.1.0 on.
    pub mtu: Option<u32>,
    /// Path of the namespace, empty on the node.
    pub sandbox: String,
}

/// An address given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ip {
    /// With the prefix length.
    pub address: IpNet,
    /// Default gateway.
    pub gateway: Option<IpAddr>,
    /// Index into the interfaces.
    pub interface: Option<usize>,
}

/// A route made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Destination.
    pub dst: IpNet,
    /// Next hop.
    pub gw: Option<IpAddr>,
}

/// Name service settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dns {
    /// Servers, most wanted first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
    /// Local domain.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub domain: String,
    /// Search list.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    /// Resolver options.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

/// The success result of ADD, and the `prevResult` of what follows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CniResult {
    /// Links.
    pub interfaces: Vec<Interface>,
    /// Addresses.
    pub ips: Vec<Ip>,
    /// Routes.
    pub routes: Vec<Route>,
    /// Name service.
    pub dns: Dns,
}

impl CniResult {
    /// The JSON form of one protocol version.
    pub fn to_json(&self, version: Version) -> Value {
        let mut json = Map::new();
        json.insert("cniVersion".to_owned(), version.as_str().into());
        let mut list = |name: &str, items: Vec<Value>| {
            if !items.is_empty() {
                json.insert(name.to_owned(), Value::Array(items));
            }
        };
        list(
            "interfaces",
            self.interfaces
                .iter()
                .map(|link| link.to_json(version))
                .collect(),
        );
        list(
            "ips",
            self.ips.iter().map(|ip| ip.to_json(version)).collect(),
        );
        list("routes", self.routes.iter().map(Route::to_json).collect());
        json.insert(
            "dns".to_owned(),
            serde_json::to_value(&self.dns).unwrap_or_else(|_| json!({})),
        );
        Value::Object(json)
    }

    /// Reads a result of any version spoken; error 6 or 7 names the field under `path`.
    pub fn parse(path: &str, value: &Value) -> Result<CniResult, CniError> {
        let Value::Object(fields) = value else {
            return Err(wrong(path, "a JSON object wanted"));
        };
        if let Some(version) = fields.get("cniVersion") {
            let text = version.as_str().unwrap_or_default();
            Version::parse(text).map_err(|error| {
                CniError::new(error.code, format!("{path}.cniVersion: {}", error.msg))
                    .details(error.details)
            })?;
        }
        let result = CniResult {
            interfaces: each(path, fields, "interfaces", Interface::parse)?,
            ips: each(path, fields, "ips", Ip::parse)?,
            routes: each(path, fields, "routes", Route::parse)?,
            dns: match fields.get("dns") {
                None | Some(Value::Null) => Dns::default(),
                Some(dns) => Dns::deserialize(dns)
                    .map_err(|error| wrong(&format!("{path}.dns"), &error.to_string()))?,
            },
        };
        for (at, ip) in result.ips.iter().enumerate() {
            if ip
                .interface
                .is_some_and(|index| index >= result.interfaces.len())
            {
                return Err(CniError::new(
                    code::INVALID_CONFIG,
                    format!("{path}.ips[{at}].interface: there is no such interface"),
                ));
            }
        }
        Ok(result)
    }
}

impl Interface {
    fn to_json(&self, version: Version) -> Value {
        let mut json = json!({ "name": self.name });
        if !self.mac.is_empty() {
            json["mac"] = self.mac.clone().into();
        }
        if let Some(mtu) = self.mtu
            && version >= Version::V1_1_0
        {
            json["mtu"] = mtu.into();
        }
        if !self.sandbox.is_empty() {
            json["sandbox"] = self.sandbox.clone().into();
        }
        json
    }

    fn parse(path: &str, value: &Value) -> Result<Self, CniError> {
        Ok(Self {
            name: text(path, value, "name")?.unwrap_or_default(),
            mac: text(path, value, "mac")?.unwrap_or_default(),
            mtu: value
                .get("mtu")
                .and_then(Value::as_u64)
                .and_then(|mtu| u32::try_from(mtu).ok()),
            sandbox: text(path, value, "sandbox")?.unwrap_or_default(),
        })
    }
}

impl Ip {
    fn to_json(&self, version: Version) -> Value {
        let mut json = Map::new();
        if version < Version::V1_0_0 {
            let family = if matches!(self.address, IpNet::V4(_)) {
                "4"
            } else {
                "6"
            };
            json.insert("version".to_owned(), family.into());
        }
        if let Some(index) = self.interface {
            json.insert("interface".to_owned(), index.into());
        }
        json.insert("address".to_owned(), self.address.to_string().into());
        if let Some(gateway) = self.gateway {
            json.insert("gateway".to_owned(), gateway.to_string().into());
        }
        Value::Object(json)
    }

    fn parse(path: &str, value: &Value) -> Result<Self, CniError> {
        let interface = match value.get("interface") {
            None | Some(Value::Null) => None,
            Some(index) => Some(
                index
                    .as_u64()
                    .and_then(|index| usize::try_from(index).ok())
                    .ok_or_else(|| wrong(&format!("{path}.interface"), "an index wanted"))?,
            ),
        };
        Ok(Self {
            address: parsed(path, value, "address")?
                .ok_or_else(|| wrong(&format!("{path}.address"), "missing"))?,
            gateway: parsed(path, value, "gateway")?,
            interface,
        })
    }
}

impl Route {
    fn to_json(&self) -> Value {
        let mut json = json!({ "dst": self.dst.to_string() });
        if let Some(gw) = self.gw {
            json["gw"] = gw.to_string().into();
        }
        json
    }

    fn parse(path: &str, value: &Value) -> Result<Self, CniError> {
        Ok(Self {
            dst: parsed(path, value, "dst")?
                .ok_or_else(|| wrong(&format!("{path}.dst"), "missing"))?,
            gw: parsed(path, value, "gw")?,
        })
    }
}

fn wrong(path: &str, cause: &str) -> CniError {
    CniError::new(code::DECODE, format!("{path}: {cause}"))
}

fn each<T>(
    path: &str,
    fields: &Map<String, Value>,
    name: &str,
    parse: impl Fn(&str, &Value) -> Result<T, CniError>,
) -> Result<Vec<T>, CniError> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(items)) => items
            .iter()
            .enumerate()
            .map(|(at, item)| parse(&format!("{path}.{name}[{at}]"), item))
            .collect(),
        Some(_) => Err(wrong(&format!("{path}.{name}"), "a list wanted")),
    }
}

fn text(path: &str, value: &Value, name: &str) -> Result<Option<String>, CniError> {
    match value.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(wrong(&format!("{path}.{name}"), "text wanted")),
    }
}

fn parsed<T: std::str::FromStr>(
    path: &str,
    value: &Value,
    name: &str,
) -> Result<Option<T>, CniError> {
    match text(path, value, name)? {
        None => Ok(None),
        Some(text) if text.is_empty() => Ok(None),
        Some(text) => match text.parse() {
            Ok(parsed) => Ok(Some(parsed)),
            Err(_) => Err(wrong(
                &format!("{path}.{name}"),
                &format!("{text:?} is not an address of the right form"),
            )),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> CniResult {
        CniResult {
            interfaces: vec![
                Interface {
                    name: "fn-0123".into(),
                    mac: "02:00:00:00:00:01".into(),
                    ..Interface::default()
                },
                Interface {
                    name: "eth0".into(),
                    mac: "02:00:00:00:00:02".into(),
                    mtu: Some(1450),
                    sandbox: "/run/netns/blue".into(),
                },
            ],
            ips: vec![Ip {
                address: "10.244.1.5/24".parse().unwrap(),
                gateway: Some("10.244.1.1".parse().unwrap()),
                interface: Some(1),
            }],
            routes: vec![Route {
                dst: "0.0.0.0/0".parse().unwrap(),
                gw: Some("10.244.1.1".parse().unwrap()),
            }],
            dns: Dns::default(),
        }
    }

    #[test]
    fn each_version_has_its_form() {
        let json = sample().to_json(Version::V1_1_0);
        assert_eq!(json["interfaces"][1]["mtu"], 1450);
        assert_eq!(json["ips"][0].get("version"), None);
        assert_eq!(
            json["routes"][0],
            json!({"dst": "0.0.0.0/0", "gw": "10.244.1.1"})
        );
        let json = sample().to_json(Version::V1_0_0);
        assert_eq!(json["interfaces"][1].get("mtu"), None);
        assert_eq!(json["ips"][0].get("version"), None);
        let json = sample().to_json(Version::V0_4_0);
        assert_eq!(json["cniVersion"], "0.4.0");
        assert_eq!(json["ips"][0]["version"], "4");
    }

    #[test]
    fn every_version_is_read_back() {
        for version in super::super::SUPPORTED {
            let mut wanted = sample();
            if version < Version::V1_1_0 {
                wanted.interfaces[1].mtu = None;
            }
            assert_eq!(
                CniResult::parse("prevResult", &sample().to_json(version)),
                Ok(wanted)
            );
        }
    }

    #[test]
    fn a_wrong_result_names_its_field() {
        let error =
            CniResult::parse("prevResult", &json!({"ips": [{"address": "10.0.0.1"}]})).unwrap_err();
        assert_eq!(
            (
                error.code,
                error.msg.starts_with("prevResult.ips[0].address:")
            ),
            (6, true)
        );
        let error = CniResult::parse(
            "prevResult",
            &json!({"ips": [{"address": "10.0.0.1/24", "interface": 3}]}),
        )
        .unwrap_err();
        assert_eq!(
            (error.code, error.msg.as_str()),
            (7, "prevResult.ips[0].interface: there is no such interface")
        );
    }
}
