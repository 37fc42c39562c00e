//! A cluster for a test: made with the built program, ended with the test, also when it panics.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Once, OnceLock};
use std::time::{Duration, Instant};

use lab::cluster::down;
use lab::paths::ClusterPaths;
use serde_json::Value;

/// The program under test.
pub const FLATNET: &str = env!("CARGO_BIN_EXE_flatnet");

/// What kubectl before 1.33 says when it throws away the first words of a program in a pod: it
/// may begin to read before it has the streams to put them in (client-go's `readyChan` cured it).
pub const KUBECTL_LOST: &str = "Unknown stream id";

pub use testing::root;

/// A cluster of its own for one test.
pub struct Cluster {
    pub name: String,
    pub paths: ClusterPaths,
}

impl Cluster {
    /// Makes a cluster called after the test and this process.
    pub fn up(test: &str, args: &[&str]) -> Self {
        plugin();
        let cluster = Self::named(test);
        let output = cluster
            .flatnet(&["up", "--resolv-conf"])
            .arg(upstream())
            .args(args)
            .output()
            .unwrap();
        assert!(output.status.success(), "up {args:?}:\n{}", text(&output));
        cluster
    }

    /// A name for a cluster, which is taken away at the end whatever became of it.
    pub fn named(test: &str) -> Self {
        let name = format!("{test}-{}", std::process::id() % 10_000_000);
        Self {
            paths: ClusterPaths::new(&name),
            name,
        }
    }

    /// The program with this cluster's name, ready for more words.
    pub fn flatnet(&self, words: &[&str]) -> Command {
        let mut command = Command::new(FLATNET);
        command
            .args(["--name", &self.name])
            .args(words)
            .env_remove("FLATNET_NAME")
            .stdin(Stdio::null());
        command
    }

    /// Runs the program; its output, where it succeeds.
    pub fn run(&self, words: &[&str]) -> String {
        let output = self.flatnet(words).output().unwrap();
        assert!(
            output.status.success(),
            "flatnet {words:?}:\n{}",
            text(&output)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs the program; its words and code, where it fails.
    pub fn fails(&self, words: &[&str]) -> (i32, String) {
        let output = self.flatnet(words).output().unwrap();
        assert!(
            !output.status.success(),
            "flatnet {words:?} succeeded:\n{}",
            text(&output)
        );
        (output.status.code().unwrap_or(-1), text(&output))
    }

    /// The JSON that a command prints, whatever its exit code.
    pub fn json(&self, words: &[&str]) -> Value {
        let output = self.flatnet(words).args(["-o", "json"]).output().unwrap();
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{words:?}: {error}\n{}", text(&output)))
    }

    /// Stock kubectl against the cluster.
    pub fn kubectl(&self, words: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command
            .args(words)
            .env("KUBECONFIG", self.paths.kubeconfig())
            .stdin(Stdio::null());
        command
    }

    /// Runs kubectl; its output, where it succeeds. Where kubectl itself lost words of a program
    /// in a pod, the program is run again.
    pub fn kube(&self, words: &[&str]) -> String {
        let mut output = self.kubectl(words).output().unwrap();
        for _ in 0..3 {
            let complaints = String::from_utf8_lossy(&output.stderr);
            if !words.contains(&"exec") || !complaints.contains(KUBECTL_LOST) {
                break;
            }
            output = self.kubectl(words).output().unwrap();
        }
        assert!(
            output.status.success(),
            "kubectl {words:?}:\n{}",
            text(&output)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// Every path is fine; the whole table where one is not.
    pub fn check_is_green(&self) {
        let output = self.flatnet(&["check"]).output().unwrap();
        assert!(output.status.success(), "check:\n{}", text(&output));
    }

    /// Ends the cluster and makes sure that nothing of it is left.
    pub fn down(self) {
        self.run(&["down"]);
        let left = down::leftovers(&self.paths);
        assert!(left.is_empty(), "left after down: {left:?}");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The reason is most often in a log, and logs go with the cluster.
            for log in std::fs::read_dir(self.paths.state.join("logs"))
                .into_iter()
                .flatten()
                .flatten()
            {
                let lines = lab::cluster::process::tail(&log.path(), 12);
                eprintln!("--- {}\n{}", log.path().display(), lines.join("\n"));
            }
        }
        let _ = down::down(&self.paths);
    }
}

/// The `resolv.conf` of tests' clusters: what they ask of the internet goes to the client
/// outside, never to the servers of this machine.
pub fn upstream() -> &'static Path {
    static WRITTEN: OnceLock<PathBuf> = OnceLock::new();
    WRITTEN.get_or_init(|| {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("upstream.conf");
        // Whoever else runs these tests sees the whole text or none.
        let new = path.with_extension(std::process::id().to_string());
        std::fs::write(&new, "nameserver 203.0.113.10\n").unwrap();
        std::fs::rename(&new, &path).unwrap();
        path
    })
}

/// A server of files outside the cluster, ended with the test, also when it panics.
pub struct Server(Child);

impl Server {
    /// Starts it; the program becomes the server, so that its end is the server's.
    pub fn start(cluster: &Cluster, port: u16) -> Self {
        let port = port.to_string();
        let words = ["client", "--", "python3", "-m", "http.server", &port];
        let mut command = cluster.flatnet(&words);
        let command = command.stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a program said, both streams.
pub fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Asks again and again until there is an answer.
pub fn eventually<T>(what: &str, patience: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within {patience:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// `cargo test -p flatnet` alone does not build the CNI plugin, which lives beside the program.
fn plugin() {
    static BUILT: Once = Once::new();
    BUILT.call_once(|| {
        let folder = Path::new(FLATNET)
            .parent()
            .map(Path::to_owned)
            .unwrap_or_default();
        if folder.join("flatnet-cni").exists() {
            return;
        }
        let cargo = std::env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from);
        let mut build = Command::new(cargo);
        build.args(["build", "--locked", "-p", "cni", "--bin", "flatnet-cni"]);
        if folder.ends_with("release") {
            build.arg("--release");
        }
        assert!(
            build.status().is_ok_and(|status| status.success()),
            "cannot build flatnet-cni"
        );
    });
}
