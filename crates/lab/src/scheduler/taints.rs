//! Taints and tolerations.

use k8s_openapi::api::core::v1::{Taint, Toleration};

/// True where the toleration is for the taint.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let empty = |text: &Option<String>| text.as_deref().unwrap_or("").is_empty();
    if !empty(&toleration.effect) && toleration.effect.as_ref() != Some(&taint.effect) {
        return false;
    }
    if !empty(&toleration.key) && toleration.key.as_ref() != Some(&taint.key) {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or("Equal") {
        "Exists" => true,
        "" | "Equal" => {
            toleration.value.as_deref().unwrap_or("") == taint.value.as_deref().unwrap_or("")
                && !empty(&toleration.key)
        }
        _ => false,
    }
}

/// The first taint of these effects that none of the tolerations is for.
pub fn untolerated<'a>(
    taints: &'a [Taint],
    tolerations: &[Toleration],
    effects: &[&str],
) -> Option<&'a Taint> {
    taints
        .iter()
        .filter(|taint| effects.contains(&taint.effect.as_str()))
        .find(|taint| !tolerations.iter().any(|t| tolerates(t, taint)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tolerations_match_by_key_value_and_effect() {
        let taint: Taint =
            serde_json::from_value(json!({"key": "a", "value": "b", "effect": "NoSchedule"}))
                .unwrap();
        let cases = [
            (json!({"operator": "Exists"}), true),
            (json!({"key": "a", "operator": "Exists"}), true),
            (json!({"key": "a", "value": "b"}), true),
            (json!({"key": "a", "value": "c"}), false),
            (json!({"key": "x", "operator": "Exists"}), false),
            (
                json!({"key": "a", "operator": "Exists", "effect": "NoExecute"}),
                false,
            ),
            (
                json!({"key": "a", "operator": "Equal", "value": "b", "effect": "NoSchedule"}),
                true,
            ),
        ];
        for (toleration, answer) in cases {
            let parsed: Toleration = serde_json::from_value(toleration.clone()).unwrap();
            assert_eq!(tolerates(&parsed, &taint), answer, "{toleration}");
        }
    }
}
