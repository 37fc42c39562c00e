//! The built-in image table: which program stands for which image. There is no registry:
//! a well-known image is a program of this binary or of the machine that behaves like it.

mod agnhost;
mod arguments;
mod connect;
mod echo;
mod httpbin;
mod netexec;
mod serve;
mod table;
mod web;

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::shim::Mount;

pub use table::Program;

/// Where containers find the built-in programs, the applets of busybox and this binary.
const FOLDER: &str = "/usr/lib/flatnet";
/// The built-in programs, each a name under which a container may start it.
const BUILT_IN: [&str; 11] = [
    "agnhost",
    DNS_SERVER,
    "echo-server",
    "hello-app",
    "http-echo",
    "httpbin",
    "httpd",
    "httpd-foreground",
    "nginx",
    "pause",
    "whoami",
];
/// The server of `flatnet dns`.
pub const DNS_SERVER: &str = "coredns";
/// The machine's busybox, statically linked (Debian's busybox-static).
const BUSYBOX: &str = "/usr/bin/busybox";

/// The programs of one machine, laid out for containers.
#[derive(Clone, Debug)]
pub struct Images {
    folder: PathBuf,
    program: PathBuf,
}

impl Images {
    /// Lays out the programs in `folder` (made where missing), for `program`, the flatnet
    /// binary. Safe to repeat, also while containers run, and by several processes.
    pub fn prepare(folder: &Path, program: &Path) -> io::Result<Self> {
        let programs = folder.join("bin");
        let applets = folder.join("busybox");
        fs::create_dir_all(&programs)?;
        fs::create_dir_all(&applets)?;
        // The place where this binary is mounted.
        fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(folder.join("flatnet"))?;
        for name in BUILT_IN {
            let text = format!("#!/bin/sh\nexec {FOLDER}/flatnet lab image {name} \"$@\"\n");
            write_script(&programs.join(name), &text)?;
        }
        for applet in applets_of_busybox() {
            match symlink(BUSYBOX, applets.join(applet)) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
                _ => {}
            }
        }
        Ok(Self {
            folder: folder.to_owned(),
            program: program.to_owned(),
        })
    }

    /// The program for an image: `command` and `args` are the container's, already
    /// expanded, and override the image's as Kubernetes says; `ports` its containerPorts.
    pub fn resolve(
        &self,
        image: &str,
        command: &[String],
        args: &[String],
        ports: &[u16],
    ) -> Program {
        let mut program = table::resolve(image, command, args, ports);
        let mount = |source: PathBuf, target: String| Mount {
            source,
            target: PathBuf::from(target),
            read_only: true,
        };
        program.mounts = vec![
            mount(self.folder.clone(), FOLDER.to_owned()),
            mount(self.program.clone(), format!("{FOLDER}/flatnet")),
        ];
        program
    }
}

/// `flatnet lab image NAME ARGS`: runs a built-in program to its end.
pub fn main(name: &str, args: &[String]) -> i32 {
    match name {
        "agnhost" => agnhost::main(args),
        "echo-server" => echo::main(args),
        "hello-app" => web::hello_app(),
        "http-echo" => web::http_echo(args),
        "httpbin" => httpbin::main(),
        "httpd" | "httpd-foreground" => web::httpd(),
        "nginx" => web::nginx(args),
        "pause" => agnhost::pause(),
        "whoami" => web::whoami(args),
        _ => {
            eprintln!(
                "flatnet has no built-in program {name:?}: one of {}",
                BUILT_IN.join(", ")
            );
            127
        }
    }
}

/// The name of the built-in program a container's path leads to, where that can run in the
/// process that stands ready for it: the DNS server is started anew.
pub(crate) fn built_in(path: &Path) -> Option<&'static str> {
    let name = path.strip_prefix(FOLDER).ok()?.strip_prefix("bin").ok()?;
    let named = BUILT_IN.into_iter().find(|n| name == Path::new(n));
    named.filter(|name| *name != DNS_SERVER)
}

/// Debian's package of a program that people expect in images.
pub(crate) fn package_of(program: &str) -> Option<&'static str> {
    Some(match program {
        "busybox" => "busybox-static",
        "curl" => "curl",
        "wget" => "wget",
        "dig" | "host" | "nslookup" | "delv" => "bind9-dnsutils",
        "ip" | "ss" | "bridge" | "tc" => "iproute2",
        "ping" => "iputils-ping",
        "traceroute" => "traceroute",
        "mtr" => "mtr-tiny",
        "tcpdump" => "tcpdump",
        "nc" | "ncat" => "netcat-openbsd",
        "socat" => "socat",
        "iperf3" => "iperf3",
        "iptables" => "iptables",
        "nft" => "nftables",
        "conntrack" => "conntrack",
        "nmap" => "nmap",
        "ps" | "top" | "watch" => "procps",
        "ifconfig" | "netstat" | "route" | "arp" => "net-tools",
        "python" | "python3" => "python3-minimal",
        "perl" => "perl",
        "jq" => "jq",
        "openssl" => "openssl",
        "redis-server" | "redis-cli" => "redis",
        "psql" => "postgresql-client",
        "mysql" => "default-mysql-client",
        "node" => "nodejs",
        "vim" => "vim-tiny",
        "bash" => "bash",
        _ => return None,
    })
}

fn applets_of_busybox() -> Vec<String> {
    let Ok(listed) = Command::new(BUSYBOX).arg("--list").output() else {
        return Vec::new();
    };
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    text.lines()
        .filter(|l| !l.is_empty() && !l.contains('/'))
        .map(str::to_owned)
        .collect()
}

fn write_script(path: &Path, text: &str) -> io::Result<()> {
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    let temporary = path.with_extension(format!("{}.new", std::process::id()));
    fs::write(&temporary, text)?;
    fs::set_permissions(&temporary, fs::Permissions::from_mode(0o755))?;
    fs::rename(temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_is_laid_out_and_found_by_its_path() {
        let folder = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            Images::prepare(folder.path(), Path::new("/bin/true")).unwrap();
        }
        for name in BUILT_IN {
            assert!(folder.path().join("bin").join(name).is_file());
            let inside = Path::new(FOLDER).join("bin").join(name);
            let here = (name != DNS_SERVER).then_some(name);
            assert_eq!(built_in(&inside), here);
        }
        assert_eq!(built_in(Path::new("/usr/lib/flatnet/bin/sh")), None);
        assert_eq!(built_in(Path::new("/usr/sbin/nginx")), None);
    }
}
