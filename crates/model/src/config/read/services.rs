//! The `services` section.

use super::{ConfigError, Document, Reader, choose, cidr, error, suggestion, text, truth, whole};
use crate::config::{LocalDetection, NodePortAddresses, ServicesConfig, ServicesMode};

const FIELDS: [&str; 6] = [
    "mode",
    "masqueradeAll",
    "masqueradeBit",
    "localDetection",
    "nodePortAddresses",
    "localhostNodePorts",
];
const MODES: [(&str, ServicesMode); 2] = [
    ("nftables", ServicesMode::Nftables),
    ("iptables", ServicesMode::Iptables),
];
/// What `localDetection` may be: the last ones as `{WORD: NAME}`.
const DETECTIONS: [&str; 5] = [
    "clusterCIDR",
    "nodeCIDR",
    "bridgeInterface",
    "interfaceNamePrefix",
    "ranges",
];
/// The longest name of a link (IFNAMSIZ without its end).
const LINK_NAME: usize = 15;

impl ServicesMode {
    /// The mode called `name` in configuration and on the command line.
    pub fn parse(name: &str) -> Result<ServicesMode, ConfigError> {
        choose("services.mode", name, &MODES)
    }

    /// As it is called there.
    pub fn word(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
        }
    }
}

impl Reader {
    pub(super) fn services(&mut self, path: &str, document: &Document) -> ServicesConfig {
        let mut services = ServicesConfig::default();
        let Some(fields) = self.mapping(path, document, &FIELDS) else {
            return services;
        };
        for (name, value) in fields {
            let path = format!("{path}.{name}");
            match name.as_str() {
                "mode" => self.set(&mut services.mode, &path, value, |path, value| {
                    choose(path, &text(path, value)?, &MODES)
                }),
                "masqueradeAll" => self.set(&mut services.masquerade_all, &path, value, truth),
                "masqueradeBit" => {
                    self.set(&mut services.masquerade_bit, &path, value, |p, v| {
                        whole(p, v, 0, 31)
                    });
                }
                "localDetection" => {
                    self.set(&mut services.local_detection, &path, value, local_detection);
                }
                "nodePortAddresses" => {
                    services.node_port_addresses = self.node_port_addresses(&path, value);
                }
                "localhostNodePorts" => {
                    self.set(&mut services.localhost_node_ports, &path, value, truth);
                }
                _ => {}
            }
        }
        services
    }

    fn node_port_addresses(&mut self, path: &str, value: &Document) -> NodePortAddresses {
        let words = [
            ("all", NodePortAddresses::All),
            ("primary", NodePortAddresses::Primary),
        ];
        match value {
            Document::List(_) => {
                let mut ranges = Vec::new();
                self.list(&mut ranges, path, value, |path, value| {
                    let range = cidr(path, value)?;
                    if range.trunc() == range {
                        return Ok(range);
                    }
                    let message =
                        format!("{range} has host bits set; did you mean {}?", range.trunc());
                    Err(error(path, message))
                });
                if ranges.is_empty() {
                    // As kube-proxy reads an empty list.
                    return NodePortAddresses::All;
                }
                NodePortAddresses::Ranges(ranges)
            }
            Document::Text(word) => {
                if let Some((_, known)) = words.iter().find(|(known, _)| known == word) {
                    return known.clone();
                }
                let hint = suggestion(word, &["all", "primary"]);
                let message = format!(
                    "{word:?} is not known{hint} Write all, primary or a list of ranges such as [10.0.1.0/24]"
                );
                self.errors.push(error(path, message));
                NodePortAddresses::All
            }
            other => {
                let message = format!(
                    "{} given; write all, primary or a list of ranges such as [10.0.1.0/24]",
                    other.kind()
                );
                self.errors.push(error(path, message));
                NodePortAddresses::All
            }
        }
    }
}

fn local_detection(path: &str, value: &Document) -> Result<LocalDetection, ConfigError> {
    let (word, name) = match value {
        Document::Text(word) => (word, None),
        Document::Map(fields) if fields.len() == 1 && fields[0].0 == "ranges" => {
            return ranges(&format!("{path}.ranges"), &fields[0].1).map(LocalDetection::Ranges);
        }
        Document::Map(fields) if fields.len() == 1 => {
            let (word, name) = &fields[0];
            let path = format!("{path}.{word}");
            (word, Some(link_name(&path, &text(&path, name)?)?))
        }
        other => {
            let message = format!(
                "{} given; write clusterCIDR, nodeCIDR, {{bridgeInterface: NAME}}, {{interfaceNamePrefix: PREFIX}}, {{ranges: [CIDR]}}",
                other.kind()
            );
            return Err(error(path, message));
        }
    };
    match (word.as_str(), name) {
        ("clusterCIDR", None) => Ok(LocalDetection::ClusterCidr),
        ("nodeCIDR", None) => Ok(LocalDetection::NodeCidr),
        ("bridgeInterface", Some(name)) => Ok(LocalDetection::BridgeInterface(name)),
        ("interfaceNamePrefix", Some(name)) => Ok(LocalDetection::InterfaceNamePrefix(name)),
        ("ranges", None) => Err(error(path, "write `{ranges: [10.244.0.0/16]}`".to_owned())),
        ("bridgeInterface" | "interfaceNamePrefix", None) => {
            let message = format!("{word} needs a name: write `{{{word}: NAME}}`");
            Err(error(path, message))
        }
        ("clusterCIDR" | "nodeCIDR", Some(_)) => {
            let message = format!("{word} takes no name: write `localDetection: {word}`");
            Err(error(path, message))
        }
        _ => {
            let names = DETECTIONS.map(|name| (name, ()));
            choose(path, word, &names).map(|()| LocalDetection::default())
        }
    }
}

