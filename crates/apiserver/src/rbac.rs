//! Who may do what: roles and bindings, read from the store and kept parsed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use objects::{Object, Status, selector::LabelSelector};
use tokio::sync::watch;

use crate::auth::User;
use crate::request::Info;
use crate::store::Store;

/// What somebody wants to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Verb.
    pub verb: String,
    /// API group.
    pub group: String,
    /// Resource; empty where a path is asked for.
    pub resource: String,
    /// Subresource, or empty.
    pub subresource: String,
    /// Namespace, or empty.
    pub namespace: String,
    /// Name, or empty.
    pub name: String,
    /// Path, where no resource is asked for.
    pub path: String,
}

impl Attributes {
    /// What a request wants.
    pub fn of(info: &Info) -> Self {
        if !info.is_resource {
            return Self {
                verb: info.verb.clone(),
                path: info.path.clone(),
                ..Self::default()
            };
        }
        Self {
            verb: info.verb.clone(),
            group: info.group.clone(),
            resource: info.resource.clone(),
            subresource: info.subresource.clone(),
            namespace: info.namespace.clone(),
            name: info.name.clone(),
            path: String::new(),
        }
    }

    fn full_resource(&self) -> String {
        if self.subresource.is_empty() {
            self.resource.clone()
        } else {
            format!("{}/{}", self.resource, self.subresource)
        }
    }
}

/// One rule of a role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Verbs.
    pub verbs: Vec<String>,
    /// API groups.
    pub groups: Vec<String>,
    /// Resources.
    pub resources: Vec<String>,
    /// Names; empty for all.
    pub names: Vec<String>,
    /// Paths.
    pub paths: Vec<String>,
}

fn strings(value: &Object) -> Vec<String> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Object::as_str)
        .map(str::to_owned)
        .collect()
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == "*" || item == wanted)
}

impl Rule {
    /// Reads a rule as it is written in a role.
    pub fn parse(value: &Object) -> Self {
        Self {
            verbs: strings(&value["verbs"]),
            groups: strings(&value["apiGroups"]),
            resources: strings(&value["resources"]),
            names: strings(&value["resourceNames"]),
            paths: strings(&value["nonResourceURLs"]),
        }
    }

    /// True where the rule allows it.
    pub fn allows(&self, wanted: &Attributes) -> bool {
        if !has(&self.verbs, &wanted.verb) {
            return false;
        }
        if wanted.resource.is_empty() {
            return self.paths.iter().any(|path| match path.strip_suffix('*') {
                Some(start) => wanted.path.starts_with(start),
                None => *path == wanted.path,
            });
        }
        let every_sub = format!("*/{}", wanted.subresource);
        has(&self.groups, &wanted.group)
            && (has(&self.resources, &wanted.full_resource())
                || (!wanted.subresource.is_empty() && self.resources.contains(&every_sub)))
            && (self.names.is_empty() || self.names.contains(&wanted.name))
    }

    /// The rule as `SelfSubjectRulesReview` lists it.
    pub fn to_object(&self) -> Object {
        let mut map = serde_json::Map::new();
        for (name, list) in [
            ("verbs", &self.verbs),
            ("apiGroups", &self.groups),
            ("resources", &self.resources),
            ("resourceNames", &self.names),
            ("nonResourceURLs", &self.paths),
        ] {
            if !list.is_empty() {
                map.insert(name.to_owned(), serde_json::json!(list));
            }
        }
        Object::Object(map)
    }
}

struct Binding {
    /// Empty for a ClusterRoleBinding.
    namespace: String,
    subjects: Vec<Subject>,
    /// Namespace (empty for a ClusterRole) and name.
    role: (String, String),
}

enum Subject {
    User(String),
    Group(String),
}

impl Subject {
    fn parse(value: &Object, namespace: &str) -> Option<Self> {
        let name = value["name"].as_str()?;
        match value["kind"].as_str()? {
            "User" => Some(Self::User(name.to_owned())),
            "Group" => Some(Self::Group(name.to_owned())),
            "ServiceAccount" => {
                let of = value["namespace"].as_str().unwrap_or(namespace);
                Some(Self::User(format!("system:serviceaccount:{of}:{name}")))
            }
            _ => None,
        }
    }

    fn is(&self, user: &User) -> bool {
        match self {
            Self::User(name) => *name == user.name,
            Self::Group(name) => user.groups.contains(name),
        }
    }
}

/// All roles and bindings, parsed.
#[derive(Default)]
pub struct Policy {
    roles: HashMap<(String, String), Vec<Rule>>,
    bindings: Vec<Binding>,
}

const GROUP: &str = "rbac.authorization.k8s.io";

impl Policy {
    fn read(store: &Store) -> Self {
        let mut policy = Self::default();
        let listed = |plural: &str| {
            let page = store.list(&format!("{GROUP}/{plural}/"));
            page.items
                .into_iter()
                .map(|(_, entry)| entry.object())
                .collect::<Vec<_>>()
        };
        let text = |object: &Object, field: &str| {
            object["metadata"][field]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        let cluster_roles = listed("clusterroles");
        for role in cluster_roles.iter().chain(&listed("roles")) {
            let mut rules: Vec<Rule> = rules(role);
            for part in aggregated(role, &cluster_roles) {
                rules.extend(self::rules(part));
            }
            policy
                .roles
                .insert((text(role, "namespace"), text(role, "name")), rules);
        }
        for binding in listed("clusterrolebindings")
            .iter()
            .chain(&listed("rolebindings"))
        {
            let namespace = text(binding, "namespace");
            let reference = &binding["roleRef"];
            let of = if reference["kind"] == "Role" {
                namespace.clone()
            } else {
                String::new()
            };
            policy.bindings.push(Binding {
                subjects: binding["subjects"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(|s| Subject::parse(s, &namespace))
                    .collect(),
                role: (
                    of,
                    reference["name"].as_str().unwrap_or_default().to_owned(),
                ),
                namespace,
            });
        }
        policy
    }

    /// The rules that hold for `user` in `namespace` (and those of the whole cluster).
    pub fn rules<'a>(&'a self, user: &User, namespace: &str) -> impl Iterator<Item = &'a Rule> {
        self.bindings
            .iter()
            .filter(move |b| {
                (b.namespace.is_empty() || b.namespace == namespace)
                    && b.subjects.iter().any(|s| s.is(user))
            })
            .filter_map(|b| self.roles.get(&b.role))
            .flatten()
    }

