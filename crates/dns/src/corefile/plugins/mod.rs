//! The plugins of a server block, each with the options `CoreDNS` knows.
//!
//! The order of plugins in the text means nothing: they are asked in the order `CoreDNS` was
//! built with, which is the order of the fields of [`Plugins`].

mod acl;
mod cache;
mod errors;
mod forward;
mod hosts;
mod kubernetes;
mod listen;
mod log;
mod rewrite;
mod small;
mod template;
mod tls;
mod zones;

pub use acl::{Acl, AclAction, AclRule};
pub use cache::{Cache, CacheLimits, Prefetch, Refresh, ServeStale};
pub use errors::{Consolidate, Errors, Level};
pub use forward::{Forward, HealthCheck, Policy, To, Upstream};
pub use hosts::{Hosts, HostsEntry};
pub use kubernetes::{K8sExternal, Kubeconfig, Kubernetes, PodMode};
pub use listen::{
    Bind, Health, Https, Listen, MaxTcpQueries, Pprof, Prometheus, Ready, Reload, Timeouts,
};
pub use log::{Log, LogClasses};
pub use rewrite::{
    AnswerRule, EdnsAction, EdnsData, EdnsRewrite, Matcher, NameMatch, NameRewrite, Part,
    Replacement, Rewrite, Rule,
};
pub use small::{
    AutoPath, Chaos, Dns64, Erratic, Flag, Header, HeaderRule, LoadBalance, LoadBalancePolicy,
    Metadata, SearchPath, View,
};
pub use template::{Assignment, ExtendedError, Template};
pub use tls::{ClientAuth, ClientTls, ServerTls};
pub use zones::{File, Transfer, TransferTo, ZoneFile};

use std::collections::BTreeMap;
use std::time::Duration;

use super::Zone;
use super::blocks::FileNames;
use super::lexer::Token;
use super::problem::Report;
use super::reader::{Reader, Surroundings};

/// What a server block does with a query. Fields are in the order in which plugins are asked.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plugins {
    /// `root`: the folder of relative file names. The names in the other fields are already
    /// joined to it.
    pub root: Option<String>,
    /// `metadata`: values of a query that other plugins may use, for these zones.
    pub metadata: Option<Metadata>,
    /// `cancel`: a query is given up after this time.
    pub cancel: Option<Duration>,
    /// `https`: bounds of the DNS over HTTPS listeners.
    pub https: Option<Https>,
    /// `timeouts` of connections.
    pub timeouts: Option<Timeouts>,
    /// `multisocket`: sockets per address; `Some(0)` is one per processor.
    pub multisocket: Option<u16>,
    /// `reload`: how often the file is looked at.
    pub reload: Option<Reload>,
    /// `nsid`: the server's identifier; `Some("")` is the host's name.
    pub nsid: Option<String>,
    /// `bufsize`: the largest EDNS0 buffer size let through.
    pub bufsize: Option<u16>,
    /// `bind`: listen on these addresses only; empty is all.
    pub bind: Vec<Bind>,
    /// `debug`: no recovery from a panic, verbose log.
    pub debug: bool,
    /// `ready`: the readiness endpoint.
    pub ready: Option<Ready>,
    /// `health`: the health endpoint.
    pub health: Option<Health>,
    /// `pprof`: taken, without effect.
    pub pprof: Option<Pprof>,
    /// `prometheus`: the metrics endpoint.
    pub prometheus: Option<Prometheus>,
    /// `errors`: log of what went wrong.
    pub errors: Option<Errors>,
    /// `log`: log of queries; the first rule whose zone has the name counts.
    pub log: Vec<Log>,
    /// `local`: answers for `localhost`; the value tells whether `localhost.DOMAIN` is answered
    /// too.
    pub local: Option<bool>,
    /// `dns64`: AAAA out of A.
    pub dns64: Option<Dns64>,
    /// `any`: RFC 8482 answers to ANY.
    pub any: bool,
    /// `chaos`: version.bind and the like.
    pub chaos: Option<Chaos>,
    /// `loadbalance`: the order of addresses in an answer.
    pub loadbalance: Option<LoadBalance>,
    /// `rewrite`: rules, in their order.
    pub rewrite: Vec<Rewrite>,
    /// `autopath`: the search path completed by the server.
    pub autopath: Option<AutoPath>,
    /// `acl`: who may ask for what; the first rule that matches counts.
    pub acl: Vec<Acl>,
    /// `cache`.
    pub cache: Option<Cache>,
    /// `header`: flags set or cleared.
    pub header: Option<Header>,
    /// `tls`: the certificate of the listeners for TLS and HTTPS.
    pub tls: Option<ServerTls>,
    /// `minimal`: no authority and additional sections where they are not needed.
    pub minimal: bool,
    /// `template`: answers made out of the question.
    pub template: Vec<Template>,
    /// `transfer`: who may have whole zones.
    pub transfer: Vec<Transfer>,
    /// `hosts`: names out of a hosts file.
    pub hosts: Option<Hosts>,
    /// `k8s_external`: Services by their external addresses.
    pub k8s_external: Option<K8sExternal>,
    /// `kubernetes`: the cluster's names.
    pub kubernetes: Option<Kubernetes>,
    /// `file`: zones out of master files.
    pub file: Option<File>,
    /// `loop`: the zone in which the server asks itself, to find a forwarding loop.
    pub loop_zone: Option<Zone>,
    /// `forward`: each is asked where the one before has no answer to give.
    pub forward: Vec<Forward>,
    /// `erratic`: bad answers on purpose.
    pub erratic: Option<Erratic>,
    /// `whoami`: tells the client its address.
    pub whoami: bool,
    /// `view`: the block is for queries of which this holds.
    pub view: Option<View>,
}

