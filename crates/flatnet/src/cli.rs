//! The command line: what can be said, and the help that teaches it.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;
use model::Protocol;
use model::config::{FabricMode, PodMode, ServicesMode};

mod dns;
mod monitor;
mod policy;

pub use dns::{Dns, DnsCommand, DnsQuery, DnsServe, two_dashes};
pub use monitor::Monitor;
pub use policy::{Lint, List, Matrix, Policy, Test};

const EXAMPLES: &str = "\
Examples:
  flatnet up                              a cluster of three nodes on this machine
  eval \"$(flatnet env)\"                   kubectl of this shell talks to it
  kubectl get nodes
  flatnet up --fabric host-gw             change the fabric of the live cluster
  flatnet check                           try every path there should be
  flatnet trace pod/web-0 pod/db-0:5432   each step a packet takes, and why
  flatnet monitor --drops                 what policies deny, as it happens
  flatnet down                            and away, leaving nothing";

/// The whole network of a Kubernetes cluster in one program.
///
/// On one machine `flatnet up` makes a cluster of network namespaces, with a Kubernetes
/// API that kubectl talks to. The machine's own interfaces, routes and rules are never
/// touched, and after `flatnet down` nothing is left.
#[derive(Parser, Debug)]
#[command(name = "flatnet", version, after_help = EXAMPLES, arg_required_else_help = true)]
pub struct Cli {
    /// Which cluster, where several live on one machine.
    #[arg(
        long,
        global = true,
        default_value = "flatnet",
        env = "FLATNET_NAME",
        value_name = "CLUSTER"
    )]
    pub name: String,
    /// How to print what is asked for.
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "FORMAT"
    )]
    pub output: Output,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// How to print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Table,
    /// For programs: one JSON document, its fields stable.
    Json,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Make a cluster on this machine, or complete and change the one that is there.
    Up(Up),
    /// End a cluster and remove everything it made.
    Down(Down),
    /// Print the shell line that points kubectl at the cluster: eval "$(flatnet env)".
    Env,
    /// Run kubectl against the cluster: flatnet kubectl -- get pods.
    Kubectl(Words),
    /// Nodes, functions, versions and health.
    Status,
    /// Stop, start, cut, join, add, remove or list nodes.
    Node {
        /// What to do with it.
        #[command(subcommand)]
        action: Node,
    },
    /// Run a command outside the cluster, where the internet is: flatnet client -- curl ...
    Client(Words),
    /// Try every path there should be and print the table; exit 1 if one fails.
    Check(Check),
    /// Each step a packet takes from SRC to DST, and why.
    Trace(Trace),
    /// What happens to connections, on all nodes, as it happens: which are denied, and by whom.
    Monitor(Monitor),
    /// Who may talk to whom: policies of a pod, who reaches whom, what a manifest would change, lint.
    Policy {
        /// What to ask.
        #[command(subcommand)]
        what: Policy,
    },
    /// What a node should have in its kernel, beside what it has.
    Show {
        /// What to show.
        #[command(subcommand)]
        what: Show,
    },
    /// The node's daemon: pod network, fabric, configuration. Runs until it is ended.
    Agent(Agent),
    /// The DNS server, in CoreDNS's place; or a name asked for as a pod would (dns query).
    Dns(Box<Dns>),
    /// The cluster's daemon: node CIDRs. Runs until it is ended.
    Controller(Controller),
    /// Parts of the one-machine cluster, started by `flatnet up`.
    #[command(hide = true)]
    Lab {
        /// Which part.
        #[command(subcommand)]
        part: Lab,
    },
}

/// `flatnet up`.
#[derive(Args, Debug)]
#[command(after_help = "\
A second `flatnet up` is no error: it starts what is missing and applies what changed
(--fabric, --mtu, --services, more --nodes). What a live cluster cannot change is refused by name.

Examples:
  flatnet up --nodes 5 --fabric host-gw
  flatnet up --dual-stack --services iptables
  flatnet up --subnets 2 --fabric cross-subnet
  flatnet up --name blue -f app.yaml")]
