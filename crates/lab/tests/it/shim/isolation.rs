//! What a container sees of the machine and of its pod.

use super::*;
use crate::is_root;

#[test]
fn a_container_sees_the_machines_programs_and_none_of_its_data() {
    if !is_root("a_container_sees_the_machines_programs_and_none_of_its_data") {
        return;
    }
    let pod = Pod::new("isolated");
    let mounts_before = std::fs::read_to_string("/proc/self/mounts").unwrap();
    block_on(async {
        let sandbox = pod.start().await;
        for id in ["a-0", "b-0"] {
            sandbox
                .start_container(&pod.container(id, &["sleep", "1000"]))
                .await
                .unwrap();
        }
        let run = async |argv: &[&str]| output(&sandbox, "a-0", argv).await;
        let sh = async |text: &str| output(&sandbox, "a-0", &["sh", "-c", text]).await;

        assert_eq!(run(&["ls", "-A", "/root"]).await, (0, String::new()));
        assert_eq!(run(&["ls", "-A", "/var/lib"]).await, (0, String::new()));
        assert_eq!(run(&["cat", "/etc/shadow"]).await.0, 1);
        let own = pod.dir.path().to_str().unwrap();
        assert_ne!(run(&["ls", own]).await.0, 0);
        let (_, top) = run(&["ls", "/"]).await;
        let known = "bin boot dev etc home lib lib32 lib64 libx32 media mnt nix opt proc root run \
                     sbin srv sys tmp usr var";
        let strange: Vec<&str> = top
            .lines()
            .filter(|n| !known.split_whitespace().any(|k| k == *n))
            .collect();
        assert!(strange.is_empty(), "{strange:?}");

        // Its first process is its program; the machine's processes are not there.
        assert_eq!(sh("tr '\\0' ' ' </proc/1/cmdline").await.1, "sleep 1000 ");
        let (_, pids) = sh("ls -d /proc/[0-9]* | wc -l").await;
        assert!(pids.trim().parse::<u32>().unwrap() < 8, "{pids}");
        assert_eq!(
            run(&["cat", "/proc/sys/kernel/hostname"]).await.1,
            "isolated\n"
        );
        assert_eq!(run(&["cat", "/proc/self/cgroup"]).await.0, 0);

        // What it writes is its own.
        let mark = format!("/usr/flatnet-test-{}", std::process::id());
        assert_eq!(run(&["touch", &mark]).await, (0, String::new()));
        assert!(!Path::new(&mark).exists());
        assert_ne!(output(&sandbox, "b-0", &["ls", &mark]).await.0, 0);

        // It cannot change the machine.
        assert_ne!(sh("echo 1 >/proc/sys/vm/drop_caches").await.0, 0);
        assert_ne!(sh("echo h >/proc/sysrq-trigger").await.0, 0);
        assert_ne!(run(&["mount", "-t", "tmpfs", "x", "/mnt"]).await.0, 0);
        assert_ne!(run(&["mknod", "/tmp/disk", "b", "254", "0"]).await.0, 0);
        assert_eq!(
            sh("cat /proc/kcore 2>/dev/null | wc -c").await.1.trim(),
            "0"
        );
        // Descriptors of the shim stay with the shim.
        assert_eq!(sh("ls /proc/1/fd | tr '\\n' ' '").await.1, "0 1 2 ");
        sandbox.stop().await.unwrap();
    });
    let mounts_after = std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert_eq!(mounts_before, mounts_after);
}

#[test]
fn volumes_are_mounted_where_they_belong() {
    if !is_root("volumes_are_mounted_where_they_belong") {
        return;
    }
    let pod = Pod::new("volumes");
    let data = pod.dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("key"), "value").unwrap();
    let resolv = pod.dir.path().join("resolv.conf");
    std::fs::write(&resolv, "nameserver 10.96.0.10\n").unwrap();
    block_on(async {
        let sandbox = pod.start().await;
        let mount = |source: &Path, target: &str, read_only| Mount {
            source: source.to_owned(),
            target: target.into(),
            read_only,
        };
        let mut spec = pod.container("main-0", &["sleep", "1000"]);
        spec.mounts = vec![
            mount(&resolv, "/etc/resolv.conf", false),
            mount(&data, "/var/run/secrets/deep/er", true),
            mount(&data, "/data", false),
            mount(&data.join("key"), "/etc/app/key", true),
        ];
        spec.cwd = "/srv/app".into();
        spec.read_only_root = true;
        sandbox.start_container(&spec).await.unwrap();
        let sh = async |text: &str| output(&sandbox, "main-0", &["sh", "-c", text]).await;
        assert_eq!(
            sh("cat /etc/resolv.conf").await.1,
            "nameserver 10.96.0.10\n"
        );
        assert_eq!(
            sh("cat /run/secrets/deep/er/key /etc/app/key; pwd").await.1,
            "valuevalue/srv/app\n"
        );
        assert_ne!(sh("echo x >/run/secrets/deep/er/key").await.0, 0);
        assert_eq!(sh("echo x >/data/key").await.0, 0);
        assert_eq!(std::fs::read_to_string(data.join("key")).unwrap(), "x\n");
        let (code, said) = sh("touch /usr/x").await;
        assert!(
            code != 0 && said.contains("Read-only file system"),
            "{said}"
        );
        sandbox.stop().await.unwrap();
    });
    assert_eq!(std::fs::read_to_string(data.join("key")).unwrap(), "x\n");
}

