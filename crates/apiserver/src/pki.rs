//! The cluster's certificate authority, the certificates it issues and kubeconfig files.

use std::fs;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

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

/// A certificate and its key, PEM.
#[derive(Clone)]
pub struct Identity {
    /// Certificate, PEM.
    pub certificate: String,
    /// Private key, PEM (PKCS #8).
    pub key: String,
}

/// The certificate authority of one cluster.
pub struct Authority {
    dir: PathBuf,
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

fn bad(what: &str, cause: impl std::fmt::Display) -> PkiError {
    PkiError::Certificate { what: what.to_owned(), cause: cause.to_string() }
}

impl Authority {
    /// Reads the authority in `DATA/pki`, or makes one there.
    pub fn open(data_dir: &Path) -> Result<Self, PkiError> {
        let dir = data_dir.join("pki");
        fs::create_dir_all(&dir).map_err(|source| PkiError::File { path: dir.clone(), source })?;
        let identity = kept(&dir, "ca", make_ca)?;
        let key = KeyPair::from_pem(&identity.key).map_err(|e| bad("ca.key", e))?;
        let issuer = Issuer::from_ca_cert_pem(&identity.certificate, key)
            .map_err(|e| bad("ca.crt", e))?;
        Ok(Self { dir, certificate: identity.certificate, issuer })
    }

    /// The authority's certificate, PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// A client certificate for user `name` in `groups`.
    pub fn client(&self, name: &str, groups: &[&str]) -> Result<Identity, PkiError> {
        let mut params = CertificateParams::default();
        subject(&mut params, name, groups);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(name, params)
    }

    /// A certificate for a server reached by `names` and `addresses` (also a client, as
    /// kubelets are).
    pub fn server(
        &self,
        name: &str,
        names: &[&str],
        addresses: &[IpAddr],
    ) -> Result<Identity, PkiError> {
        let mut params = CertificateParams::new(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>())
            .map_err(|e| bad(name, e))?;
        subject(&mut params, name, &[]);
        params.subject_alt_names.extend(addresses.iter().map(|a| SanType::IpAddress(*a)));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(name, params)
    }

    fn issue(&self, name: &str, mut params: CertificateParams) -> Result<Identity, PkiError> {
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.use_authority_key_identifier_extension = true;
        lifetime(&mut params);
        let key = KeyPair::generate().map_err(|e| bad(name, e))?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(|e| bad(name, e))?;
        Ok(Identity { certificate: certificate.pem(), key: key.serialize_pem() })
    }

    /// The key that signs service-account tokens, made at first use: (private, public) PEM.
    pub fn token_key(&self) -> Result<Identity, PkiError> {
        kept(&self.dir, "sa", || {
            let key = KeyPair::generate().map_err(|e| bad("sa.key", e))?;
            Ok(Identity { certificate: key.public_key_pem(), key: key.serialize_pem() })
        })
    }

    /// A kubeconfig that reaches `server` (`https://...`) as `user`.
    pub fn kubeconfig(
        &self,
        cluster: &str,
        server: &str,
        user: &str,
        groups: &[&str],
    ) -> Result<String, PkiError> {
        let identity = self.client(user, groups)?;
        let b64 = |text: &str| {
            base64::Engine::encode(&base64::engine::general_purpose::STANDARD, text)
        };
        let config = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": cluster, "cluster": {
                "certificate-authority-data": b64(&self.certificate), "server": server}}],
            "contexts": [{"name": cluster, "context": {"cluster": cluster, "user": user}}],
            "current-context": cluster,
            "users": [{"name": user, "user": {
                "client-certificate-data": b64(&identity.certificate),
                "client-key-data": b64(&identity.key)}}],
        });
        // JSON is YAML; pretty for those who open the file.
        serde_json::to_string_pretty(&config).map_err(|e| bad("kubeconfig", e))
    }
}

fn subject(params: &mut CertificateParams, name: &str, groups: &[&str]) {
    params.distinguished_name = rcgen::DistinguishedName::new();
    for group in groups {
        params.distinguished_name.push(DnType::OrganizationName, *group);
    }
    params.distinguished_name.push(DnType::CommonName, name);
}

/// An hour of grace for clocks, ten years of use.
fn lifetime(params: &mut CertificateParams) {
    let now = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC);
    let day = |date: jiff::civil::Date, years: i32| {
        let month = u8::try_from(date.month()).unwrap_or(1);
        rcgen::date_time_ymd(i32::from(date.year()) + years, month, 1)
    };
    params.not_before = day(now.date(), -1);
    params.not_after = day(now.date(), 10);
}

fn make_ca() -> Result<Identity, PkiError> {
    let mut params = CertificateParams::default();
    subject(&mut params, "kubernetes", &[]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
    ];
    lifetime(&mut params);
    let key = KeyPair::generate().map_err(|e| bad("ca.key", e))?;
    let certificate = params.self_signed(&key).map_err(|e| bad("ca.crt", e))?;
    Ok(Identity { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// Reads `NAME.crt` and `NAME.key`, or makes and keeps them.
fn kept(
    dir: &Path,
    name: &str,
    make: impl FnOnce() -> Result<Identity, PkiError>,
) -> Result<Identity, PkiError> {
    let (crt, key) = (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")));
    let read = |path: &Path| {
        fs::read_to_string(path)
            .map_err(|source| PkiError::File { path: path.to_owned(), source })
    };
    // The key is written first: both there means both whole.
    if crt.exists() && key.exists() {
        return Ok(Identity { certificate: read(&crt)?, key: read(&key)? });
    }
    let identity = make()?;
    write_private(&key, &identity.key)?;
    write_private(&crt, &identity.certificate)?;
    Ok(identity)
}

/// Writes a file only its owner can read, whole or not at all.
fn write_private(path: &Path, text: &str) -> Result<(), PkiError> {
    let failed = |source| PkiError::File { path: path.to_owned(), source };
    let temporary = path.with_extension("tmp");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    fs::rename(&temporary, path).map_err(failed)
}
