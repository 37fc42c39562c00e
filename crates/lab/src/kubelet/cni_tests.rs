use super::*;
use std::os::unix::fs::PermissionsExt;

/// A plugin that writes down how it was called and answers as its type says.
const PLUGIN: &str = r#"#!/bin/sh
dir=$(dirname "$0")
name=$(basename "$0")
input=$(cat)
echo "$name $CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME $CNI_NETNS $CNI_ARGS $input" >> "$dir/calls"
if [ -f "$dir/$name.fail.$CNI_COMMAND" ]; then
  cat "$dir/$name.fail.$CNI_COMMAND"
  exit 1
fi
if [ "$CNI_COMMAND" = ADD ]; then
  echo '{"cniVersion":"1.1.0","ips":[{"address":"10.244.1.5/24"},{"address":"fd00::5/64"}]}'
fi
"#;

struct Fixture {
    dir: tempfile::TempDir,
    runner: Runner,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["first", "second"] {
            let path = dir.path().join(name);
            std::fs::write(&path, PLUGIN).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        std::fs::write(
            dir.path().join("10-test.conflist"),
            r#"{"cniVersion": "1.1.0", "name": "net", "plugins": [
                {"type": "first", "capabilities": {"portMappings": true, "dns": false}},
                {"type": "second"}]}"#,
        )
        .unwrap();
        let runner = Runner {
            conf: dir.path().to_owned(),
            path: vec![dir.path().to_owned()],
        };
        Self { dir, runner }
    }

    fn attachment(&self) -> Attachment {
        let value = json!({"portMappings": [{"hostPort": 80}], "dns": {}});
        Attachment {
            container: "sandbox".to_owned(),
            pod: ("shop".to_owned(), "web".to_owned(), "u".to_owned()),
            conflist: Conflist::load(&self.runner.conf).unwrap(),
            capabilities: value.as_object().unwrap().clone(),
            result: None,
        }
    }

    fn cache(&self) -> PathBuf {
        self.dir.path().join("cni.json")
    }

    async fn add(&self) -> Result<Attachment, Error> {
        self.runner
            .add(
                &self.cache(),
                Path::new("/proc/1/ns/net"),
                self.attachment(),
            )
            .await
    }

    fn fail(&self, plugin: &str, command: &str, answer: &str) {
        std::fs::write(
            self.dir.path().join(format!("{plugin}.fail.{command}")),
            answer,
        )
        .unwrap();
    }

    /// Plugin and command of every call.
    fn calls(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.dir.path().join("calls")).unwrap_or_default();
        let word = |line: &str| line.split(' ').take(2).collect::<Vec<_>>().join(" ");
        text.lines().map(word).collect()
    }

    fn call(&self, index: usize) -> String {
        let text = std::fs::read_to_string(self.dir.path().join("calls")).unwrap();
        text.lines().nth(index).unwrap().to_owned()
    }
}

