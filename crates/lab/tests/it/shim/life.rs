//! Starting, ending, adopting and losing pods.

use super::*;
use crate::is_root;

#[test]
fn a_container_runs_logs_and_ends_with_its_exit_code() {
    if !is_root("a_container_runs_logs_and_ends_with_its_exit_code") {
        return;
    }
    let pod = Pod::new("exits");
    block_on(async {
        let sandbox = pod.start().await;
        let mut spec = pod.container(
            "main-0",
            &[
                "sh",
                "-c",
                "echo out; echo $GREETING >&2; echo bye >/dev/termination-log; exit 3",
            ],
        );
        spec.env = vec![("GREETING".into(), "hello".into())];
        spec.termination_message = "/dev/termination-log".into();
        sandbox.start_container(&spec).await.unwrap();
        let ContainerState::Exited {
            code,
            signal,
            message,
            ..
        } = ended(&sandbox, "main-0").await
        else {
            panic!("it did not run")
        };
        assert_eq!((code, signal, message.as_str()), (3, 0, "bye\n"));
        let mut logged = pod.logged("main-0");
        logged.sort();
        assert_eq!(logged, ["stderr F hello", "stdout F out"]);
        sandbox.stop().await.unwrap();
        assert!(!pod.spec.cgroup.exists());
        assert!(read_state(pod.dir.path()).is_none());
        sandbox.stop().await.unwrap();
    });
}