fn ranges(path: &str, value: &Document) -> Result<Vec<ipnet::IpNet>, ConfigError> {
    let Document::List(items) = value else {
        let message = format!("{} given, a list of ranges wanted", value.kind());
        return Err(error(path, message));
    };
    let items = items.iter().enumerate();
    items
        .map(|(at, item)| {
            let path = format!("{path}[{at}]");
            Ok(cidr(&path, item)?.trunc())
        })
        .collect()
}

/// The name of a link, or the beginning of one.
pub(super) fn link_name(path: &str, name: &str) -> Result<String, ConfigError> {
    let fits = (1..=LINK_NAME).contains(&name.len())
        && !name.contains(|c: char| c == '/' || c == '*' || c == '"' || !c.is_ascii_graphic());
    if fits {
        return Ok(name.to_owned());
    }
    let message = format!(
        "{name:?} is no name of a link: 1 to {LINK_NAME} letters without space, '/', '*' or '\"'"
    );
    Err(error(path, message))
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, Document, LocalDetection, NodePortAddresses, ServicesConfig};

    fn read(services: &str) -> Result<ServicesConfig, String> {
        let text = format!(
            r#"{{"apiVersion":"flatnet.io/v1alpha1","kind":"NetworkConfig","services":{services}}}"#
        );
        let document: Document = serde_json::from_str(&text).unwrap();
        Config::read(&document)
            .map(|config| config.services)
            .map_err(|errors| {
                let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
                lines.join("\n")
            })
    }

    #[test]
    fn every_way_to_write_it_is_read_back() {
        let range = |text: &str| text.parse().unwrap();
        for (detection, addresses) in [
            (LocalDetection::ClusterCidr, NodePortAddresses::All),
            (LocalDetection::NodeCidr, NodePortAddresses::Primary),
            (
                LocalDetection::BridgeInterface("cni0".into()),
                NodePortAddresses::Ranges(vec![range("10.0.1.0/24"), range("fd00::/64")]),
            ),
            (
                LocalDetection::InterfaceNamePrefix("veth".into()),
                NodePortAddresses::All,
            ),
            (
                LocalDetection::Ranges(vec![range("10.0.0.0/8")]),
                NodePortAddresses::All,
            ),
        ] {
            let services = ServicesConfig {
                masquerade_all: true,
                masquerade_bit: 3,
                local_detection: detection,
                node_port_addresses: addresses,
                localhost_node_ports: false,
                ..ServicesConfig::default()
            };
            let json = serde_json::to_string(&services).unwrap();
            assert_eq!(read(&json), Ok(services.clone()), "{json}");
            let again: ServicesConfig = serde_json::from_str(&json).unwrap();
            assert_eq!(again, services);
        }
        assert_eq!(read("{}"), Ok(ServicesConfig::default()));
    }

    #[test]
    fn what_is_wrong_is_named_with_what_was_meant() {
        for (written, message) in [
            (
                r#"{"mode":"nftable"}"#,
                r#"services.mode: "nftable" is not known; did you mean "nftables"? (known: nftables, iptables)"#,
            ),
            (
                r#"{"mode":"ipvs"}"#,
                r#"services.mode: "ipvs" is not known; choose one of nftables, iptables"#,
            ),
            (
                r#"{"masqueradeall":true}"#,
                r#"services.masqueradeall: unknown field; did you mean "masqueradeAll"?"#,
            ),
            (
                r#"{"masqueradeBit":32}"#,
                "services.masqueradeBit: 32 is out of range: choose 0 to 31",
            ),
            (
                r#"{"nodePortAddresses":"primry"}"#,
                r#"services.nodePortAddresses: "primry" is not known; did you mean "primary"? Write all, primary or a list of ranges such as [10.0.1.0/24]"#,
            ),
            (
                r#"{"nodePortAddresses":["10.0.1.1/24"]}"#,
                "services.nodePortAddresses[0]: 10.0.1.1/24 has host bits set; did you mean 10.0.1.0/24?",
            ),
            (
                r#"{"localDetection":"bridgeInterface"}"#,
                "services.localDetection: bridgeInterface needs a name: write `{bridgeInterface: NAME}`",
            ),
            (
                r#"{"localDetection":{"bridgeInterface":"a name with spaces"}}"#,
                r#"services.localDetection.bridgeInterface: "a name with spaces" is no name of a link: 1 to 15 letters without space, '/', '*' or '"'"#,
            ),
            (
                r#"{"localDetection":"clusterCidr"}"#,
                r#"services.localDetection: "clusterCidr" is not known; did you mean "clusterCIDR"? (known: clusterCIDR, nodeCIDR, bridgeInterface, interfaceNamePrefix, ranges)"#,
            ),
            (
                r#"{"localhostNodePorts":"yes"}"#,
                "services.localhostNodePorts: text given, true or false wanted",
            ),
        ] {
            assert_eq!(read(written).unwrap_err(), message);
        }
    }
}
