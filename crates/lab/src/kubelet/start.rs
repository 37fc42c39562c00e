//! Starting a pod's containers: volumes, environment, image, probes.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod};

use crate::shim;

use super::dns::{self, Names};
use super::env::{self, Context, Sources};
use super::launch::{self, Launch};
use super::pod::{Message, Task};
use super::prober::{Probed, Probes};
use super::quantity;
use super::reference;
use super::state::{Phase, Refused, find};
use super::status::pod_full_name;
use super::volumes::Maker;

/// A refused container is tried again after this.
const REFUSED_RETRY: SignedDuration = SignedDuration::from_secs(5);

impl Task {
    pub(super) async fn start(&mut self, name: &str) {
        let pod = self.pod.clone();
        let Some(container) = find(&pod, name) else {
            return;
        };
        if let Err((reason, event, message)) = self.try_start(&pod, container).await {
            let now = Timestamp::now();
            let run = self.state.run(name);
            let refused = Refused {
                reason: reason.to_owned(),
                message: message.clone(),
                retry_at: now.checked_add(REFUSED_RETRY).unwrap_or(now),
            };
            run.refused = Some(refused);
            let on = match reason {
                "ContainerCreating" => reference(&pod, None),
                _ => reference(&pod, Some(name)),
            };
            let text = if event == "Failed" {
                format!("Error: {message}")
            } else {
                message
            };
            self.shared.recorder.warning(on, event, text);
        }
    }

    /// Starts a container. The error is the waiting state's reason, the Event's and the sentence.
    pub(super) async fn try_start(
        &mut self,
        pod: &Pod,
        container: &Container,
    ) -> Result<(), (&'static str, &'static str, String)> {
        let name = container.name.as_str();
        let Some(sandbox) = self.sandbox.clone() else {
            return Ok(());
        };
        let image = container.image.clone().unwrap_or_default();
        let on = || reference(pod, Some(name));
        if !launch::valid_image(&image) {
            let message = format!(
                "Failed to apply default image tag {image:?}: couldn't parse image name {image:?}: invalid reference format"
            );
            self.shared
                .recorder
                .warning(on(), "Failed", "Error: InvalidImageName");
            return Err(("InvalidImageName", "InspectFailed", message));
        }
        self.make_volumes()
            .await
            .map_err(|e| ("ContainerCreating", "FailedMount", e))?;
        let config = |message: String| ("CreateContainerConfigError", "Failed", message);
        let sources = self.sources(container).await.map_err(config)?;
        let names = self.names();
        let services = self.shared.services();
        let env = env::environment(
            container,
            &self.context(pod, &services, &sources, &names.hostname),
        );
        let env = env.map_err(config)?;
        let program = self.program(container, &image, &env);
        self.shared.recorder.normal(on(), "Pulled", format!("Container image {image:?} already present on machine and can be accessed by the pod"));
        if let Some(note) = &program.note {
            self.shared
                .recorder
                .normal(on(), "ImageStandIn", note.clone());
        }
        let attempts = self.state.run(name).attempts;
        let memory = self
            .shared
            .allocatable
            .get("memory")
            .and_then(|m| quantity::milli(m));
        let spec = Launch {
            pod,
            container,
            dir: &self.dir,
            env,
            program,
            attempt: attempts,
            node_memory: memory.unwrap_or(0) / 1000,
        }
        .spec()
        .map_err(config)?;
        self.forget_old(name, attempts).await;
        let result = sandbox.start_container(&spec).await;
        self.started(pod, container, &spec.id, result);
        Ok(())
    }

    /// Books a start, successful or not.
    pub(super) fn started(
        &mut self,
        pod: &Pod,
        container: &Container,
        id: &str,
        result: Result<i32, shim::Error>,
    ) {
        let name = container.name.as_str();
        let on = || reference(pod, Some(name));
        let now = Timestamp::now();
        let recorder = self.shared.recorder.clone();
        let run = self.state.run(name);
        if let Some(ended) = run.ended().cloned() {
            run.backoff.restart(ended.finished, now);
            run.last = Some(ended);
        }
        run.attempts += 1;
        run.refused = None;
        run.kill = None;
        run.must_stop = None;
        run.backoff_said = false;
        run.image = container.image.clone().unwrap_or_default();
        match result {
            Ok(_) => {
                recorder.normal(on(), "Created", "Container created");
                recorder.normal(on(), "Started", "Container started");
                run.phase = Phase::Running {
                    id: id.to_owned(),
                    started: now,
                };
                run.started = container.startup_probe.is_none();
                run.ready = container.readiness_probe.is_none();
                self.begin_probes(name, false);
                self.post_start_hook(container, id);
                self.note_initialized();
            }
            Err(error) => {
                let message = format!("failed to start container {name:?}: {error}");
                recorder.warning(on(), "Failed", format!("Error: {message}"));
                run.phase = Phase::Ended(super::state::Ended {
                    id: id.to_owned(),
                    code: 128,
                    signal: 0,
                    reason: "StartError".to_owned(),
                    message,
                    started: Timestamp::UNIX_EPOCH,
                    finished: now,
                });
                if matches!(error, shim::Error::Gone(_)) {
                    self.sandbox_gone();
                }
            }
        }
    }

