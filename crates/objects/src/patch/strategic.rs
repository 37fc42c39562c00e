//! Kubernetes' strategic merge: lists merge by key where the type says so, and
//! directives in the patch delete, replace, reorder and retain.

use serde_json::{Map, Value};

use crate::schema::View;
use crate::{Object, Schema, Status};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_PRIMITIVES: &str = "$deleteFromPrimitiveList/";
const ELEMENT_ORDER: &str = "$setElementOrder/";

const BAD_RETAIN_KEYS: &str = "invalid patch format of retainKeys";
const BAD_PRIMITIVE_LIST: &str = "invalid patch format of primitive list";

type Fields = Map<String, Value>;

/// Merges `patch` into `object`.
pub fn strategic(object: &mut Object, patch: &Object, schema: &Schema) -> Result<(), Status> {
    let (Some(map), Value::Object(patch)) = (object.as_object_mut(), patch) else {
        return Err(Status::bad_request("invalid JSON document"));
    };
    if schema.is_custom() {
        return Err(Status::bad_request(
            "strategic merge patch format is not supported",
        ));
    }
    merge_map(map, patch.clone(), Some(schema.root()))
}

/// An error upstream has no HTTP code for.
fn fail(message: String) -> Status {
    Status::unknown(message)
}

fn no_merge_key(item: &Value, key: &str) -> Status {
    fail(format!(
        "map: {} does not contain declared merge key: {key}",
        go_value(item)
    ))
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Object(_) => "map[string]interface {}",
        Value::Array(_) => "[]interface {}",
        Value::String(_) => "string",
        Value::Bool(_) => "bool",
        Value::Number(n) if n.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::Null => "%!s(<nil>)",
    }
}

fn wrong_type(expected: &str, value: &Value) -> Status {
    fail(format!(
        "expected a {expected}, but received a {}",
        go_type(value)
    ))
}

/// A value as Go's `%v` prints it.
fn go_value(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(list) => {
            let items: Vec<String> = list.iter().map(go_value).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Object(map) => {
            let items = map.iter().map(|(k, v)| format!("{k}:{}", go_value(v)));
            format!("map[{}]", items.collect::<Vec<_>>().join(" "))
        }
        other => other.to_string(),
    }
}

fn merge_map(
    original: &mut Fields,
    mut patch: Fields,
    view: Option<View<'_>>,
) -> Result<(), Status> {
    if let Some(directive) = patch.remove(DIRECTIVE) {
        match directive.as_str() {
            Some("replace") => *original = patch,
            Some("delete") => original.clear(),
            _ => {
                return Err(fail(format!(
                    "unknown patch type {} in map {}",
                    go_value(&directive),
                    go_value(&Value::Object(patch))
                )));
            }
        }
        return Ok(());
    }
    retain_keys(original, &mut patch)?;
    ordered_lists(original, &mut patch, view)?;
    for (key, value) in patch {
        let (key, deletes) = match key.strip_prefix(DELETE_PRIMITIVES) {
            Some(key) => (key.to_owned(), true),
            None => (key, false),
        };
        if value.is_null() {
            original.remove(&key);
            continue;
        }
        merge_field(original, key, value, deletes, view)?;
    }
    Ok(())
}

fn merge_field(
    original: &mut Fields,
    key: String,
    value: Value,
    deletes: bool,
    view: Option<View<'_>>,
) -> Result<(), Status> {
    let field = view.and_then(|v| v.field(&key));
    let strategy = field.map(|f| f.strategy).unwrap_or_default();
    let child = view.and_then(|v| v.child(&key));
    match (original.get_mut(&key), value) {
        (Some(Value::Object(map)), Value::Object(patch)) => {
            if strategy.replace {
                *map = patch;
                return Ok(());
            }
            merge_map(map, patch, child)
        }
        (Some(Value::Array(list)), Value::Array(patch)) => {
            if !strategy.merge && !deletes {
                *list = patch;
                return Ok(());
            }
            let items = child.and_then(View::items);
            let merge_key = field.and_then(|f| f.merge_key).unwrap_or_default();
            *list = merge_list(std::mem::take(list), patch, items, merge_key, deletes)?;
            Ok(())
        }
        (_, Value::Object(_)) | (_, Value::Array(_)) if deletes => {
            // Nothing there to delete from.
            Ok(())
        }
        (_, mut value) => {
            if deletes {
                return Err(Status::bad_request(BAD_PRIMITIVE_LIST));
            }
            if clean(&mut value) {
                original.insert(key, value);
            } else {
                original.remove(&key);
            }
            Ok(())
        }
    }
}

