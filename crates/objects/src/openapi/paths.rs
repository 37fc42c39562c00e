//! `paths`: what can be asked of each resource and with which parameters.

use serde_json::{Map, Value, json};

use super::{gvk, list_name, reference, type_name};
use crate::Kind;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";

fn parameter(place: &str, name: &str, kind: &str, description: &str) -> Value {
    let mut parameter = json!({
        "name": name,
        "in": place,
        "description": description,
        "schema": { "type": kind, "uniqueItems": true },
    });
    if place == "path" {
        parameter["required"] = true.into();
    }
    parameter
}

fn query(name: &str) -> Value {
    let (kind, description) = match name {
        "dryRun" => (
            "string",
            "When present, indicates that modifications should not be persisted. Valid values are: - All: all dry run stages will be processed",
        ),
        "fieldManager" => (
            "string",
            "fieldManager is a name associated with the actor or entity that is making these changes.",
        ),
        "fieldValidation" => (
            "string",
            "fieldValidation instructs the server on how to handle objects in the request (POST/PUT/PATCH) containing unknown or duplicate fields. Valid values are: Ignore, Warn, Strict.",
        ),
        "force" => (
            "boolean",
            "Force is going to \"force\" Apply requests. It means user will re-acquire conflicting fields owned by other people.",
        ),
        "labelSelector" => (
            "string",
            "A selector to restrict the list of returned objects by their labels. Defaults to everything.",
        ),
        "fieldSelector" => (
            "string",
            "A selector to restrict the list of returned objects by their fields. Defaults to everything.",
        ),
        "limit" => (
            "integer",
            "limit is a maximum number of responses to return for a list call.",
        ),
        "continue" => (
            "string",
            "The continue option should be set when retrieving more results from the server.",
        ),
        "resourceVersion" => (
            "string",
            "resourceVersion sets a constraint on what resource versions a request may be served from.",
        ),
        "resourceVersionMatch" => (
            "string",
            "resourceVersionMatch determines how resourceVersion is applied to list calls.",
        ),
        "timeoutSeconds" => ("integer", "Timeout for the list/watch call."),
        "watch" => (
            "boolean",
            "Watch for changes to the described resources and return them as a stream of add, update, and remove notifications.",
        ),
        "allowWatchBookmarks" => (
            "boolean",
            "allowWatchBookmarks requests watch events with type \"BOOKMARK\".",
        ),
        "sendInitialEvents" => (
            "boolean",
            "`sendInitialEvents=true` may be set together with `watch=true`; the watch stream then begins with synthetic events for the current state.",
        ),
        "gracePeriodSeconds" => (
            "integer",
            "The duration in seconds before the object should be deleted.",
        ),
        "propagationPolicy" => (
            "string",
            "Whether and how garbage collection will be performed.",
        ),
        _ => ("string", ""),
    };
    parameter("query", name, kind, description)
}

const LIST: &[&str] = &[
    "allowWatchBookmarks",
    "continue",
    "fieldSelector",
    "labelSelector",
    "limit",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "timeoutSeconds",
    "watch",
];
const WRITE: &[&str] = &["dryRun", "fieldManager", "fieldValidation"];
const PATCH: &[&str] = &["dryRun", "fieldManager", "fieldValidation", "force"];
const DELETE: &[&str] = &["dryRun", "gracePeriodSeconds", "propagationPolicy"];

/// What an operation is about: the kind named in its extension and the type it exchanges.
struct Subject<'a> {
    kind: &'a Kind,
    gvk: Value,
    body: String,
    /// `Pod`, `PodStatus`: the tail of operation ids.
    word: String,
}

impl Subject<'_> {
    fn operation(&self, action: &str, verb: &str, answer: &str, parameters: &[&str]) -> Value {
        let group = self.kind.group.split('.').next().unwrap_or_default();
        let group = if group.is_empty() { "core" } else { group };
        let tag = format!("{group}_{}", self.kind.version);
        let scope = if self.kind.namespaced {
            "Namespaced"
        } else {
            ""
        };
        let parameters: Vec<Value> = parameters.iter().map(|p| query(p)).collect();
        json!({
            "description": format!("{verb} {}", self.word),
            "operationId": format!("{verb}{}{}{scope}{}", capital(group), capital(&self.kind.version), self.word),
            "tags": [tag],
            "parameters": parameters,
            "responses": {
                "200": {
                    "description": "OK",
                    "content": { "application/json": { "schema": reference(answer) } },
                },
                "401": { "description": "Unauthorized" },
            },
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": self.gvk,
        })
    }

    /// The operation of a verb on one object or on a collection.
    fn verb(&self, verb: &str) -> Option<(&'static str, Value)> {
        let body = |mut operation: Value| {
            operation["requestBody"] = json!({
                "required": true,
                "content": { "*/*": { "schema": reference(&self.body) } },
            });
            operation
        };
        let list = list_name(self.kind);
        let body_name = &self.body;
        Some(match verb {
            "get" => ("get", self.operation("get", "read", body_name, &[])),
            "list" => ("get", self.operation("list", "list", &list, LIST)),
            "create" => (
                "post",
                body(self.operation("post", "create", body_name, WRITE)),
            ),
            "update" => (
                "put",
                body(self.operation("put", "replace", body_name, WRITE)),
            ),
            "delete" => ("delete", self.operation("delete", "delete", STATUS, DELETE)),
            "deletecollection" => {
                let parameters: Vec<&str> = DELETE.iter().chain(LIST).copied().collect();
                let verb = "deleteCollection";
                (
                    "delete",
                    self.operation("deletecollection", verb, STATUS, &parameters),
                )
            }
            "patch" => ("patch", self.patch()),
            _ => return None,
        })
    }

    fn patch(&self) -> Value {
        let mut operation = self.operation("patch", "patch", &self.body, PATCH);
        let mut content = Map::new();
        let mut types = vec![
            "application/apply-patch+yaml",
            "application/json-patch+json",
            "application/merge-patch+json",
        ];
        if self.kind.custom.is_none() {
            types.push("application/strategic-merge-patch+json");
        }
        for media in types {
            let schema = reference(&format!("{META}.Patch"));
            content.insert(media.to_owned(), json!({ "schema": schema }));
        }
        operation["requestBody"] = json!({ "required": true, "content": content });
        operation
    }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(chars).collect()
    })
}

