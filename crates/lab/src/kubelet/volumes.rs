//! A pod's volumes: made before its containers start, kept up to date while it runs,
//! taken away with it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{
    DownwardAPIVolumeFile, HostPathVolumeSource, KeyToPath, Pod, ProjectedVolumeSource,
    ServiceAccount, ServiceAccountTokenProjection, Volume,
};
use kube::api::PostParams;
use kube::{Api, Client};
use nix::mount::{MntFlags, MsFlags};

use super::env::{self, Context};
use super::objects::Objects;
use super::state;
use super::volume_files::{self, File, Files, relative};

/// How often sources of mounted volumes are looked at for changes.
pub const REFRESH: Duration = Duration::from_secs(5);

/// Tokens of a pod, kept until they are due for renewal: by volume and path.
#[derive(Debug, Default)]
pub struct Tokens(BTreeMap<(String, String), Token>);

#[derive(Debug)]
struct Token {
    value: String,
    renew: Timestamp,
}

/// What volumes are made from.
pub struct Maker<'a> {
    /// The API.
    pub client: &'a Client,
    /// ConfigMaps and Secrets.
    pub objects: &'a Objects,
    /// True where they have to be as they are now.
    pub fresh: bool,
    /// The pod and what its fields say.
    pub context: &'a Context<'a>,
    /// The pod's folder.
    pub dir: &'a Path,
}

/// Where a volume is on the machine.
pub fn path(dir: &Path, volume: &Volume) -> PathBuf {
    if let Some(host) = &volume.host_path {
        return PathBuf::from(&host.path);
    }
    dir.join("volumes").join(&volume.name)
}

