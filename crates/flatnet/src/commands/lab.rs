//! The parts of the one-machine cluster.

use std::ffi::OsString;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use ::lab::paths::ClusterPaths;
use ::lab::{images, shim};
use clap::Parser as _;
use linux::{NetNs, run_in};
use tokio::net::TcpSocket;

use super::daemons::serve;
use super::{Failure, Outcome};
use crate::cli::{Cli, Lab, two_dashes};

/// The parts started for each pod and each container, without the command line's weight.
pub fn quick(words: &[OsString]) -> Option<ExitCode> {
    let (part, rest) = words.split_first()?;
    let code = match part.to_str()? {
        "shim" => shim::server::main(Path::new(rest.first()?)),
        "image" => {
            let words: Vec<String> = rest
                .iter()
                .map(|word| word.to_string_lossy().into_owned())
                .collect();
            let (name, args) = words.split_first()?;
            if name == images::DNS_SERVER {
                return Some(coredns(args));
            }
            images::main(name, args)
        }
        _ => return None,
    };
    Some(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

/// The image of that name: the server of `flatnet dns`, by the same flags.
fn coredns(args: &[String]) -> ExitCode {
    let words = ["flatnet", "dns"]
        .into_iter()
        .chain(args.iter().map(String::as_str));
    let words = two_dashes(words.map(OsString::from).collect());
    super::run(Cli::parse_from(words))
}

/// Runs one part to its end.
pub fn part(paths: &ClusterPaths, part: Lab) -> Outcome {
    match part {
        Lab::Apiserver {
            listen,
            netns,
            listen_inside,
            service_cidr,
        } => {
            let inside =
                NetNs::named(&netns).map_err(|error| Failure::Failed(error.to_string()))?;
            let mut listeners = vec![bind(listen)?];
            for address in &listen_inside {
                let bound = run_in(&inside, || bind(*address));
                listeners.push(bound.map_err(|error| Failure::Failed(error.to_string()))??);
            }
            let options = apiserver::Options {
                data_dir: paths.apiserver(),
                listeners,
                service_cidrs: service_cidr,
                node_ports: 30000..=32767,
                advertise: listen_inside.iter().map(SocketAddr::ip).collect(),
                advertise_port: listen_inside.first().map_or(6443, SocketAddr::port),
                connect: connect_in(inside),
            };
            serve("apiserver", async {
                let _server = apiserver::Server::start(options).await?;
                std::future::pending::<Result<(), apiserver::StartError>>().await
            })
        }
        Lab::Controllers => serve(
            "controllers",
            ::lab::controllers::run(::lab::controllers::Options {
                kubeconfig: paths.controllers_kubeconfig(),
                // The same after a restart: it takes its own lease up at once.
                identity: format!("lab-{}", paths.name),
            }),
        ),
        Lab::Kubelet {
            node,
            node_ip,
            cluster_dns,
            cluster_domain,
            max_pods,
            resolv_conf,
        } => {
            let program = std::env::current_exe()
                .map_err(|error| Failure::Failed(format!("find the flatnet program: {error}")))?;
            let mount = ::lab::cluster::cgroup::mount()
                .map_err(|error| Failure::Failed(error.to_string()))?;
            let files = paths.node(&node);
            let options = ::lab::kubelet::Options {
                addresses: node_ip,
                kubeconfig: files.kubelet_kubeconfig(),
                cgroup: mount.join(paths.node_cgroup(&node)),
                cluster_dns,
                cluster_domain,
                images: paths.images(),
                cni_path: cni_path(&program),
                program,
                port: ::lab::cluster::plan::KUBELET_PORT,
                certificate: files.kubelet_certificate(),
                key: files.kubelet_key(),
                client_ca: paths.pki().join("ca.crt"),
                max_pods,
                resolv_conf,
                paths: files,
                node,
            };
            serve("kubelet", ::lab::kubelet::run(options))
        }
        Lab::Resolver {
            netns,
            listen,
            resolv_conf,
        } => {
            let inside =
                NetNs::named(&netns).map_err(|error| Failure::Failed(error.to_string()))?;
            serve(
                "resolver",
                ::lab::resolver::run(::lab::resolver::Options {
                    listen,
                    inside,
                    resolv_conf,
                }),
            )
        }
        Lab::Shim(words) | Lab::Image(words) => Err(Failure::Usage(format!(
            "not a part's words: {:?}",
            words.words
        ))),
    }
}

/// Where CNI plugins are: `CNI_PATH`, otherwise beside the program.
fn cni_path(program: &Path) -> Vec<PathBuf> {
    match std::env::var_os("CNI_PATH").filter(|path| !path.is_empty()) {
        Some(path) => std::env::split_paths(&path).collect(),
        None => program.parent().map(Path::to_owned).into_iter().collect(),
    }
}

fn bind(address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address)
        .map_err(|error| Failure::Failed(format!("listen on {address}: {error}")))
}

/// Reaches kubelets: the socket is made in the underlay's namespace and stays there.
fn connect_in(netns: NetNs) -> apiserver::Connect {
    let netns = Arc::new(netns);
    Arc::new(move |address, port| {
        let netns = netns.clone();
        Box::pin(async move {
            let made = tokio::task::spawn_blocking(move || {
                run_in(&netns, || {
                    if address.is_ipv4() {
                        TcpSocket::new_v4()
                    } else {
                        TcpSocket::new_v6()
                    }
                })
            });
            let socket = made.await?.map_err(std::io::Error::other)??;
            socket.connect(SocketAddr::new(address, port)).await
        })
    })
}
