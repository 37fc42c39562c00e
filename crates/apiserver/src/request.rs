//! From a request line to what is asked, as the RequestInfo of Kubernetes has it.

use std::collections::BTreeMap;

/// What a request asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Info {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`;
    /// the method in lower case where no resource is asked for.
    pub verb: String,
    /// True for a path below `/api/v1/` or `/apis/G/V/` that names a resource.
    pub is_resource: bool,
    /// API group.
    pub group: String,
    /// API version.
    pub version: String,
    /// Namespace, or empty.
    pub namespace: String,
    /// Resource, for example `pods`.
    pub resource: String,
    /// Subresource, or empty.
    pub subresource: String,
    /// Name, or empty.
    pub name: String,
    /// What follows the subresource, for proxies.
    pub rest: String,
    /// The path asked for.
    pub path: String,
}

/// The query of a request. A key asked twice keeps all its values.
#[derive(Clone, Debug, Default)]
pub struct Query(BTreeMap<String, Vec<String>>);

impl Query {
    /// Parses `a=b&c=d`.
    pub fn parse(text: &str) -> Self {
        let mut map: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for pair in text.split('&').filter(|p| !p.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            map.entry(unescape(key, true))
                .or_default()
                .push(unescape(value, true));
        }
        Self(map)
    }

    /// The first value of `key`, or empty.
    pub fn get(&self, key: &str) -> &str {
        self.0
            .get(key)
            .and_then(|v| v.first())
            .map_or("", String::as_str)
    }

    /// Every value of `key`.
    pub fn all(&self, key: &str) -> &[String] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }

    /// True where `key` is given and is not `false` or `0`.
    pub fn flag(&self, key: &str) -> bool {
        self.0
            .get(key)
            .and_then(|v| v.first())
            .is_some_and(|v| v != "false" && v != "0")
    }

    /// True where `key` is given.
    pub fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }
}

/// Undoes percent-encoding; `plus` also turns `+` into a space.
pub fn unescape(text: &str, plus: bool) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = |i: usize| bytes.get(i).and_then(|b| char::from(*b).to_digit(16));
        match bytes[at] {
            b'%' => match (hex(at + 1), hex(at + 2)) {
                (Some(high), Some(low)) => {
                    out.push(u8::try_from(high * 16 + low).unwrap_or(b'?'));
                    at += 3;
                    continue;
                }
                _ => out.push(b'%'),
            },
            b'+' if plus => out.push(b' '),
            byte => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Subresources below `namespaces/NAME` that belong to the namespace itself.
const OF_NAMESPACES: [&str; 2] = ["status", "finalize"];

/// Reads method, path (without query) and query.
pub fn parse(method: &str, path: &str, query: &Query) -> Info {
    let mut info = Info {
        verb: method.to_ascii_lowercase(),
        path: path.to_owned(),
        ..Info::default()
    };
    let parts: Vec<String> = path
        .trim_matches('/')
        .split('/')
        .map(|p| unescape(p, false))
        .collect();
    let mut parts: &[String] = &parts;
    match parts.first().map(String::as_str) {
        Some("api") if parts.len() >= 3 => {
            info.version = parts[1].clone();
            parts = &parts[2..];
        }
        Some("apis") if parts.len() >= 4 => {
            info.group = parts[1].clone();
            info.version = parts[2].clone();
            parts = &parts[3..];
        }
        _ => return info,
    }
    info.is_resource = true;
    let mut watch = query.flag("watch");
    if parts.len() > 1 && parts[0] == "watch" {
        watch = true;
        parts = &parts[1..];
    }
    if parts.len() > 1 && parts[0] == "namespaces" {
        info.namespace = parts[1].clone();
        let own = parts
            .get(2)
            .is_none_or(|s| OF_NAMESPACES.contains(&s.as_str()));
        if !own {
            parts = &parts[2..];
        }
    }
    info.resource = parts.first().cloned().unwrap_or_default();
    info.name = parts.get(1).cloned().unwrap_or_default();
    info.subresource = parts.get(2).cloned().unwrap_or_default();
    if parts.len() > 3 {
        info.rest = parts[3..].join("/");
        if path.ends_with('/') {
            info.rest.push('/');
        }
    }
    info.verb = verb(method, &info.name, watch).to_owned();
    info
}

fn verb(method: &str, name: &str, watch: bool) -> &'static str {
    match method {
        "GET" | "HEAD" if watch => "watch",
        "GET" | "HEAD" if name.is_empty() => "list",
        "GET" | "HEAD" => "get",
        "POST" => "create",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" if name.is_empty() => "deletecollection",
        "DELETE" => "delete",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(method: &str, path: &str, query: &str) -> Info {
        parse(method, path, &Query::parse(query))
    }

    #[test]
    fn paths_are_read_as_kubernetes_reads_them() {
        let i = info("GET", "/api/v1/namespaces/a/pods/b/log", "");
        assert_eq!(
            (i.verb.as_str(), i.resource.as_str(), i.name.as_str()),
            ("get", "pods", "b")
        );
        assert_eq!((i.namespace.as_str(), i.subresource.as_str()), ("a", "log"));
        let i = info("GET", "/apis/apps/v1/deployments", "watch=true");
        assert_eq!((i.verb.as_str(), i.group.as_str()), ("watch", "apps"));
        let i = info("DELETE", "/api/v1/namespaces/a", "");
        assert_eq!(
            (i.verb.as_str(), i.resource.as_str(), i.name.as_str()),
            ("delete", "namespaces", "a")
        );
        let i = info("PUT", "/api/v1/namespaces/a/finalize", "");
        assert_eq!(
            (i.resource.as_str(), i.subresource.as_str()),
            ("namespaces", "finalize")
        );
        let i = info("GET", "/api/v1/namespaces", "");
        assert_eq!(
            (i.verb.as_str(), i.resource.as_str()),
            ("list", "namespaces")
        );
        let i = info("GET", "/api/v1/nodes/n/proxy/stats/summary", "");
        assert_eq!(i.rest, "stats/summary");
        let i = info("DELETE", "/api/v1/namespaces/a/pods", "");
        assert_eq!(i.verb, "deletecollection");
        assert!(!info("GET", "/apis/apps/v1", "").is_resource);
        assert!(!info("GET", "/healthz", "").is_resource);
    }

    #[test]
    fn queries_are_unescaped() {
        let q = Query::parse("labelSelector=a%3Db%2Cc+in+%28d%29&watch&x=%zz");
        assert_eq!(q.get("labelSelector"), "a=b,c in (d)");
        assert!(q.flag("watch"));
        assert_eq!(q.get("x"), "%zz");
    }
}
