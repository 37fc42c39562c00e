//! `flatnet dns`: the DNS server, and questions asked as a pod asks them.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `flatnet dns`.
#[derive(Args, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
It takes CoreDNS's place: the same Corefile, and its flags with one dash too (-conf, -dns.port,
-p, -pidfile, -quiet, -version, -plugins). In a cluster each node's agent answers for the DNS
Service already; this is the server of the coredns pods, and of any machine with a Corefile.

Examples:
  flatnet dns --conf Corefile                    serve; port 53 unless the Corefile says otherwise
  flatnet dns --conf Corefile --dns.port 1053    without being root
  flatnet dns --conf Corefile --kubeconfig ~/.kube/config
  flatnet dns query --from pod/web-0 backend     as the pod would ask, step by step"
)]
pub struct Dns {
    /// What to ask, instead of serving.
    #[command(subcommand)]
    pub what: Option<DnsCommand>,
    /// The server's flags.
    #[command(flatten)]
    pub serve: DnsServe,
}

/// What else `flatnet dns` does.
#[derive(Subcommand, Debug)]
pub enum DnsCommand {
    /// Ask for a name as a pod would: its resolv.conf, each step of its search path, who answered.
    Query(DnsQuery),
}

/// The server's flags.
#[derive(Args, Debug)]
pub struct DnsServe {
    /// The Corefile; `stdin` reads it from there.
    #[arg(long, default_value = "Corefile", value_name = "FILE")]
    pub conf: PathBuf,
    /// Kubeconfig for the plugin kubernetes, where the Corefile names none [default: the pod's
    /// service account].
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Port of server blocks that say none.
    #[arg(
        long = "dns.port",
        short = 'p',
        default_value_t = 53,
        value_name = "PORT"
    )]
    pub port: u16,
    /// File to write the process id to.
    #[arg(long, value_name = "FILE")]
    pub pidfile: Option<PathBuf>,
    /// Do not say at the start what is served.
    #[arg(long)]
    pub quiet: bool,
    /// Print the plugins it knows, and end.
    #[arg(long)]
    pub plugins: bool,
    /// Print the version, and end.
    #[arg(long)]
    pub version: bool,
}

/// `flatnet dns query`.
#[derive(Args, Debug)]
#[command(after_help = "\
The questions are real: they leave from inside the pod's network, to the servers of its
resolv.conf, through policies and all. Exit 1 where there is no answer.

Examples:
  flatnet dns query --from pod/web-0 backend                 the short name of a Service
  flatnet dns query --from pod/shop/web-0 backend.default
  flatnet dns query --from pod/web-0 _http._tcp.backend SRV
  flatnet dns query --from pod/web-0 10.96.0.10 PTR
  flatnet dns query --from node/node1 google.com")]
pub struct DnsQuery {
    /// Who asks: pod/NAME, pod/NAMESPACE/NAME or node/NAME.
    #[arg(long, value_name = "SRC")]
    pub from: String,
    /// The name, short as a program would give it, or with a dot at the end.
    #[arg(value_name = "NAME")]
    pub query: String,
    /// Which records.
    #[arg(value_name = "TYPE", default_value = "A")]
    pub kind: String,
}

/// CoreDNS's flags with one dash, of which clap would make letters.
const LONG: [&str; 7] = [
    "conf",
    "dns.port",
    "kubeconfig",
    "pidfile",
    "plugins",
    "quiet",
    "version",
];

/// The command line's words, with CoreDNS's flags written with two dashes.
pub fn two_dashes(words: Vec<OsString>) -> Vec<OsString> {
    if words.get(1).is_none_or(|word| word != "dns") {
        return words;
    }
    let longer = |word: OsString| {
        let flag = word.to_str().and_then(|text| text.strip_prefix('-'));
        let name = flag.map(|flag| flag.split('=').next().unwrap_or(flag));
        match name {
            Some(name) if LONG.contains(&name) => {
                let mut longer = OsString::from("-");
                longer.push(word);
                longer
            }
            _ => word,
        }
    };
    words.into_iter().map(longer).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn parsed(words: &[&str]) -> Dns {
        let words = words.iter().map(OsString::from).collect();
        let cli = Cli::try_parse_from(two_dashes(words)).unwrap();
        let Command::Dns(dns) = cli.command else {
            panic!("not dns");
        };
        *dns
    }

    #[test]
    fn corednss_flags_are_understood_as_they_are() {
        let words = [
            "flatnet",
            "dns",
            "-conf",
            "/etc/coredns/Corefile",
            "-dns.port=1053",
        ];
        let dns = parsed(&words).serve;
        assert_eq!(dns.conf, PathBuf::from("/etc/coredns/Corefile"));
        assert_eq!(dns.port, 1053);
        let dns = parsed(&["flatnet", "dns", "-p", "1053", "-quiet"]).serve;
        assert_eq!((dns.port, dns.quiet), (1053, true));
        assert!(parsed(&["flatnet", "dns", "-version"]).serve.version);
    }

    #[test]
    fn a_question_is_no_server() {
        let dns = parsed(&["flatnet", "dns", "query", "--from", "pod/a", "backend"]);
        let Some(DnsCommand::Query(query)) = dns.what else {
            panic!("not a question");
        };
        assert_eq!(
            (query.query.as_str(), query.kind.as_str()),
            ("backend", "A")
        );
    }
}
