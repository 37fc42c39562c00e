//! DNS servers as processes, each on processors of its own, and dnsperf that asks them.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, SysconfVar, sysconf};

const PORT: u16 = 1053;
const PATIENCE: Duration = Duration::from_secs(120);
/// No more clients than dnsperf has when it is told nothing else would hide what a client costs.
const CLIENTS: &str = "4";
/// Servers and dnsperf come before whatever else the machine does: its pauses are no latency of
/// theirs.
const FIRST: libc::c_int = -20;

/// The processors this bench may use.
pub fn processors() -> Vec<usize> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap();
    let all = 0..CpuSet::count();
    all.filter(|cpu| allowed.is_set(*cpu).unwrap_or(false))
        .collect()
}

/// Starts a program that stays on these processors.
pub fn spawn_on(processors: &[usize], command: &mut Command) -> Child {
    let own = sched_getaffinity(Pid::from_raw(0)).unwrap();
    let mut set = CpuSet::new();
    for cpu in processors {
        set.set(*cpu).unwrap();
    }
    // A new process has what the thread has that makes it.
    sched_setaffinity(Pid::from_raw(0), &set).unwrap();
    niceness(FIRST);
    let child = command.spawn();
    niceness(0);
    sched_setaffinity(Pid::from_raw(0), &own).unwrap();
    child.unwrap_or_else(|error| panic!("start {:?}: {error}", command.get_program()))
}

/// Of this thread.
fn niceness(value: libc::c_int) {
    // SAFETY: the call takes numbers and no pointers; 0 is the calling thread.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, value) };
}

/// A DNS server that ends with its owner.
pub struct Resolver {
    pub name: &'static str,
    address: String,
    child: Child,
}

impl Resolver {
    /// Starts it and waits until it has an answer for this name. It finds its own address in the
    /// variable ADDRESS, so that all have the same Corefile.
    pub fn start(
        name: &'static str,
        number: usize,
        processors: &[usize],
        command: &mut Command,
        known: &str,
    ) -> Self {
        let address = address(number);
        let log = std::env::temp_dir().join(format!("bench-dns-{name}.log"));
        let log = File::create(log).unwrap();
        command
            .env("ADDRESS", &address)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let child = spawn_on(processors, command);
        let mut resolver = Self {
            name,
            address,
            child,
        };
        let start = Instant::now();
        while !resolver.knows(known) {
            let ended = resolver.child.try_wait().unwrap();
            assert!(ended.is_none(), "{name} ended, see its log");
            assert!(start.elapsed() < PATIENCE, "{name} never knows {known}");
            std::thread::sleep(Duration::from_millis(20));
        }
        resolver
    }

