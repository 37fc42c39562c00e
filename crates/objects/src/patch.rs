//! JSON patch, merge patch and strategic merge patch.

use serde_json::{Map, Value};

use crate::{Object, Status};

mod strategic;

pub use strategic::strategic;

/// Most operations one JSON patch may have.
const MAX_OPERATIONS: usize = 10_000;

/// RFC 6902. A malformed patch is a 400, one that does not apply a 422.
pub fn json(object: &mut Object, patch: &Object) -> Result<(), Status> {
    let operations = serde_json::from_value::<json_patch::Patch>(with_indices(object, patch))
        .map_err(|e| Status::bad_request(format!("error decoding patch: {e}")))?;
    if operations.len() > MAX_OPERATIONS {
        return Err(Status::too_large(&format!(
            "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
            operations.len()
        )));
    }
    json_patch::patch(object, &operations).map_err(|e| {
        let mut status = Status::unprocessable();
        status.details =
            serde_json::json!({ "causes": [{ "message": e.to_string(), "field": "patch" }] });
        status
    })
}

/// Kubernetes' patch library counts negative indices from the end, which RFC 6902 does not know.
fn with_indices(object: &Object, patch: &Object) -> Object {
    let mut patch = patch.clone();
    for operation in patch.as_array_mut().into_iter().flatten() {
        for key in ["path", "from"] {
            let Some(path) = operation.get(key).and_then(Value::as_str) else {
                continue;
            };
            let Some((parent, last)) = path.rsplit_once('/') else {
                continue;
            };
            let Ok(index) = last.parse::<i64>() else {
                continue;
            };
            let length = object
                .pointer(parent)
                .and_then(Value::as_array)
                .map(Vec::len);
            if let (true, Some(length)) = (index < 0, length) {
                let length = i64::try_from(length).unwrap_or(i64::MAX);
                let index = length.saturating_add(index);
                if index >= 0 {
                    operation[key] = format!("{parent}/{index}").into();
                }
            }
        }
    }
    patch
}

/// RFC 7396.
pub fn merge(object: &mut Object, patch: &Object) -> Result<(), Status> {
    if !patch.is_object() {
        return Err(Status::bad_request("Invalid JSON Patch"));
    }
    merge_value(object, patch);
    Ok(())
}

fn merge_value(target: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    if let Value::Object(map) = target {
        for (key, value) in fields {
            if value.is_null() {
                map.remove(key);
            } else {
                merge_value(map.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn merge_patch_is_rfc_7396() {
        let mut object = json!({"a": {"b": 1, "c": 2}, "d": [1]});
        merge(
            &mut object,
            &json!({"a": {"b": null, "e": {"f": null, "g": 1}}, "d": [2]}),
        )
        .unwrap();
        assert_eq!(object, json!({"a": {"c": 2, "e": {"g": 1}}, "d": [2]}));
        assert_eq!(merge(&mut object, &json!([])).unwrap_err().code, 400);
    }

    #[test]
    fn json_patch_and_its_errors() {
        let mut object = json!({"a": [1, 2, 3]});
        json(&mut object, &json!([{"op": "remove", "path": "/a/-1"}])).unwrap();
        assert_eq!(object, json!({"a": [1, 2]}));
        let error = json(
            &mut object,
            &json!([{"op": "test", "path": "/a/0", "value": 9}]),
        );
        assert_eq!(error.unwrap_err().code, 422);
        let error = json(&mut object, &json!([{"op": "fly", "path": "/a"}]));
        assert_eq!(error.unwrap_err().code, 400);
    }
}
