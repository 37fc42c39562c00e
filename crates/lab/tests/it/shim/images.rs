//! Built-in images in real pods.

use super::*;
use crate::is_root;

/// Starts a container as the kubelet does for an image.
async fn start(
    pod: &Pod,
    sandbox: &Sandbox,
    id: &str,
    image: &str,
    args: &[&str],
) -> ContainerSpec {
    let program = std::env::current_exe().unwrap();
    let images = lab::images::Images::prepare(&pod.dir.path().join("images"), &program).unwrap();
    let resolved = images.resolve(image, &[], &words(args), &[7070]);
    let mut spec = pod.container(id, &[]);
    spec.argv = resolved.argv;
    spec.env = resolved.env;
    spec.mounts = resolved.mounts;
    spec.links = resolved.links;
    sandbox.start_container(&spec).await.unwrap();
    spec
}

/// Runs a command until it succeeds: a server needs a moment until it listens.
async fn eventually(sandbox: &Sandbox, id: &str, argv: &[&str]) -> String {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let (code, text) = output(sandbox, id, argv).await;
        if code == 0 {
            return text;
        }
        assert!(Instant::now() < until, "{argv:?}: {text}");
    }
}

#[test]
fn servers_answer_and_end_when_asked() {
    if !is_root("servers_answer_and_end_when_asked") {
        return;
    }
    let pod = Pod::new("servers");
    block_on(async {
        let sandbox = pod.start().await;
        start(&pod, &sandbox, "nginx-0", "nginx:1.27", &[]).await;
        let agnhost = "registry.k8s.io/e2e-test-images/agnhost:2.53";
        start(
            &pod,
            &sandbox,
            "net-0",
            agnhost,
            &["netexec", "--http-port=8080", "--delay-shutdown=2"],
        )
        .await;
        start(&pod, &sandbox, "db-0", "example.com/db:1", &[]).await;
        start(&pod, &sandbox, "who-0", "traefik/whoami", &["--port=8082"]).await;
        start(
            &pod,
            &sandbox,
            "echo-0",
            "hashicorp/http-echo",
            &["-text=hey", "-listen=:5678"],
        )
        .await;
        start(&pod, &sandbox, "tool-0", agnhost, &[]).await;
        let get = async |url: &str| eventually(&sandbox, "tool-0", &["curl", "-sSf", url]).await;

        assert!(get("http://127.0.0.1").await.contains("Welcome to nginx!"));
        assert_eq!(get("http://127.0.0.1:8080/hostname").await, "servers");
        assert!(
            get("http://127.0.0.1:8080/clientip")
                .await
                .starts_with("127.0.0.1:")
        );
        assert_eq!(get("http://127.0.0.1:5678").await, "hey\n");
        assert!(
            get("http://127.0.0.1:7070/path?q")
                .await
                .contains("GET /path?q HTTP/1.1")
        );
        assert!(
            get("http://127.0.0.1:8082")
                .await
                .contains("Hostname: servers")
        );
        let missing = [
            "curl",
            "-s",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "http://127.0.0.1/no",
        ];
        assert_eq!(output(&sandbox, "tool-0", &missing).await.1, "404");
        let logged = pod.logged("nginx-0");
        let hit =
            |l: &&String| l.contains("127.0.0.1 - - [") && l.contains("\"GET / HTTP/1.1\" 200");
        assert!(logged.iter().find(hit).is_some(), "{logged:?}");

        let shell = get("http://127.0.0.1:8080/shell?cmd=id+-u").await;
        assert_eq!(shell, "{\"output\":\"0\\n\"}");
        let dial =
            "http://127.0.0.1:8080/dial?host=127.0.0.1&port=8081&protocol=udp&request=hostname";
        assert_eq!(get(dial).await, "{\"responses\":[\"servers\"]}");

        // agnhost's other words, by exec, at its own path.
        let agnhost = async |argv: &[&str]| output(&sandbox, "tool-0", argv).await;
        assert_eq!(
            agnhost(&["/agnhost", "connect", "127.0.0.1:8080", "--timeout=2s"])
                .await
                .0,
            0
        );
        let refused = agnhost(&["/agnhost", "connect", "127.0.0.1:9", "--timeout=2s"]).await;
        assert_eq!(refused, (1, "REFUSED\n".into()));
        let udp = [
            "sh",
            "-c",
            "/agnhost connect --protocol=udp --timeout=2s 127.0.0.1:8081",
        ];
        assert_eq!(agnhost(&udp).await, (0, String::new()));
        let missing = agnhost(&["/agnhost", "nonsense"]).await;
        assert_eq!(
            missing,
            (
                1,
                "Error: unknown command \"nonsense\" for \"agnhost\"\n".into()
            )
        );

        let (_, listening) =
            output(&sandbox, "nginx-0", &["ss", "-Htlnp", "sport", "=", "80"]).await;
        assert!(
            listening.contains("users:((\"nginx\",pid=1,"),
            "{listening}"
        );

        // Each is the first process of its container, and ends in good order.
        let (_, shown) = output(
            &sandbox,
            "nginx-0",
            &["sh", "-c", "tr '\\0' ' ' </proc/1/cmdline"],
        )
        .await;
        assert_eq!(shown, "nginx -g daemon off; ");
        for id in ["nginx-0", "net-0", "db-0", "who-0", "echo-0", "tool-0"] {
            sandbox.signal(id, libc::SIGTERM).await.unwrap();
            if id == "net-0" {
                let asked = || {
                    let log = pod.logged(id);
                    log.iter().any(|line| line.contains("Sleeping 2 seconds"))
                };
                let until = Instant::now() + Duration::from_secs(30);
                while !asked() {
                    assert!(Instant::now() < until, "{:?}", pod.logged(id));
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                // Asked to end, it serves on for those who do not know yet.
                assert_eq!(get("http://127.0.0.1:8080/hostname").await, "servers");
            }
            let end = ended(&sandbox, id).await;
            assert!(
                matches!(end, ContainerState::Exited { code: 0, .. }),
                "{id}: {end:?}"
            );
        }
        sandbox.stop().await.unwrap();
    });
}

#[test]
fn a_page_mounted_into_nginx_is_served() {
    if !is_root("a_page_mounted_into_nginx_is_served") {
        return;
    }
    let pod = Pod::new("page");
    let page = pod.dir.path().join("page");
    std::fs::create_dir(&page).unwrap();
    std::fs::write(page.join("index.html"), "mine\n").unwrap();
    block_on(async {
        let sandbox = pod.start().await;
        let program = std::env::current_exe().unwrap();
        let images =
            lab::images::Images::prepare(&pod.dir.path().join("images"), &program).unwrap();
        let resolved = images.resolve("nginx", &[], &[], &[80]);
        let mut spec = pod.container("nginx-0", &[]);
        spec.argv = resolved.argv;
        spec.env = resolved.env;
        spec.mounts = resolved.mounts;
        spec.mounts.push(Mount {
            source: page.clone(),
            target: "/usr/share/nginx/html".into(),
            read_only: true,
        });
        // As another user: any user may listen on low ports in a pod.
        spec.user = Some((101, 101));
        sandbox.start_container(&spec).await.unwrap();
        let said = eventually(&sandbox, "nginx-0", &["curl", "-sf", "http://127.0.0.1"]).await;
        assert_eq!(said, "mine\n");
        sandbox.stop().await.unwrap();
    });
}

#[test]
fn busybox_brings_its_applets() {
    if !is_root("busybox_brings_its_applets") {
        return;
    }
    if testing::program("busybox_brings_its_applets", "busybox").is_none() {
        return;
    }
    let pod = Pod::new("busybox");
    block_on(async {
        let sandbox = pod.start().await;
        start(&pod, &sandbox, "web-0", "nginx", &[]).await;
        start(&pod, &sandbox, "main-0", "busybox:1.36", &["sleep", "1000"]).await;
        let (_, found) = output(&sandbox, "main-0", &["readlink", "-f", "/proc/1/exe"]).await;
        assert!(found.trim().ends_with("/busybox"), "{found}");
        let page = eventually(&sandbox, "main-0", &["wget", "-qO-", "http://127.0.0.1"]).await;
        assert!(page.contains("Welcome to nginx!"));
        for tool in ["wget", "nc", "nslookup", "vi"] {
            let (_, found) = output(&sandbox, "main-0", &["which", tool]).await;
            assert_eq!(found, format!("/usr/lib/flatnet/busybox/{tool}\n"));
        }
        sandbox.stop().await.unwrap();
    });
}
