//! Exec and attach.

use super::*;
use crate::is_root;

#[test]
fn exec_passes_streams_codes_and_terminals() {
    if !is_root("exec_passes_streams_codes_and_terminals") {
        return;
    }
    let pod = Pod::new("exec");
    block_on(async {
        let sandbox = pod.start().await;
        let mut spec = pod.container("main-0", &["sleep", "1000"]);
        spec.env = vec![("COLOUR".into(), "blue".into())];
        sandbox.start_container(&spec).await.unwrap();

        let argv = words(&["sh", "-c", "cat; echo $COLOUR $HOME >&2; exit 7"]);
        let command = ExecSpec {
            container: "main-0".into(),
            argv,
            stdin: true,
            tty: false,
        };
        let mut exec = sandbox.exec(&command).await.unwrap();
        let mut stdin = exec.io.stdin.take().unwrap();
        stdin.write_all(b"through and back").await.unwrap();
        drop(stdin);
        let (mut out, mut err) = (String::new(), String::new());
        exec.io
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut out)
            .await
            .unwrap();
        exec.io
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut err)
            .await
            .unwrap();
        assert_eq!(
            (out.as_str(), err.as_str()),
            ("through and back", "blue /root\n")
        );
        assert_eq!(exec.handle.wait().await.unwrap(), 7);

        // A terminal: one stream, a size that can be changed, a controlling terminal.
        let argv = words(&[
            "sh",
            "-c",
            "read x; stty size; tty; echo $TERM; echo ok >/dev/tty; kill -9 $$",
        ]);
        let command = ExecSpec {
            container: "main-0".into(),
            argv,
            stdin: true,
            tty: true,
        };
        let mut exec = sandbox.exec(&command).await.unwrap();
        assert!(exec.io.stderr.is_none());
        exec.io.terminal.as_ref().unwrap().resize(132, 43).unwrap();
        exec.io
            .stdin
            .as_mut()
            .unwrap()
            .write_all(b"go\n")
            .await
            .unwrap();
        let mut out = String::new();
        exec.io
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut out)
            .await
            .unwrap();
        assert_eq!(out, "go\r\n43 132\r\n/dev/pts/0\r\nxterm\r\nok\r\n");
        assert_eq!(exec.handle.wait().await.unwrap(), 137);

        let missing = ExecSpec {
            container: "main-0".into(),
            argv: words(&["nope"]),
            ..Default::default()
        };
        let Err(Error::Start(said)) = sandbox.exec(&missing).await.map(drop) else {
            panic!("it was started")
        };
        assert!(
            said.contains(r#"exec: "nope": executable file not found in $PATH"#),
            "{said}"
        );
        let elsewhere = ExecSpec {
            container: "other".into(),
            ..missing
        };
        assert!(matches!(
            sandbox.exec(&elsewhere).await.map(drop),
            Err(Error::NotFound(_))
        ));

        // A probe that hangs is killed.
        let hung = words(&["sh", "-c", "sleep 1002 | cat"]);
        let done = sandbox
            .exec_sync("main-0", &hung, Duration::from_millis(200))
            .await;
        assert!(matches!(done, Err(Error::Timeout(_))), "{done:?}");
        let until = Instant::now() + Duration::from_secs(30);
        // Its command line is empty once it is dead.
        let all = ["sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"];
        while output(&sandbox, "main-0", &all)
            .await
            .1
            .contains("sleep 1002")
        {
            assert!(Instant::now() < until, "the command still runs");
        }
        sandbox.stop().await.unwrap();
    });
}

