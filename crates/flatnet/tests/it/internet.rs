//! The names of the internet, for a test: a DNS server on the client outside, which knows a few
//! names and writes down what it is asked.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::cluster::{Cluster, eventually};

/// The address that the test's internet gives `google.com`.
pub const GOOGLE: &str = "198.51.100.7";

const COREFILE: &str = "\
google.com example.org {
    log
    hosts {
        198.51.100.7 google.com www.example.org
    }
}
. {
    log
    errors
    template ANY ANY {
        rcode NXDOMAIN
    }
}
";

/// The server, ended with the test, also when it panics.
pub struct Internet {
    server: Child,
    folder: tempfile::TempDir,
}

impl Internet {
    /// Starts it and waits until it answers.
    pub fn start(cluster: &Cluster) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let corefile = folder.path().join("Corefile");
        std::fs::write(&corefile, COREFILE).unwrap();
        let log = File::create(folder.path().join("log")).unwrap();
        let words = ["client", "--", crate::cluster::FLATNET, "dns", "--conf"];
        // The program becomes the server, so that its end is the server's.
        let mut command = cluster.flatnet(&words);
        let command = command.arg(&corefile).stdout(log).stderr(Stdio::null());
        let internet = Self {
            server: command.spawn().unwrap(),
            folder,
        };
        eventually("the internet answers", Duration::from_secs(20), || {
            let ask = [
                "client",
                "--",
                "dig",
                "+tries=1",
                "+time=1",
                "+short",
                "@203.0.113.10",
            ];
            let asked = cluster
                .flatnet(&ask)
                .arg("www.example.org")
                .output()
                .unwrap();
            (asked.stdout == format!("{GOOGLE}\n").as_bytes()).then_some(())
        });
        internet
    }

    /// How often it was asked about a name (with a dot at the end) and type.
    pub fn asked(&self, name: &str, kind: &str) -> usize {
        let log = std::fs::read_to_string(self.log()).unwrap();
        log.matches(&format!("\"{kind} IN {name} ")).count()
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }
}

impl Drop for Internet {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.log()).unwrap_or_default();
            eprintln!("--- the internet was asked\n{log}");
        }
    }
}