fn place(namespaced: bool, named: Option<&Kind>) -> Vec<Value> {
    let mut parameters = Vec::new();
    if let Some(kind) = named {
        let description = format!("name of the {}", kind.kind);
        parameters.push(parameter("path", "name", "string", &description));
    }
    if namespaced {
        let description = "object name and auth scope, such as for teams and projects";
        parameters.push(parameter("path", "namespace", "string", description));
    }
    let pretty = "If 'true', then the output is pretty printed.";
    parameters.push(parameter("query", "pretty", "string", pretty));
    parameters
}

fn path_item(subject: &Subject<'_>, verbs: &[&str], parameters: Vec<Value>) -> Value {
    let mut item = Map::new();
    for verb in verbs {
        if let Some((method, operation)) = subject.verb(verb) {
            item.insert(method.to_owned(), operation);
        }
    }
    item.insert("parameters".to_owned(), parameters.into());
    item.into()
}

/// Adds the paths of a kind and its subresources.
pub(super) fn add(routes: &mut Map<String, Value>, kind: &Kind) {
    let base = if kind.group.is_empty() {
        format!("/api/{}", kind.version)
    } else {
        format!("/apis/{}/{}", kind.group, kind.version)
    };
    let collection = if kind.namespaced {
        format!("{base}/namespaces/{{namespace}}/{}", kind.plural)
    } else {
        format!("{base}/{}", kind.plural)
    };
    let subject = Subject {
        kind,
        gvk: gvk(&kind.group, &kind.version, &kind.kind),
        body: type_name(kind),
        word: kind.kind.clone(),
    };
    let has = |verbs: &[&'static str]| -> Vec<&'static str> {
        let known = |v: &&&str| kind.verbs.contains(*v);
        verbs.iter().filter(known).copied().collect()
    };
    let many = has(&["list", "create", "deletecollection"]);
    let parameters = place(kind.namespaced, None);
    routes.insert(collection.clone(), path_item(&subject, &many, parameters));
    if kind.namespaced && kind.stored() {
        let everywhere = format!("{base}/{}", kind.plural);
        routes.insert(
            everywhere,
            path_item(&subject, &["list"], place(false, None)),
        );
    }
    if !kind.stored() {
        return;
    }
    let one = has(&["get", "update", "patch", "delete"]);
    let object = format!("{collection}/{{name}}");
    let parameters = || place(kind.namespaced, Some(kind));
    routes.insert(object.clone(), path_item(&subject, &one, parameters()));
    for name in &kind.subresources {
        if let Some(item) = subresource(kind, name) {
            let path = format!("{object}/{name}");
            routes.insert(
                path,
                path_item(&item, subresource_verbs(kind, name), parameters()),
            );
        }
    }
}

fn subresource_verbs(kind: &Kind, name: &str) -> &'static [&'static str] {
    kind.subresource(name).map_or(&[], |s| s.verbs)
}

/// Subresources that exchange objects; streams (exec, log, proxy) have no schema to tell.
fn subresource<'a>(kind: &'a Kind, name: &str) -> Option<Subject<'a>> {
    let sub = kind.subresource(name)?;
    let (body, gvk) = match sub.kind {
        "" if name == "log" => return None,
        "" => (type_name(kind), gvk(&kind.group, &kind.version, &kind.kind)),
        "Scale" | "Eviction" | "TokenRequest" | "Binding" => {
            let found = crate::schema::DEFINITIONS
                .iter()
                .find(|d| d.kind == sub.kind)?;
            (found.name.to_owned(), gvk(sub.group, sub.version, sub.kind))
        }
        _ => return None,
    };
    Some(Subject {
        kind,
        gvk,
        body,
        word: format!("{}{}", kind.kind, capital(name)),
    })
}