impl Maker<'_> {
    /// Makes every volume. The error is the sentence of a FailedMount Event.
    pub async fn make(&self, tokens: &mut Tokens) -> Result<(), String> {
        for volume in volumes(self.context.pod) {
            let path = path(self.dir, volume);
            let failed = |error: String| {
                format!(
                    "MountVolume.SetUp failed for volume {:?} : {error}",
                    volume.name
                )
            };
            if let Some(empty) = &volume.empty_dir {
                let memory = empty.medium.as_deref() == Some("Memory");
                let limit = empty.size_limit.as_ref().map(|limit| limit.0.as_str());
                empty_dir(&path, memory, limit, self.group()).map_err(|e| failed(e.to_string()))?;
            } else if let Some(host) = &volume.host_path {
                host_path(host).map_err(failed)?;
            } else {
                self.refresh_one(volume, tokens).await.map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Brings the volumes that come from the API up to date.
    pub async fn refresh(&self, tokens: &mut Tokens) -> Result<(), String> {
        for volume in volumes(self.context.pod)
            .iter()
            .filter(|volume| from_api(volume))
        {
            self.refresh_one(volume, tokens)
                .await
                .map_err(|error| format!("volume {:?}: {error}", volume.name))?;
        }
        Ok(())
    }

    async fn refresh_one(&self, volume: &Volume, tokens: &mut Tokens) -> Result<(), String> {
        let files = self.files(volume, tokens).await?;
        let now = Timestamp::now();
        let stamp = format!(
            "{}.{:09}",
            now.strftime("%Y_%m_%d_%H_%M_%S"),
            now.subsec_nanosecond()
        );
        let path = path(self.dir, volume);
        volume_files::write(&path, &files, self.group(), &stamp)
            .map(|_| ())
            .map_err(|error| format!("{}: {error}", path.display()))
    }

    fn group(&self) -> Option<u32> {
        let spec = self.context.pod.spec.as_ref()?;
        u32::try_from(spec.security_context.as_ref()?.fs_group?).ok()
    }

    async fn files(&self, volume: &Volume, tokens: &mut Tokens) -> Result<Files, String> {
        if let Some(source) = &volume.config_map {
            let optional = source.optional == Some(true);
            let items = source.items.as_deref();
            return self
                .config_map(&source.name, items, mode(source.default_mode), optional)
                .await;
        }
        if let Some(source) = &volume.secret {
            let optional = source.optional == Some(true);
            let name = source.secret_name.as_deref().unwrap_or_default();
            let items = source.items.as_deref();
            return self
                .secret(name, items, mode(source.default_mode), optional)
                .await;
        }
        if let Some(source) = &volume.downward_api {
            return self.downward(source.items.as_deref(), mode(source.default_mode));
        }
        if let Some(source) = &volume.projected {
            return self.projected(&volume.name, source, tokens).await;
        }
        Err(unsupported(volume))
    }

    async fn config_map(
        &self,
        name: &str,
        items: Option<&[KeyToPath]>,
        mode: u32,
        optional: bool,
    ) -> Result<Files, String> {
        let objects = self.objects;
        let found = objects
            .config_map(self.namespace(), name, self.fresh)
            .await?;
        let Some(map) = found.map(Arc::unwrap_or_clone) else {
            return match optional {
                true => Ok(Files::new()),
                false => Err(format!("configmap {name:?} not found")),
            };
        };
        let mut data: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        data.extend(
            map.data
                .unwrap_or_default()
                .into_iter()
                .map(|(k, v)| (k, v.into_bytes())),
        );
        data.extend(
            map.binary_data
                .unwrap_or_default()
                .into_iter()
                .map(|(k, v)| (k, v.0)),
        );
        volume_files::select(&data, items, mode, optional)
    }

    async fn secret(
        &self,
        name: &str,
        items: Option<&[KeyToPath]>,
        mode: u32,
        optional: bool,
    ) -> Result<Files, String> {
        let objects = self.objects;
        let found = objects.secret(self.namespace(), name, self.fresh).await?;
        let Some(secret) = found.map(Arc::unwrap_or_clone) else {
            return match optional {
                true => Ok(Files::new()),
                false => Err(format!("secret {name:?} not found")),
            };
        };
        let data = secret
            .data
            .unwrap_or_default()
            .into_iter()
            .map(|(k, v)| (k, v.0))
            .collect();
        volume_files::select(&data, items, mode, optional)
    }

    fn downward(
        &self,
        items: Option<&[DownwardAPIVolumeFile]>,
        default_mode: u32,
    ) -> Result<Files, String> {
        let mut files = Files::new();
        for item in items.unwrap_or_default() {
            let text = if let Some(field) = &item.field_ref {
                env::field(&field.field_path, self.context)?
            } else if let Some(selector) = &item.resource_field_ref {
                let name = selector.container_name.as_deref().unwrap_or_default();
                let container = state::find(self.context.pod, name)
                    .ok_or_else(|| format!("container {name:?} not found"))?;
                env::resource(selector, container, self.context.allocatable)?
            } else {
                continue;
            };
            let mode = item.mode.and_then(|mode| u32::try_from(mode).ok());
            let file = File {
                data: text.into_bytes(),
                mode: mode.unwrap_or(default_mode),
            };
            files.insert(relative(&item.path)?, file);
        }
        Ok(files)
    }

    async fn projected(
        &self,
        volume: &str,
        source: &ProjectedVolumeSource,
        tokens: &mut Tokens,
    ) -> Result<Files, String> {
        let mode = mode(source.default_mode);
        let mut files = Files::new();
        for part in source.sources.iter().flatten() {
            if let Some(map) = &part.config_map {
                let optional = map.optional == Some(true);
                files.extend(
                    self.config_map(&map.name, map.items.as_deref(), mode, optional)
                        .await?,
                );
            }
            if let Some(secret) = &part.secret {
                let optional = secret.optional == Some(true);
                files.extend(
                    self.secret(&secret.name, secret.items.as_deref(), mode, optional)
                        .await?,
                );
            }
            if let Some(downward) = &part.downward_api {
                files.extend(self.downward(downward.items.as_deref(), mode)?);
            }
            if let Some(token) = &part.service_account_token {
                let value = self.token(volume, token, tokens).await?;
                let file = File {
                    data: value.into_bytes(),
                    mode,
                };
                files.insert(relative(&token.path)?, file);
            }
            if part.cluster_trust_bundle.is_some() || part.pod_certificate.is_some() {
                return Err("projected clusterTrustBundle and podCertificate are not supported here; project a configMap or a secret instead".to_owned());
            }
        }
        Ok(files)
    }

    /// A token of the pod's service account, asked for anew when four fifths of its time
    /// or a day are over.
    async fn token(
        &self,
        volume: &str,
        source: &ServiceAccountTokenProjection,
        tokens: &mut Tokens,
    ) -> Result<String, String> {
        let key = (volume.to_owned(), source.path.clone());
        let now = Timestamp::now();
        if let Some(token) = tokens.0.get(&key).filter(|token| token.renew > now) {
            return Ok(token.value.clone());
        }
        let pod = self.context.pod;
        let spec = pod.spec.as_ref();
        let account = spec
            .and_then(|spec| spec.service_account_name.as_deref())
            .unwrap_or("default");
        let seconds = source.expiration_seconds.unwrap_or(3600);
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: source.audience.clone().map(|audience| vec![audience]),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".to_owned()),
                    kind: Some("Pod".to_owned()),
                    name: pod.metadata.name.clone(),
                    uid: pod.metadata.uid.clone(),
                }),
                expiration_seconds: Some(seconds),
            }),
            ..TokenRequest::default()
        };
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), self.namespace());
        let answer = api
            .create_token_request(account, &PostParams::default(), &request)
            .await
            .map_err(|error| format!("failed to fetch token: {}", api::error::cause(&error)))?;
        let status = answer
            .status
            .ok_or("failed to fetch token: the API server sent none")?;
        let (Some(value), Some(expires)) = (status.token, status.expiration_timestamp) else {
            return Err("failed to fetch token: the API server sent none".to_owned());
        };
        let lives = expires.0.duration_since(now).as_secs();
        let renew = SignedDuration::from_secs((lives * 4 / 5).min(24 * 3600));
        let token = Token {
            value: value.clone(),
            renew: now.checked_add(renew).unwrap_or(now),
        };
        tokens.0.insert(key, token);
        Ok(value)
    }

    fn namespace(&self) -> &str {
        self.context
            .pod
            .metadata
            .namespace
            .as_deref()
            .unwrap_or_default()
    }
}