pub struct Up {
    /// How many nodes [default: 3].
    #[arg(long, value_name = "N")]
    pub nodes: Option<u16>,
    /// How packets travel between nodes [default: vxlan].
    #[arg(long, value_name = "MODE", value_parser = fabric_mode())]
    pub fabric: Option<FabricMode>,
    /// MTU of pods [default: computed from the underlay].
    #[arg(long, value_name = "BYTES")]
    pub mtu: Option<u32>,
    /// How a pod hangs on its node [default: routed].
    #[arg(long, value_name = "MODE", value_parser = pod_mode())]
    pub pod_mode: Option<PodMode>,
    /// How Services reach the kernel [default: nftables].
    #[arg(long, value_name = "MODE", value_parser = services_mode())]
    pub services: Option<ServicesMode>,
    /// IPv4 and IPv6.
    #[arg(long)]
    pub dual_stack: bool,
    /// Range of the pods, one a family [default: 10.244.0.0/16, and fd00:10:244::/56].
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    pub cluster_cidr: Vec<IpNet>,
    /// Range of the Services, one a family [default: 10.96.0.0/12, and fd00:10:96::/112].
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    pub service_cidr: Vec<IpNet>,
    /// How many underlay segments the nodes are dealt out to [default: 1].
    #[arg(long, value_name = "N")]
    pub subnets: Option<u8>,
    /// Port of the API server on 127.0.0.1 [default: the first free from 6443].
    #[arg(long, value_name = "PORT")]
    pub api_port: Option<u16>,
    /// Names the servers that resolve what is outside the cluster [default: /etc/resolv.conf].
    #[arg(long, value_name = "FILE")]
    pub resolv_conf: Option<PathBuf>,
    /// Manifests to apply once the nodes are ready: a file, a folder, or - for standard input.
    #[arg(short, long = "file", value_name = "FILE")]
    pub files: Vec<PathBuf>,
}

fn fabric_mode() -> impl clap::builder::TypedValueParser<Value = FabricMode> {
    PossibleValuesParser::new(["vxlan", "host-gw", "cross-subnet"]).map(|word| {
        match word.as_str() {
            "host-gw" => FabricMode::HostGw,
            "cross-subnet" => FabricMode::CrossSubnet,
            _ => FabricMode::Vxlan,
        }
    })
}

fn services_mode() -> impl clap::builder::TypedValueParser<Value = ServicesMode> {
    PossibleValuesParser::new(["nftables", "iptables"]).map(|word| match word.as_str() {
        "iptables" => ServicesMode::Iptables,
        _ => ServicesMode::Nftables,
    })
}

fn pod_mode() -> impl clap::builder::TypedValueParser<Value = PodMode> {
    PossibleValuesParser::new(["routed", "bridge"]).map(|word| match word.as_str() {
        "bridge" => PodMode::Bridge,
        _ => PodMode::Routed,
    })
}

/// `flatnet down`.
#[derive(Args, Debug)]
pub struct Down {
    /// End every cluster on this machine.
    #[arg(long)]
    pub all: bool,
}

/// Words passed on.
#[derive(Args, Debug)]
pub struct Words {
    /// The command's words.
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "ARGS"
    )]
    pub words: Vec<std::ffi::OsString>,
}

/// `flatnet node`.
#[derive(Subcommand, Debug)]
#[command(after_help = "\
Examples:
  flatnet node stop node2      as a power cut: processes, pods, links are gone at once
  flatnet node start node2     it boots again
  flatnet node cut node3       pulls its network cable; everything on it runs on
  flatnet node join node3      plugs it in again
  flatnet node add             a fourth node joins the live cluster")]
pub enum Node {
    /// End everything on a node at once, as a power cut does.
    Stop(NodeName),
    /// Start a node that was stopped, with its cable plugged in.
    Start(NodeName),
    /// Pull a node's network cable; everything on it runs on.
    Cut {
        /// The node.
        node: String,
        /// Plug it in again.
        #[arg(long)]
        heal: bool,
    },
    /// Plug a node's network cable in again.
    Join(NodeName),
    /// Add a node to the live cluster.
    Add {
        /// Its name [default: nodeN].
        node: Option<String>,
    },
    /// Take a node out of the live cluster, with all that runs on it.
    Remove(NodeName),
    /// The nodes, their addresses and what runs on them.
    List,
}