/// Removes nulls and directives from a value that is new; false where nothing of it is to be.
fn clean(value: &mut Value) -> bool {
    match value {
        Value::Object(map) => {
            if map.contains_key(DIRECTIVE) {
                // There is nothing the directive could be about, so the value goes with it.
                return false;
            }
            map.retain(|key, value| {
                !value.is_null()
                    && key != RETAIN_KEYS
                    && !key.starts_with(DELETE_PRIMITIVES)
                    && !key.starts_with(ELEMENT_ORDER)
                    && clean(value)
            });
            true
        }
        Value::Array(list) => {
            list.retain_mut(clean);
            true
        }
        _ => true,
    }
}

/// `$retainKeys`: fields of the original that are not listed go.
fn retain_keys(original: &mut Fields, patch: &mut Fields) -> Result<(), Status> {
    let Some(list) = patch.remove(RETAIN_KEYS) else {
        return Ok(());
    };
    let Some(list) = list.as_array() else {
        return Err(Status::bad_request(BAD_RETAIN_KEYS));
    };
    let kept = |key: &str| list.iter().any(|k| k == key);
    for (key, value) in &*patch {
        let directive = key.starts_with(DELETE_PRIMITIVES) || key.starts_with(ELEMENT_ORDER);
        if !value.is_null() && !directive && !kept(key) {
            return Err(Status::bad_request(BAD_RETAIN_KEYS));
        }
    }
    original.retain(|key, _| kept(key));
    Ok(())
}

/// `$setElementOrder/x`: merges list x and puts it into the order asked for.
fn ordered_lists(
    original: &mut Fields,
    patch: &mut Fields,
    view: Option<View<'_>>,
) -> Result<(), Status> {
    let directives: Vec<String> = patch
        .keys()
        .filter(|k| k.starts_with(ELEMENT_ORDER))
        .cloned()
        .collect();
    for directive in directives {
        let order = patch.remove(&directive).unwrap_or_default();
        let Value::Array(order) = order else {
            return Err(wrong_type("[]interface {}", &order));
        };
        let Some(key) = directive.strip_prefix(ELEMENT_ORDER) else {
            continue;
        };
        let field = view.and_then(|v| v.field(key));
        let merge_key = field.and_then(|f| f.merge_key).unwrap_or_default();
        let before = match original.get(key) {
            None => None,
            Some(Value::Array(list)) => Some(list.clone()),
            Some(other) => return Err(wrong_type("[]interface {}", other)),
        };
        let changes = match patch.remove(key) {
            None | Some(Value::Null) => None,
            Some(Value::Array(list)) => Some(list),
            Some(other) => return Err(wrong_type("[]interface {}", &other)),
        };
        check_order(changes.as_deref().unwrap_or_default(), &order, merge_key)?;
        let items = view.and_then(|v| v.child(key)).and_then(View::items);
        let strategy = field.map(|f| f.strategy).unwrap_or_default();
        let merged = match (before.clone(), changes) {
            (None, None) => continue,
            (Some(before), None) => before,
            (None, Some(changes)) => {
                let mut list = Value::Array(changes);
                clean(&mut list);
                list.as_array().cloned().unwrap_or_default()
            }
            (Some(before), Some(changes)) if strategy.merge => {
                merge_list(before, changes, items, merge_key, false)?
            }
            (Some(_), Some(changes)) => changes,
        };
        let list = arrange(merged, &order, &before.unwrap_or_default(), merge_key)?;
        original.insert(key.to_owned(), list.into());
    }
    Ok(())
}