#[tokio::test]
async fn plugins_are_chained_and_the_result_is_kept() {
    let fixture = Fixture::new();
    let added = fixture.add().await.unwrap();
    let ips: Vec<String> = added.ips().iter().map(IpAddr::to_string).collect();
    assert_eq!(ips, ["10.244.1.5", "fd00::5"]);
    assert_eq!(fixture.calls(), ["first ADD", "second ADD"]);
    let first = fixture.call(0);
    assert!(first.starts_with("first ADD sandbox eth0 /proc/1/ns/net IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;K8S_POD_INFRA_CONTAINER_ID=sandbox;K8S_POD_UID=u "), "{first}");
    assert!(
        first.contains(r#""runtimeConfig":{"portMappings":[{"hostPort":80}]}"#),
        "{first}"
    );
    assert!(!first.contains("capabilities") && !first.contains("prevResult"));
    let second = fixture.call(1);
    assert!(
        second.contains(r#""prevResult":{"#) && !second.contains("runtimeConfig"),
        "{second}"
    );
    assert_eq!(load(&fixture.cache()).unwrap(), added);
    fixture.runner.delete(&added, None).await.unwrap();
    assert_eq!(fixture.calls()[2..], ["second DEL", "first DEL"]);
    assert!(fixture.call(2).contains("prevResult"));
}

#[tokio::test]
async fn a_failed_add_is_taken_back_and_told_in_the_plugins_words() {
    let fixture = Fixture::new();
    fixture.fail("second", "ADD", r#"{"cniVersion": "1.1.0", "code": 11, "msg": "the agent is away", "details": "no socket"}"#);
    let error = fixture.add().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "plugin type=\"second\" name=\"net\" failed (add): the agent is away; no socket"
    );
    assert!(matches!(error, Error::Plugin { code: 11, .. }));
    assert_eq!(fixture.calls()[2..], ["second DEL", "first DEL"]);
    assert!(!fixture.cache().exists());
}

#[tokio::test]
async fn every_plugin_is_asked_to_delete_even_if_one_refuses() {
    let fixture = Fixture::new();
    fixture.fail("second", "DEL", "not json");
    let error = fixture
        .runner
        .delete(&fixture.attachment(), None)
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("failed (del): netplugin failed"),
        "{error}"
    );
    assert_eq!(fixture.calls(), ["second DEL", "first DEL"]);
}

#[tokio::test]
async fn the_network_is_ready_when_the_plugins_say_so() {
    let fixture = Fixture::new();
    fixture.runner.status().await.unwrap();
    assert_eq!(fixture.calls(), ["first STATUS", "second STATUS"]);
    fixture.fail(
        "first",
        "STATUS",
        r#"{"code": 50, "msg": "no addresses left"}"#,
    );
    let error = fixture.runner.status().await.unwrap_err();
    assert!(error.to_string().ends_with("no addresses left"), "{error}");
    std::fs::remove_file(fixture.dir.path().join("10-test.conflist")).unwrap();
    assert!(matches!(
        fixture.runner.status().await,
        Err(Error::NoConfig(_))
    ));
}

#[tokio::test]
async fn garbage_collection_names_what_is_valid() {
    let fixture = Fixture::new();
    fixture.runner.collect(&["a".to_owned()]).await.unwrap();
    let call = fixture.call(0);
    assert!(
        call.contains(r#""cni.dev/valid-attachments":[{"containerID":"a","ifname":"eth0"}]"#),
        "{call}"
    );
}

#[test]
fn a_broken_conflist_is_refused_by_file_and_field() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("10-x.conflist");
    for (text, want) in [
        ("{", "EOF"),
        (
            r#"{"name": "n", "plugins": []}"#,
            "plugins: the list is empty",
        ),
        (
            r#"{"name": "n", "plugins": [{"type": "../sh"}]}"#,
            "plugins[0].type: not the name of a plugin",
        ),
    ] {
        std::fs::write(&path, text).unwrap();
        let error = Conflist::load(dir.path()).unwrap_err().to_string();
        assert!(
            error.contains(want) && error.contains("10-x.conflist"),
            "{error}"
        );
    }
}

#[test]
fn a_pods_wishes_become_capabilities() {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"annotations": {"kubernetes.io/ingress-bandwidth": "10M"}},
        "spec": {"containers": [{"name": "c", "ports": [
            {"containerPort": 80, "hostPort": 8080, "hostIP": "127.0.0.1"}, {"containerPort": 81}]}]}}))
    .unwrap();
    let resolv = Resolv::parse("nameserver 10.96.0.10\noptions ndots:5\n");
    let capabilities = capabilities(&pod, &resolv).unwrap();
    assert_eq!(
        Value::Object(capabilities),
        json!({
            "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": "127.0.0.1"}],
            "dns": {"servers": ["10.96.0.10"], "searches": [], "options": ["ndots:5"]},
            "bandwidth": {"ingressRate": 10_000_000, "ingressBurst": i32::MAX}})
    );
    let slow = BTreeMap::from([("kubernetes.io/egress-bandwidth".to_owned(), "1".to_owned())]);
    let refused = bandwidth(Some(&slow)).unwrap_err();
    assert!(
        refused.starts_with("annotation kubernetes.io/egress-bandwidth: \"1\" is not a rate"),
        "{refused}"
    );
}