/// A node by name.
#[derive(Args, Debug)]
pub struct NodeName {
    /// The node.
    pub node: String,
}

/// `flatnet check`.
#[derive(Args, Debug)]
#[command(after_help = "\
The check makes its own pods in the namespace flatnet-check (two on every node, and one
with hostNetwork) and takes them away again, unless they were there before or --keep is given.")]
pub struct Check {
    /// Leave the check's pods, so that the next check is quicker.
    #[arg(long)]
    pub keep: bool,
    /// How long one try may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 3)]
    pub timeout: u64,
}

/// `flatnet trace`.
#[derive(Args, Debug)]
#[command(after_help = "\
SRC and DST are pod/NAME, pod/NAMESPACE/NAME, node/NAME, client, or an address; DST may be
svc/NAME or svc/NAMESPACE/NAME too, without a port where the Service has one, or a name that
SRC resolves first, step by step.

Examples:
  flatnet trace pod/web-0 svc/shop/cart:80
  flatnet trace client node/node1:30080
  flatnet trace pod/web-0 pod/db-0:5432
  flatnet trace pod/web-0 cart.shop:80
  flatnet trace pod/kube-system/dns-abc node/node2
  flatnet trace pod/web-0 203.0.113.10:80")]
pub struct Trace {
    /// Where the packet starts.
    pub src: String,
    /// Where it goes, with a port or without.
    pub dst: String,
    /// TCP, UDP or SCTP [default: that of the Service's port, else TCP].
    #[arg(long, value_name = "PROTOCOL", value_parser = protocol())]
    pub protocol: Option<Protocol>,
    /// IPv6 where both have both.
    #[arg(short = '6', long)]
    pub ipv6: bool,
}

fn protocol() -> impl clap::builder::TypedValueParser<Value = Protocol> {
    let words = PossibleValuesParser::new(["tcp", "udp", "sctp"]);
    words.map(|word| match word.as_str() {
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        _ => Protocol::Tcp,
    })
}

/// `flatnet show`.
#[derive(Subcommand, Debug)]
pub enum Show {
    /// Routes, neighbours and forwarding entries between nodes: plan and kernel side by side.
    Routes {
        /// The node [default: all].
        node: Option<String>,
    },
    /// Services: where they are served, their endpoints, and whether the kernel has them so.
    Services {
        /// The Service, NAME or NAMESPACE/NAME [default: all].
        service: Option<String>,
        /// The node [default: all].
        #[arg(long)]
        node: Option<String>,
    },
    /// Names: where nodes answer questions themselves, since when, and what they counted.
    Dns {
        /// The node [default: all].
        node: Option<String>,
    },
    /// Policies: the pods that some policy is about, by how many rules they are judged, and
    /// whether the kernel has them so.
    Policies {
        /// The pod, NAME or NAMESPACE/NAME [default: all].
        pod: Option<String>,
        /// The node [default: all].
        #[arg(long)]
        node: Option<String>,
    },
}

/// `flatnet agent`.
#[derive(Args, Debug)]
pub struct Agent {
    /// The node this agent serves [default: hostnameOverride of --config, else the host's name].
    #[arg(long, env = "NODE_NAME")]
    pub node: Option<String>,
    /// A KubeProxyConfiguration: what it says of Services is put over the network's configuration.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Kubeconfig [default: that of --config, else the pod's service account].
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The node's own resolver configuration: whom a Corefile's `forward . /etc/resolv.conf` asks.
    #[arg(long, value_name = "FILE", default_value = "/etc/resolv.conf")]
    pub resolv_conf: PathBuf,
    /// Remove all rules of Services, policies and names from this node, and end.
    #[arg(long)]
    pub cleanup: bool,
    /// Socket for the CNI plugin and the command line.
    #[arg(long, default_value = "/run/flatnet/agent.sock")]
    pub socket: PathBuf,
    /// Folder for the addresses given out.
    #[arg(long, default_value = "/var/lib/flatnet")]
    pub state: PathBuf,
    /// Folder for the CNI configuration.
    #[arg(long, default_value = "/etc/cni/net.d")]
    pub cni_conf: PathBuf,
}

