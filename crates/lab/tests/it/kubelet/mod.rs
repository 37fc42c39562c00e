//! A real kubelet, with real shims, in a node's namespace, against a real API.

mod node;
mod streams;

use k8s_openapi::api::core::v1::{ConfigMap, Node as NodeObject};
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::{Value, json};

use crate::is_root;
use node::{Node, condition};

fn sleeper(name: &str) -> Value {
    json!({"name": name, "image": "busybox", "command": ["sleep", "1000"]})
}

/// A script that ends at SIGTERM, which the first process of a container else ignores.
fn script(name: &str, text: &str) -> Value {
    let text = format!("trap 'exit 0' TERM\n{text}");
    json!({"name": name, "image": "busybox", "command": ["sh", "-c", text]})
}

async fn create_map(node: &Node, name: &str, data: Value) {
    let map: ConfigMap =
        serde_json::from_value(json!({"metadata": {"name": name}, "data": data})).unwrap();
    let api: Api<ConfigMap> = Api::namespaced(node.client.clone(), "default");
    api.create(&PostParams::default(), &map).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_lives_from_creation_to_deletion() {
    if !is_root("a_pod_lives_from_creation_to_deletion") {
        return;
    }
    let node = Node::start("life").await;
    node.run("web", json!({
        "terminationGracePeriodSeconds": 5,
        "initContainers": [
            {"name": "side", "image": "busybox", "restartPolicy": "Always", "command": ["sleep", "1000"]},
            {"name": "init", "image": "busybox", "command": ["sh", "-c", "echo made > /data/file"],
             "volumeMounts": [{"name": "data", "mountPath": "/data"}]}],
        "containers": [
            {"name": "c", "image": "busybox", "command": ["sh", "-c",
                "trap 'exit 0' TERM; echo ip $(IP) file $(cat /data/file); while :; do sleep 0.1; done"],
             "env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
             "volumeMounts": [{"name": "data", "mountPath": "/data"}]}],
        "volumes": [{"name": "data", "emptyDir": {"medium": "Memory"}}]}))
    .await;
    let pod = node.until_ready("web").await;
    assert_eq!(pod["status"]["phase"], "Running");
    assert_eq!(pod["status"]["podIP"], "10.244.9.2");
    assert_eq!(pod["status"]["hostIP"], "10.0.1.10");
    assert_eq!(condition(&pod, "Initialized"), "True");
    assert_eq!(
        pod["status"]["initContainerStatuses"][1]["state"]["terminated"]["reason"],
        "Completed"
    );
    let (_, logs, _) = node.kubectl(&["logs", "web", "-c", "c"]).await;
    assert_eq!(logs, "ip 10.244.9.2 file made\n");
    node.until_event("Started", "Container started").await;
    let folder = node.pod_folder(&pod);
    assert!(folder.join("volumes/data/file").exists());
    node.delete("web", &DeleteParams::default()).await;
    node.until_gone("web").await;
    assert!(!folder.exists(), "nothing is left on disk");
    assert_eq!((node.plugin_calls("ADD"), node.plugin_calls("DEL")), (1, 1));
    node.until_event("Killing", "Stopping container c").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn network_files_are_those_of_kubernetes() {
    if !is_root("network_files_are_those_of_kubernetes") {
        return;
    }
    let node = Node::start("files").await;
    node.run(
        "db",
        json!({"hostname": "db-0", "subdomain": "sql",
        "hostAliases": [{"ip": "203.0.113.7", "hostnames": ["legacy"]}],
        "containers": [sleeper("c")]}),
    )
    .await;
    node.until_ready("db").await;
    let (_, text, _) = node
        .kubectl(&[
            "exec",
            "db",
            "--",
            "sh",
            "-c",
            "cat /etc/resolv.conf; tail -n 4 /etc/hosts; hostname",
        ])
        .await;
    assert_eq!(
        text,
        "search default.svc.cluster.local svc.cluster.local cluster.local corp.example\n\
         nameserver 10.96.0.10\n\
         options ndots:5\n\
         10.244.9.2\tdb-0.sql.default.svc.cluster.local\tdb-0\n\
         \n\
         # Entries added by HostAliases.\n\
         203.0.113.7\tlegacy\n\
         db-0\n"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_probe_restarts_the_container_and_keeps_the_address() {
    if !is_root("a_failing_probe_restarts_the_container_and_keeps_the_address") {
        return;
    }
    let node = Node::start("probes").await;
    let mut live = script("live", "touch /tmp/ok; while :; do sleep 0.1; done");
    live["livenessProbe"] = json!({"exec": {"command": ["cat", "/tmp/ok"]}, "periodSeconds": 1, "failureThreshold": 1, "initialDelaySeconds": 1});
    let mut web = json!({"name": "web", "image": "nginx"});
    web["readinessProbe"] = json!({"httpGet": {"port": 80}, "periodSeconds": 1});
    web["startupProbe"] = json!({"tcpSocket": {"port": 80}, "periodSeconds": 1});
    node.run("p", json!({"containers": [live, web]})).await;
    let before = node.until_ready("p").await;
    let (code, _, errors) = node
        .kubectl(&["exec", "p", "-c", "live", "--", "rm", "/tmp/ok"])
        .await;
    assert_eq!(code, 0, "{errors}");
    let after = node
        .until("p", "restarted", |pod| {
            pod["status"]["containerStatuses"][0]["restartCount"] == 1
                && condition(pod, "Ready") == "True"
        })
        .await;
    assert_eq!(after["status"]["podIP"], before["status"]["podIP"]);
    assert_eq!(after["status"]["containerStatuses"][1]["restartCount"], 0);
    assert_eq!(
        after["status"]["containerStatuses"][0]["lastState"]["terminated"]["containerID"],
        before["status"]["containerStatuses"][0]["containerID"]
    );
    node.until_event("Unhealthy", "Liveness probe failed: cat: ")
        .await;
    node.until_event(
        "Killing",
        "Container live failed liveness probe, will be restarted",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_loop_backs_off_and_keeps_the_previous_log() {
    if !is_root("a_crash_loop_backs_off_and_keeps_the_previous_log") {
        return;
    }
    let node = Node::start("crash").await;
    node.run(
        "p",
        json!({"containers": [{"name": "c", "image": "busybox",
        "command": ["sh", "-c", "echo words; echo last > /dev/termination-log; exit 7"]}]}),
    )
    .await;
    let pod = node
        .until("p", "backed off", |pod| {
            pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"]
                == "CrashLoopBackOff"
        })
        .await;
    let container = &pod["status"]["containerStatuses"][0];
    let message = container["state"]["waiting"]["message"].as_str().unwrap();
    assert!(
        message.starts_with("back-off 10s restarting failed container=c pod=p_default("),
        "{message}"
    );
    assert_eq!(container["lastState"]["terminated"]["exitCode"], 7);
    assert_eq!(container["lastState"]["terminated"]["message"], "last\n");
    assert_eq!(container["restartCount"], 1);
    let (_, previous, _) = node.kubectl(&["logs", "p", "--previous"]).await;
    assert_eq!(previous, "words\n");
    node.until_event(
        "BackOff",
        "Back-off restarting failed container c in pod p_default(",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_configuration_is_told_and_taken_up_when_it_comes() {
    if !is_root("missing_configuration_is_told_and_taken_up_when_it_comes") {
        return;
    }
    let node = Node::start("config").await;
    let mut container = sleeper("c");
    container["envFrom"] = json!([{"configMapRef": {"name": "vars"}}]);
    container["volumeMounts"] = json!([{"name": "files", "mountPath": "/files"}]);
    create_map(&node, "files", json!({"key": "one"})).await;
    node.run("p", json!({"containers": [container], "volumes": [{"name": "files", "configMap": {"name": "files"}}]}))
        .await;
    let pod = node
        .until("p", "refused", |pod| {
            pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"]
                == "CreateContainerConfigError"
        })
        .await;
    let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
    assert_eq!(waiting["message"], "configmap \"vars\" not found");
    node.until_event("Failed", "Error: configmap \"vars\" not found")
        .await;
    create_map(&node, "vars", json!({"A": "b"})).await;
    node.until_ready("p").await;
    let (_, text, _) = node
        .kubectl(&["exec", "p", "--", "sh", "-c", "echo $A; cat /files/key"])
        .await;
    assert_eq!(text, "b\none");
    // What is mounted follows the source; the shell waits for it inside the pod.
    node.patch::<ConfigMap>("files", json!({"data": {"key": "two"}}))
        .await;
    let wait = "until grep -q two /files/key; do sleep 0.1; done; cat /files/key";
    let (_, text, _) = node.kubectl(&["exec", "p", "--", "sh", "-c", wait]).await;
    assert_eq!(text, "two");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_kubelet_adopts_its_pods_and_clears_away_orphans() {
    if !is_root("a_restarted_kubelet_adopts_its_pods_and_clears_away_orphans") {
        return;
    }
    let mut node = Node::start("adopt").await;
    for name in ["stays", "orphan"] {
        node.run(name, json!({"containers": [sleeper("c")]})).await;
    }
    let before = node.until_ready("stays").await;
    let orphan = node.until_ready("orphan").await;
    node.stop_kubelet();
    node.delete("orphan", &DeleteParams::default().grace_period(0))
        .await;
    node.start_kubelet();
    let folder = node.pod_folder(&orphan);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while folder.exists() {
        assert!(
            std::time::Instant::now() < deadline,
            "the orphan is still there"
        );
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(node.plugin_calls("DEL"), 1, "{}", node.all_plugin_calls());
    let (code, _, errors) = node.kubectl(&["exec", "stays", "--", "true"]).await;
    assert_eq!(code, 0, "{errors}");
    let after = node.until_ready("stays").await;
    assert_eq!(
        after["status"], before["status"],
        "nothing changed for the pod that stays"
    );
    node.delete("stays", &DeleteParams::default().grace_period(1))
        .await;
    node.until_gone("stays").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_sandbox_is_made_anew() {
    if !is_root("a_dead_sandbox_is_made_anew") {
        return;
    }
    let node = Node::start("sandbox").await;
    node.run("p", json!({"containers": [sleeper("c")]})).await;
    let pod = node.until_ready("p").await;
    let state = lab::shim::read_state(&node.pod_folder(&pod)).unwrap();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(state.shim_pid),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    node.until("p", "restarted", |pod| {
        pod["status"]["containerStatuses"][0]["restartCount"] == 1
            && condition(pod, "Ready") == "True"
    })
    .await;
    assert_eq!((node.plugin_calls("ADD"), node.plugin_calls("DEL")), (2, 1));
    node.until_event("SandboxChanged", "Pod sandbox changed")
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_node_waits_for_its_network_and_a_refusal_is_retried() {
    if !is_root("the_node_waits_for_its_network_and_a_refusal_is_retried") {
        return;
    }
    let mut node = Node::without_network("network").await;
    node.start_kubelet();
    let nodes: Api<NodeObject> = Api::all(node.client.clone());
    let ready = async |wanted: &str| loop {
        let found = nodes.get_opt("node1").await.unwrap();
        let found = serde_json::to_value(found).unwrap();
        if condition(&found, "Ready") == wanted {
            return found;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    let found = ready("False").await;
    let text = found["status"].to_string();
    assert!(
        text.contains("container runtime network not ready")
            && text.contains("cni plugin not initialized"),
        "{text}"
    );
    let refuse = node.dir.path().join("cni/refuse");
    std::fs::write(&refuse, "").unwrap();
    node.write_conflist();
    ready("True").await;
    node.run("p", json!({"containers": [sleeper("c")]})).await;
    node.until_event(
        "FailedCreatePodSandBox",
        "try again later; the test says so",
    )
    .await;
    std::fs::remove_file(&refuse).unwrap();
    node.until_ready("p").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_finished_pod_is_not_run_again() {
    if !is_root("a_finished_pod_is_not_run_again") {
        return;
    }
    let mut node = Node::start("job").await;
    node.run(
        "job",
        json!({"restartPolicy": "Never", "containers": [
        {"name": "c", "image": "busybox", "command": ["sh", "-c", "echo done"]}]}),
    )
    .await;
    let is_over = |pod: &Value| {
        pod["status"]["phase"] == "Succeeded"
            && condition(pod, "PodReadyToStartContainers") == "False"
    };
    let pod = node.until("job", "succeeded", is_over).await;
    assert_eq!(
        pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"],
        0
    );
    let (_, logs, _) = node.kubectl(&["logs", "job"]).await;
    assert_eq!(logs, "done\n");
    node.stop_kubelet();
    node.start_kubelet();
    // A pod that comes later is up: the kubelet has looked at all of them.
    node.run("later", json!({"containers": [sleeper("c")]}))
        .await;
    node.until_ready("later").await;
    let again = node.until("job", "still over", is_over).await;
    assert_eq!(
        again["status"]["containerStatuses"],
        pod["status"]["containerStatuses"]
    );
    assert_eq!(node.plugin_calls("ADD"), 2, "one for each pod");
}
