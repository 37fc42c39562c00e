//! `agnhost connect`: one connection, and in one word why it failed.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::time::Duration;

use super::arguments::Flags;

/// `connect [--timeout D] [--protocol tcp|udp] [--udp-data TEXT] HOST:PORT`
pub(super) fn main(args: &[String]) -> i32 {
    match try_main(args) {
        Ok(()) => 0,
        Err(text) => {
            eprintln!("{text}");
            1
        }
    }
}

fn try_main(args: &[String]) -> Result<(), String> {
    let flags = Flags::parse(args, &["timeout", "protocol", "udp-data", "sctp-data"], &[])?;
    let [target] = flags.rest.as_slice() else {
        return Err(format!(
            "Error: accepts 1 arg(s), received {}",
            flags.rest.len()
        ));
    };
    let timeout = Some(flags.duration("timeout")?).filter(|t| !t.is_zero());
    let protocol = flags.text("protocol", "tcp");
    match protocol {
        "" | "tcp" => tcp(target, timeout),
        "udp" => udp(target, timeout, flags.text("udp-data", "hostname")),
        "sctp" => Err("OTHER: protocol not supported".to_owned()),
        _ => Err("Unsupported protocol".to_owned()),
    }
}

fn tcp(target: &str, timeout: Option<Duration>) -> Result<(), String> {
    check_port(target).map_err(|e| format!("UNKNOWN: {e}"))?;
    let address = resolve(target).map_err(|e| format!("DNS: {e}"))?;
    let connected = match timeout {
        Some(timeout) => TcpStream::connect_timeout(&address, timeout),
        None => TcpStream::connect(address),
    };
    connected.map(drop).map_err(|e| match e.kind() {
        ErrorKind::TimedOut => "TIMEOUT".to_owned(),
        ErrorKind::ConnectionRefused => "REFUSED".to_owned(),
        _ => format!("OTHER: dial tcp {address}: connect: {}", cause(&e)),
    })
}

fn udp(target: &str, timeout: Option<Duration>, data: &str) -> Result<(), String> {
    let address = resolve(target).map_err(|e| format!("DNS: {e}"))?;
    let any = if address.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    };
    let other = |e: io::Error| format!("OTHER: dial udp {address}: {}", cause(&e));
    let socket = UdpSocket::bind(any).map_err(other)?;
    socket.connect(address).map_err(other)?;
    socket.set_read_timeout(timeout).map_err(other)?;
    let failed = |what: &str, e: io::Error| match e.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            format!("TIMEOUT: {what} udp {address}: i/o timeout")
        }
        ErrorKind::ConnectionRefused => {
            format!("REFUSED: {what} udp {address}: {what}: connection refused")
        }
        _ => format!("UNKNOWN: {what} udp {address}: {}", cause(&e)),
    };
    socket
        .send(format!("{data}\n").as_bytes())
        .map_err(|e| failed("write", e))?;
    match socket.recv(&mut [0; 1024]).map_err(|e| failed("read", e))? {
        0 => Err(
            "OTHER: No data received from the server. Cannot guarantee the server received \
                  the request."
                .to_owned(),
        ),
        _ => Ok(()),
    }
}

fn check_port(target: &str) -> Result<(), String> {
    let colon = target.rfind(':');
    match colon {
        None => Err(format!("address {target}: missing port in address")),
        Some(n) if target[..n].contains(':') && !target.starts_with('[') => {
            Err(format!("address {target}: too many colons in address"))
        }
        Some(_) => Ok(()),
    }
}

/// The first address of a name.
pub(super) fn resolve(target: &str) -> Result<SocketAddr, String> {
    let host = target.rfind(':').map_or(target, |n| &target[..n]);
    match target.to_socket_addrs() {
        Ok(mut addresses) => addresses
            .next()
            .ok_or(format!("lookup {host}: no such host")),
        Err(e) if e.raw_os_error().is_some() => Err(format!("lookup {host}: {}", cause(&e))),
        Err(e) if e.kind() == ErrorKind::InvalidInput => Err(format!("address {target}: {e}")),
        Err(_) => Err(format!("lookup {host}: no such host")),
    }
}

/// The kernel's words as Go writes them.
pub(super) fn cause(e: &io::Error) -> String {
    match e.raw_os_error() {
        Some(number) => nix::errno::Errno::from_raw(number).desc().to_lowercase(),
        None => e.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn connect(args: &[&str]) -> Result<(), String> {
        try_main(&args.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn the_word_says_why() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let open = listener.local_addr().unwrap().to_string();
        assert_eq!(connect(&[&open, "--timeout=1s"]), Ok(()));
        drop(listener);
        assert_eq!(connect(&[&open, "--timeout", "1s"]), Err("REFUSED".into()));
        let said = connect(&["--protocol=udp", "--timeout=1s", &open]).unwrap_err();
        assert!(said.starts_with("REFUSED: "), "{said}");
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let silent_at = silent.local_addr().unwrap().to_string();
        let said = connect(&["--protocol=udp", "--timeout=50ms", &silent_at]).unwrap_err();
        assert!(said.starts_with("TIMEOUT: "), "{said}");
        let said = connect(&["127.0.0.1"]).unwrap_err();
        assert_eq!(said, "UNKNOWN: address 127.0.0.1: missing port in address");
    }
}