fn volumes(pod: &Pod) -> &[Volume] {
    let spec = pod.spec.as_ref();
    spec.and_then(|spec| spec.volumes.as_deref())
        .unwrap_or_default()
}

fn from_api(volume: &Volume) -> bool {
    volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.downward_api.is_some()
        || volume.projected.is_some()
}

/// True where the pod has volumes to keep up to date.
pub fn refreshable(pod: &Pod) -> bool {
    volumes(pod).iter().any(from_api)
}

fn mode(mode: Option<i32>) -> u32 {
    mode.and_then(|mode| u32::try_from(mode).ok())
        .unwrap_or(0o644)
}

fn unsupported(volume: &Volume) -> String {
    let value = serde_json::to_value(volume).unwrap_or_default();
    let mut kinds = value
        .as_object()
        .into_iter()
        .flatten()
        .map(|(kind, _)| kind.as_str());
    let kind = kinds.find(|kind| *kind != "name").unwrap_or("unknown");
    format!(
        "volumes of kind {kind} are not supported on a one-machine cluster; use emptyDir, hostPath, configMap, secret, downwardAPI or projected"
    )
}

fn empty_dir(path: &Path, memory: bool, limit: Option<&str>, group: Option<u32>) -> io::Result<()> {
    fs::create_dir_all(path)?;
    if memory && !is_mount(path)? {
        let size = limit
            .and_then(super::quantity::milli)
            .map(|milli| milli / 1000);
        let options = match size.filter(|size| *size > 0) {
            Some(size) => format!("mode=777,size={size}"),
            None => "mode=777".to_owned(),
        };
        let flags = MsFlags::MS_NODEV | MsFlags::MS_NOSUID;
        nix::mount::mount(
            Some("tmpfs"),
            path,
            Some("tmpfs"),
            flags,
            Some(options.as_str()),
        )?;
    }
    let mut mode = 0o777;
    if let Some(group) = group {
        chown(path, None, Some(group))?;
        mode |= 0o2000;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// True where something is mounted at `path` itself.
fn is_mount(path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let parent = path.parent().unwrap_or(Path::new("/"));
    Ok(fs::symlink_metadata(path)?.dev() != fs::symlink_metadata(parent)?.dev())
}

fn host_path(source: &HostPathVolumeSource) -> Result<(), String> {
    let path = Path::new(&source.path);
    let kind = source.type_.as_deref().unwrap_or_default();
    let refuse = |what: &str| {
        Err(format!(
            "hostPath type check failed: {} is not {what}",
            path.display()
        ))
    };
    let io = |error: io::Error| format!("{}: {error}", path.display());
    let found = fs::metadata(path).ok().map(|meta| meta.file_type());
    match kind {
        "" => {
            if found.is_none() {
                fs::create_dir_all(path).map_err(io)?;
            }
            Ok(())
        }
        "DirectoryOrCreate" => match found {
            None => fs::create_dir_all(path).map_err(io),
            Some(kind) if kind.is_dir() => Ok(()),
            Some(_) => refuse("a directory"),
        },
        "FileOrCreate" => match found {
            None => fs::File::create(path).map(|_| ()).map_err(io),
            Some(kind) if kind.is_file() => Ok(()),
            Some(_) => refuse("a file"),
        },
        "Directory" if !found.is_some_and(|kind| kind.is_dir()) => refuse("a directory"),
        "File" if !found.is_some_and(|kind| kind.is_file()) => refuse("a file"),
        "Socket" if !found.is_some_and(|kind| kind.is_socket()) => refuse("a socket"),
        "CharDevice" if !found.is_some_and(|kind| kind.is_char_device()) => {
            refuse("a character device")
        }
        "BlockDevice" if !found.is_some_and(|kind| kind.is_block_device()) => {
            refuse("a block device")
        }
        _ => Ok(()),
    }
}

/// The folder of a volume with `subPath`, made where missing; it may not lead out of the
/// volume, not even by a symbolic link.
pub fn sub_path(volume: &Path, sub: &str) -> Result<PathBuf, String> {
    let sub = relative(sub)?;
    let full = volume.join(&sub);
    if fs::symlink_metadata(&full).is_err() {
        let mut below = PathBuf::new();
        for part in sub.components() {
            below.push(part);
            let step = volume.join(&below);
            if fs::symlink_metadata(&step).is_err() {
                fs::create_dir(&step).map_err(|e| format!("{}: {e}", step.display()))?;
                let open = fs::Permissions::from_mode(0o777);
                fs::set_permissions(&step, open).map_err(|e| format!("{}: {e}", step.display()))?;
            }
        }
    }
    let real = |path: &Path| fs::canonicalize(path).map_err(|e| format!("{}: {e}", path.display()));
    let (volume, full) = (real(volume)?, real(&full)?);
    if !full.starts_with(&volume) {
        return Err(format!(
            "subPath {:?} leads out of the volume",
            sub.display()
        ));
    }
    Ok(full)
}

/// Unmounts what is mounted below a pod's folder and removes the folder.
pub fn remove(dir: &Path) -> io::Result<()> {
    if let Ok(entries) = fs::read_dir(dir.join("volumes")) {
        for entry in entries.flatten() {
            if is_mount(&entry.path()).unwrap_or(false) {
                nix::mount::umount2(&entry.path(), MntFlags::MNT_DETACH)?;
            }
        }
    }
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sub_paths_are_made_and_kept_inside() {
        let dir = tempfile::tempdir().unwrap();
        let made = sub_path(dir.path(), "a/b").unwrap();
        assert!(made.is_dir() && made.ends_with("a/b"));
        std::os::unix::fs::symlink("/etc", dir.path().join("out")).unwrap();
        let refused = sub_path(dir.path(), "out").unwrap_err();
        assert!(refused.contains("leads out of the volume"), "{refused}");
        assert!(sub_path(dir.path(), "../x").is_err());
    }

    #[test]
    fn host_path_types_are_checked() {
        let dir = tempfile::tempdir().unwrap();
        let source = |path: &Path, kind: &str| HostPathVolumeSource {
            path: path.to_string_lossy().into_owned(),
            type_: Some(kind.to_owned()),
        };
        let missing = dir.path().join("x");
        assert!(host_path(&source(&missing, "Directory")).is_err());
        assert!(host_path(&source(&missing, "DirectoryOrCreate")).is_ok());
        assert!(host_path(&source(&missing, "Directory")).is_ok());
        let refused = host_path(&source(&missing, "FileOrCreate")).unwrap_err();
        assert!(refused.ends_with("is not a file"), "{refused}");
    }

    #[test]
    fn what_is_not_supported_says_what_to_use() {
        let volume: Volume = serde_json::from_value(serde_json::json!(
            {"name": "data", "persistentVolumeClaim": {"claimName": "c"}}))
        .unwrap();
        let text = unsupported(&volume);
        assert!(
            text.starts_with("volumes of kind persistentVolumeClaim are not supported"),
            "{text}"
        );
    }
}
