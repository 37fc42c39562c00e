//! From a pod's container to what the runtime starts. Pure but for looking at sub paths.

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

use crate::images::Program;
use crate::shim::{ContainerSpec, Mount};

use super::env;
use super::quantity;
use super::status::qos_class;
use super::volumes;

/// Files of a pod's folder that every container sees.
pub const HOSTS_FILE: &str = "etc-hosts";
/// The pod's `resolv.conf`.
pub const RESOLV_FILE: &str = "resolv.conf";

/// Why a container cannot be started as written: the message of `CreateContainerConfigError`.
pub type Refusal = String;

/// What a container's start needs beside its spec.
pub struct Launch<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// The container.
    pub container: &'a Container,
    /// The pod's folder.
    pub dir: &'a Path,
    /// The container's environment.
    pub env: Vec<(String, String)>,
    /// The image's program.
    pub program: Program,
    /// Restarts so far.
    pub attempt: u32,
    /// Memory of the node, in bytes.
    pub node_memory: i128,
}

/// The runtime's id of an attempt.
pub fn id(container: &str, attempt: u32) -> String {
    format!("{container}-{attempt}")
}

/// The log file of an attempt.
pub fn log(dir: &Path, container: &str, attempt: u32) -> PathBuf {
    dir.join("logs")
        .join(container)
        .join(format!("{attempt}.log"))
}

impl Launch<'_> {
    /// The specification for the runtime.
    pub fn spec(self) -> Result<ContainerSpec, Refusal> {
        let container = self.container;
        let empty = PodSpec::default();
        let spec = self.pod.spec.as_ref().unwrap_or(&empty);
        let security = container.security_context.as_ref();
        let user = user(self.pod, spec, container)?;
        let mut mounts = self.program.mounts.clone();
        mounts.extend(self.network_files());
        mounts.extend(self.volume_mounts(spec)?);
        // Parents before children: by depth, otherwise in the order written.
        mounts.sort_by_key(|mount| mount.target.components().count());
        let capabilities = security.and_then(|security| security.capabilities.as_ref());
        let list = |list: Option<&Vec<String>>| list.cloned().unwrap_or_default();
        let working_dir = container.working_dir.as_deref().unwrap_or_default();
        let message_path = container.termination_message_path.as_deref();
        Ok(ContainerSpec {
            id: id(&container.name, self.attempt),
            env: merged(&self.program.env, &self.env),
            argv: self.program.argv,
            cwd: PathBuf::from(env::expand_all(&[working_dir.to_owned()], &self.env).concat()),
            mounts,
            links: self.program.links,
            log: log(self.dir, &container.name, self.attempt),
            tty: container.tty == Some(true),
            stdin: container.stdin == Some(true),
            stdin_once: container.stdin_once == Some(true),
            user,
            groups: groups(spec),
            privileged: security.and_then(|s| s.privileged) == Some(true),
            cap_add: list(capabilities.and_then(|c| c.add.as_ref())),
            cap_drop: list(capabilities.and_then(|c| c.drop.as_ref())),
            allow_privilege_escalation: security.and_then(|s| s.allow_privilege_escalation)
                != Some(false),
            read_only_root: security.and_then(|s| s.read_only_root_filesystem) == Some(true),
            oom_score_adj: oom_score(spec, container, self.node_memory),
            termination_message: PathBuf::from(message_path.unwrap_or("/dev/termination-log")),
            labels: [
                ("name".to_owned(), container.name.clone()),
                ("attempt".to_owned(), self.attempt.to_string()),
                (
                    "image".to_owned(),
                    container.image.clone().unwrap_or_default(),
                ),
            ]
            .into(),
        })
    }

    /// `/etc/hosts` and `/etc/resolv.conf`, unless the container mounts its own.
    fn network_files(&self) -> Vec<Mount> {
        let mounted = |path: &str| {
            let mut own = self.container.volume_mounts.iter().flatten();
            own.any(|mount| mount.mount_path.trim_end_matches('/') == path)
        };
        [
            ("/etc/hosts", HOSTS_FILE),
            ("/etc/resolv.conf", RESOLV_FILE),
        ]
        .into_iter()
        .filter(|(path, _)| !mounted(path))
        .map(|(path, file)| Mount {
            source: self.dir.join(file),
            target: PathBuf::from(path),
            read_only: false,
        })
        .collect()
    }

    fn volume_mounts(&self, spec: &PodSpec) -> Result<Vec<Mount>, Refusal> {
        let mut mounts = Vec::new();
        for mount in self.container.volume_mounts.iter().flatten() {
            let mut known = spec.volumes.iter().flatten();
            let volume = known.find(|volume| volume.name == mount.name);
            let volume = volume.ok_or_else(|| format!("volume {:?} not found", mount.name))?;
            let folder = volumes::path(self.dir, volume);
            let sub = match (&mount.sub_path_expr, &mount.sub_path) {
                (Some(expression), _) => {
                    env::expand_all(std::slice::from_ref(expression), &self.env).concat()
                }
                (None, Some(sub)) => sub.clone(),
                (None, None) => String::new(),
            };
            let source = match sub.is_empty() {
                true => folder,
                false => volumes::sub_path(&folder, &sub).map_err(|error| {
                    format!(
                        "failed to prepare subPath for volumeMount {:?} of container {:?}: {error}",
                        mount.name, self.container.name
                    )
                })?,
            };
            let from_api = volume.empty_dir.is_none() && volume.host_path.is_none();
            mounts.push(Mount {
                source,
                target: PathBuf::from(&mount.mount_path),
                read_only: mount.read_only == Some(true) || from_api,
            });
        }
        Ok(mounts)
    }
}