    /// A socket that asks it.
    pub fn client(&self) -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect((self.address.as_str(), PORT)).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(1)))
            .unwrap();
        socket
    }

    /// Whether it has an address for a name.
    pub fn knows(&self, name: &str) -> bool {
        let socket = self.client();
        let mut answer = [0; 512];
        if socket.send(&question(name)).is_err() {
            return false;
        }
        match socket.recv(&mut answer) {
            Ok(length) if length > 12 => answer[3] & 0xf == 0 && answer[7] > 0,
            _ => false,
        }
    }

    /// Keeps the thread of this name on one processor.
    pub fn pin(&self, thread: &str, processor: usize) {
        let mut set = CpuSet::new();
        set.set(processor).unwrap();
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let mut named = tasks.flatten().filter(|task| {
            let name = std::fs::read_to_string(task.path().join("comm"));
            name.is_ok_and(|name| name.trim_end() == thread)
        });
        let task = named.next().expect("the thread is there").file_name();
        let task = task.to_str().unwrap().parse().unwrap();
        sched_setaffinity(Pid::from_raw(task), &set).unwrap();
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    /// The processor time it has taken, its own and the kernel's for it.
    pub fn spent(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // Behind the program's name, which may have anything in it.
        let fields = stat.rsplit_once(')').unwrap().1;
        let ticks = fields.split_whitespace().skip(11).take(2);
        let ticks: u64 = ticks.map(|field| field.parse::<u64>().unwrap()).sum();
        let each = sysconf(SysconfVar::CLK_TCK).unwrap().unwrap();
        Duration::from_secs_f64(ticks as f64 / each as f64)
    }

    /// Resident, in MB.
    pub fn resident(&self) -> f64 {
        let status = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(status).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
        kib.unwrap() / 1024.0
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Of the loopback, so that each has all ports.
pub fn address(number: usize) -> String {
    format!("127.0.53.{number}")
}

/// One for addresses, as it goes over the wire.
pub fn question(name: &str) -> Vec<u8> {
    let mut bytes = vec![0x5a, 0xa5, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.extend([0, 0, 1, 0, 1]);
    bytes
}

/// What a round of dnsperf came to.
#[derive(Clone, Copy)]
pub struct Round {
    /// Questions answered a second.
    pub rate: f64,
    /// The server's processor time a question, in microseconds.
    pub cost: f64,
}

/// dnsperf on its own processors asks these names.
pub struct Load<'a> {
    pub processors: &'a [usize],
    pub names: &'a Path,
    pub seconds: u32,
}

impl Load<'_> {
    /// Asks so many a second, or as many as are answered.
    pub fn round(&self, resolver: &Resolver, rate: Option<f64>) -> Round {
        let before = resolver.spent();
        let mut command = self.command(resolver, rate);
        let child = spawn_on(self.processors, command.stdout(Stdio::piped()));
        let output = child.wait_with_output().unwrap();
        let spent = resolver.spent() - before;
        let text = String::from_utf8_lossy(&output.stdout);
        let number = |label: &str| -> f64 {
            let line = text.lines().find(|line| line.contains(label));
            let rest = line.and_then(|line| line.split_once(':'));
            let word = rest.and_then(|(_, rest)| rest.split_whitespace().next());
            word.and_then(|word| word.parse().ok())
                .unwrap_or_else(|| panic!("dnsperf says no {label}: {text}"))
        };
        // Figures of failures are no figures.
        let all = text.contains("NOERROR") && text.contains("(100.00%)");
        assert!(all, "{}: {text}", resolver.name);
        let done = number("Queries completed");
        assert!(number("Queries lost") < done / 1000.0, "{text}");
        Round {
            rate: number("Queries per second"),
            cost: spent.as_secs_f64() / done * 1e6,
        }
    }

    /// The latencies at a rate, sorted.
    pub fn latencies(&self, resolver: &Resolver, rate: f64) -> Vec<Duration> {
        let file = tempfile::tempfile().unwrap();
        let mut command = self.command(resolver, Some(rate));
        command.arg("-v").stdout(file.try_clone().unwrap());
        let status = spawn_on(self.processors, &mut command).wait();
        assert!(status.unwrap().success());
        let mut file = file;
        std::io::Seek::rewind(&mut file).unwrap();
        // > NOERROR svc1.ns1.svc.cluster.local A 0.000123
        let lines = BufReader::new(file).lines().map_while(Result::ok);
        let each = lines.filter_map(|line| {
            let line = line.strip_prefix("> NOERROR ")?;
            let seconds = line.split_whitespace().last()?.parse().ok()?;
            Some(Duration::from_secs_f64(seconds))
        });
        let mut latencies: Vec<_> = each.collect();
        assert!(!latencies.is_empty(), "dnsperf tells of no latency");
        latencies.sort();
        latencies
    }

    fn command(&self, resolver: &Resolver, rate: Option<f64>) -> Command {
        let mut command = Command::new("dnsperf");
        command
            .args(["-s", &resolver.address, "-p", &PORT.to_string(), "-d"])
            .arg(self.names)
            .args(["-c", CLIENTS, "-l", &self.seconds.to_string()])
            .stdin(Stdio::null())
            .stderr(Stdio::null());
        if let Some(rate) = rate {
            command.args([OsStr::new("-Q"), OsStr::new(&format!("{rate:.0}"))]);
        }
        command
    }
}
