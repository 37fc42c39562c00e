//! Records as people read them: the presentation format of RFC 1035 and RFC 3597.

use std::fmt::Write as _;

use dns::wire::Data;

/// The content of a record.
pub fn data(data: &Data) -> String {
    match data {
        Data::A(ip) => ip.to_string(),
        Data::Aaaa(ip) => ip.to_string(),
        Data::Cname(name) | Data::Dname(name) | Data::Ns(name) | Data::Ptr(name) => {
            name.to_string()
        }
        Data::Mx(preference, host) => format!("{preference} {host}"),
        Data::Srv {
            priority,
            weight,
            port,
            target,
        } => format!("{priority} {weight} {port} {target}"),
        Data::Soa(soa) => format!(
            "{} {} {} {} {} {} {}",
            soa.primary, soa.mailbox, soa.serial, soa.refresh, soa.retry, soa.expire, soa.minimum
        ),
        Data::Txt(bytes) => strings(bytes),
        Data::Other(_, bytes) => {
            let mut text = format!("\\# {}", bytes.len());
            for (at, byte) in bytes.iter().enumerate() {
                let gap = if at == 0 { " " } else { "" };
                let _ = write!(text, "{gap}{byte:02x}");
            }
            text
        }
    }
}

/// Character strings, each in quotes.
fn strings(mut bytes: &[u8]) -> String {
    let mut all = Vec::new();
    while let Some((length, rest)) = bytes.split_first() {
        let (string, after) = rest.split_at(usize::from(*length).min(rest.len()));
        let mut text = String::from("\"");
        for byte in string {
            match byte {
                b'"' | b'\\' => {
                    text.push('\\');
                    text.push(char::from(*byte));
                }
                0x20..=0x7e => text.push(char::from(*byte)),
                _ => {
                    let _ = write!(text, "\\{byte:03}");
                }
            }
        }
        text.push('"');
        all.push(text);
        bytes = after;
    }
    all.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use dns::wire::Type;

    #[test]
    fn records_read_as_dig_prints_them() {
        let host = || "kubernetes.default.svc.cluster.local".parse().unwrap();
        let srv = Data::Srv {
            priority: 0,
            weight: 100,
            port: 443,
            target: host(),
        };
        assert_eq!(
            data(&srv),
            "0 100 443 kubernetes.default.svc.cluster.local."
        );
        assert_eq!(data(&Data::text("1.1.0")), "\"1.1.0\"");
        assert_eq!(
            data(&Data::Txt(b"\x03a\"\x01\x01b".as_slice().into())),
            "\"a\\\"\\001\" \"b\""
        );
        let other = Data::Other(Type(65280), [1, 0xab].into());
        assert_eq!(data(&other), "\\# 2 01ab");
    }
}