/// Each item of the patch must be in the order list, in that order.
fn check_order(patch: &[Value], order: &[Value], merge_key: &str) -> Result<(), Status> {
    let deleted = |item: &&Value| item.get(DIRECTIVE).is_some_and(|d| d == "delete");
    let named: Vec<&Value> = patch
        .iter()
        .filter(|item| merge_key.is_empty() || !deleted(item))
        .collect();
    if order.is_empty() || patch.is_empty() {
        return Ok(());
    }
    let (mut at, mut next) = (0, 0);
    while at < named.len() && next < order.len() {
        if named[at].get(DIRECTIVE).is_some() {
            at += 1;
            continue;
        }
        at += usize::from(same(&order[next], named[at], merge_key));
        next += 1;
    }
    if at == named.len() {
        return Ok(());
    }
    let show = |list: &[Value]| list.iter().map(go_value).collect::<Vec<_>>().join(" ");
    Err(fail(format!(
        "The order in patch list:\n[{}]\n doesn't match {ELEMENT_ORDER_NAME} list:\n[{}]\n",
        show(patch),
        show(order)
    )))
}

const ELEMENT_ORDER_NAME: &str = "$setElementOrder";

fn same(a: &Value, b: &Value, merge_key: &str) -> bool {
    if merge_key.is_empty() {
        a == b
    } else {
        a.get(merge_key).is_some() && a.get(merge_key) == b.get(merge_key)
    }
}

fn position(list: &[Value], item: &Value, merge_key: &str) -> Option<usize> {
    list.iter().position(|other| same(other, item, merge_key))
}

/// The items `order` names in its order, the others in the server's, woven by the server's order.
fn arrange(
    merged: Vec<Value>,
    order: &[Value],
    server: &[Value],
    merge_key: &str,
) -> Result<Vec<Value>, Status> {
    if !merge_key.is_empty()
        && let Some(item) = merged.iter().find(|i| i.get(merge_key).is_none())
    {
        return Err(no_merge_key(item, merge_key));
    }
    let (mut named, mut others): (Vec<Value>, Vec<Value>) = merged
        .into_iter()
        .partition(|item| position(order, item, merge_key).is_some());
    named.sort_by_key(|item| position(order, item, merge_key));
    others.sort_by_key(|item| position(server, item, merge_key).unwrap_or(usize::MAX));
    let mut out = Vec::with_capacity(named.len() + others.len());
    let mut named = named.into_iter().peekable();
    for other in others {
        let here = position(server, &other, merge_key);
        while let Some(next) = named.peek() {
            let there = position(server, next, merge_key);
            if matches!((here, there), (Some(here), Some(there)) if here < there) {
                break;
            }
            out.extend(named.next());
        }
        out.push(other);
    }
    out.extend(named);
    Ok(out)
}