#[test]
fn the_security_context_is_honoured() {
    if !is_root("the_security_context_is_honoured") {
        return;
    }
    let pod = Pod::new("user");
    block_on(async {
        let sandbox = pod.start().await;
        let status = |spec: &ContainerSpec, field: &str| {
            let id = spec.id.clone();
            let argv = words(&[
                "sh",
                "-c",
                &format!("id -u; id -g; id -G; grep {field} /proc/self/status"),
            ]);
            (id, argv)
        };
        let mut user = pod.container("user-0", &["sleep", "1000"]);
        user.user = Some((1000, 2000));
        user.groups = vec![3000];
        user.allow_privilege_escalation = false;
        let mut root = pod.container("root-0", &["sleep", "1000"]);
        root.cap_add = vec!["NET_ADMIN".into()];
        root.cap_drop = vec!["CAP_CHOWN".into()];
        let mut all = pod.container("all-0", &["sleep", "1000"]);
        all.privileged = true;
        for spec in [&user, &root, &all] {
            sandbox.start_container(spec).await.unwrap();
        }
        let run = async |spec: &ContainerSpec, field: &str| {
            let (id, argv) = status(spec, field);
            let done = sandbox
                .exec_sync(&id, &argv, Duration::from_secs(20))
                .await
                .unwrap();
            String::from_utf8(done.stdout).unwrap()
        };
        assert_eq!(
            run(&user, "CapEff").await,
            "1000\n2000\n2000 3000\nCapEff:\t0000000000000000\n"
        );
        assert!(run(&user, "NoNewPrivs").await.ends_with("NoNewPrivs:\t1\n"));
        assert_eq!(
            run(&root, "CapEff").await,
            "0\n0\n0\nCapEff:\t00000000a00435fa\n"
        );
        assert!(
            run(&root, "CapBnd")
                .await
                .ends_with("CapBnd:\t00000000a00435fa\n")
        );
        let everything = std::fs::read_to_string("/proc/self/status").unwrap();
        let bounding = everything
            .lines()
            .find(|l| l.starts_with("CapBnd"))
            .unwrap();
        assert!(
            run(&all, "CapBnd")
                .await
                .ends_with(&format!("{bounding}\n"))
        );
        sandbox.stop().await.unwrap();
    });
}

#[test]
fn containers_of_a_pod_share_its_network_and_host_name() {
    if !is_root("containers_of_a_pod_share_its_network_and_host_name") {
        return;
    }
    let mut pod = Pod::new("shared");
    pod.spec
        .sysctls
        .insert("net.ipv4.ip_forward".into(), "1".into());
    block_on(async {
        let sandbox = pod.start().await;
        let link = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
        assert_eq!(
            std::fs::read_link(sandbox.netns()).unwrap(),
            link(&sandbox.pause_pid().to_string())
        );
        assert_ne!(link("self"), link(&sandbox.pause_pid().to_string()));
        for id in ["a-0", "b-0"] {
            sandbox
                .start_container(&pod.container(id, &["sleep", "1000"]))
                .await
                .unwrap();
        }
        let net = async |id: &str| {
            output(&sandbox, id, &["readlink", "/proc/self/ns/net"])
                .await
                .1
        };
        assert_eq!(net("a-0").await, net("b-0").await);
        assert_eq!(
            output(&sandbox, "a-0", &["cat", "/proc/sys/net/ipv4/ip_forward"])
                .await
                .1,
            "1\n"
        );
        let (_, links) = output(&sandbox, "a-0", &["ls", "/sys/class/net"]).await;
        assert_eq!(links, "lo\n");
        // Loopback is up, and /dev/shm is the pod's.
        let (_, up) = output(&sandbox, "a-0", &["cat", "/sys/class/net/lo/flags"]).await;
        assert_eq!(up, "0x9\n");
        output(&sandbox, "a-0", &["sh", "-c", "echo here >/dev/shm/note"]).await;
        assert_eq!(
            output(&sandbox, "b-0", &["cat", "/dev/shm/note"]).await.1,
            "here\n"
        );
        sandbox.stop().await.unwrap();
    });
}

#[test]
fn a_wrong_sysctl_is_refused_by_name() {
    if !is_root("a_wrong_sysctl_is_refused_by_name") {
        return;
    }
    let mut pod = Pod::new("sysctl");
    pod.spec.sysctls.insert("vm.swappiness".into(), "1".into());
    block_on(async {
        let program = std::env::current_exe().unwrap();
        let said = Sandbox::start(&program, pod.dir.path(), &pod.spec)
            .await
            .unwrap_err()
            .to_string();
        assert!(said.contains("vm.swappiness"), "{said}");
        stop(pod.dir.path()).await.unwrap();
        assert!(!pod.spec.cgroup.exists());
    });
}

