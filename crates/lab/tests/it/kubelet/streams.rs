//! Logs, exec, attach, cp and port-forward, with stock kubectl and with kube-rs.

use std::process::Stdio;

use kube::api::AttachParams;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

use super::node::Node;
use super::{script, sleeper};
use crate::is_root;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_execs_over_websockets_and_over_spdy() {
    if !is_root("kubectl_execs_over_websockets_and_over_spdy") {
        return;
    }
    let node = Node::start("exec").await;
    node.run("p", json!({"containers": [sleeper("c")]})).await;
    node.until_ready("p").await;
    for websockets in ["true", "false"] {
        let run = async |args: &[&str], input: &[u8]| {
            let mut child = node
                .kubectl_command(args)
                .env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", websockets)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let mut stdin = child.stdin.take().unwrap();
            stdin.write_all(input).await.unwrap();
            drop(stdin);
            child.wait_with_output().await.unwrap()
        };
        let words = [
            "exec",
            "p",
            "--",
            "sh",
            "-c",
            "echo out; echo err >&2; exit 3",
        ];
        let output = run(&words, b"").await;
        assert_eq!(output.stdout, b"out\n", "websockets {websockets}");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            errors, "err\ncommand terminated with exit code 3\n",
            "websockets {websockets}"
        );
        assert_eq!(output.status.code(), Some(3));
        // Standard input has an end that reaches the command.
        let big = vec![b'x'; 300_000];
        let output = run(&["exec", "-i", "p", "--", "cat"], &big).await;
        assert_eq!(output.stdout.len(), big.len(), "websockets {websockets}");
        assert!(output.status.success());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_copies_files_both_ways() {
    if !is_root("kubectl_copies_files_both_ways") {
        return;
    }
    let node = Node::start("cp").await;
    node.run("p", json!({"containers": [sleeper("c")]})).await;
    node.until_ready("p").await;
    let (from, back) = (node.dir.path().join("from"), node.dir.path().join("back"));
    let bytes: Vec<u8> = (0..2_000_000u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    std::fs::write(&from, &bytes).unwrap();
    let (code, _, errors) = node
        .kubectl(&["cp", from.to_str().unwrap(), "p:/tmp/blob"])
        .await;
    assert_eq!(code, 0, "{errors}");
    let (code, _, errors) = node
        .kubectl(&["cp", "p:/tmp/blob", back.to_str().unwrap()])
        .await;
    assert_eq!(code, 0, "{errors}");
    assert!(std::fs::read(back).unwrap() == bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_are_followed_to_the_containers_end() {
    if !is_root("logs_are_followed_to_the_containers_end") {
        return;
    }
    let node = Node::start("logs").await;
    let text = "echo one; while [ ! -f /tmp/go ]; do sleep 0.05; done; echo two";
    node.run(
        "p",
        json!({"restartPolicy": "Never", "containers": [script("c", text)]}),
    )
    .await;
    node.until_ready("p").await;
    let mut follower = node
        .kubectl_command(&["logs", "-f", "p"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("one"));
    node.kubectl(&["exec", "p", "--", "touch", "/tmp/go"]).await;
    assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("two"));
    assert_eq!(
        lines.next_line().await.unwrap(),
        None,
        "the log ends with the container"
    );
    assert!(follower.wait().await.unwrap().success());
    let (_, last, _) = node.kubectl(&["logs", "p", "--tail=1"]).await;
    assert_eq!(last, "two\n");
    let (code, _, errors) = node.kubectl(&["logs", "p", "--previous"]).await;
    assert_eq!(code, 1);
    assert!(
        errors.contains("previous terminated container \"c\" in pod \"p\" not found"),
        "{errors}"
    );
}

/// Fetches `/` over an open connection; the answer's first line.
async fn fetch(stream: &mut (impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin)) -> String {
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.lines().next().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ports_are_forwarded_for_kubectl_and_for_kube_rs() {
    if !is_root("ports_are_forwarded_for_kubectl_and_for_kube_rs") {
        return;
    }
    let node = Node::start("forward").await;
    let web = json!({"name": "web", "image": "nginx", "readinessProbe": {"tcpSocket": {"port": 80}, "periodSeconds": 1}});
    node.run("p", json!({"containers": [web]})).await;
    node.until_ready("p").await;
    for websockets in ["true", "false"] {
        let mut forwarder = node
            .kubectl_command(&["port-forward", "pod/p", ":80", "--address", "127.0.0.1"])
            .env("KUBECTL_PORT_FORWARD_WEBSOCKETS", websockets)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(forwarder.stdout.take().unwrap()).lines();
        let line = lines.next_line().await.unwrap().unwrap();
        let address = line.split(' ').nth(2).unwrap();
        for _ in 0..3 {
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let first = fetch(&mut stream).await;
            assert!(first.contains(" 200 "), "{first}, websockets {websockets}");
        }
        forwarder.kill().await.unwrap();
    }
    let mut forwarder = node.pods().portforward("p", &[80]).await.unwrap();
    let mut stream = forwarder.take_stream(80).unwrap();
    assert!(fetch(&mut stream).await.contains(" 200 "));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kube_rs_execs_and_attaches() {
    if !is_root("kube_rs_execs_and_attaches") {
        return;
    }
    let node = Node::start("attach").await;
    let mut shell = script("shell", "while read line; do echo \"got $line\"; done");
    shell["stdin"] = json!(true);
    node.run("p", json!({"containers": [shell]})).await;
    node.until_ready("p").await;
    let pods = node.pods();
    let params = AttachParams::default().stderr(false);
    let mut process = pods.exec("p", ["echo", "hello"], &params).await.unwrap();
    let mut text = String::new();
    process
        .stdout()
        .unwrap()
        .read_to_string(&mut text)
        .await
        .unwrap();
    assert_eq!(text, "hello\n");
    let status = process.take_status().unwrap().await.unwrap();
    assert_eq!(status.status.as_deref(), Some("Success"));

    let params = AttachParams::default().stdin(true).stderr(false);
    let mut attached = pods.attach("p", &params).await.unwrap();
    let mut lines = BufReader::new(attached.stdout().unwrap()).lines();
    attached
        .stdin()
        .unwrap()
        .write_all(b"word\n")
        .await
        .unwrap();
    assert_eq!(
        lines.next_line().await.unwrap().as_deref(),
        Some("got word")
    );
}
