//! Kubernetes quantities (`500m`, `64Mi`, `1e3`) as thousandths.

/// A quantity in thousandths of its unit, rounded up; `None` where it is not a quantity.
pub fn milli(text: &str) -> Option<i128> {
    let text = text.trim();
    let digits = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '+' || c == '-'))
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let (numerator, denominator) = scale(suffix)?;
    let (negative, number) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let fraction = fraction.get(..fraction.len().min(9))?;
    let mut value: i128 = 0;
    for digit in whole.chars().chain(fraction.chars()) {
        value = value
            .checked_mul(10)?
            .checked_add(i128::from(digit.to_digit(10)?))?;
    }
    let denominator = denominator.checked_mul(10i128.pow(u32::try_from(fraction.len()).ok()?))?;
    let scaled = value.checked_mul(numerator)?.checked_mul(1000)?;
    let rounded = scaled.checked_add(denominator - 1)? / denominator;
    Some(if negative { -rounded } else { rounded })
}

/// A suffix as a fraction.
fn scale(suffix: &str) -> Option<(i128, i128)> {
    Some(match suffix {
        "" => (1, 1),
        "n" => (1, 1_000_000_000),
        "u" => (1, 1_000_000),
        "m" => (1, 1000),
        "k" => (1000, 1),
        "M" => (1_000_000, 1),
        "G" => (1_000_000_000, 1),
        "T" => (1_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000, 1),
        "E" => (1_000_000_000_000_000_000, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            let power = 10i128.checked_pow(exponent.unsigned_abs())?;
            if exponent >= 0 {
                (power, 1)
            } else {
                (1, power)
            }
        }
    })
}

/// `quantity / divisor`, rounded up, as the downward API writes it.
pub fn divided(quantity_milli: i128, divisor: &str) -> Option<i128> {
    let divisor = match milli(divisor)? {
        0 => 1000,
        other => other,
    };
    Some((quantity_milli + divisor - 1).div_euclid(divisor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_reads_them() {
        for (text, want) in [
            ("500m", 500),
            ("1", 1000),
            ("0.5", 500),
            ("1.5Gi", 1_610_612_736_000),
            ("64Mi", 67_108_864_000),
            ("1e3", 1_000_000),
            ("100n", 1),
            ("-2", -2000),
        ] {
            assert_eq!(milli(text), Some(want), "{text}");
        }
        for text in ["", "abc", "1Kib", "1 Mi"] {
            assert_eq!(milli(text), None, "{text}");
        }
    }

    #[test]
    fn the_downward_api_rounds_up() {
        assert_eq!(divided(1500, "1"), Some(2));
        assert_eq!(divided(1500, "1m"), Some(1500));
        assert_eq!(divided(67_108_864_000, "1Mi"), Some(64));
        assert_eq!(divided(250, "0"), Some(1));
    }
}
