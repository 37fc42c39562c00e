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

use std::time::Duration;

use super::Zone;

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