    /// True where `user` may.
    pub fn allows(&self, user: &User, wanted: &Attributes) -> bool {
        user.is_master()
            || self
                .rules(user, &wanted.namespace)
                .any(|rule| rule.allows(wanted))
    }

    /// The rules of a role, if it exists.
    pub fn role(&self, namespace: &str, name: &str) -> Option<&[Rule]> {
        self.roles
            .get(&(namespace.to_owned(), name.to_owned()))
            .map(Vec::as_slice)
    }
}

/// The rules written in a role.
pub fn rules(role: &Object) -> Vec<Rule> {
    role["rules"]
        .as_array()
        .into_iter()
        .flatten()
        .map(Rule::parse)
        .collect()
}

/// The roles a ClusterRole gathers by its `aggregationRule`.
pub fn aggregated<'a>(role: &Object, all: &'a [Object]) -> Vec<&'a Object> {
    let selectors: Vec<LabelSelector> = role["aggregationRule"]["clusterRoleSelectors"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|s| LabelSelector::from_object(s).ok())
        .collect();
    all.iter()
        .filter(|other| other["metadata"]["name"] != role["metadata"]["name"])
        .filter(|other| selectors.iter().any(|s| s.matches(other)))
        .collect()
}

/// The policy, read again when a role or binding changed.
pub struct Cache {
    store: Store,
    topics: Vec<watch::Receiver<u64>>,
    kept: Mutex<Option<(Vec<u64>, Arc<Policy>)>>,
}

impl Cache {
    /// A cache over `store`.
    pub fn new(store: &Store) -> Self {
        let topics = [
            "clusterroles",
            "roles",
            "clusterrolebindings",
            "rolebindings",
        ]
        .iter()
        .map(|plural| store.subscribe(&format!("{GROUP}/{plural}")))
        .collect();
        Self {
            store: store.clone(),
            topics,
            kept: Mutex::new(None),
        }
    }

    /// The policy of now.
    pub fn policy(&self) -> Arc<Policy> {
        let versions: Vec<u64> = self.topics.iter().map(|t| *t.borrow()).collect();
        let mut kept = self
            .kept
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((of, policy)) = kept.as_ref()
            && *of == versions
        {
            return policy.clone();
        }
        let policy = Arc::new(Policy::read(&self.store));
        *kept = Some((versions, policy.clone()));
        policy
    }
}

/// The 403 of a refused request, in Kubernetes' words.
pub fn refused(user: &User, wanted: &Attributes) -> Status {
    let who = objects::validation::field::quote(&user.name);
    let verb = &wanted.verb;
    if wanted.resource.is_empty() {
        return Status::forbidden(
            "",
            "",
            "",
            &format!("User {who} cannot {verb} path \"{}\"", wanted.path),
        );
    }
    let scope = if wanted.namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace \"{}\"", wanted.namespace)
    };
    let cause = format!(
        "User {who} cannot {verb} resource \"{}\" in API group \"{}\" {scope}",
        wanted.full_resource(),
        wanted.group
    );
    Status::forbidden(&wanted.group, &wanted.resource, &wanted.name, &cause)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rule(value: Object) -> Rule {
        Rule::parse(&value)
    }

    fn wanted(verb: &str, resource: &str, subresource: &str, name: &str) -> Attributes {
        Attributes {
            verb: verb.into(),
            resource: resource.into(),
            subresource: subresource.into(),
            name: name.into(),
            namespace: "ns".into(),
            ..Attributes::default()
        }
    }

    #[test]
    fn rules_match_verbs_resources_names_and_paths() {
        let pods =
            rule(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods", "*/scale"]}));
        assert!(pods.allows(&wanted("get", "pods", "", "a")));
        assert!(!pods.allows(&wanted("get", "pods", "log", "a")));
        assert!(pods.allows(&wanted("get", "replicationcontrollers", "scale", "a")));
        assert!(!pods.allows(&wanted("list", "pods", "", "")));
        let one = rule(
            json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "resourceNames": ["a"]}),
        );
        assert!(one.allows(&wanted("get", "pods", "log", "a")));
        assert!(!one.allows(&wanted("list", "pods", "", "")));
        let path = rule(json!({"verbs": ["get"], "nonResourceURLs": ["/healthz/*", "/version"]}));
        let at = |path: &str| Attributes {
            verb: "get".into(),
            path: path.into(),
            ..Attributes::default()
        };
        assert!(path.allows(&at("/healthz/ping")) && path.allows(&at("/version")));
        assert!(!path.allows(&at("/metrics")));
    }

    #[test]
    fn a_refusal_says_who_what_and_where() {
        let user = User {
            name: "x".into(),
            ..User::default()
        };
        let status = refused(&user, &wanted("list", "pods", "", ""));
        assert_eq!(
            status.message,
            "pods is forbidden: User \"x\" cannot list resource \"pods\" in API group \"\" in the namespace \"ns\""
        );
    }
}
