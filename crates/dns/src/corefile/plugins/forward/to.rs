//! The servers of a `forward`.

use std::net::{IpAddr, SocketAddr};

use super::{Forward, To, Upstream};
use crate::corefile::value::split_host_port;
use crate::corefile::zone::{Transport, transport};
use crate::corefile::{Scheme, Zone};

/// The most servers a `forward` may have; a file counts as one.
const MOST: usize = 15;

/// Puts the servers where they belong; what is wrong with them is told.
pub(super) fn servers(texts: &[&str], forward: &mut Forward) -> Vec<String> {
    let mut errors = Vec::new();
    for text in texts {
        match server(text, forward.tls_servername.as_deref()) {
            // The same server twice is one, as in CoreDNS.
            Ok(to) if forward.to.contains(&to) => {}
            Ok(to) => forward.to.push(to),
            Err(error) => errors.push(error),
        }
    }
    if texts.len() > MOST {
        errors.push(format!("{} servers; at most {MOST} are taken", texts.len()));
    }
    if let Some(name) = &forward.tls_servername {
        for to in &mut forward.to {
            if let To::Server(Upstream {
                scheme,
                server_name,
                ..
            })
            | To::Host {
                scheme,
                server_name,
                ..
            } = to
                && *scheme != Scheme::Dns
            {
                *server_name = Some(name.clone());
            }
        }
    }
    errors
}

fn server(text: &str, tls_servername: Option<&str>) -> Result<To, String> {
    let (scheme, rest) = match transport(text) {
        (Transport::Supported(scheme), rest) => (scheme, rest),
        (Transport::Unsupported(name), _) => {
            return Err(format!(
                "{text:?}: the transport {name} is not supported for upstreams (known: dns, tls, \
                 https)"
            ));
        }
    };
    if rest.is_empty() {
        return Err(format!("{text:?} names no server"));
    }
    if scheme == Scheme::Https && rest.contains('/') {
        return Err(format!(
            "{text:?} has a path; the path of DNS over HTTPS is /dns-query"
        ));
    }
    let (host, suffix, port) = parts(rest);
    let port = match port {
        None | Some("") => scheme.default_port(),
        Some(port) => port
            .parse()
            .map_err(|_| format!("the port of {text:?} is no number from 0 to 65535"))?,
    };
    let own_name = suffix.filter(|_| scheme != Scheme::Dns).map(str::to_owned);
    if let (Some(own), Some(all)) = (&own_name, tls_servername)
        && scheme == Scheme::Tls
    {
        return Err(format!(
            "{text:?} names {own:?} for its certificate, and tls_servername {all:?}: one of them \
             is too many"
        ));
    }
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(To::Server(Upstream {
            scheme,
            address: SocketAddr::new(ip, port),
            interface: suffix.filter(|_| scheme == Scheme::Dns).map(str::to_owned),
            server_name: own_name,
        }));
    }
    if rest.contains('/') || rest.starts_with('.') {
        return Ok(To::File(rest.to_owned()));
    }
    match host.parse::<Zone>() {
        Ok(_) if host.is_empty() => Err(format!("{text:?} names no server")),
        Ok(_) if !host.bytes().all(is_letter) => Err(format!(
            "{text:?} is neither an address, a file nor a name of a host"
        )),
        Ok(_) => Ok(To::Host {
            scheme,
            host: host.to_owned(),
            port,
            server_name: own_name,
        }),
        Err(error) => Err(format!(
            "{text:?} is neither an address, a file nor a name: {error}"
        )),
    }
}

/// Whether names of hosts have it.
fn is_letter(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)
}

/// Address or name, what follows `%`, port: of `A%S:P`, `[A%S]:P`, `A%S`, `A:P`, `A`.
fn parts(text: &str) -> (&str, Option<&str>, Option<&str>) {
    let (host, port) = match split_host_port(text) {
        Ok((host, port)) => (host, Some(port)),
        Err(_) => (text.trim_matches(['[', ']']), None),
    };
    match host.rsplit_once('%') {
        Some((host, suffix)) => (host.trim_end_matches(']'), Some(suffix), port),
        None => (host, None, port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        match server(text, None) {
            Ok(To::Server(one)) => format!(
                "{} {} {:?} {:?}",
                one.scheme.as_str(),
                one.address,
                one.interface,
                one.server_name
            ),
            Ok(To::File(file)) => format!("file {file}"),
            Ok(To::Host {
                scheme, host, port, ..
            }) => {
                format!("host {} {host} {port}", scheme.as_str())
            }
            Err(error) => error,
        }
    }

    #[test]
    fn servers_by_address_file_and_name() {
        for (text, expected) in [
            ("8.8.8.8", "dns 8.8.8.8:53 None None"),
            ("8.8.8.8:5353", "dns 8.8.8.8:5353 None None"),
            ("dns://8.8.8.8", "dns 8.8.8.8:53 None None"),
            ("2001:4860::8", "dns [2001:4860::8]:53 None None"),
            ("[2001:4860::8]:54", "dns [2001:4860::8]:54 None None"),
            ("[2001:4860::8]", "dns [2001:4860::8]:53 None None"),
            ("fe80::1%eth0", "dns [fe80::1]:53 Some(\"eth0\") None"),
            ("[fe80::1%eth0]:54", "dns [fe80::1]:54 Some(\"eth0\") None"),
            ("tls://9.9.9.9", "tls 9.9.9.9:853 None None"),
            (
                "tls://9.9.9.9%dns.quad9.net",
                "tls 9.9.9.9:853 None Some(\"dns.quad9.net\")",
            ),
            (
                "tls://9.9.9.9%dns.quad9.net:8853",
                "tls 9.9.9.9:8853 None Some(\"dns.quad9.net\")",
            ),
            ("https://1.1.1.1", "https 1.1.1.1:443 None None"),
            ("/etc/resolv.conf", "file /etc/resolv.conf"),
            ("./resolv.conf", "file ./resolv.conf"),
            ("dns.google", "host dns dns.google 53"),
            ("tls://dns.google:8853", "host tls dns.google 8853"),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
        for (text, expected) in [
            ("grpc://1.1.1.1", "grpc is not supported"),
            ("quic://1.1.1.1", "quic is not supported"),
            ("tls://", "names no server"),
            ("%eth0", "names no server"),
            ("https://1.1.1.1/dns-query", "has a path"),
            ("8.8.8.8:99999", "no number from 0 to 65535"),
            ("1.1.1.1 9.9.9.9", "nor a name of a host"),
            ("a..b", "neither an address, a file nor a name"),
        ] {
            assert!(shown(text).contains(expected), "{text}: {}", shown(text));
        }
    }
}
