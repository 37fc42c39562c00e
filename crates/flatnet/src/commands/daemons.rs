//! `agent` and `controller`: daemons, here and on a real cluster.

use std::future::Future;
use std::process;

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
    let source = ::agent::Source::Kubernetes {
        kubeconfig: agent.kubeconfig,
    };
    serve(
        "agent",
        ::agent::run(::agent::Options {
            socket: agent.socket,
            state: agent.state,
            cni_conf: Some(agent.cni_conf),
            ..::agent::Options::new(agent.node, source)
        }),
    )
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
