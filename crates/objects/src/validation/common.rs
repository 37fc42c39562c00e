//! Checks that many kinds share.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Map, Value};

use super::field::{Errors, Path};
use super::names;

/// Text of a value; empty where it is missing or something else.
pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The items of a list; none where it is missing.
pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The fields of a map; none where it is missing.
pub(super) fn map(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

pub(super) fn is_set(value: &Value) -> bool {
    !value.is_null()
}

/// `Invalid value` for each sentence a name check has.
pub(super) fn name(
    errors: &mut Errors,
    path: &Path<'_>,
    value: &Value,
    check: impl Fn(&str) -> Vec<String>,
) {
    for sentence in check(text(value)) {
        errors.invalid_text(path, text(value), &sentence);
    }
}

/// One of the known words; `Required value` where it is empty.
pub(super) fn word(errors: &mut Errors, path: &Path<'_>, value: &Value, known: &[&str]) {
    match text(value) {
        "" => errors.required(path, ""),
        word if !known.contains(&word) => errors.not_supported(path, value, known),
        _ => {}
    }
}

/// One of the known words where it is set.
pub(super) fn optional_word(errors: &mut Errors, path: &Path<'_>, value: &Value, known: &[&str]) {
    if is_set(value) && !known.contains(&text(value)) {
        errors.not_supported(path, value, known);
    }
}

pub(super) fn non_negative(errors: &mut Errors, path: &Path<'_>, value: &Value) {
    if value.as_i64().is_some_and(|n| n < 0) {
        errors.invalid(path, value, "must be greater than or equal to 0");
    }
}

pub(super) fn port(errors: &mut Errors, path: &Path<'_>, value: &Value) {
    let number = value.as_i64().unwrap_or_default();
    if let Some(sentence) = names::port_number(number) {
        errors.invalid(path, &number.into(), sentence);
    }
}

pub(super) fn port_or_name(errors: &mut Errors, path: &Path<'_>, value: &Value) {
    if value.is_string() {
        name(errors, path, value, names::port_name);
    } else {
        port(errors, path, value);
    }
}

/// A count, or a percentage such as `25%`.
pub(super) fn int_or_percent(errors: &mut Errors, path: &Path<'_>, value: &Value) {
    let Some(text) = value.as_str() else {
        non_negative(errors, path, value);
        return;
    };
    let digits = text.strip_suffix('%').unwrap_or_default();
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        let words = "a valid percent string must be a numeric string followed by an ending '%'";
        let sentence = names::regex_error(words, "[0-9]+%", &["1%", "93%"]);
        errors.invalid(path, value, &sentence);
    }
}

/// The number of a count or percentage.
pub(super) fn amount(value: &Value) -> i64 {
    value.as_i64().unwrap_or_else(|| {
        let digits = text(value).trim_end_matches('%');
        digits.parse().unwrap_or_default()
    })
}

pub(super) fn at_most_all(errors: &mut Errors, path: &Path<'_>, value: &Value) {
    if value.is_string() && amount(value) > 100 {
        errors.invalid(path, value, "must not be greater than 100%");
    }
}

const IP: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
pub(super) const CIDR: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";

pub(super) fn ip(errors: &mut Errors, path: &Path<'_>, value: &Value) -> Option<IpAddr> {
    let parsed = text(value).parse().ok();
    if parsed.is_none() {
        errors.invalid_text(path, text(value), IP);
    }
    parsed
}

pub(super) fn cidr(errors: &mut Errors, path: &Path<'_>, value: &Value) -> Option<IpNet> {
    let parsed = text(value).trim().parse().ok();
    if parsed.is_none() {
        errors.invalid_text(path, text(value), CIDR);
    }
    parsed
}

/// An address traffic may be sent to.
pub(super) fn endpoint_ip(errors: &mut Errors, path: &Path<'_>, address: IpAddr) {
    let shown = address.to_string();
    let mut bad = |sentence: &str| errors.invalid_text(path, &shown, sentence);
    if address.is_unspecified() {
        bad(&format!("may not be unspecified ({shown})"));
    }
    if address.is_loopback() {
        bad("may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    let (local, multicast) = match address {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => {
            let first = v6.segments()[0];
            (first & 0xffc0 == 0xfe80, first & 0xff0f == 0xff02)
        }
    };
    if local {
        bad("may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    if multicast {
        bad("may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}

pub(super) fn labels(errors: &mut Errors, path: &Path<'_>, value: &Value) {
    for (key, value) in map(value) {
        for sentence in names::qualified_name(key) {
            errors.invalid_text(path, key, &sentence);
        }
        name(errors, path, value, names::label_value);
    }
}

/// Whether values of `matchExpressions` must be values that labels can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Values {
    Checked,
    /// They were not checked once, and what is there may stay.
    Free,
}

pub(super) fn label_selector(errors: &mut Errors, path: &Path<'_>, selector: &Value) {
    label_selector_with(errors, path, selector, Values::Checked);
}

pub(super) fn label_selector_with(
    errors: &mut Errors,
    path: &Path<'_>,
    selector: &Value,
    checked: Values,
) {
    labels(errors, &path.child("matchLabels"), &selector["matchLabels"]);
    let expressions = path.child("matchExpressions");
    for (i, expression) in list(&selector["matchExpressions"]).iter().enumerate() {
        let at = expressions.index(i);
        let values = at.child("values");
        let given = list(&expression["values"]);
        match text(&expression["operator"]) {
            "In" | "NotIn" if given.is_empty() => {
                errors.required(
                    &values,
                    "must be specified when `operator` is 'In' or 'NotIn'",
                );
            }
            "Exists" | "DoesNotExist" if !given.is_empty() => errors.forbidden(
                &values,
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            ),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            operator => errors.invalid_text(
                &at.child("operator"),
                operator,
                "not a valid selector operator",
            ),
        }
        name(
            errors,
            &at.child("key"),
            &expression["key"],
            names::qualified_name,
        );
        if checked == Values::Checked {
            for (j, value) in given.iter().enumerate() {
                name(errors, &values.index(j), value, names::label_value);
            }
        }
    }
}

/// The value without what Go would not tell apart from a missing field.
fn plain(value: &Value) -> Option<Value> {
    match value {
        Value::Object(map) => {
            let fields = map.iter().filter_map(|(k, v)| Some((k.clone(), plain(v)?)));
            let fields: Map<String, Value> = fields.collect();
            (!fields.is_empty()).then_some(fields.into())
        }
        Value::Array(list) => {
            let items = list.iter().map(|v| plain(v).unwrap_or_default());
            (!list.is_empty()).then(|| items.collect())
        }
        Value::Null | Value::Bool(false) => None,
        Value::String(text) if text.is_empty() => None,
        Value::Number(number) if number.as_i64() == Some(0) => None,
        other => Some(other.clone()),
    }
}

/// Equal as Kubernetes compares: missing, empty and zero are the same.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    a == b || plain(a) == plain(b)
}

/// `field is immutable`.
pub(super) fn immutable(errors: &mut Errors, path: &Path<'_>, new: &Value, old: &Value) {
    if !same(new, old) {
        errors.invalid(path, new, "field is immutable");
    }
}
