//! The rules in CEL that are evaluated.
//!
//! There is no CEL here. The definition of ClusterNetworkPolicy, whoever wrote it, carries these
//! few; they are known by their text.

use serde_json::Value;

use crate::validation::address::strict_prefix;
use crate::validation::field::{ErrorKind, Errors, Path};

/// A rule that is known.
#[derive(Clone, Copy, Debug)]
enum Rule {
    /// Text is an address range.
    Cidr,
    /// `start` is less than `end`.
    StartBeforeEnd,
    /// Named ports go with no peers that have none.
    NamedPortsOfPods,
}

const KNOWN: &[(&str, Rule)] = &[
    ("isCIDR(self)", Rule::Cidr),
    ("self.start < self.end", Rule::StartBeforeEnd),
    (
        "!(self.to.exists(peer, has(peer.networks) || has(peer.nodes) || has(peer.domainNames)) \
         && has(self.protocols) \
         && self.protocols.exists(protocol, has(protocol.destinationNamedPort)))",
        Rule::NamedPortsOfPods,
    ),
];

impl Rule {
    fn holds(self, value: &Value) -> bool {
        let has = |list: &str, fields: &[&str]| {
            let items = value[list].as_array().into_iter().flatten();
            let mut items = items.filter_map(Value::as_object);
            items.any(|item| fields.iter().any(|field| item.contains_key(*field)))
        };
        match self {
            Self::Cidr => {
                let prefix = value.as_str().and_then(strict_prefix);
                prefix.is_some_and(|(ip, _)| !is_mapped(ip))
            }
            Self::StartBeforeEnd => value["start"].as_i64() < value["end"].as_i64(),
            Self::NamedPortsOfPods => {
                !(has("to", &["networks", "nodes", "domainNames"])
                    && has("protocols", &["destinationNamedPort"]))
            }
        }
    }
}

fn is_mapped(ip: std::net::IpAddr) -> bool {
    matches!(ip, std::net::IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some())
}

/// The rules of a schema, where it has any.
#[derive(Debug, Default)]
pub(crate) struct Cel {
    rules: Box<[(Rule, Box<str>)]>,
    fields: Box<[(Box<str>, Cel)]>,
    items: Option<Box<Cel>>,
}

/// Whether a rule of `x-kubernetes-validations` is evaluated.
pub(crate) fn is_known(rule: &Value) -> bool {
    known(rule).is_some()
}

fn known(rule: &Value) -> Option<Rule> {
    let plain = |text: &str| -> String { text.split_whitespace().collect() };
    let fields = rule.as_object()?;
    // What else may be written changes the rule or its sentence.
    if fields.keys().any(|key| key != "rule" && key != "message") {
        return None;
    }
    let text = plain(rule["rule"].as_str()?);
    let found = KNOWN.iter().find(|(known, _)| plain(known) == text);
    found.map(|(_, rule)| *rule)
}

impl Cel {
    pub fn compile(schema: &Value) -> Option<Self> {
        let rules = schema["x-kubernetes-validations"].as_array();
        let rules = rules.into_iter().flatten().filter_map(|rule| {
            let message = rule["message"].as_str().map_or_else(
                || format!("failed rule: {}", rule["rule"].as_str().unwrap_or_default()),
                str::to_owned,
            );
            Some((known(rule)?, message.into()))
        });
        let fields = schema["properties"].as_object().into_iter().flatten();
        let fields = fields
            .filter_map(|(name, schema)| Some((name.as_str().into(), Self::compile(schema)?)));
        let cel = Self {
            rules: rules.collect(),
            fields: fields.collect(),
            items: schema.get("items").and_then(Self::compile).map(Box::new),
        };
        let none = cel.rules.is_empty() && cel.fields.is_empty() && cel.items.is_none();
        (!none).then_some(cel)
    }

    /// Adds what the rules say of an object. Values of the wrong shape are not asked about.
    pub fn check(&self, object: &Value, errors: &mut Errors) {
        const BLOCKED: &str = "some validation rules were not checked because the object was invalid; \
             correct the existing errors to complete validation";
        let blocks = |kind: ErrorKind| {
            matches!(
                kind,
                ErrorKind::NotSupported
                    | ErrorKind::Required
                    | ErrorKind::TooLong
                    | ErrorKind::TooMany
                    | ErrorKind::TypeInvalid
            )
        };
        if errors.kinds().any(blocks) {
            errors.invalid(&Path::root("<nil>"), &Value::Null, BLOCKED);
        } else {
            self.walk(object, &Path::root(""), errors);
        }
    }

    fn walk(&self, value: &Value, path: &Path<'_>, errors: &mut Errors) {
        for (rule, message) in &self.rules {
            if rule.holds(value) {
                continue;
            }
            if value.is_object() {
                errors.invalid_without_value(path, message);
            } else {
                errors.invalid(path, value, message);
            }
        }
        for (name, cel) in &self.fields {
            if let Some(value) = value.get(&**name).filter(|value| !value.is_null()) {
                cel.walk(value, &path.child(name), errors);
            }
        }
        if let (Some(cel), Some(items)) = (&self.items, value.as_array()) {
            for (index, item) in items.iter().enumerate() {
                cel.walk(item, &path.index(index), errors);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(schema: Value, value: Value) -> Vec<String> {
        let mut errors = Errors::new();
        Cel::compile(&schema).unwrap().check(&value, &mut errors);
        errors.into_vec().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn ranges_and_cidrs_are_held_to_their_rules() {
        let schema = json!({"properties": {
            "range": {"x-kubernetes-validations": [
                {"rule": "self.start<self.end", "message": "Start port must be less than End port"}]},
            "nets": {"items": {"x-kubernetes-validations": [{"rule": "isCIDR(self)"}]}}}});
        assert_eq!(
            check(
                schema,
                json!({"range": {"start": 2, "end": 2},
                    "nets": ["10.0.0.1/8", "10.0.0.0", "::ffff:10.0.0.0/104", "fd00::/08", "::/0"]})
            ),
            [
                "nets[1]: Invalid value: \"10.0.0.0\": failed rule: isCIDR(self)",
                "nets[2]: Invalid value: \"::ffff:10.0.0.0/104\": failed rule: isCIDR(self)",
                "nets[3]: Invalid value: \"fd00::/08\": failed rule: isCIDR(self)",
                "range: Invalid value: Start port must be less than End port",
            ]
        );
    }

    #[test]
    fn a_rule_that_says_more_is_not_known() {
        assert!(is_known(&json!({"rule": " isCIDR(self) "})));
        assert!(!is_known(
            &json!({"rule": "isCIDR(self)", "reason": "FieldValueRequired"})
        ));
        assert!(!is_known(&json!({"rule": "isIP(self)"})));
        assert!(
            Cel::compile(&json!({"x-kubernetes-validations": [{"rule": "isIP(self)"}]})).is_none()
        );
    }
}
