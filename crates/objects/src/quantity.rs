//! `resource.Quantity`: parsing and the canonical form the API server answers with.

/// Parsed quantity: an exact count of nanos and how it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Decimal,
    Binary,
    Exponent,
}

/// What the API server says of text that is no quantity.
pub const FORMAT_ERROR: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
const SUFFIX_ERROR: &str = "unable to parse quantity's suffix";

const NANO: i128 = 1_000_000_000;
/// The largest quantity, 2^63-1.
const MOST: i128 = (i64::MAX as i128) * NANO;

const DECIMAL: &[(&str, i32)] = &[
    ("n", -9),
    ("u", -6),
    ("m", -3),
    ("", 0),
    ("k", 3),
    ("M", 6),
    ("G", 9),
    ("T", 12),
    ("P", 15),
    ("E", 18),
];
const BINARY: &[&str] = &["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

/// `number * 10^exponent`, rounded away from zero, capped.
fn times_ten(number: i128, exponent: i32) -> i128 {
    if exponent >= 0 {
        let factor = 10i128.checked_pow(exponent.unsigned_abs());
        return factor
            .and_then(|f| number.checked_mul(f))
            .map_or(MOST, |n| n.min(MOST));
    }
    match 10i128.checked_pow(exponent.unsigned_abs()) {
        Some(factor) => number.div_euclid(factor) + i128::from(number.rem_euclid(factor) != 0),
        None => i128::from(number != 0),
    }
}

impl Quantity {
    /// Parses `100m`, `1.5Gi`, `1e3`, ...; the error is the API server's sentence.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (negative, rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
            return Err(FORMAT_ERROR);
        }
        // More digits than 2^63 times 10^9 has are past the cap or below a nano.
        let digits: String = whole.chars().chain(fraction.chars().take(18)).collect();
        let digits: i128 = digits.parse().map_err(|_| FORMAT_ERROR)?;
        let places = i32::try_from(fraction.len().min(18)).unwrap_or(18);
        let (format, nanos) =
            if let Some((_, exponent)) = DECIMAL.iter().find(|(s, _)| *s == suffix) {
                (Format::Decimal, times_ten(digits, exponent + 9 - places))
            } else if let Some(power) = BINARY.iter().position(|s| *s == suffix) {
                let shifted = digits.checked_mul(1i128 << (10 * power)).unwrap_or(MOST);
                (Format::Binary, times_ten(shifted, 9 - places).min(MOST))
            } else if let Some(exponent) = suffix.strip_prefix(['e', 'E']) {
                let exponent: i32 = exponent.parse().map_err(|_| SUFFIX_ERROR)?;
                let exponent = exponent.clamp(-40, 40);
                (Format::Exponent, times_ten(digits, exponent + 9 - places))
            } else if suffix
                .chars()
                .all(|c| "eEinumkKMGTP+-0123456789".contains(c))
            {
                return Err(SUFFIX_ERROR);
            } else {
                return Err(FORMAT_ERROR);
            };
        Ok(Self {
            nanos: if negative { -nanos } else { nanos },
            format,
        })
    }

    /// From a JSON string or number.
    pub fn from_value(value: &serde_json::Value) -> Option<Self> {
        match value {
            serde_json::Value::String(text) => Self::parse(text.trim()).ok(),
            serde_json::Value::Number(number) => Self::parse(&number.to_string()).ok(),
            _ => None,
        }
    }

    /// The value in units of 10^-9.
    pub fn nanos(self) -> i128 {
        self.nanos
    }

    /// The value rounded up to thousandths, as CPU is counted.
    pub fn milli(self) -> i64 {
        let milli = times_ten(self.nanos, -6);
        i64::try_from(milli).unwrap_or(i64::MAX)
    }

    /// The value rounded up to whole units, as memory is counted.
    pub fn units(self) -> i64 {
        i64::try_from(times_ten(self.nanos, -9)).unwrap_or(i64::MAX)
    }
}

impl std::fmt::Display for Quantity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let small = self.nanos.abs() < 1024 * NANO;
        if self.format == Format::Binary && !small && self.nanos % NANO == 0 {
            let (mut number, mut power) = (self.nanos / NANO, 0);
            while number % 1024 == 0 && power + 1 < BINARY.len() {
                number /= 1024;
                power += 1;
            }
            return write!(f, "{number}{}", BINARY[power]);
        }
        let (mut number, mut exponent) = (self.nanos, -9);
        while number % 1000 == 0 && exponent < 18 {
            number /= 1000;
            exponent += 3;
        }
        if self.format == Format::Exponent {
            return if exponent == 0 {
                write!(f, "{number}")
            } else {
                write!(f, "{number}e{exponent}")
            };
        }
        let suffix = DECIMAL.iter().find(|(_, e)| *e == exponent);
        write!(f, "{number}{}", suffix.map_or("", |(s, _)| s))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn canonical_forms() {
        for (text, canonical) in [
            ("0.5", "500m"),
            ("1.5Gi", "1536Mi"),
            ("1024Mi", "1Gi"),
            ("100m", "100m"),
            ("1000m", "1"),
            ("1000", "1k"),
            ("128974848", "128974848"),
            ("1e3", "1e3"),
            ("0", "0"),
            ("0Mi", "0"),
            ("512", "512"),
            ("0.5Mi", "512Ki"),
            ("-1.5", "-1500m"),
            ("1.0000000001", "1000000001n"),
            ("500Ki", "500Ki"),
            ("+2", "2"),
        ] {
            assert_eq!(
                Quantity::parse(text).unwrap().to_string(),
                canonical,
                "{text}"
            );
        }
        assert_eq!(Quantity::parse("abc"), Err(FORMAT_ERROR));
        assert_eq!(Quantity::parse("1Qi"), Err(FORMAT_ERROR));
        assert_eq!(Quantity::parse("1mm"), Err(SUFFIX_ERROR));
        assert_eq!(Quantity::parse(""), Err(FORMAT_ERROR));
    }

    proptest! {
        #[test]
        fn the_canonical_form_is_stable(number in 0u32..1_000_000, suffix in "(n|u|m|k|M|Ki|Mi|Gi)?") {
            let once = Quantity::parse(&format!("{number}{suffix}")).unwrap();
            let again = Quantity::parse(&once.to_string()).unwrap();
            prop_assert_eq!(once.nanos(), again.nanos());
            prop_assert_eq!(once.to_string(), again.to_string());
        }

        #[test]
        fn never_panics(text in "[-+0-9.eEinumkKMGTPx]{0,40}") {
            let _ = Quantity::parse(&text);
        }
    }
}
