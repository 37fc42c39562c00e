//! What the machine must be able to do, tried in scratch namespaces before anything is
//! made: each missing capability is named at once, with what to do.

use std::fs;
use std::path::Path;

use linux::link::{NewKind, NewLink, VethEnd};
use linux::{NetNs, Netlink, Vxlan, run_in};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{self, AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType};

use super::cgroup;
use super::error::{Error, Lack, Result};
use super::process::Programs;
use super::spec::{ClusterSpec, SpecError};
use crate::resolver;

/// Checks everything; `scratch` is a folder that may be mounted over, unseen by others.
pub fn check(spec: &ClusterSpec, programs: &Programs, scratch: &Path) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::Machine(vec![Lack {
            what: "root".into(),
            cause: "network namespaces and cgroups need it, and this is an ordinary user".into(),
            next: "run it as root, for example: sudo flatnet up".into(),
        }]));
    }
    let mut lacks = Vec::new();
    lacks.extend(cgroups());
    lacks.extend(plugin(programs));
    lacks.extend(network(spec));
    lacks.extend(overlay(scratch));
    if lacks.is_empty() {
        return Ok(());
    }
    Err(Error::Machine(lacks))
}

/// A `resolv.conf` that was asked for can be read, and names a server.
pub fn resolv_conf(file: &Path) -> Result<()> {
    let flag = "--resolv-conf";
    let text = fs::read_to_string(file).map_err(|error| SpecError {
        flag,
        message: format!("{}: {error}", file.display()),
    })?;
    if resolver::servers(&text).is_empty() {
        let message = format!(
            "{} has no line `nameserver ADDRESS`; one is needed to resolve names outside the cluster",
            file.display()
        );
        return Err(SpecError { flag, message }.into());
    }
    Ok(())
}

fn cgroups() -> Option<Lack> {
    let mount = match cgroup::mount() {
        Ok(mount) => mount,
        Err(Error::Machine(mut lacks)) => return lacks.pop(),
        Err(error) => return Some(lack("cgroup v2", error, "mount /proc")),
    };
    let folder = mount.join("flatnet");
    if let Err(error) = fs::create_dir_all(&folder) {
        let next = "mount cgroup2 writable; in a container, give it its own cgroup namespace";
        return Some(lack(
            "cgroup v2",
            format!("make {}: {error}", folder.display()),
            next,
        ));
    }
    let missing = !folder.join("cgroup.kill").exists();
    missing.then(|| {
        lack(
            "cgroup.kill",
            "this kernel's cgroup v2 has none",
            "boot a kernel of 5.14 or newer",
        )
    })
}

fn plugin(programs: &Programs) -> Option<Lack> {
    let path = programs.cni.join("flatnet-cni");
    let next = "build it: cargo build --release -p cni";
    (!path.exists()).then(|| {
        lack(
            "flatnet-cni",
            format!("{} is not there", path.display()),
            next,
        )
    })
}

/// Tries each kind of link, and nftables, in a namespace nobody else sees.
fn network(spec: &ClusterSpec) -> Vec<Lack> {
    let scratch = NetNs::anonymous().and_then(|netns| Ok((Netlink::open_in(&netns)?, netns)));
    let (mut links, netns) = match scratch {
        Ok(scratch) => scratch,
        Err(error) => {
            let next = "in a container, start it privileged (CAP_SYS_ADMIN)";
            return vec![lack("network namespaces", error, next)];
        }
    };
    let veth = NewKind::Veth(VethEnd {
        name: "fn-try1",
        ..VethEnd::default()
    });
    let vxlan = NewKind::Vxlan(Vxlan {
        id: 1,
        port: 8472,
        local: None,
        parent: None,
        learning: false,
    });
    let mut lacks = Vec::new();
    for (name, module, kind) in [
        ("fn-try0", "veth", veth),
        ("fn-try2", "bridge", NewKind::Bridge),
        ("fn-try3", "vxlan", vxlan),
    ] {
        if let Err(error) = links.create_link(&NewLink::new(name, kind)) {
            let next = format!("load it: modprobe {module}; or boot a kernel that has it");
            lacks.push(lack(module, error, &next));
        }
    }
    let nft = run_in(&netns, nftables).map_err(|error| error.to_string());
    if let Err(error) = nft.and_then(|asked| asked) {
        lacks.push(lack(
            "nftables",
            error,
            "load it: modprobe nf_tables; or boot a kernel that has it",
        ));
    }
    if spec.has_v6() && !Path::new("/proc/sys/net/ipv6").exists() {
        lacks.push(lack(
            "IPv6",
            "this kernel has it switched off",
            "boot without ipv6.disable=1, or leave out --dual-stack",
        ));
    }
    lacks
}

/// Asks nf_tables for its generation: the smallest question it answers.
fn nftables() -> std::result::Result<(), String> {
    const GET_GENERATION: [u8; 20] = {
        let mut request = [0; 20];
        request[0] = 20;
        // Subsystem nf_tables, message 16.
        request[4] = 16;
        request[5] = 10;
        // NLM_F_REQUEST
        request[6] = 1;
        request
    };
    const ERROR: u8 = 2;
    let open = || {
        let socket = socket::socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkNetFilter,
        )?;
        use std::os::fd::AsRawFd as _;
        socket::send(socket.as_raw_fd(), &GET_GENERATION, MsgFlags::empty())?;
        let mut answer = [0; 256];
        let length = socket::recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        Ok::<_, nix::Error>((answer, length))
    };
    let (answer, length) = open().map_err(|errno| errno.desc().to_owned())?;
    if length >= 20 && answer[4] == ERROR && answer[5] == 0 {
        let code = i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]);
        return Err(nix::Error::from_raw(-code).desc().to_owned());
    }
    Ok(())
}

/// Mounts an overlay on a tmpfs in a mount namespace of a thread of its own.
fn overlay(scratch: &Path) -> Option<Lack> {
    let tried = std::thread::scope(|scope| scope.spawn(|| try_overlay(scratch)).join());
    let cause = match tried {
        Ok(Ok(())) => return None,
        Ok(Err(cause)) => cause,
        Err(_) => "the test itself failed".into(),
    };
    Some(lack(
        "overlay mounts",
        cause,
        "load it: modprobe overlay; in a container, start it privileged",
    ))
}

fn try_overlay(scratch: &Path) -> std::result::Result<(), String> {
    let none = None::<&str>;
    let said = |what: &'static str| move |errno: nix::Error| format!("{what}: {}", errno.desc());
    unshare(CloneFlags::CLONE_NEWNS).map_err(said("mount namespace"))?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .map_err(said("make / private"))?;
    mount(
        Some("tmpfs"),
        scratch,
        Some("tmpfs"),
        MsFlags::empty(),
        none,
    )
    .map_err(said("tmpfs"))?;
    for folder in ["lower", "upper", "work", "root"] {
        fs::create_dir(scratch.join(folder)).map_err(|error| error.to_string())?;
    }
    let at = |folder: &str| scratch.join(folder).display().to_string();
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        at("lower"),
        at("upper"),
        at("work")
    );
    mount(
        Some("overlay"),
        &scratch.join("root"),
        Some("overlay"),
        MsFlags::empty(),
        Some(options.as_str()),
    )
    .map_err(said("overlay"))
}

fn lack(what: &str, cause: impl ToString, next: &str) -> Lack {
    Lack {
        what: what.into(),
        cause: cause.to_string(),
        next: next.into(),
    }
}
