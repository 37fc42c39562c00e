//! A process of the test's own program that makes changes as it is told, so that it can be killed
//! at any moment.

#![expect(clippy::unwrap_used, reason = "a test's failure is a panic")]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use linux::{NetNs, run_in};

/// A process in a namespace that runs one test of this program: the test reads numbers of changes
/// from its input, a line each, makes each and calls [`say_done`]. It is killed when dropped.
pub struct Driven {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Driven {
    /// Starts the test, which is told what to do by a variable of its environment.
    pub fn start(netns: &NetNs, test: &str, (variable, words): (&str, &str)) -> Self {
        let spawn = || {
            Command::new(std::env::current_exe().unwrap())
                .args([test, "--exact", "--nocapture"])
                .env(variable, words)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        };
        let mut child = run_in(netns, spawn).unwrap();
        Self {
            input: child.stdin.take().unwrap(),
            output: BufReader::new(child.stdout.take().unwrap()),
            child,
        }
    }

    /// Has it make a change.
    pub fn ask(&mut self, change: usize) {
        writeln!(self.input, "{change}").unwrap();
    }

    /// Waits until the change is made.
    pub fn done(&mut self, change: usize) {
        let end = format!("done {change}\n");
        let mut line = String::new();
        while line != end {
            line.clear();
            let read = self.output.read_line(&mut line).unwrap();
            assert!(read > 0, "the driven process ended at change {change}");
        }
    }
}

impl Drop for Driven {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Says that a change is made; on a line of its own, whatever the test runner wrote before.
pub fn say_done(change: usize) {
    println!("\ndone {change}");
}