/// Whether a plugin of `CoreDNS` is one of this server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Support {
    Yes,
    No,
}

/// The plugins of this server.
pub const SUPPORTED: [&str; 40] = [
    "root",
    "metadata",
    "cancel",
    "https",
    "timeouts",
    "multisocket",
    "reload",
    "nsid",
    "bufsize",
    "bind",
    "debug",
    "ready",
    "health",
    "pprof",
    "prometheus",
    "errors",
    "log",
    "local",
    "dns64",
    "any",
    "chaos",
    "loadbalance",
    "rewrite",
    "autopath",
    "acl",
    "cache",
    "header",
    "tls",
    "minimal",
    "template",
    "transfer",
    "hosts",
    "k8s_external",
    "kubernetes",
    "file",
    "loop",
    "forward",
    "erratic",
    "whoami",
    "view",
];

/// Plugins of `CoreDNS` that this server has not.
const UNSUPPORTED: [&str; 22] = [
    "geoip",
    "proxyproto",
    "quic",
    "grpc_server",
    "https3",
    "trace",
    "shed",
    "dnstap",
    "siit",
    "tsig",
    "dnssec",
    "dynupdate",
    "route53",
    "azure",
    "clouddns",
    "auto",
    "secondary",
    "etcd",
    "grpc",
    "on",
    "sign",
    "nomad",
];

/// What `CoreDNS` knows by this name.
pub(super) fn known(name: &str) -> Option<(&'static str, Support)> {
    let of = |names: &[&'static str]| names.iter().find(|known| **known == name).copied();
    of(&SUPPORTED)
        .map(|name| (name, Support::Yes))
        .or_else(|| of(&UNSUPPORTED).map(|name| (name, Support::No)))
}

/// What has become of a plugin that `CoreDNS` had once.
pub(super) fn removed(name: &str) -> Option<&'static str> {
    Some(match name {
        "proxy" => "CoreDNS has removed it: use forward",
        "federation" => "CoreDNS has removed it",
        "upstream" => "CoreDNS has removed it: names are looked up without it",
        "startup" | "shutdown" => "CoreDNS has removed it: no commands are run",
        _ => return None,
    })
}