#[test]
fn a_shared_process_namespace_has_pause_as_its_first() {
    if !is_root("a_shared_process_namespace_has_pause_as_its_first") {
        return;
    }
    let mut pod = Pod::new("sharepid");
    pod.spec.share_pid = true;
    block_on(async {
        let sandbox = pod.start().await;
        for id in ["a-0", "b-0"] {
            sandbox
                .start_container(&pod.container(id, &["sleep", "1000"]))
                .await
                .unwrap();
        }
        let (_, first) = output(
            &sandbox,
            "a-0",
            &["sh", "-c", "tr '\\0' ' ' </proc/1/cmdline"],
        )
        .await;
        assert_eq!(first, "/pause ");
        let (_, sleeping) = output(
            &sandbox,
            "a-0",
            &["sh", "-c", "grep -l sleep /proc/[0-9]*/comm | wc -l"],
        )
        .await;
        assert_eq!(sleeping, "2\n");
        // What a container leaves behind ends with it.
        let spec = pod.container("c-0", &["sh", "-c", "sleep 1001 & exit 0"]);
        sandbox.start_container(&spec).await.unwrap();
        ended(&sandbox, "c-0").await;
        let gone = async || {
            output(
                &sandbox,
                "a-0",
                &["sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"],
            )
            .await
            .1
        };
        let until = Instant::now() + Duration::from_secs(30);
        while gone().await.contains("sleep 1001") {
            assert!(Instant::now() < until, "the left process still runs");
        }
        sandbox.stop().await.unwrap();
    });
}

#[test]
fn the_tools_of_a_network_engineer_work() {
    if !is_root("the_tools_of_a_network_engineer_work") {
        return;
    }
    let pod = Pod::new("tools");
    block_on(async {
        let sandbox = pod.start().await;
        let mut user = pod.container("user-0", &["sleep", "1000"]);
        user.user = Some((1000, 1000));
        for spec in [&pod.container("main-0", &["sleep", "1000"]), &user] {
            sandbox.start_container(spec).await.unwrap();
        }
        let (code, shown) = output(&sandbox, "main-0", &["ip", "-br", "addr", "show"]).await;
        assert_eq!(code, 0, "{shown}");
        assert!(
            shown.starts_with("lo ") && shown.contains("127.0.0.1/8"),
            "{shown}"
        );
        for id in ["main-0", "user-0"] {
            let (code, said) = output(&sandbox, id, &["ping", "-c", "1", "127.0.0.1"]).await;
            assert_eq!(code, 0, "{id}: {said}");
        }
        if testing::program("tcpdump in a pod", "tcpdump").is_some() {
            let capture = "tcpdump -i lo -n -c 1 icmp >/tmp/seen 2>/tmp/said & \
                           until grep -q listening /tmp/said; do sleep 0.01; done; \
                           ping -c 1 127.0.0.1 >/dev/null; wait; cat /tmp/seen";
            let (_, seen) = output(&sandbox, "main-0", &["sh", "-c", capture]).await;
            assert!(
                seen.contains("127.0.0.1 > 127.0.0.1: ICMP echo request"),
                "{seen}"
            );
        }
        sandbox.stop().await.unwrap();
    });
}

#[test]
fn a_pod_of_the_node_sees_the_node() {
    if !is_root("a_pod_of_the_node_sees_the_node") {
        return;
    }
    // As `kubectl debug node/NAME` makes them.
    let mut pod = Pod::new("node");
    pod.spec.host_network = true;
    pod.spec.host_pid = true;
    pod.spec.host_ipc = true;
    block_on(async {
        let sandbox = pod.start().await;
        let mut spec = pod.container("main-0", &["sleep", "1000"]);
        let source = PathBuf::from("/");
        spec.mounts = vec![Mount {
            source,
            target: "/host".into(),
            read_only: false,
        }];
        sandbox.start_container(&spec).await.unwrap();
        let run = async |argv: &[&str]| output(&sandbox, "main-0", argv).await.1;
        let mine = |file: &str| std::fs::read_link(file).unwrap().display().to_string() + "\n";
        assert_eq!(
            run(&["readlink", "/proc/self/ns/net"]).await,
            mine("/proc/self/ns/net")
        );
        assert_eq!(
            run(&["readlink", "/proc/self/ns/pid"]).await,
            mine("/proc/self/ns/pid")
        );
        assert_eq!(
            run(&["readlink", "/proc/self/ns/ipc"]).await,
            mine("/proc/self/ns/ipc")
        );
        let own = format!("/proc/{}/comm", std::process::id());
        assert!(!run(&["cat", &own]).await.is_empty());
        let below = format!("/host{}", pod.dir.path().display());
        assert!(run(&["ls", &below]).await.contains("sandbox.json"));
        assert_eq!(run(&["cat", "/etc/hostname"]).await, "node\n");
        sandbox.stop().await.unwrap();
    });
}
