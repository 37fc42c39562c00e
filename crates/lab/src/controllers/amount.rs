//! Numbers given absolutely or in percent.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// What a field such as `maxSurge` means of `total`; None where it is not a number.
pub fn resolve(amount: &IntOrString, total: i32, round_up: bool) -> Option<i32> {
    match amount {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(text) => {
            let percent: i64 = text.strip_suffix('%')?.parse().ok()?;
            let parts = percent.checked_mul(i64::from(total))?;
            let whole = if round_up {
                parts.checked_add(99)?.div_euclid(100)
            } else {
                parts.div_euclid(100)
            };
            i32::try_from(whole).ok()
        }
    }
}

/// `maxSurge` and `maxUnavailable` of a rolling update of `total` pods. Both zero would
/// never get anywhere: then one may be unavailable.
pub fn fence_posts(
    surge: Option<&IntOrString>,
    unavailable: Option<&IntOrString>,
    total: i32,
) -> (i32, i32) {
    let of = |amount: Option<&IntOrString>, up| {
        amount
            .and_then(|a| resolve(a, total, up))
            .unwrap_or(0)
            .max(0)
    };
    let (surge, unavailable) = (of(surge, true), of(unavailable, false));
    if surge == 0 && unavailable == 0 {
        return (0, 1);
    }
    (surge, unavailable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percents_round_surge_up_and_unavailability_down() {
        let quarter = IntOrString::String("25%".to_owned());
        assert_eq!(fence_posts(Some(&quarter), Some(&quarter), 10), (3, 2));
        assert_eq!(fence_posts(Some(&quarter), Some(&quarter), 1), (1, 0));
        assert_eq!(
            fence_posts(Some(&IntOrString::Int(0)), Some(&quarter), 3),
            (0, 1)
        );
        assert_eq!(fence_posts(None, Some(&IntOrString::Int(2)), 3), (0, 2));
    }
}