/// Names of plugins, for who looks for the nearest one.
pub(super) fn names() -> Vec<&'static str> {
    let mut names = SUPPORTED.to_vec();
    names.extend(UNSUPPORTED);
    names.push("import");
    names
}

impl Plugins {
    /// The plugins of a block: the words of each. `root` is found here and is then known to the
    /// others.
    pub(super) fn parse(
        words: &BTreeMap<&'static str, Vec<Token>>,
        files: &FileNames,
        block: &mut Surroundings,
        report: &mut Report,
    ) -> Self {
        let mut plugins = Self::default();
        if let Some(words) = words.get("root") {
            let mut reader = Reader::new("root", words, files, block, report);
            plugins.root = small::parse_root(&mut reader);
            block.root.clone_from(&plugins.root);
        }
        for (name, words) in words {
            let mut reader = Reader::new(name, words, files, block, report);
            plugins.parse_one(name, &mut reader);
        }
        plugins
    }

    fn parse_one(&mut self, name: &str, reader: &mut Reader<'_>) {
        match name {
            "metadata" => self.metadata = small::parse_metadata(reader),
            "cancel" => self.cancel = small::parse_cancel(reader),
            "https" => self.https = listen::parse_https(reader),
            "timeouts" => self.timeouts = listen::parse_timeouts(reader),
            "multisocket" => self.multisocket = small::parse_multisocket(reader),
            "reload" => self.reload = listen::parse_reload(reader),
            "nsid" => self.nsid = small::parse_nsid(reader),
            "bufsize" => self.bufsize = small::parse_bufsize(reader),
            "bind" => self.bind = listen::parse_bind(reader),
            "debug" => self.debug = small::parse_debug(reader),
            "ready" => self.ready = listen::parse_ready(reader),
            "health" => self.health = listen::parse_health(reader),
            "pprof" => self.pprof = listen::parse_pprof(reader),
            "prometheus" => self.prometheus = listen::parse_prometheus(reader),
            "errors" => self.errors = errors::parse(reader),
            "log" => self.log = log::parse(reader),
            "local" => self.local = small::parse_local(reader),
            "dns64" => self.dns64 = small::parse_dns64(reader),
            "any" => self.any = small::parse_flag(reader),
            "chaos" => self.chaos = small::parse_chaos(reader),
            "loadbalance" => self.loadbalance = small::parse_loadbalance(reader),
            "rewrite" => self.rewrite = rewrite::parse(reader),
            "autopath" => self.autopath = small::parse_autopath(reader),
            "acl" => self.acl = acl::parse(reader),
            "cache" => self.cache = cache::parse(reader),
            "header" => self.header = small::parse_header(reader),
            "tls" => self.tls = tls::parse(reader),
            "minimal" => self.minimal = small::parse_flag(reader),
            "template" => self.template = template::parse(reader),
            "transfer" => self.transfer = zones::parse_transfer(reader),
            "hosts" => self.hosts = hosts::parse(reader),
            "k8s_external" => self.k8s_external = kubernetes::parse_external(reader),
            "kubernetes" => self.kubernetes = kubernetes::parse(reader),
            "file" => self.file = zones::parse_file(reader),
            "loop" => self.loop_zone = small::parse_loop(reader),
            "forward" => self.forward = forward::parse(reader),
            "erratic" => self.erratic = small::parse_erratic(reader),
            "whoami" => self.whoami = small::parse_flag(reader),
            "view" => self.view = small::parse_view(reader),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{SUPPORTED, UNSUPPORTED, known};

    #[test]
    fn each_plugin_is_listed_once() {
        let mut all: Vec<&str> = SUPPORTED.into_iter().chain(UNSUPPORTED).collect();
        all.sort_unstable();
        let before = all.len();
        all.dedup();
        assert_eq!(all.len(), before);
        assert!(known("kubernets").is_none());
    }
}