/// The image's environment with the pod's on top.
fn merged(image: &[(String, String)], pod: &[(String, String)]) -> Vec<(String, String)> {
    let mut env: Vec<(String, String)> = image
        .iter()
        .filter(|(name, _)| !pod.iter().any(|(other, _)| other == name))
        .cloned()
        .collect();
    env.extend(pod.iter().cloned());
    env
}

fn user(pod: &Pod, spec: &PodSpec, container: &Container) -> Result<Option<(u32, u32)>, Refusal> {
    let refused = |why: &str| {
        let text = |part: &Option<String>| part.clone().unwrap_or_default();
        let meta = &pod.metadata;
        let (name, namespace, uid) = (text(&meta.name), text(&meta.namespace), text(&meta.uid));
        Err(format!(
            "{why} (pod: \"{name}_{namespace}({uid})\", container: {})",
            container.name
        ))
    };
    let pod = spec.security_context.as_ref();
    let own = container.security_context.as_ref();
    let user = own
        .and_then(|s| s.run_as_user)
        .or(pod.and_then(|s| s.run_as_user));
    let group = own
        .and_then(|s| s.run_as_group)
        .or(pod.and_then(|s| s.run_as_group));
    let non_root = own
        .and_then(|s| s.run_as_non_root)
        .or(pod.and_then(|s| s.run_as_non_root));
    if non_root == Some(true) {
        match user {
            None => return refused("container has runAsNonRoot and image will run as root"),
            Some(0) => return refused("container's runAsUser breaks non-root policy"),
            Some(_) => {}
        }
    }
    let number = |value: i64| {
        u32::try_from(value).map_err(|_| format!("user or group {value} is out of range"))
    };
    match (user, group) {
        (None, None) => Ok(None),
        (user, group) => Ok(Some((
            number(user.unwrap_or(0))?,
            number(group.unwrap_or(0))?,
        ))),
    }
}

fn groups(spec: &PodSpec) -> Vec<u32> {
    let Some(security) = spec.security_context.as_ref() else {
        return Vec::new();
    };
    let more = security.supplemental_groups.iter().flatten().copied();
    let groups = security.fs_group.into_iter().chain(more);
    groups
        .filter_map(|group| u32::try_from(group).ok())
        .collect()
}

/// The kernel's preference when memory runs out, by quality of service.
fn oom_score(spec: &PodSpec, container: &Container, node_memory: i128) -> i32 {
    match qos_class(spec) {
        "Guaranteed" => -997,
        "BestEffort" => 1000,
        _ => {
            let requests = container
                .resources
                .as_ref()
                .and_then(|r| r.requests.as_ref());
            let memory = requests.and_then(|requests| requests.get("memory"));
            let bytes = memory.and_then(|q| quantity::milli(&q.0)).unwrap_or(0) / 1000;
            let share = 1000 - 1000 * bytes / node_memory.max(1);
            i32::try_from(share.clamp(3, 999)).unwrap_or(999)
        }
    }
}

/// True for an image reference that can be read at all.
pub fn valid_image(image: &str) -> bool {
    let (name, digest) = match image.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (image, None),
    };
    if digest.is_some_and(|digest| !digest.contains(':') || digest.ends_with(':')) {
        return false;
    }
    let tail = name.rsplit('/').next().unwrap_or(name);
    let (path, tag) = match tail.split_once(':') {
        Some((_, tag)) => (&name[..name.len() - tag.len() - 1], Some(tag)),
        None => (name, None),
    };
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if tag.is_some_and(|tag| tag.is_empty() || tag.len() > 128 || !tag.chars().all(word)) {
        return false;
    }
    let mut parts = path.split('/').peekable();
    let mut first = true;
    let mut fine = !path.is_empty() && path.len() <= 255;
    while let Some(part) = parts.next() {
        // The first part is a host where it looks like one.
        let host =
            first && parts.peek().is_some() && (part.contains(['.', ':']) || part == "localhost");
        first = false;
        let lower =
            |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '.' | '-');
        let ends = |c: char| c.is_ascii_alphanumeric();
        fine &= !part.is_empty()
            && part.starts_with(ends)
            && part.ends_with(ends)
            && match host {
                true => part.chars().all(|c| word(c) || c == ':'),
                false => part.chars().all(lower),
            };
    }
    fine
}