#[test]
fn a_program_that_is_missing_is_named() {
    if !is_root("a_program_that_is_missing_is_named") {
        return;
    }
    let pod = Pod::new("missing");
    block_on(async {
        let sandbox = pod.start().await;
        let cases = [
            (
                "no-such-program",
                r#"exec: "no-such-program": executable file not found in $PATH"#,
            ),
            (
                "/no/such",
                r#"exec: "/no/such": stat /no/such: no such file or directory"#,
            ),
            ("/etc/passwd", r#"exec: "/etc/passwd": permission denied"#),
            ("/etc", r#"exec: "/etc": is a directory"#),
        ];
        for (number, (program, text)) in cases.into_iter().enumerate() {
            let id = format!("main-{number}");
            let spec = pod.container(&id, &[program]);
            let Err(Error::Start(said)) = sandbox.start_container(&spec).await else {
                panic!("{program} was started")
            };
            assert!(said.contains(text), "{said}");
            let state = sandbox.state().await.unwrap();
            let shown = &state.containers[&id].state;
            assert!(
                matches!(shown, ContainerState::Failed { message, .. } if *message == said),
                "{shown:?}"
            );
        }
        let mut spec = pod.container("main-9", &["true"]);
        spec.mounts = vec![Mount {
            source: "/no/volume".into(),
            target: "/v".into(),
            read_only: false,
        }];
        let Err(Error::Start(said)) = sandbox.start_container(&spec).await else {
            panic!("a container without its volume was started")
        };
        assert!(
            said.contains("mounting /no/volume at /v: No such file"),
            "{said}"
        );
        sandbox.stop().await.unwrap();
    });
}

#[test]
fn signals_end_containers_and_kill_ends_all_of_them() {
    if !is_root("signals_end_containers_and_kill_ends_all_of_them") {
        return;
    }
    let pod = Pod::new("signals");
    block_on(async {
        let sandbox = pod.start().await;
        let polite = "trap 'echo ending; exit 0' TERM; echo ready; while :; do sleep 0.01; done";
        sandbox
            .start_container(&pod.container("polite-0", &["sh", "-c", polite]))
            .await
            .unwrap();
        let until = Instant::now() + Duration::from_secs(30);
        while pod.logged("polite-0") != ["stdout F ready"] {
            assert!(Instant::now() < until, "it never became ready");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        sandbox.signal("polite-0", libc::SIGTERM).await.unwrap();
        let end = ended(&sandbox, "polite-0").await;
        assert!(
            matches!(
                end,
                ContainerState::Exited {
                    code: 0,
                    signal: 0,
                    ..
                }
            ),
            "{end:?}"
        );
        assert_eq!(
            pod.logged("polite-0"),
            ["stdout F ready", "stdout F ending"]
        );

        // `sleep` as first process has no handler: TERM is not for it, KILL is.
        sandbox
            .start_container(&pod.container("deaf-0", &["sleep", "1000"]))
            .await
            .unwrap();
        sandbox.signal("deaf-0", libc::SIGTERM).await.unwrap();
        sandbox.kill("deaf-0").await.unwrap();
        let end = ended(&sandbox, "deaf-0").await;
        assert!(
            matches!(
                end,
                ContainerState::Exited {
                    code: 137,
                    signal: 9,
                    ..
                }
            ),
            "{end:?}"
        );

        sandbox.remove("deaf-0").await.unwrap();
        sandbox.remove("deaf-0").await.unwrap();
        assert!(
            !sandbox
                .state()
                .await
                .unwrap()
                .containers
                .contains_key("deaf-0")
        );
        assert!(matches!(
            sandbox.signal("deaf-0", 15).await,
            Err(Error::NotFound(_))
        ));
        sandbox.stop().await.unwrap();
    });
}

#[test]
fn another_kubelet_finds_the_pod_as_it_is() {
    if !is_root("another_kubelet_finds_the_pod_as_it_is") {
        return;
    }
    let pod = Pod::new("adopted");
    block_on(async {
        let sandbox = pod.start().await;
        let mut spec = pod.container("main-0", &["sleep", "1000"]);
        spec.labels.insert("hash".into(), "abc".into());
        let pid = sandbox.start_container(&spec).await.unwrap();
        sandbox
            .start_container(&pod.container("done-0", &["sh", "-c", "exit 5"]))
            .await
            .unwrap();
        ended(&sandbox, "done-0").await;
        // A second shim in the same folder is refused.
        let program = std::env::current_exe().unwrap();
        let twice = Sandbox::start(&program, pod.dir.path(), &pod.spec)
            .await
            .unwrap_err();
        assert!(
            twice.to_string().contains("the pod has a shim already"),
            "{twice}"
        );
        drop(sandbox);

        let (sandbox, state) = Sandbox::connect(pod.dir.path()).await.unwrap();
        assert_eq!(state, read_state(pod.dir.path()).unwrap());
        assert_eq!(state.spec, pod.spec);
        let main = &state.containers["main-0"];
        assert!(matches!(main.state, ContainerState::Running { pid: p, .. } if p == pid));
        assert_eq!(main.labels["hash"], "abc");
        let done = &state.containers["done-0"].state;
        assert!(matches!(done, ContainerState::Exited { code: 5, .. }));
        let mut watch = sandbox.watch().await.unwrap();
        watch.next().await.unwrap();
        sandbox.kill("main-0").await.unwrap();
        let seen = watch.next().await.unwrap();
        assert!(matches!(
            seen.containers["main-0"].state,
            ContainerState::Exited { code: 137, .. }
        ));
        sandbox.stop().await.unwrap();
        assert!(matches!(watch.next().await, Err(Error::Gone(_))));
        assert!(matches!(
            Sandbox::connect(pod.dir.path()).await,
            Err(Error::Gone(_))
        ));
    });
}

#[test]
fn nothing_outlives_a_killed_shim() {
    if !is_root("nothing_outlives_a_killed_shim") {
        return;
    }
    for (host_pid, share_pid) in [(false, false), (false, true), (true, false)] {
        let mut pod = Pod::new("killed");
        (pod.spec.host_pid, pod.spec.share_pid) = (host_pid, share_pid);
        block_on(async {
            let sandbox = pod.start().await;
            let children = pod.container("main-0", &["sh", "-c", "sleep 1003 & wait"]);
            let mut user = pod.container("user-0", &["sleep", "1000"]);
            user.user = Some((1000, 1000));
            for spec in [&children, &user] {
                sandbox.start_container(spec).await.unwrap();
            }
            let mut watch = sandbox.watch().await.unwrap();
            watch.next().await.unwrap();
            nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(sandbox.shim_pid()),
                nix::sys::signal::Signal::SIGKILL,
            )
            .unwrap();
            assert!(matches!(watch.next().await, Err(Error::Gone(_))));
            // In the machine's PID namespace only the first process ends by itself.
            let until = Instant::now() + Duration::from_secs(30);
            while !host_pid && !pod.processes().is_empty() {
                assert!(Instant::now() < until, "left: {:?}", pod.processes());
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            // The facts stay until the pod is stopped, which clears everything.
            assert!(read_state(pod.dir.path()).is_some());
            assert!(matches!(
                Sandbox::connect(pod.dir.path()).await,
                Err(Error::Gone(_))
            ));
            stop(pod.dir.path()).await.unwrap();
            assert!(!pod.spec.cgroup.exists());
            // And it can be made again in the same place.
            let sandbox = pod.start().await;
            sandbox
                .start_container(&pod.container("main-0", &["sleep", "1000"]))
                .await
                .unwrap();
            sandbox.stop().await.unwrap();
        });
    }
}

#[test]
fn a_killed_pause_process_is_told() {
    if !is_root("a_killed_pause_process_is_told") {
        return;
    }
    let pod = Pod::new("pause");
    block_on(async {
        let sandbox = pod.start().await;
        let mut watch = sandbox.watch().await.unwrap();
        watch.next().await.unwrap();
        let pause = nix::unistd::Pid::from_raw(sandbox.pause_pid());
        nix::sys::signal::kill(pause, nix::sys::signal::Signal::SIGKILL).unwrap();
        assert_eq!(watch.next().await.unwrap().pause_pid, 0);
        let late = sandbox
            .start_container(&pod.container("main-0", &["true"]))
            .await;
        assert!(late.is_err());
        sandbox.stop().await.unwrap();
    });
}

#[test]
fn a_hundred_pods_start_quickly_and_leave_nothing() {
    if !is_root("a_hundred_pods_start_quickly_and_leave_nothing") {
        return;
    }
    const PODS: usize = 100;
    let pods: Vec<Pod> = (0..PODS).map(|n| Pod::new(&format!("many-{n}"))).collect();
    block_on(async {
        let begun = Instant::now();
        let sandboxes = futures::future::join_all(pods.iter().map(|pod| async {
            let sandbox = pod.start().await;
            sandbox
                .start_container(&pod.container("main-0", &["sleep", "1000"]))
                .await
                .unwrap();
            sandbox
        }))
        .await;
        let started = begun.elapsed();
        // A shim gives memory back when nothing was asked for a second.
        let last = sandboxes[PODS - 1].shim_pid();
        let (busy, until) = (
            memory_kib(last, "Rss"),
            Instant::now() + Duration::from_secs(5),
        );
        while memory_kib(last, "Rss") >= busy && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let sum = |field: &str, pid: fn(&Sandbox) -> i32| -> u64 {
            let all = sandboxes.iter().map(|s| memory_kib(pid(s), field));
            all.sum::<u64>() / PODS as u64
        };
        let resident = sum("Rss", Sandbox::shim_pid);
        let share = sum("Pss", Sandbox::shim_pid) + sum("Pss", Sandbox::pause_pid);
        let begun = Instant::now();
        for stopped in futures::future::join_all(sandboxes.iter().map(Sandbox::stop)).await {
            stopped.unwrap();
        }
        println!(
            "{PODS} pods: started in {started:?} ({:?} each), stopped in {:?}; a shim has \
             {resident} KiB resident, shim and pause together a share of {share} KiB",
            started / PODS as u32,
            begun.elapsed(),
        );
        assert!(started < Duration::from_secs(20));
    });
    assert!(pods.iter().all(|p| !p.spec.cgroup.exists()));
}

/// A field of a process's memory.
fn memory_kib(pid: i32, field: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = text
        .lines()
        .find(|l| l.split(':').next() == Some(field))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
