//! One rule, written as `iptables-save` prints it: addresses, links and protocol first, then the
//! matches in the order they were given.

use std::fmt::Write as _;

use ipnet::IpNet;
use model::Protocol;

use super::names::protocol;

/// A rule without its chain. Methods append; those of the head come before all else whenever
/// they are called.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rule {
    source: String,
    destination: String,
    link: String,
    protocol: &'static str,
    rest: String,
}

impl Rule {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn source(mut self, range: &IpNet) -> Self {
        self.source = address("-s", range);
        self
    }

    pub(crate) fn not_source(mut self, range: &IpNet) -> Self {
        self.source = format!("! -s {} ", range.trunc());
        self
    }

    pub(crate) fn destination(mut self, range: &IpNet) -> Self {
        self.destination = address("-d", range);
        self
    }

    pub(crate) fn not_destination(mut self, range: &IpNet) -> Self {
        self.destination = format!("! -d {} ", range.trunc());
        self
    }

    /// By the link it came in; `+` at the end stands for any rest.
    pub(crate) fn link(mut self, link: &str, is: bool) -> Self {
        self.link = format!("{}-i {link} ", if is { "" } else { "! " });
        self
    }

    /// Names of Kubernetes need no escape; whatever else came in would be a part of the rule.
    pub(crate) fn comment(mut self, text: &str) -> Self {
        let plain = |c: char| c == ' ' || (c.is_ascii_graphic() && !matches!(c, '"' | '\\'));
        self.rest.push_str("-m comment --comment \"");
        self.rest.extend(text.chars().filter(|c| plain(*c)));
        self.rest.push_str("\" ");
        self
    }

    /// Matches the protocol, and loads its match.
    pub(crate) fn protocol(mut self, of: Protocol) -> Self {
        self.protocol = protocol(of);
        let _ = write!(self.rest, "-m {} ", self.protocol);
        self
    }

    pub(crate) fn port(self, of: Protocol, port: u16) -> Self {
        let mut rule = self.protocol(of);
        let _ = write!(rule.rest, "--dport {port} ");
        rule
    }

    /// Anything else, as it is.
    pub(crate) fn with(mut self, text: &str) -> Self {
        self.rest.push_str(text);
        self.rest.push(' ');
        self
    }

    /// Ends the rule.
    pub(crate) fn jump(self, target: &str) -> String {
        self.with("-j").with(target).end()
    }

    /// Ends a rule that does nothing but tell.
    pub(crate) fn end(self) -> String {
        let mut text = String::with_capacity(self.rest.len() + 64);
        text.push_str(&self.source);
        text.push_str(&self.destination);
        text.push_str(&self.link);
        if !self.protocol.is_empty() {
            let _ = write!(text, "-p {} ", self.protocol);
        }
        text.push_str(self.rest.trim_end());
        text
    }
}

/// Nothing for a range that is every address.
fn address(option: &str, range: &IpNet) -> String {
    match range.prefix_len() {
        0 => String::new(),
        _ => format!("{option} {} ", range.trunc()),
    }
}

/// One in `n`, as the kernel keeps it (31 bits), from the ten digits that kube-proxy gives.
pub(crate) fn probability(n: usize) -> String {
    const ONE: f64 = 2_147_483_648.0;
    #[expect(
        clippy::cast_precision_loss,
        reason = "a number of endpoints is far below 2^52"
    )]
    let ten_digits = (1e10 / n as f64).round() / 1e10;
    format!("{:.11}", (ten_digits * ONE).round() / ONE)
}
