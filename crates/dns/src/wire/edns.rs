//! What EDNS adds to a message (RFC 6891).

/// An option of EDNS, as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdnsOption {
    /// Its code.
    pub code: u16,
    /// Its content.
    pub data: Box<[u8]>,
}

impl EdnsOption {
    /// Name server identifier (RFC 5001).
    pub const NSID: u16 = 3;
    /// Client subnet (RFC 7871).
    pub const CLIENT_SUBNET: u16 = 8;
    /// Cookie (RFC 7873).
    pub const COOKIE: u16 = 10;
    /// TCP keepalive (RFC 7828).
    pub const KEEPALIVE: u16 = 11;
    /// Padding (RFC 7830).
    pub const PADDING: u16 = 12;
    /// Who answered: asked for empty, answered with the plugin's name and the server's address
    /// (of the range for local use, RFC 6891).
    pub const ANSWERED_BY: u16 = 65313;
    /// Extended error (RFC 8914).
    pub const EXTENDED_ERROR: u16 = 15;
}

/// The OPT record of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edns {
    /// The largest UDP message that whoever sent it takes.
    pub udp_size: u16,
    /// 0 is the only one there is.
    pub version: u8,
    /// DNSSEC records are wanted.
    pub dnssec_ok: bool,
    /// Options in their order.
    pub options: Vec<EdnsOption>,
}

impl Default for Edns {
    fn default() -> Self {
        Self {
            udp_size: 1232,
            version: 0,
            dnssec_ok: false,
            options: Vec::new(),
        }
    }
}

impl Edns {
    /// The first option of a code.
    pub fn option(&self, code: u16) -> Option<&[u8]> {
        let found = self.options.iter().find(|option| option.code == code);
        found.map(|option| &*option.data)
    }
}
