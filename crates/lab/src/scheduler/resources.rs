//! What pods ask for and nodes have: quantities as numbers.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Amounts by resource name; `cpu` in thousandths, everything else in whole units.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Amounts(BTreeMap<String, i64>);

impl Amounts {
    /// From a list as in `requests` or `allocatable`. What cannot be read counts as none:
    /// the API server does not let it in.
    pub fn read(list: Option<&BTreeMap<String, Quantity>>) -> Self {
        let amounts = list.into_iter().flatten().map(|(name, quantity)| {
            let amount = if name == "cpu" {
                scaled(&quantity.0, 1000)
            } else {
                scaled(&quantity.0, 1)
            };
            (name.clone(), amount.unwrap_or(0))
        });
        Self(amounts.collect())
    }

    /// The amount of one resource.
    pub fn of(&self, name: &str) -> i64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// All, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, i64)> {
        self.0.iter().map(|(name, amount)| (name.as_str(), *amount))
    }

    /// Adds `other`.
    pub fn add(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            let sum = self.0.entry(name.clone()).or_default();
            *sum = sum.saturating_add(*amount);
        }
    }

    /// Takes `other` away.
    pub fn subtract(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            if let Some(rest) = self.0.get_mut(name) {
                *rest = rest.saturating_sub(*amount);
            }
        }
    }

    fn raise(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            let highest = self.0.entry(name.clone()).or_default();
            *highest = (*highest).max(*amount);
        }
    }

    fn set(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            self.0.insert(name.clone(), *amount);
        }
    }
}

/// `text` times `scale`, rounded up: `1500m`, `0.5`, `1Gi`, `12e6`.
pub fn scaled(text: &str, scale: i64) -> Option<i64> {
    let text = text.trim();
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-')))
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (numerator, denominator) = factor(suffix)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let negative = whole.starts_with('-');
    let digits = fraction.get(..fraction.len().min(9))?;
    let whole_value: i128 = match whole.trim_start_matches(['+', '-']) {
        "" if digits.is_empty() => return None,
        "" => 0,
        text => text.parse().ok()?,
    };
    let base = 10_i128.checked_pow(u32::try_from(digits.len()).ok()?)?;
    let parts: i128 = if digits.is_empty() {
        0
    } else {
        digits.parse().ok()?
    };
    let value = whole_value.checked_mul(base)?.checked_add(parts)?;
    let value = value
        .checked_mul(numerator)?
        .checked_mul(i128::from(scale))?;
    let divisor = base.checked_mul(denominator)?;
    let rounded = value.div_euclid(divisor) + i128::from(value.rem_euclid(divisor) > 0);
    let signed = if negative { -rounded } else { rounded };
    i64::try_from(signed).ok()
}

fn factor(suffix: &str) -> Option<(i128, i128)> {
    let power = |base: i128, exponent: u32| base.checked_pow(exponent).map(|f| (f, 1));
    match suffix {
        "" => Some((1, 1)),
        "n" => Some((1, 1_000_000_000)),
        "u" => Some((1, 1_000_000)),
        "m" => Some((1, 1000)),
        "k" => power(1000, 1),
        "M" => power(1000, 2),
        "G" => power(1000, 3),
        "T" => power(1000, 4),
        "P" => power(1000, 5),
        "E" => power(1000, 6),
        "Ki" => power(1024, 1),
        "Mi" => power(1024, 2),
        "Gi" => power(1024, 3),
        "Ti" => power(1024, 4),
        "Pi" => power(1024, 5),
        "Ei" => power(1024, 6),
        exponent => {
            let digits = exponent.strip_prefix(['e', 'E'])?;
            let exponent: i32 = digits.parse().ok()?;
            let size = 10_i128.checked_pow(exponent.unsigned_abs())?;
            Some(if exponent < 0 { (1, size) } else { (size, 1) })
        }
    }
}

/// What a pod asks for while it runs: its containers and sidecars together, or the
/// hungriest moment of its start where that is more; plus the sandbox's overhead.
pub fn requests(pod: &Pod) -> Amounts {
    let Some(spec) = &pod.spec else {
        return Amounts::default();
    };
    let of = |container: &Container| {
        let resources = container.resources.as_ref();
        Amounts::read(resources.and_then(|r| r.requests.as_ref()))
    };
    let mut sidecars = Amounts::default();
    let mut start = Amounts::default();
    for container in spec.init_containers.iter().flatten() {
        let mut moment = of(container);
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars.add(&moment);
            start.raise(&sidecars);
        } else {
            moment.add(&sidecars);
            start.raise(&moment);
        }
    }
    let mut total = sidecars;
    for container in &spec.containers {
        total.add(&of(container));
    }
    total.raise(&start);
    let pod_level = spec.resources.as_ref().and_then(|r| r.requests.as_ref());
    total.set(&Amounts::read(pod_level));
    total.add(&Amounts::read(spec.overhead.as_ref()));
    total
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn quantities_are_read_as_kubernetes_reads_them() {
        let cases = [
            ("1", 1, 1),
            ("1500m", 1000, 1500),
            ("0.5", 1000, 500),
            ("100m", 1, 1),
            ("1Gi", 1, 1 << 30),
            ("1.5Gi", 1, 3 << 29),
            ("12e6", 1, 12_000_000),
            ("2k", 1, 2000),
            ("1E", 1, 1_000_000_000_000_000_000),
            ("100n", 1000, 1),
            (".5", 1000, 500),
        ];
        for (text, scale, value) in cases {
            assert_eq!(scaled(text, scale), Some(value), "{text}");
        }
        for text in ["", "x", "1x", "99999999999Ei"] {
            assert_eq!(scaled(text, 1), None, "{text}");
        }
    }

    #[test]
    fn a_pod_asks_for_its_containers_or_its_start() {
        let pod: Pod = serde_json::from_value(json!({"spec": {
            "initContainers": [
                {"name": "big", "resources": {"requests": {"cpu": "2", "memory": "10Mi"}}},
                {"name": "side", "restartPolicy": "Always", "resources": {"requests": {"cpu": "100m"}}}],
            "containers": [
                {"name": "a", "resources": {"requests": {"cpu": "500m", "memory": "64Mi"}}},
                {"name": "b", "resources": {"requests": {"cpu": "250m"}}}]}}))
        .unwrap();
        let requests = requests(&pod);
        assert_eq!(requests.of("cpu"), 2000);
        assert_eq!(requests.of("memory"), 64 << 20);
    }
}
