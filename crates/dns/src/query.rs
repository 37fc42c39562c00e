//! A question on its way through the plugins, and what comes of it.

use std::net::SocketAddr;
use std::time::Instant;

use crate::wire::{Edns, EdnsOption, Question, Rcode, Record};

/// How a question came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// In a datagram.
    Udp,
    /// Over a TCP connection.
    Tcp,
    /// DNS over TLS (RFC 7858).
    Tls,
    /// DNS over HTTPS (RFC 8484).
    Https,
}

/// A question, as plugins see it: the message around it has been checked, and its response is
/// put together by the server.
#[derive(Clone, Debug)]
pub struct Query {
    /// The message's identifier, for the log.
    pub id: u16,
    /// What is asked, in the letters it was asked with.
    pub question: Question,
    /// RD.
    pub recursion_desired: bool,
    /// AD: who asks understands it in the response.
    pub authentic: bool,
    /// CD.
    pub checking_disabled: bool,
    /// What EDNS said, where it was used.
    pub edns: Option<Edns>,
    /// The serial of the zone that who asks for IXFR has: of the one SOA in the question's
    /// authority section.
    pub serial: Option<u32>,
    /// Who asks.
    pub client: SocketAddr,
    /// Where the question arrived.
    pub server: SocketAddr,
    /// How it came.
    pub transport: Transport,
    /// When it came.
    pub now: Instant,
}

/// What is answered. The question, the identifier and the flags that repeat the question's are
/// the server's to add.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Response code.
    pub rcode: Rcode,
    /// AA.
    pub authoritative: bool,
    /// AD.
    pub authentic: bool,
    /// RA.
    pub recursion_available: bool,
    /// RD, where it is not as in the question.
    pub recursion_desired: Option<bool>,
    /// TC, where the source itself was cut short; the server sets it too where it has to cut.
    pub truncated: bool,
    /// Answers.
    pub answers: Vec<Record>,
    /// Authority.
    pub authorities: Vec<Record>,
    /// Additional records.
    pub additionals: Vec<Record>,
    /// Options of EDNS, sent where the question used it.
    pub options: Vec<EdnsOption>,
    /// It comes from the watched state: it is made anew for each question, and no cache keeps it.
    pub live: bool,
    /// The plugin it comes from, by its name in the Corefile.
    pub by: &'static str,
}

/// Why a question could not be answered. Who asks learns the code only, the plugin `errors`
/// tells the rest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    /// What is answered.
    pub rcode: Rcode,
    /// The cause, in the words of `CoreDNS` where it has some.
    pub text: String,
    /// The plugin that failed.
    pub by: &'static str,
}

impl Failure {
    /// A code alone, which is no news to anybody: `errors` says nothing of it.
    pub fn code(rcode: Rcode, by: &'static str) -> Self {
        let text = String::new();
        Self { rcode, text, by }
    }

    /// SERVFAIL, and why.
    pub fn servfail(text: impl Into<String>, by: &'static str) -> Self {
        let (rcode, text) = (Rcode::SERVFAIL, text.into());
        Self { rcode, text, by }
    }
}

/// What comes of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// This is answered.
    Answer(Answer),
    /// These are, in messages one after the other: a zone transfer, so over TCP only.
    Messages(Vec<Answer>),
    /// Nothing is.
    Drop,
}