#[test]
fn exec_carries_a_lot() {
    if !is_root("exec_carries_a_lot") {
        return;
    }
    let pod = Pod::new("lots");
    block_on(async {
        let sandbox = pod.start().await;
        sandbox
            .start_container(&pod.container("main-0", &["sleep", "1000"]))
            .await
            .unwrap();
        let command = ExecSpec {
            container: "main-0".into(),
            argv: words(&["cat"]),
            stdin: true,
            tty: false,
        };
        let mut exec = sandbox.exec(&command).await.unwrap();
        let (mut stdin, mut stdout) = (
            exec.io.stdin.take().unwrap(),
            exec.io.stdout.take().unwrap(),
        );
        let sent: Vec<u8> = (0..8_000_000u32).map(|n| (n % 251) as u8).collect();
        let write = async {
            stdin.write_all(&sent).await.unwrap();
            drop(stdin);
        };
        let mut back = Vec::new();
        let (_, read) = tokio::join!(write, stdout.read_to_end(&mut back));
        read.unwrap();
        assert!(
            back == sent,
            "{} of {} bytes came back",
            back.len(),
            sent.len()
        );
        assert_eq!(exec.handle.wait().await.unwrap(), 0);
        sandbox.stop().await.unwrap();
    });
}

#[test]
fn attach_shares_a_containers_streams() {
    if !is_root("attach_shares_a_containers_streams") {
        return;
    }
    let pod = Pod::new("attach");
    block_on(async {
        let sandbox = pod.start().await;
        let mut spec = pod.container("cat-0", &["cat"]);
        spec.stdin = true;
        spec.stdin_once = true;
        sandbox.start_container(&spec).await.unwrap();
        let mut io = sandbox.attach("cat-0", true).await.unwrap();
        let mut stdin = io.stdin.take().unwrap();
        stdin.write_all(b"one\ntwo\n").await.unwrap();
        drop(stdin);
        let mut out = String::new();
        io.stdout
            .take()
            .unwrap()
            .read_to_string(&mut out)
            .await
            .unwrap();
        assert_eq!(out, "one\ntwo\n");
        // Its input ended with the client: cat ends by itself, and the log has all.
        assert!(matches!(
            ended(&sandbox, "cat-0").await,
            ContainerState::Exited { code: 0, .. }
        ));
        assert_eq!(pod.logged("cat-0"), ["stdout F one", "stdout F two"]);

        let mut spec = pod.container("tty-0", &["sh"]);
        spec.stdin = true;
        spec.tty = true;
        sandbox.start_container(&spec).await.unwrap();
        let mut io = sandbox.attach("tty-0", true).await.unwrap();
        io.terminal.as_ref().unwrap().resize(90, 30).unwrap();
        io.stdin
            .as_mut()
            .unwrap()
            .write_all(b"stty size; exit 4\n")
            .await
            .unwrap();
        let mut out = String::new();
        io.stdout
            .take()
            .unwrap()
            .read_to_string(&mut out)
            .await
            .unwrap();
        assert!(out.contains("30 90\r\n"), "{out:?}");
        assert!(matches!(
            ended(&sandbox, "tty-0").await,
            ContainerState::Exited { code: 4, .. }
        ));
        assert!(matches!(
            sandbox.attach("tty-0", false).await,
            Err(Error::NotFound(_))
        ));
        sandbox.stop().await.unwrap();
    });
}

#[test]
fn a_client_that_does_not_read_delays_but_does_not_lose_output() {
    if !is_root("a_client_that_does_not_read_delays_but_does_not_lose_output") {
        return;
    }
    let pod = Pod::new("slow");
    block_on(async {
        let sandbox = pod.start().await;
        let text = "read x; i=0; while [ $i -lt 40000 ]; do echo line $i; i=$((i+1)); done";
        let mut spec = pod.container("main-0", &["sh", "-c", text]);
        spec.stdin = true;
        sandbox.start_container(&spec).await.unwrap();
        let mut io = sandbox.attach("main-0", true).await.unwrap();
        io.stdin.as_mut().unwrap().write_all(b"go\n").await.unwrap();
        // The pipes fill; the shim still answers others.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let state = sandbox.state().await.unwrap();
        assert!(matches!(
            state.containers["main-0"].state,
            ContainerState::Running { .. }
        ));
        let mut out = String::new();
        io.stdout
            .take()
            .unwrap()
            .read_to_string(&mut out)
            .await
            .unwrap();
        assert_eq!(out.lines().count(), 40_000);
        ended(&sandbox, "main-0").await;
        assert_eq!(pod.logged("main-0").len(), 40_000);
        sandbox.stop().await.unwrap();
    });
}
