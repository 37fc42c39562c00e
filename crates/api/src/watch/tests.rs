//! Watches against a small server of lists, and what is held of a large cluster.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use model::Cluster;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

thread_local! {
    /// Bytes that this thread has taken and not given back.
    static HELD: Cell<isize> = const { Cell::new(0) };
}

struct Counting;

fn count(bytes: usize, sign: isize) {
    let _ = HELD.try_with(|held| held.set(held.get() + sign * bytes.cast_signed()));
}

// SAFETY: everything is done by the system's allocator; the counter takes no memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        // SAFETY: the caller's promises are those of this function.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        count(layout.size(), -1);
        // SAFETY: the caller's promises are those of this function.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const PODS: &str = "/api/v1/pods";
const NAMESPACES: &str = "/api/v1/namespaces";
const POLICIES: &str = "/apis/networking.k8s.io/v1/networkpolicies";
const CLUSTER: &str = "/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies";

/// The items of each kind that is there, by its path.
type Lists = Arc<Mutex<BTreeMap<&'static str, Vec<serde_json::Value>>>>;

/// A server that answers lists, and watches with silence.
async fn serve(lists: &Lists) -> Client {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let lists = Arc::clone(lists);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, Arc::clone(&lists)));
        }
    });
    let config = kube::Config::new(url.parse().unwrap());
    crate::client::client_of(config, "test").unwrap()
}

