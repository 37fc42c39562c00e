//! The authority and keys of one cluster as files, and the kubeconfigs they sign.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::{Authority, Pair};

/// Why a certificate could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file could not be read or written.
    #[error("{path}: {source}; check the folder's owner and the free space")]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A certificate or key is not what it should be.
    #[error("{what}: {cause}; remove the cluster's pki folder to make a new authority")]
    Certificate {
        /// What was being made or read.
        what: String,
        /// The cause.
        cause: String,
    },
}

impl From<crate::Error> for PkiError {
    fn from(error: crate::Error) -> Self {
        bad("certificate", error)
    }
}

fn bad(what: &str, cause: impl std::fmt::Display) -> PkiError {
    PkiError::Certificate {
        what: what.to_owned(),
        cause: cause.to_string(),
    }
}

/// The cluster's authority and the folder `DATA/pki` that holds it.
pub struct Pki {
    dir: PathBuf,
    /// Signs.
    pub authority: Authority,
}

impl Pki {
    /// Reads the authority in `DATA/pki` (`ca.crt`, `ca.key`), or makes one there.
    pub fn open(data_dir: &Path) -> Result<Self, PkiError> {
        let dir = data_dir.join("pki");
        let pair = kept(&dir, "ca", || Ok(Authority::create("kubernetes")?))?;
        let authority = Authority::load(&pair)?;
        Ok(Self { dir, authority })
    }

    /// The key that signs service-account tokens, made at first use; `certificate` is the
    /// public key.
    pub fn token_key(&self) -> Result<Pair, PkiError> {
        kept(&self.dir, "sa", || {
            let key = rcgen::KeyPair::generate().map_err(|e| bad("sa.key", e))?;
            Ok(Pair {
                certificate: key.public_key_pem(),
                key: key.serialize_pem(),
            })
        })
    }

    /// A kubeconfig that reaches `server` (`https://...`) as `user` of `group`.
    pub fn kubeconfig(
        &self,
        cluster: &str,
        server: &str,
        user: &str,
        group: Option<&str>,
    ) -> Result<String, PkiError> {
        let pair = self.authority.client(user, group)?;
        let b64 =
            |text: &str| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, text);
        let config = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": cluster, "cluster": {
                "certificate-authority-data": b64(self.authority.certificate()),
                "server": server}}],
            "contexts": [{"name": cluster, "context": {"cluster": cluster, "user": user}}],
            "current-context": cluster,
            "users": [{"name": user, "user": {
                "client-certificate-data": b64(&pair.certificate),
                "client-key-data": b64(&pair.key)}}],
        });
        // JSON is YAML; pretty for those who open the file.
        serde_json::to_string_pretty(&config).map_err(|e| bad("kubeconfig", e))
    }
}

/// Reads `NAME.crt` and `NAME.key`, or makes and keeps them.
fn kept(
    dir: &Path,
    name: &str,
    make: impl FnOnce() -> Result<Pair, PkiError>,
) -> Result<Pair, PkiError> {
    let (crt, key) = (
        dir.join(format!("{name}.crt")),
        dir.join(format!("{name}.key")),
    );
    let read = |path: &Path| {
        fs::read_to_string(path).map_err(|source| PkiError::File {
            path: path.to_owned(),
            source,
        })
    };
    // The key is written first: both there means both whole.
    if crt.exists() && key.exists() {
        return Ok(Pair {
            certificate: read(&crt)?,
            key: read(&key)?,
        });
    }
    let identity = make()?;
    write_private(&key, &identity.key)?;
    write_private(&crt, &identity.certificate)?;
    Ok(identity)
}

/// Writes a file only its owner can read, whole or not at all.
pub fn write_private(path: &Path, text: &str) -> Result<(), PkiError> {
    let failed = |source| PkiError::File {
        path: path.to_owned(),
        source,
    };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    let temporary = path.with_added_extension("new");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(failed)?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(failed)?;
    fs::rename(&temporary, path).map_err(failed)
}
