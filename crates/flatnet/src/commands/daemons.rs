//! `agent` and `controller`: daemons, here and on a real cluster.

use std::future::Future;
use std::path::Path;
use std::process;

use model::config::ProxyConfig;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::{Failure, Outcome};
use crate::cli;

/// Logs to standard error, one line an event; `FLATNET_LOG` says how much.
pub fn log() {
    let filter = EnvFilter::try_from_env("FLATNET_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .try_init();
}

/// Runs a daemon until it ends or is told to (SIGTERM, SIGINT).
pub fn serve<E: ToString>(name: &str, work: impl Future<Output = Result<(), E>>) -> Outcome {
    log();
    tracing::info!(
        daemon = name,
        version = env!("CARGO_PKG_VERSION"),
        pid = process::id(),
        "starting"
    );
    let runtime = super::runtime()?;
    let ended = runtime.block_on(async {
        let told = |kind| signal(kind).map_err(|error| Failure::Failed(format!("watch for signals: {error}")));
        let (mut term, mut int) = (told(SignalKind::terminate())?, told(SignalKind::interrupt())?);
        tokio::select! {
            result = work => result.map_err(|error| Failure::Failed(format!("{name}: {}", error.to_string()))),
            _ = term.recv() => Ok(()),
            _ = int.recv() => Ok(()),
        }
    });
    match &ended {
        Ok(()) => tracing::info!(daemon = name, "ended"),
        Err(Failure::Failed(why)) => tracing::error!(daemon = name, "{why}"),
        Err(_) => {}
    }
    // Blocking calls under way (a read, a wait for a child) must not hold the end back.
    runtime.shutdown_background();
    ended
}

/// The node's daemon.
pub fn agent(agent: cli::Agent) -> Outcome {
    if agent.cleanup {
        log();
        return ::agent::cleanup().map_err(|error| Failure::Failed(error.to_string()));
    }
    let proxy = match &agent.config {
        Some(file) => Some(proxy_config(file)?),
        None => None,
    };
    let (hostname, kubeconfig) = proxy.as_ref().map_or((None, None), |proxy| {
        (proxy.hostname.clone(), proxy.kubeconfig.clone())
    });
    let node = match agent.node.or(hostname) {
        Some(node) => node,
        None => own_name()?,
    };
    let source = ::agent::Source::Kubernetes {
        kubeconfig: agent.kubeconfig.or(kubeconfig.map(Into::into)),
    };
    let mut options = ::agent::Options {
        socket: agent.socket,
        state: agent.state,
        cni_conf: Some(agent.cni_conf),
        resolv_conf: agent.resolv_conf,
        ..::agent::Options::new(node, source)
    };
    if let Some(proxy) = proxy {
        options = options.with_proxy(proxy);
    }
    serve("agent", ::agent::run(options))
}

fn proxy_config(file: &Path) -> Result<ProxyConfig, Failure> {
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failure::Failed(format!("read {name}: {error}")))?;
    Ok(api::convert::proxy_config(&name, &text)?)
}

/// The host's name, as a node's is by default.
fn own_name() -> Result<String, Failure> {
    let name = nix::unistd::gethostname().ok();
    let name = name.and_then(|name| name.into_string().ok());
    name.map(|name| name.trim().to_lowercase())
        .filter(|name| !name.is_empty())
        .ok_or_else(|| Failure::Failed("this host has no name; pass --node NAME".into()))
}

/// The cluster's daemon.
pub fn controller(controller: cli::Controller) -> Outcome {
    serve("controller", async move {
        let client = api::client(controller.kubeconfig.as_deref(), "flatnet-controller").await?;
        ::controller::run(
            client,
            ::controller::Options {
                identity: identity(),
            },
        )
        .await
    })
}

/// Who leads: the pod or the machine; the same after a restart.
fn identity() -> String {
    let host = nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok());
    host.unwrap_or_else(|| "flatnet".into())
}
