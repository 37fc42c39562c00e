//! Whole messages.

use std::fmt;

use super::{Class, Edns, Name, Reader, Record, Type, WireError, Writer};

/// What a message asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Opcode(pub u8);

impl Opcode {
    /// A question.
    pub const QUERY: Self = Self(0);
    /// A zone has changed (RFC 1996).
    pub const NOTIFY: Self = Self(4);
    /// A change of a zone (RFC 2136).
    pub const UPDATE: Self = Self(5);
}

/// What came of a question; with EDNS 12 bits.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rcode(pub u16);

#[allow(missing_docs, reason = "each is what its RFC says, by its own name")]
impl Rcode {
    pub const NOERROR: Self = Self(0);
    pub const FORMERR: Self = Self(1);
    pub const SERVFAIL: Self = Self(2);
    pub const NXDOMAIN: Self = Self(3);
    pub const NOTIMP: Self = Self(4);
    pub const REFUSED: Self = Self(5);
    pub const YXDOMAIN: Self = Self(6);
    pub const YXRRSET: Self = Self(7);
    pub const NXRRSET: Self = Self(8);
    pub const NOTAUTH: Self = Self(9);
    pub const NOTZONE: Self = Self(10);
    pub const BADVERS: Self = Self(16);
    pub const BADCOOKIE: Self = Self(23);
}

const RCODES: [(Rcode, &str); 13] = [
    (Rcode::NOERROR, "NOERROR"),
    (Rcode::FORMERR, "FORMERR"),
    (Rcode::SERVFAIL, "SERVFAIL"),
    (Rcode::NXDOMAIN, "NXDOMAIN"),
    (Rcode::NOTIMP, "NOTIMP"),
    (Rcode::REFUSED, "REFUSED"),
    (Rcode::YXDOMAIN, "YXDOMAIN"),
    (Rcode::YXRRSET, "YXRRSET"),
    (Rcode::NXRRSET, "NXRRSET"),
    (Rcode::NOTAUTH, "NOTAUTH"),
    (Rcode::NOTZONE, "NOTZONE"),
    (Rcode::BADVERS, "BADVERS"),
    (Rcode::BADCOOKIE, "BADCOOKIE"),
];

impl Rcode {
    /// By its name, in any case.
    pub fn from_word(word: &str) -> Option<Self> {
        let found = RCODES
            .iter()
            .find(|(_, name)| name.eq_ignore_ascii_case(word));
        found.map(|(code, _)| *code)
    }
}

impl fmt::Display for Rcode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match RCODES.iter().find(|(code, _)| code == self) {
            Some((_, word)) => f.write_str(word),
            None => write!(f, "RCODE{}", self.0),
        }
    }
}

impl fmt::Debug for Rcode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The first twelve bytes, without the counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Chosen by who asks.
    pub id: u16,
    /// QR: it is a response.
    pub response: bool,
    /// What is asked for.
    pub opcode: Opcode,
    /// AA.
    pub authoritative: bool,
    /// TC: there is more, over TCP.
    pub truncated: bool,
    /// RD.
    pub recursion_desired: bool,
    /// RA.
    pub recursion_available: bool,
    /// AD (RFC 4035).
    pub authentic: bool,
    /// CD (RFC 4035).
    pub checking_disabled: bool,
    /// What came of it; more than 15 only with EDNS.
    pub rcode: Rcode,
}

impl Default for Header {
    fn default() -> Self {
        Self {
            id: 0,
            response: false,
            opcode: Opcode::QUERY,
            authoritative: false,
            truncated: false,
            recursion_desired: false,
            recursion_available: false,
            authentic: false,
            checking_disabled: false,
            rcode: Rcode::NOERROR,
        }
    }
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Question {
    /// About which name, in the letters it was asked with.
    pub name: Name,
    /// Which records.
    pub kind: Type,
    /// Class.
    pub class: Class,
}

/// A whole message. The OPT record is taken out of the additional records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Header.
    pub header: Header,
    /// The question, where there is one; messages with more are refused.
    pub question: Option<Question>,
    /// Answers.
    pub answers: Vec<Record>,
    /// Authority.
    pub authorities: Vec<Record>,
    /// Additional records but OPT.
    pub additionals: Vec<Record>,
    /// OPT.
    pub edns: Option<Edns>,
}

impl Message {
    /// Reads a message.
    ///
    /// # Errors
    /// What is not as RFC 1035 and RFC 6891 say.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        Reader::new(bytes).message()
    }

    /// Appends the message to `out`, at most `limit` bytes of it. Where it does not fit, records
    /// are left out from the end and TC is set.
    pub fn write(&self, limit: usize, out: &mut Vec<u8>) {
        Writer::new(out, limit).message(self);
    }

    /// Its bytes, without a limit but the format's own.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(512);
        self.write(usize::from(u16::MAX), &mut bytes);
        bytes
    }
}