/// `flatnet controller`.
#[derive(Args, Debug)]
pub struct Controller {
    /// Kubeconfig [default: the pod's service account].
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
}

/// `flatnet lab`.
#[derive(Subcommand, Debug)]
pub enum Lab {
    /// The Kubernetes API.
    Apiserver {
        /// Where to listen on the machine.
        #[arg(long)]
        listen: SocketAddr,
        /// The namespace of the underlay.
        #[arg(long)]
        netns: String,
        /// Where to listen in that namespace.
        #[arg(long, value_delimiter = ',')]
        listen_inside: Vec<SocketAddr>,
        /// Ranges of the Services.
        #[arg(long, value_delimiter = ',')]
        service_cidr: Vec<IpNet>,
    },
    /// Scheduler and controllers.
    Controllers,
    /// One node's kubelet.
    Kubelet {
        /// The node.
        #[arg(long)]
        node: String,
        /// Its addresses, primary first.
        #[arg(long, value_delimiter = ',')]
        node_ip: Vec<IpAddr>,
        /// Addresses of the cluster's DNS.
        #[arg(long, value_delimiter = ',')]
        cluster_dns: Vec<IpAddr>,
        /// Domain of the cluster.
        #[arg(long)]
        cluster_domain: String,
        /// Most pods on the node.
        #[arg(long, default_value_t = 110)]
        max_pods: u32,
        /// The node's resolv.conf.
        #[arg(long, default_value = "/etc/resolv.conf")]
        resolv_conf: PathBuf,
    },
    /// What the nodes resolve names by.
    Resolver {
        /// The namespace of the underlay.
        #[arg(long)]
        netns: String,
        /// Addresses in that namespace.
        #[arg(long, value_delimiter = ',')]
        listen: Vec<IpAddr>,
        /// Names the servers to ask.
        #[arg(long)]
        resolv_conf: PathBuf,
    },
    /// One pod's shim.
    Shim(Words),
    /// A built-in image.
    Image(Words),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_declaration_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn name_and_output_go_anywhere() {
        let cli =
            Cli::try_parse_from(["flatnet", "status", "--name", "blue", "-o", "json"]).unwrap();
        assert_eq!((cli.name.as_str(), cli.output), ("blue", Output::Json));
    }

    #[test]
    fn words_after_kubectl_are_kubectls() {
        let cli =
            Cli::try_parse_from(["flatnet", "kubectl", "--", "get", "pods", "-o", "yaml"]).unwrap();
        let Command::Kubectl(words) = cli.command else {
            panic!("not kubectl");
        };
        assert_eq!(words.words, ["get", "pods", "-o", "yaml"]);
    }

    #[test]
    fn an_unknown_fabric_is_answered_with_the_known_ones_and_a_guess() {
        let error = Cli::try_parse_from(["flatnet", "up", "--fabric", "hostgw"])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("'hostgw'") && error.contains("vxlan, host-gw, cross-subnet"),
            "{error}"
        );
        assert!(error.contains("'host-gw'"), "{error}");
    }

    #[test]
    fn ranges_are_read_one_a_family() {
        let cli = Cli::try_parse_from(["flatnet", "up", "--cluster-cidr", "10.1.0.0/16,fd00::/56"])
            .unwrap();
        let Command::Up(up) = cli.command else {
            panic!("not up");
        };
        assert_eq!(up.cluster_cidr.len(), 2);
        assert!(Cli::try_parse_from(["flatnet", "up", "--cluster-cidr", "10.1.0.0"]).is_err());
    }

    #[test]
    fn a_mistyped_command_is_answered_with_the_likely_one() {
        let error = Cli::try_parse_from(["flatnet", "stauts"])
            .unwrap_err()
            .to_string();
        assert!(error.contains("status"), "{error}");
    }
}
