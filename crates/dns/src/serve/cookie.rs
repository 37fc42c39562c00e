//! Server cookies (RFC 7873, RFC 9018): proof that who asks receives what is sent to its
//! address. They are made from a secret alone, nothing is kept per client.

use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use super::siphash::siphash24;

/// Version, reserved bytes, time and hash.
pub(super) const SERVER_COOKIE: usize = 16;

/// Makes cookies.
///
/// Cookies are given to whoever shows that it knows of them, and none is asked back: a question
/// without one is answered all the same, as the address of a client in the cluster is its own
/// already. So an old secret needs not be known, and a new one is made with each start.
#[derive(Debug)]
pub(super) struct Cookies {
    secret: Secret,
}

/// Not to be printed.
struct Secret([u8; 16]);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

impl Default for Cookies {
    fn default() -> Self {
        Self {
            secret: Secret(rand::random()),
        }
    }
}

impl Cookies {
    /// The server's part for a client's cookie.
    pub(super) fn make(&self, client: [u8; 8], ip: IpAddr) -> [u8; SERVER_COOKIE] {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let seconds = now.map_or(0, |now| now.as_secs() as u32);
        make(&self.secret.0, client, ip, seconds)
    }
}

fn make(secret: &[u8; 16], client: [u8; 8], ip: IpAddr, seconds: u32) -> [u8; SERVER_COOKIE] {
    let mut cookie = [0; SERVER_COOKIE];
    cookie[0] = 1;
    cookie[4..8].copy_from_slice(&seconds.to_be_bytes());
    let mut input = [0; 32];
    input[..8].copy_from_slice(&client);
    input[8..16].copy_from_slice(&cookie[..8]);
    let len = match ip.to_canonical() {
        IpAddr::V4(ip) => {
            input[16..20].copy_from_slice(&ip.octets());
            20
        }
        IpAddr::V6(ip) => {
            input[16..].copy_from_slice(&ip.octets());
            32
        }
    };
    cookie[8..].copy_from_slice(&siphash24(secret, &input[..len]).to_le_bytes());
    cookie
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9018, appendix A.
    #[test]
    fn as_the_standard_shows() {
        let hex = |text: &str| -> Vec<u8> {
            (0..text.len())
                .step_by(2)
                .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
                .collect()
        };
        for (secret, client, ip, seconds, server) in [
            (
                "e5e973e5a6b2a43f48e7dc849e37bfcf",
                "2464c4abcf10c957",
                "198.51.100.100",
                1_559_731_985,
                "010000005cf79f111f8130c3eee29480",
            ),
            (
                "e5e973e5a6b2a43f48e7dc849e37bfcf",
                "fc93fc62807ddb86",
                "203.0.113.203",
                1_559_734_700,
                "010000005cf7a9acf73a7810aca2381e",
            ),
            (
                "445536bcd2513298075a5d379663c962",
                "22681ab97d52c298",
                "2001:db8:220:1:59de:d0f4:8769:82b8",
                1_559_741_961,
                "010000005cf7c609a6bb79d16625507a",
            ),
        ] {
            let secret = hex(secret).try_into().unwrap();
            let client = hex(client).try_into().unwrap();
            let made = make(&secret, client, ip.parse().unwrap(), seconds);
            assert_eq!(made.as_slice(), hex(server));
        }
    }
}