/// What stands for the image in a status: its full name.
pub fn image_id(image: &str) -> String {
    let first = image.split('/').next().unwrap_or_default();
    let hosted = image.contains('/') && (first.contains(['.', ':']) || first == "localhost");
    let full = match (hosted, image.contains('/')) {
        (true, _) => image.to_owned(),
        (false, true) => format!("docker.io/{image}"),
        (false, false) => format!("docker.io/library/{image}"),
    };
    let tail = full.rsplit('/').next().unwrap_or_default();
    match tail.contains([':', '@']) {
        true => full,
        false => format!("{full}:latest"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn image_references_are_checked_as_the_distribution_project_writes_them() {
        for good in [
            "nginx",
            "nginx:1.27",
            "library/nginx",
            "registry.k8s.io/e2e-test-images/agnhost:2.53",
            "localhost:5000/a/b:t",
            "nginx@sha256:0123",
        ] {
            assert!(valid_image(good), "{good}");
        }
        for bad in [
            "",
            "Nginx",
            "nginx:",
            "a//b",
            "-x",
            "nginx:t g",
            "nginx@sha256",
            "a/",
        ] {
            assert!(!valid_image(bad), "{bad}");
        }
        assert_eq!(image_id("nginx"), "docker.io/library/nginx:latest");
        assert_eq!(
            image_id("nicolaka/netshoot"),
            "docker.io/nicolaka/netshoot:latest"
        );
        assert_eq!(
            image_id("registry.k8s.io/pause:3.9"),
            "registry.k8s.io/pause:3.9"
        );
    }

    fn launch(pod: &Pod) -> Result<ContainerSpec, Refusal> {
        Launch {
            pod,
            container: &pod.spec.as_ref().unwrap().containers[0],
            dir: Path::new("/pods/u"),
            env: vec![("A".to_owned(), "b".to_owned())],
            program: Program {
                argv: vec!["x".to_owned()],
                env: vec![
                    ("A".to_owned(), "image".to_owned()),
                    ("B".to_owned(), "c".to_owned()),
                ],
                ..Program::default()
            },
            attempt: 2,
            node_memory: 1 << 30,
        }
        .spec()
    }

    #[test]
    fn mounts_user_and_environment_reach_the_runtime() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {
            "securityContext": {"runAsUser": 1000, "fsGroup": 2000},
            "volumes": [{"name": "cfg", "configMap": {"name": "c"}}, {"name": "tmp", "emptyDir": {}}],
            "containers": [{"name": "c", "image": "nginx", "workingDir": "/srv/$(A)", "volumeMounts": [
                {"name": "cfg", "mountPath": "/etc/app/conf"},
                {"name": "tmp", "mountPath": "/etc"}]}]}}))
        .unwrap();
        let spec = launch(&pod).unwrap();
        assert_eq!(spec.id, "c-2");
        assert_eq!(spec.user, Some((1000, 0)));
        assert_eq!(spec.groups, [2000]);
        assert_eq!(spec.cwd, Path::new("/srv/b"));
        assert_eq!(
            spec.env,
            [
                ("B".to_owned(), "c".to_owned()),
                ("A".to_owned(), "b".to_owned())
            ]
        );
        let targets: Vec<_> = spec
            .mounts
            .iter()
            .map(|m| (m.target.to_str().unwrap(), m.read_only))
            .collect();
        assert_eq!(
            targets,
            [
                ("/etc", false),
                ("/etc/hosts", false),
                ("/etc/resolv.conf", false),
                ("/etc/app/conf", true)
            ]
        );
        assert_eq!(spec.log, Path::new("/pods/u/logs/c/2.log"));
    }

    #[test]
    fn run_as_non_root_needs_a_user() {
        let pod = |security: serde_json::Value| -> Pod {
            serde_json::from_value(
                json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"},
                "spec": {"securityContext": security,
                "containers": [{"name": "c"}]}}),
            )
            .unwrap()
        };
        assert_eq!(
            launch(&pod(json!({"runAsNonRoot": true}))).unwrap_err(),
            "container has runAsNonRoot and image will run as root (pod: \"p_n(u)\", container: c)"
        );
        assert!(launch(&pod(json!({"runAsNonRoot": true, "runAsUser": 5}))).is_ok());
    }
}
