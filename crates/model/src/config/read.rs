//! A document of YAML or JSON becomes a [`Config`], or the list of all that is wrong with it.
//!
//! Decoding is by hand and not by serde, because a user wants every mistake at once, each
//! with its path and with what was probably meant; serde stops at the first.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};

use super::{Config, ConfigError, DnsConfig, FabricConfig, FabricMode, PodMode};

mod kubeproxy;
mod services;

/// Any YAML or JSON document, as plain values.
#[derive(Clone, Debug, PartialEq)]
pub enum Document {
    /// `null`, or nothing at all.
    Null,
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i128),
    /// Another number.
    Float(f64),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Document>),
    /// A mapping, in the order written.
    Map(Vec<(String, Document)>),
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DocumentVisitor)
    }
}

struct DocumentVisitor;

impl<'de> Visitor<'de> for DocumentVisitor {
    type Value = Document;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }
    fn visit_bool<E>(self, value: bool) -> Result<Document, E> {
        Ok(Document::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Document, E> {
        Ok(Document::Int(value.into()))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Document, E> {
        Ok(Document::Int(value.into()))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Document, E> {
        Ok(Document::Float(value))
    }
    fn visit_str<E>(self, value: &str) -> Result<Document, E> {
        Ok(Document::Text(value.to_owned()))
    }
    fn visit_unit<E>(self) -> Result<Document, E> {
        Ok(Document::Null)
    }
    fn visit_none<E>(self) -> Result<Document, E> {
        Ok(Document::Null)
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Document, D::Error> {
        Document::deserialize(deserializer)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Document, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = access.next_element()? {
            list.push(value);
        }
        Ok(Document::List(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Document, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = access.next_entry()? {
            map.push(entry);
        }
        Ok(Document::Map(map))
    }
}

impl Document {
    fn kind(&self) -> &'static str {
        match self {
            Document::Null => "nothing",
            Document::Bool(_) => "a truth value",
            Document::Int(_) | Document::Float(_) => "a number",
            Document::Text(_) => "text",
            Document::List(_) => "a list",
            Document::Map(_) => "a mapping",
        }
    }
}

/// The field of a mapping that is being read, and the mistakes met on the way.
struct Reader {
    errors: Vec<ConfigError>,
}

const FIELDS: [&str; 12] = [
    "apiVersion",
    "kind",
    "clusterCIDRs",
    "serviceCIDRs",
    "clusterDNS",
    "clusterDomain",
    "nodeCIDRMaskSizeIPv4",
    "nodeCIDRMaskSizeIPv6",
    "fabric",
    "podMode",
    "services",
    "dns",
];
const DNS_FIELDS: [&str; 2] = ["nodeLocal", "localAddress"];
const FABRIC_FIELDS: [&str; 4] = ["mode", "vni", "port", "mtu"];
const FABRIC_MODES: [(&str, FabricMode); 3] = [
    ("vxlan", FabricMode::Vxlan),
    ("host-gw", FabricMode::HostGw),
    ("cross-subnet", FabricMode::CrossSubnet),
];
const POD_MODES: [(&str, PodMode); 2] = [("routed", PodMode::Routed), ("bridge", PodMode::Bridge)];

impl Config {
    /// Reads and validates a document; the error lists every mistake.
    pub fn read(document: &Document) -> Result<Config, Vec<ConfigError>> {
        let mut reader = Reader { errors: Vec::new() };
        let config = reader.config(document);
        let mut errors = reader.errors;
        if errors.is_empty() {
            errors = config.validate();
        }
        if errors.is_empty() {
            Ok(config)
        } else {
            Err(errors)
        }
    }
}

impl FabricMode {
    /// The mode called `name` in configuration and on the command line.
    pub fn parse(name: &str) -> Result<FabricMode, ConfigError> {
        choose("fabric.mode", name, &FABRIC_MODES)
    }
}

impl Reader {
    fn config(&mut self, document: &Document) -> Config {
        let mut config = Config {
            api_version: String::new(),
            kind: String::new(),
            ..Config::default()
        };
        let Some(fields) = self.mapping("", document, &FIELDS) else {
            return config;
        };
        for (name, value) in fields {
            match name.as_str() {
                "apiVersion" => self.set(&mut config.api_version, name, value, text),
                "kind" => self.set(&mut config.kind, name, value, text),
                "clusterDomain" => self.set(&mut config.cluster_domain, name, value, text),
                "clusterCIDRs" => self.list(&mut config.cluster_cidrs, name, value, cidr),
                "serviceCIDRs" => self.list(&mut config.service_cidrs, name, value, cidr),
                "clusterDNS" => self.list(&mut config.cluster_dns, name, value, address),
                "nodeCIDRMaskSizeIPv4" => {
                    self.set(&mut config.node_mask_v4, name, value, |p, v| {
                        whole(p, v, 1, 32)
                    });
                }
                "nodeCIDRMaskSizeIPv6" => {
                    self.set(&mut config.node_mask_v6, name, value, |p, v| {
                        whole(p, v, 1, 128)
                    });
                }
                "podMode" => self.set(&mut config.pod_mode, name, value, |path, value| {
                    choose(path, &text(path, value)?, &POD_MODES)
                }),
                "fabric" => config.fabric = self.fabric(name, value),
                "services" => config.services = self.services(name, value),
                "dns" => config.dns = self.dns(name, value),
                _ => {}
            }
        }
        config
    }

    fn fabric(&mut self, path: &str, document: &Document) -> FabricConfig {
        let mut fabric = FabricConfig::default();
        let Some(fields) = self.mapping(path, document, &FABRIC_FIELDS) else {
            return fabric;
        };
        for (name, value) in fields {
            let path = format!("{path}.{name}");
            match name.as_str() {
                "mode" => self.set(&mut fabric.mode, &path, value, |path, value| {
                    choose(path, &text(path, value)?, &FABRIC_MODES)
                }),
                "vni" => {
                    self.set(&mut fabric.vni, &path, value, |p, v| {
                        whole(p, v, 1, 16_777_215)
                    });
                }
                "port" => self.set(&mut fabric.port, &path, value, |p, v| {
                    whole(p, v, 1, 65_535)
                }),
                "mtu" if *value == Document::Null => fabric.mtu = None,
                "mtu" => self.set(&mut fabric.mtu, &path, value, |p, v| {
                    whole(p, v, 576, 65_535).map(Some)
                }),
                _ => {}
            }
        }
        fabric
    }

    fn dns(&mut self, path: &str, document: &Document) -> DnsConfig {
        let mut dns = DnsConfig::default();
        let Some(fields) = self.mapping(path, document, &DNS_FIELDS) else {
            return dns;
        };
        for (name, value) in fields {
            let path = format!("{path}.{name}");
            match name.as_str() {
                "nodeLocal" => self.set(&mut dns.node_local, &path, value, truth),
                "localAddress" if *value == Document::Null => dns.local_address = None,
                "localAddress" => self.set(&mut dns.local_address, &path, value, |path, value| {
                    address(path, value).map(Some)
                }),
                _ => {}
            }
        }
        dns
    }

    /// The fields of a mapping; unknown ones and ones given twice are mistakes.
    fn mapping<'d>(
        &mut self,
        path: &str,
        document: &'d Document,
        known: &[&str],
    ) -> Option<&'d [(String, Document)]> {
        let fields = match document {
            Document::Map(fields) => fields,
            other => {
                let field = if path.is_empty() { "(document)" } else { path };
                let message = format!("{} given, a mapping of fields wanted", other.kind());
                self.errors.push(error(field, message));
                return None;
            }
        };
        for (at, (name, _)) in fields.iter().enumerate() {
            let full = if path.is_empty() {
                name.clone()
            } else {
                format!("{path}.{name}")
            };
            if !known.contains(&name.as_str()) {
                let message = format!("unknown field{}", suggestion(name, known));
                self.errors.push(error(&full, message));
            } else if fields[..at].iter().any(|(earlier, _)| earlier == name) {
                self.errors
                    .push(error(&full, "given twice; keep one".to_owned()));
            }
        }
        Some(fields)
    }

    fn set<T>(
        &mut self,
        target: &mut T,
        path: &str,
        value: &Document,
        read: impl Fn(&str, &Document) -> Result<T, ConfigError>,
    ) {
        match read(path, value) {
            Ok(value) => *target = value,
            Err(error) => self.errors.push(error),
        }
    }

    fn list<T>(
        &mut self,
        target: &mut Vec<T>,
        path: &str,
        value: &Document,
        read: impl Fn(&str, &Document) -> Result<T, ConfigError>,
    ) {
        let Document::List(items) = value else {
            let message = format!(
                "{} given, a list wanted: write `{path}: [...]`",
                value.kind()
            );
            self.errors.push(error(path, message));
            return;
        };
        target.clear();
        for (at, item) in items.iter().enumerate() {
            match read(&format!("{path}[{at}]"), item) {
                Ok(item) => target.push(item),
                Err(error) => self.errors.push(error),
            }
        }
    }
}

fn error(field: &str, message: String) -> ConfigError {
    ConfigError {
        field: field.to_owned(),
        message,
    }
}

fn text(path: &str, value: &Document) -> Result<String, ConfigError> {
    match value {
        Document::Text(text) => Ok(text.clone()),
        other => Err(error(path, format!("{} given, text wanted", other.kind()))),
    }
}

fn truth(path: &str, value: &Document) -> Result<bool, ConfigError> {
    match value {
        Document::Bool(value) => Ok(*value),
        other => Err(error(
            path,
            format!("{} given, true or false wanted", other.kind()),
        )),
    }
}

fn whole<T: TryFrom<i128>>(
    path: &str,
    value: &Document,
    low: i128,
    high: i128,
) -> Result<T, ConfigError> {
    let Document::Int(number) = value else {
        return Err(error(
            path,
            format!("{} given, a whole number wanted", value.kind()),
        ));
    };
    let wrong = || {
        error(
            path,
            format!("{number} is out of range: choose {low} to {high}"),
        )
    };
    if !(low..=high).contains(number) {
        return Err(wrong());
    }
    T::try_from(*number).map_err(|_| wrong())
}

fn cidr(path: &str, value: &Document) -> Result<IpNet, ConfigError> {
    let text = text(path, value)?;
    if let Ok(net) = text.parse() {
        return Ok(net);
    }
    let hint = match text.parse::<IpAddr>() {
        Ok(_) => "the prefix length is missing, for example 10.244.0.0/16",
        Err(_) => "write an address and a prefix length, for example 10.244.0.0/16",
    };
    Err(error(path, format!("{text:?} is not a CIDR: {hint}")))
}

fn address(path: &str, value: &Document) -> Result<IpAddr, ConfigError> {
    let text = text(path, value)?;
    text.parse().map_err(|_| {
        error(
            path,
            format!("{text:?} is not an IP address, for example 10.96.0.10"),
        )
    })
}

fn choose<T: Copy>(path: &str, name: &str, known: &[(&str, T)]) -> Result<T, ConfigError> {
    if let Some((_, value)) = known.iter().find(|(known, _)| *known == name) {
        return Ok(*value);
    }
    let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
    let hint = match suggestion(name, &names) {
        none if none.is_empty() => format!("; choose one of {}", names.join(", ")),
        hint => format!("{hint} (known: {})", names.join(", ")),
    };
    Err(error(path, format!("{name:?} is not known{hint}")))
}

/// `; did you mean "vxlan"?` where a known name is near to `name`.
fn suggestion(name: &str, known: &[&str]) -> String {
    let plain = |text: &str| -> Vec<char> {
        text.chars()
            .filter(|c| c.is_alphanumeric())
            .flat_map(char::to_lowercase)
            .collect()
    };
    let wanted = plain(name);
    let near = known
        .iter()
        .map(|known| (distance(&wanted, &plain(known)), known))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, known)| *distance <= 1.max(known.len() / 3));
    match near {
        Some((_, known)) => format!("; did you mean {known:?}?"),
        None => String::new(),
    }
}

/// Number of letters to change, add or drop.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.iter().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, right) in b.iter().enumerate() {
            let cost = corner + usize::from(left != right);
            corner = row[j + 1];
            row[j + 1] = cost.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Config, Vec<String>> {
        let document: Document = serde_json::from_str(json).unwrap();
        Config::read(&document).map_err(|errors| errors.iter().map(ToString::to_string).collect())
    }

    const HEAD: &str = r#""apiVersion":"flatnet.io/v1alpha1","kind":"NetworkConfig""#;

    #[test]
    fn what_is_written_is_read_back() {
        let config = Config {
            fabric: FabricConfig {
                mode: FabricMode::CrossSubnet,
                mtu: Some(1400),
                ..FabricConfig::default()
            },
            pod_mode: PodMode::Bridge,
            dns: DnsConfig {
                node_local: false,
                local_address: Some(IpAddr::from([169, 254, 20, 10])),
            },
            ..Config::default()
        };
        let json = serde_json::to_string(&config).unwrap();
        assert_eq!(read(&json), Ok(config.clone()));
        assert_eq!(serde_json::from_str::<Config>(&json).unwrap(), config);
        assert_eq!(read(&format!("{{{HEAD}}}")), Ok(Config::default()));
    }

    #[test]
    fn every_mistake_is_named_at_once() {
        let errors = read(&format!(
            r#"{{{HEAD},"clusterCidrs":["10.244.0.0/16"],"clusterDNS":["ten"],
               "serviceCIDRs":["10.96.0.0"],"podMode":"routd",
               "fabric":{{"mode":"hostgw","vni":0,"ports":1}}}}"#
        ))
        .unwrap_err();
        let all = errors.join("\n");
        assert!(
            all.contains(r#"clusterCidrs: unknown field; did you mean "clusterCIDRs"?"#),
            "{all}"
        );
        assert!(
            all.contains(r#"clusterDNS[0]: "ten" is not an IP address"#),
            "{all}"
        );
        assert!(
            all.contains(
                "serviceCIDRs[0]: \"10.96.0.0\" is not a CIDR: the prefix length is missing"
            ),
            "{all}"
        );
        assert!(
            all.contains(r#"podMode: "routd" is not known; did you mean "routed"?"#),
            "{all}"
        );
        assert!(
            all.contains(r#"fabric.mode: "hostgw" is not known; did you mean "host-gw"?"#),
            "{all}"
        );
        assert!(
            all.contains("fabric.vni: 0 is out of range: choose 1 to 16777215"),
            "{all}"
        );
        assert!(
            all.contains(r#"fabric.ports: unknown field; did you mean "port"?"#),
            "{all}"
        );
    }

    #[test]
    fn an_unknown_fabric_lists_the_known_ones() {
        let error = FabricMode::parse("geneve").unwrap_err();
        assert_eq!(
            error.to_string(),
            r#"fabric.mode: "geneve" is not known; choose one of vxlan, host-gw, cross-subnet"#
        );
    }
}