fn merge_list(
    mut original: Vec<Value>,
    patch: Vec<Value>,
    items: Option<View<'_>>,
    merge_key: &str,
    deletes: bool,
) -> Result<Vec<Value>, Status> {
    let Some(first) = original.first().or(patch.first()) else {
        return Ok(original);
    };
    let server = original.clone();
    if !first.is_object() {
        if original.iter().chain(&patch).any(Value::is_array) {
            return Err(Status::unprocessable());
        }
        if deletes {
            original.retain(|item| !patch.contains(item));
            return Ok(original);
        }
        for item in &patch {
            if !original.contains(item) {
                original.push(item.clone());
            }
        }
        return arrange(original, &patch, &server, "");
    }
    if merge_key.is_empty() {
        return Err(fail("cannot merge lists without merge key for ".to_owned()));
    }
    let (mut plain, mut replaces) = (Vec::new(), false);
    for item in patch {
        match item.get(DIRECTIVE).map(|d| d.as_str().unwrap_or_default()) {
            None => plain.push(item),
            Some("delete") => {
                if item.get(merge_key).is_none() {
                    return Err(no_merge_key(&item, merge_key));
                }
                original.retain(|other| !same(other, &item, merge_key));
            }
            Some("replace") => replaces = true,
            Some("merge") => {
                return Err(fail(
                    "merging lists cannot yet be specified in the patch".to_owned(),
                ));
            }
            Some(other) => return Err(fail(format!("unknown patch type {other}"))),
        }
    }
    if replaces {
        return Ok(plain);
    }
    for item in &plain {
        if item.get(merge_key).is_none() {
            return Err(no_merge_key(item, merge_key));
        }
        let found = original.iter_mut().find(|o| same(o, item, merge_key));
        match (found, item) {
            (Some(Value::Object(map)), Value::Object(patch)) => {
                merge_map(map, patch.clone(), items)?;
            }
            _ => {
                let mut item = item.clone();
                clean(&mut item);
                original.push(item);
            }
        }
    }
    arrange(original, &plain, &server, merge_key)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn patched(group: &str, kind: &str, mut object: Value, patch: Value) -> Value {
        let schema = Schema::builtin(group, "v1", kind);
        strategic(&mut object, &patch, &schema).unwrap();
        object
    }

    #[test]
    fn containers_merge_by_name_and_keep_order() {
        let pod = json!({"spec": {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]}});
        let patch = json!({"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}, {"name": "c"}],
            "containers": [{"name": "b", "image": "2"}, {"name": "c", "image": "3"}]}});
        assert_eq!(
            patched("", "Pod", pod, patch),
            json!({"spec": {"containers": [{"name": "b", "image": "2"}, {"name": "a", "image": "1"}, {"name": "c", "image": "3"}]}})
        );
    }

    #[test]
    fn directives() {
        let pod = json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}], "nodeSelector": {"x": "y"}}, "metadata": {"finalizers": ["a", "b"]}});
        let patch = json!({"spec": {"containers": [{"name": "a", "$patch": "delete"}], "nodeSelector": {"$patch": "replace", "z": "1"}},
            "metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}});
        assert_eq!(
            patched("", "Pod", pod, patch),
            json!({"spec": {"containers": [{"name": "b"}], "nodeSelector": {"z": "1"}}, "metadata": {"finalizers": ["b"]}})
        );
        let deployment = json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
        let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
        assert_eq!(
            patched("apps", "Deployment", deployment, patch),
            json!({"spec": {"strategy": {"type": "Recreate"}}})
        );
    }

    #[test]
    fn lists_without_a_strategy_are_replaced() {
        let pod = json!({"spec": {"containers": [{"name": "a", "args": ["1", "2"]}], "tolerations": [{"key": "a"}]}});
        let patch = json!({"spec": {"containers": [{"name": "a", "args": ["3"]}], "tolerations": [{"key": "b"}]}});
        assert_eq!(
            patched("", "Pod", pod, patch),
            json!({"spec": {"containers": [{"name": "a", "args": ["3"]}], "tolerations": [{"key": "b"}]}})
        );
    }

    #[test]
    fn a_key_must_be_there() {
        let mut pod = json!({"spec": {"containers": [{"name": "a"}]}});
        let patch = json!({"spec": {"containers": [{"image": "x"}]}});
        let error = strategic(&mut pod, &patch, &Schema::builtin("", "v1", "Pod")).unwrap_err();
        assert_eq!(
            error.message,
            "map: map[image:x] does not contain declared merge key: name"
        );
    }

    #[test]
    fn nulls_delete_and_new_values_lose_theirs() {
        let object = json!({"metadata": {"labels": {"a": "1", "b": "2"}}});
        let patch =
            json!({"metadata": {"labels": {"a": null}, "annotations": {"x": null, "y": "1"}}});
        assert_eq!(
            patched("", "ConfigMap", object, patch),
            json!({"metadata": {"labels": {"b": "2"}, "annotations": {"y": "1"}}})
        );
    }
}
