//! What was acknowledged survives `kill -9`; a full disk acknowledges nothing.
//!
//! The server under test is this test program started again with `SERVE` set.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::server;

const SERVE: &str = "FLATNET_APISERVER_TEST_SERVE";
const SMALL_DISK: &str = "FLATNET_APISERVER_TEST_SMALL_DISK";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// A server in a process of its own, killed when dropped.
struct Process {
    child: Child,
    url: String,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    fn start(dir: &Path, small: bool) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args([
                "--exact",
                "crash::serve",
                "--nocapture",
                "--include-ignored",
            ])
            .env(SERVE, dir)
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        if small {
            command.env(SMALL_DISK, "1");
        }
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let url = lines
            .map_while(Result::ok)
            .find_map(|line| line.split_once("URL ").map(|(_, url)| url.to_owned()))
            .expect("the server says where it listens");
        Self { child, url }
    }
}

#[tokio::test]
#[ignore = "not a test: the server that the tests here start as a process"]
async fn serve() {
    let Ok(dir) = std::env::var(SERVE) else {
        return;
    };
    let dir = Path::new(&dir);
    if std::env::var(SMALL_DISK).is_ok() {
        // A mount of this process alone: it goes with it.
        nix::mount::mount(
            None::<&str>,
            "/",
            None::<&str>,
            nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE,
            None::<&str>,
        )
        .unwrap();
        let store = dir.join("state");
        nix::mount::mount(
            Some("tmpfs"),
            &store,
            Some("tmpfs"),
            nix::mount::MsFlags::empty(),
            Some("size=4m"),
        )
        .unwrap();
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let data = if dir.join("state").exists() {
        dir.join("state")
    } else {
        dir.to_owned()
    };
    if data != dir {
        std::fs::write(data.join("ballast"), vec![0; 1 << 20]).unwrap();
        // The tests read the authority outside the mount.
        std::fs::create_dir_all(data.join("pki")).unwrap();
        for file in std::fs::read_dir(dir.join("pki"))
            .unwrap()
            .map(Result::unwrap)
        {
            std::fs::copy(file.path(), data.join("pki").join(file.file_name())).unwrap();
        }
    }
    let _server = apiserver::Server::start(server::options(&data, listener))
        .await
        .unwrap();
    println!("URL {url}");
    std::future::pending::<()>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_loses_nothing_that_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged: Vec<(String, String)> = Vec::new();
    for round in 0..3 {
        let mut process = Process::start(dir.path(), false);
        let client =
            server::client(dir.path(), &process.url, "admin", Some("system:masters")).await;
        for (name, rv) in &acknowledged {
            let (code, found) =
                server::accept(&client, &format!("{MAPS}/{name}"), "application/json").await;
            assert_eq!(
                (code, found["metadata"]["resourceVersion"].as_str()),
                (200, Some(rv.as_str())),
                "{name}"
            );
        }
        let made = Arc::new(AtomicUsize::new(0));
        let writers = (0..8).map(|writer| {
            let (client, count) = (client.clone(), made.clone());
            tokio::spawn(async move {
                let mut done = Vec::new();
                for n in 0.. {
                    let name = format!("m-{round}-{writer}-{n}");
                    let request = http::Request::post(MAPS)
                        .header("content-type", "application/json")
                        .body(
                            json!({"metadata": {"name": name}, "data": {"k": "v".repeat(200)}})
                                .to_string()
                                .into_bytes(),
                        )
                        .unwrap();
                    match client.request::<serde_json::Value>(request).await {
                        Ok(made) => {
                            let version = made["metadata"]["resourceVersion"].as_str();
                            done.push((name, version.unwrap().to_owned()));
                            count.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(_) => break,
                    }
                }
                done
            })
        });
        let writers: Vec<_> = writers.collect();
        tokio::time::sleep(Duration::from_millis(400)).await;
        // A busy machine may not have come to the first yet.
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        while made.load(Ordering::Relaxed) == 0 {
            let late = tokio::time::Instant::now() > deadline;
            assert!(!late, "round {round}: nothing is written");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        process.child.kill().unwrap();
        process.child.wait().unwrap();
        for writer in writers {
            acknowledged.extend(writer.await.unwrap());
        }
    }
    let process = Process::start(dir.path(), false);
    let client = server::client(dir.path(), &process.url, "admin", Some("system:masters")).await;
    let (_, list) = server::accept(&client, MAPS, "application/json").await;
    let found: std::collections::HashMap<&str, &str> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|i| {
            (
                i["metadata"]["name"].as_str().unwrap(),
                i["metadata"]["resourceVersion"].as_str().unwrap(),
            )
        })
        .collect();
    for (name, rv) in &acknowledged {
        assert_eq!(found.get(name.as_str()), Some(&rv.as_str()), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_named_and_the_server_goes_on() {
    if !testing::root("a_full_disk_is_named_and_the_server_goes_on") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("state")).unwrap();
    certs::Pki::open(dir.path()).unwrap().token_key().unwrap();
    let process = in_own_mounts(|| Process::start(dir.path(), true));
    let client = server::client(dir.path(), &process.url, "admin", Some("system:masters")).await;
    let mut stored = Vec::new();
    let mut refused = None;
    for n in 0..40 {
        let name = format!("big-{n}");
        let body =
            json!({"metadata": {"name": name}, "data": {"k": "x".repeat(200_000)}}).to_string();
        let (code, answer) =
            server::send(&client, http::Method::POST, MAPS, "application/json", &body).await;
        if code == 201 {
            stored.push(name);
        } else {
            refused = Some((name, code, answer));
            break;
        }
    }
    let (name, code, answer) = refused.expect("the disk fills");
    assert_eq!(code, 507, "{answer}");
    assert!(
        answer["message"]
            .as_str()
            .unwrap()
            .contains("no space left"),
        "{answer}"
    );
    let get = |name: String| {
        let client = client.clone();
        async move {
            server::accept(&client, &format!("{MAPS}/{name}"), "application/json")
                .await
                .0
        }
    };
    assert_eq!(get(name).await, 404, "what was refused is not there");
    for name in &stored {
        assert_eq!(get(name.clone()).await, 200, "what was acknowledged is");
    }
    assert_eq!(
        server::accept(&client, "/readyz", "").await.0,
        500,
        "not ready while nothing can be stored"
    );
    assert_eq!(server::accept(&client, "/livez", "").await.0, 200);
    // With space again it stores again.
    let inside = format!(
        "/proc/{}/root{}",
        process.child.id(),
        dir.path().join("state/ballast").display()
    );
    std::fs::remove_file(inside).unwrap();
    let body = json!({"metadata": {"name": "after"}}).to_string();
    let (code, answer) =
        server::send(&client, http::Method::POST, MAPS, "application/json", &body).await;
    assert_eq!(code, 201, "{answer}");
    assert_eq!(server::accept(&client, "/readyz", "").await.0, 200);
}

/// Runs `start` in a mount namespace that its children inherit.
fn in_own_mounts(start: impl FnOnce() -> Process + Send) -> Process {
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
                start()
            })
            .join()
            .unwrap()
    })
}