    pub(super) fn sandbox_gone(&mut self) {
        let sender = self.sender.clone();
        // By the mailbox, so that the state changes in one place.
        if sender.try_send(Message::SandboxGone).is_err() {
            tracing::debug!("mailbox full; the watch will tell that the sandbox is gone");
        }
    }

    /// Starts the probes of a running container.
    pub fn begin_probes(&mut self, name: &str, startup_passed: bool) {
        let pod = self.pod.clone();
        let (Some(container), Some(sandbox)) = (find(&pod, name), &self.sandbox) else {
            return;
        };
        let probed = container.startup_probe.is_some()
            || container.liveness_probe.is_some()
            || container.readiness_probe.is_some();
        let Some(Phase::Running { id, started }) =
            self.state.containers.get(name).map(|run| &run.phase)
        else {
            return;
        };
        if !probed {
            return;
        }
        let host_network = pod
            .spec
            .as_ref()
            .is_some_and(|spec| spec.host_network == Some(true));
        let ips = if host_network {
            &self.shared.options.addresses
        } else {
            &self.state.ips
        };
        let probed = Probed {
            shared: self.shared.clone(),
            container: container.clone(),
            id: id.clone(),
            sandbox: sandbox.clone(),
            ip: ips.first().copied(),
            started: *started,
            pod: pod.clone(),
        };
        let probes = Probes::start(probed, startup_passed, self.sender.clone());
        self.probes.insert(name.to_owned(), probes);
    }

    /// Drops what is kept of attempts before the last one.
    pub(super) async fn forget_old(&self, name: &str, attempt: u32) {
        let Some(old) = attempt.checked_sub(2) else {
            return;
        };
        let _ = std::fs::remove_file(launch::log(&self.dir, name, old));
        if let Some(sandbox) = &self.sandbox {
            let _ = sandbox.remove(&launch::id(name, old)).await;
        }
    }

    pub(super) fn names(&self) -> Names {
        let options = &self.shared.options;
        dns::names(&self.pod, &options.node, &options.cluster_domain).unwrap_or_else(|_| Names {
            hostname: String::new(),
            domain: None,
            kernel: String::new(),
        })
    }

    pub(super) fn context<'a>(
        &'a self,
        pod: &'a Pod,
        services: &'a [env::ServiceLink],
        sources: &'a Sources,
        hostname: &'a str,
    ) -> Context<'a> {
        let host_network = pod
            .spec
            .as_ref()
            .is_some_and(|spec| spec.host_network == Some(true));
        let host_ips = &self.shared.options.addresses;
        Context {
            pod,
            pod_ips: if host_network {
                host_ips
            } else {
                &self.state.ips
            },
            host_ips,
            services,
            sources,
            hostname,
            allocatable: &self.shared.allocatable,
        }
    }

    pub(super) async fn make_volumes(&mut self) -> Result<(), String> {
        let mut tokens = std::mem::take(&mut self.tokens);
        let pod = self.pod.clone();
        let sources = Sources::default();
        let context = self.context(&pod, &[], &sources, "");
        let maker = Maker {
            client: &self.shared.client,
            objects: &self.shared.objects,
            fresh: true,
            context: &context,
            dir: &self.dir,
        };
        let made = maker.make(&mut tokens).await;
        self.tokens = tokens;
        made
    }

    /// Brings mounted ConfigMaps, Secrets, tokens and fields up to date.
    pub async fn refresh_volumes(&mut self) {
        let mut tokens = std::mem::take(&mut self.tokens);
        let pod = self.pod.clone();
        let sources = Sources::default();
        let context = self.context(&pod, &[], &sources, "");
        let maker = Maker {
            client: &self.shared.client,
            objects: &self.shared.objects,
            fresh: false,
            context: &context,
            dir: &self.dir,
        };
        if let Err(error) = maker.refresh(&mut tokens).await {
            tracing::debug!(
                pod = pod_full_name(&pod),
                error,
                "refreshing volumes; they stay as they are"
            );
        }
        self.tokens = tokens;
    }

    /// The ConfigMaps and Secrets a container's environment refers to.
    pub(super) async fn sources(&self, container: &Container) -> Result<Sources, String> {
        let (maps, secrets) = env::references(container);
        let (namespace, _) = super::key(&self.pod);
        let mut sources = Sources::default();
        let objects = &self.shared.objects;
        for name in maps {
            let map = objects.config_map(&namespace, &name, true).await?;
            sources
                .config_maps
                .insert(name, map.map(Arc::unwrap_or_clone));
        }
        for name in secrets {
            let secret = objects.secret(&namespace, &name, true).await?;
            sources
                .secrets
                .insert(name, secret.map(Arc::unwrap_or_clone));
        }
        Ok(sources)
    }

    pub(super) fn program(
        &self,
        container: &Container,
        image: &str,
        env: &[(String, String)],
    ) -> crate::images::Program {
        let words = |words: &Option<Vec<String>>| {
            env::expand_all(words.as_deref().unwrap_or_default(), env)
        };
        let ports: Vec<u16> = container
            .ports
            .iter()
            .flatten()
            .filter_map(|port| u16::try_from(port.container_port).ok())
            .collect();
        let (command, args) = (words(&container.command), words(&container.args));
        self.shared.images.resolve(image, &command, &args, &ports)
    }
}
