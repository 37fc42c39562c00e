//! Real pods through real shims: what a kubelet, and behind it a user, notices.

mod images;
mod isolation;
mod life;
mod streams;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lab::shim::client::{Sandbox, stop};
use lab::shim::{ContainerSpec, ContainerState, Error, ExecSpec, Mount, SandboxSpec, read_state};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A pod's folder and cgroup, cleared away also where a test fails.
struct Pod {
    dir: tempfile::TempDir,
    spec: SandboxSpec,
}

impl Pod {
    fn new(name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let uid = format!("test-{name}-{}", std::process::id());
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
        let v2 = mounts
            .lines()
            .find(|l| l.split(' ').nth(2) == Some("cgroup2"))
            .unwrap();
        let cgroup = Path::new(v2.split(' ').nth(1).unwrap())
            .join("flatnet-tests")
            .join(&uid);
        let spec = SandboxSpec {
            uid,
            hostname: name.into(),
            cgroup,
            ..Default::default()
        };
        Self { dir, spec }
    }

    async fn start(&self) -> Sandbox {
        let program = std::env::current_exe().unwrap();
        Sandbox::start(&program, self.dir.path(), &self.spec)
            .await
            .unwrap()
    }

    fn container(&self, id: &str, argv: &[&str]) -> ContainerSpec {
        ContainerSpec {
            id: id.into(),
            argv: words(argv),
            log: self.log(id),
            allow_privilege_escalation: true,
            ..Default::default()
        }
    }

    fn log(&self, id: &str) -> PathBuf {
        self.dir.path().join("logs").join(format!("{id}.log"))
    }

    /// The log's lines, without their times.
    fn logged(&self, id: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.log(id)).unwrap_or_default();
        text.lines()
            .map(|l| l.split_once(' ').unwrap().1.to_owned())
            .collect()
    }

    fn processes(&self) -> Vec<String> {
        let mut found = Vec::new();
        collect(&self.spec.cgroup, &mut found);
        found
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = std::fs::write(self.spec.cgroup.join("cgroup.kill"), "1");
        let until = Instant::now() + Duration::from_secs(30);
        while self.spec.cgroup.exists() && Instant::now() < until {
            remove(&self.spec.cgroup);
            std::thread::sleep(Duration::from_millis(2));
        }
        if let Some(parent) = self.spec.cgroup.parent() {
            let _ = std::fs::remove_dir(parent);
        }
    }
}

fn remove(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove(&entry.path());
        }
    }
    let _ = std::fs::remove_dir(folder);
}

fn collect(folder: &Path, found: &mut Vec<String>) {
    let text = std::fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    found.extend(text.lines().map(str::to_owned));
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            collect(&entry.path(), found);
        }
    }
}

fn words(argv: &[&str]) -> Vec<String> {
    argv.iter().map(|a| (*a).to_owned()).collect()
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let limited = async { tokio::time::timeout(Duration::from_secs(60), work).await };
    runtime
        .block_on(limited)
        .expect("the test takes longer than a minute")
}

/// Waits for the end of a container.
async fn ended(sandbox: &Sandbox, id: &str) -> ContainerState {
    let mut watch = sandbox.watch().await.unwrap();
    loop {
        let state = watch.next().await.unwrap();
        let state = state.containers.get(id).map(|c| c.state.clone());
        if let Some(s @ (ContainerState::Exited { .. } | ContainerState::Failed { .. })) = state {
            return s;
        }
    }
}

async fn output(sandbox: &Sandbox, id: &str, argv: &[&str]) -> (i32, String) {
    let done = sandbox
        .exec_sync(id, &words(argv), Duration::from_secs(20))
        .await
        .unwrap();
    let text = [done.stdout, done.stderr].concat();
    (done.code, String::from_utf8(text).unwrap())
}