async fn answer(mut stream: TcpStream, lists: Lists) {
    let mut asked = Vec::new();
    loop {
        while !asked.windows(4).any(|end| end == b"\r\n\r\n") {
            match stream.read_buf(&mut asked).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
        let head = String::from_utf8_lossy(&std::mem::take(&mut asked)).into_owned();
        let target = head.split(' ').nth(1).unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let items = lists.lock().unwrap().get(path).cloned();
        let text = match items {
            Some(_) if query.contains("watch=true") => {
                let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
                let _ = stream.write_all(head.as_bytes()).await;
                // The other end closes.
                let _ = stream.read_buf(&mut asked).await;
                return;
            }
            Some(items) => {
                let list = json!({"kind": "List", "apiVersion": "v1",
                    "metadata": {"resourceVersion": "1"}, "items": items});
                response("200 OK", &list.to_string())
            }
            None => response("404 Not Found", "404 page not found"),
        };
        if stream.write_all(text.as_bytes()).await.is_err() {
            return;
        }
    }
}

fn response(status: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

fn lists(of: &[(&'static str, Vec<serde_json::Value>)]) -> Lists {
    let empty = [PODS, NAMESPACES, POLICIES].map(|path| (path, Vec::new()));
    let all = empty.into_iter().chain(of.iter().cloned());
    Arc::new(Mutex::new(all.collect()))
}

/// What the watch of policies tells until all is known.
async fn synced(client: &Client) -> (Cluster, Vec<String>, BoxStream<'static, Update>) {
    let mut updates = changes(client, What::POLICIES);
    let mut cluster = Cluster::default();
    let mut others = Vec::new();
    loop {
        let next = tokio::time::timeout(Duration::from_secs(60), updates.next());
        match next.await.unwrap().unwrap() {
            Update::Synced => return (cluster, others, updates),
            Update::Change(change) => {
                cluster.take(change);
            }
            other => others.push(format!("{other:?}")),
        }
    }
}

fn policy(name: usize) -> serde_json::Value {
    let selects = |app: usize| json!({"matchLabels": {"app": format!("app-{app}")}});
    json!({"metadata": {"namespace": format!("team-{}", name % 500),
            "name": format!("policy-{name}"), "uid": format!("{name:036}"),
            "resourceVersion": "123456", "creationTimestamp": "2026-01-02T03:04:05Z",
            "generation": 1},
        "spec": {"podSelector": selects(name % 20), "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"podSelector": selects(name % 19)}],
                "ports": [{"port": 8080, "protocol": "TCP"}]}]}})
}

fn pod(name: usize) -> serde_json::Value {
    let app = format!("app-{}", name % 20);
    json!({"metadata": {"namespace": format!("team-{}", name % 500),
            "name": format!("{app}-6d4cf56db6-{name:05}"), "uid": format!("{name:036}"),
            "resourceVersion": "123456", "creationTimestamp": "2026-01-02T03:04:05Z",
            "labels": {"app": app, "app.kubernetes.io/name": app, "tier": "backend",
                "pod-template-hash": "6d4cf56db6", "version": "v1.2.3"}},
        "spec": {"nodeName": format!("node{}", name % 100), "containers": [
            {"name": "main", "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}]}]},
        "status": {"phase": "Running",
            "podIPs": [{"ip": format!("10.{}.{}.9", name / 250 % 250, name % 250)}]}})
}

/// Bytes held for each of `count` objects, by the watch and by the cluster together.
async fn held(path: &'static str, count: usize, item: fn(usize) -> serde_json::Value) -> f64 {
    let lists = lists(&[(path, (0..count).map(item).collect())]);
    let client = serve(&lists).await;
    let before = HELD.with(Cell::get);
    let (cluster, others, updates) = synced(&client).await;
    assert!(others.is_empty(), "{others:?}");
    // Answers that are still on their way are no part of it.
    lists.lock().unwrap().clear();
    let after = HELD.with(Cell::get);
    let listed = cluster.pods.len() + cluster.policies.len();
    assert_eq!(listed, count);
    drop((cluster, updates));
    let left = HELD.with(Cell::get);
    #[expect(clippy::cast_precision_loss, reason = "a figure to read")]
    let each = (after - left) as f64 / count as f64;
    println!(
        "{path}: {each:.0} bytes each ({} more than before)",
        after - before
    );
    each
}

#[tokio::test]
async fn a_pod_and_a_policy_take_little_memory() {
    let pod = held(PODS, 2000, pod).await;
    assert!(pod < 1500.0, "{pod} bytes a pod");
    let policy = held(POLICIES, 2000, policy).await;
    assert!(policy < 1500.0, "{policy} bytes a policy");
}

#[tokio::test]
async fn a_kind_that_is_not_installed_has_no_objects_and_is_no_problem() {
    let namespace = json!({"metadata": {"name": "shop", "labels": {"team": "a"}}});
    let broken = json!({"metadata": {"namespace": "shop", "name": "p", "uid": "u"},
        "spec": {"podSelector": {}, "ingress": [{"from": [{}]}]}});
    let lists = lists(&[(NAMESPACES, vec![namespace]), (POLICIES, vec![broken])]);
    let client = serve(&lists).await;
    let (cluster, others, _) = synced(&client).await;
    assert_eq!(cluster.namespaces["shop"].labels.get("team"), Some("a"));
    assert!(cluster.cluster_policies.is_empty());
    // A broken policy is there, and told of.
    assert_eq!(cluster.policies.len(), 1);
    assert_eq!(others.len(), 1, "{others:?}");
    assert!(others[0].contains("NetworkPolicy shop/p: spec.ingress[0].from[0]: names nobody"));
}

#[tokio::test]
async fn a_kind_that_is_installed_later_is_found() {
    let lists = lists(&[]);
    let client = serve(&lists).await;
    let wait = Duration::from_millis(5);
    let mut parts = optional::looked_for::<ClusterPolicy>(&client, wait);
    let mut next = async || {
        let next = tokio::time::timeout(Duration::from_secs(60), parts.next());
        next.await.unwrap().unwrap()
    };
    assert!(matches!(next().await, Part::Listed));
    let policy = json!({"metadata": {"name": "p", "uid": "u"}, "spec": {"tier": "Admin",
        "priority": 1, "subject": {"namespaces": {}}}});
    lists.lock().unwrap().insert(CLUSTER, vec![policy]);
    let Part::Update(Update::Change(Change::ClusterPolicy(found))) = next().await else {
        panic!("no policy");
    };
    assert_eq!(found.name, "p");
}
