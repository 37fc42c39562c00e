//! Certificates: the cluster's own authority and what it signs.
//!
//! Keys are ECDSA P-256. [`Authority`] takes values and gives PEM; [`Pki`] keeps an authority in
//! a folder that only its owner reads.

mod pki;

use std::net::IpAddr;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};

pub use pki::{Pki, PkiError, write_private};

/// A certificate and its private key, both PEM.
#[derive(Clone)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// The private key (PKCS #8).
    pub key: String,
}

/// What went wrong with a certificate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The library refused a name, a key or a certificate.
    #[error("certificate for {subject}: {source}")]
    Rcgen {
        /// Whose certificate.
        subject: String,
        /// The library's words.
        source: rcgen::Error,
    },
}

/// A certificate authority that can sign.
pub struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes a new authority called `name`, returned with its own certificate and key.
    pub fn create(name: &str) -> Result<Pair, Error> {
        let fail = |source| Error::Rcgen {
            subject: name.to_owned(),
            source,
        };
        let mut params = CertificateParams::default();
        params.distinguished_name = subject(name, None);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let key = KeyPair::generate().map_err(fail)?;
        let certificate = params.self_signed(&key).map_err(fail)?;
        Ok(Pair {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }

    /// Loads an authority from its certificate and key.
    pub fn load(pair: &Pair) -> Result<Self, Error> {
        let fail = |source| Error::Rcgen {
            subject: "certificate authority".to_owned(),
            source,
        };
        let key = KeyPair::from_pem(&pair.key).map_err(fail)?;
        let issuer = Issuer::from_ca_cert_pem(&pair.certificate, key).map_err(fail)?;
        Ok(Self {
            certificate: pair.certificate.clone(),
            issuer,
        })
    }

    /// The authority's own certificate, PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// A client certificate: Kubernetes reads the user from the common name and the group
    /// from the organisation.
    pub fn client(&self, user: &str, group: Option<&str>) -> Result<Pair, Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = subject(user, group);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(user, params)
    }

    /// A server certificate for these names and addresses, usable as a client's too: the API
    /// server shows the same certificate when it calls a kubelet.
    pub fn server(
        &self,
        name: &str,
        group: Option<&str>,
        names: &[&str],
        addresses: &[IpAddr],
    ) -> Result<Pair, Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = subject(name, group);
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        for dns in names {
            let dns = (*dns).try_into().map_err(|source| Error::Rcgen {
                subject: name.to_owned(),
                source,
            })?;
            params.subject_alt_names.push(SanType::DnsName(dns));
        }
        params
            .subject_alt_names
            .extend(addresses.iter().map(|address| SanType::IpAddress(*address)));
        self.sign(name, params)
    }

    fn sign(&self, name: &str, mut params: CertificateParams) -> Result<Pair, Error> {
        let fail = |source| Error::Rcgen {
            subject: name.to_owned(),
            source,
        };
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().map_err(fail)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(fail)?;
        Ok(Pair {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }
}

fn subject(name: &str, group: Option<&str>) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    if let Some(group) = group {
        subject.push(DnType::OrganizationName, group);
    }
    subject.push(DnType::CommonName, name);
    subject
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority() -> Authority {
        Authority::load(&Authority::create("test").unwrap()).unwrap()
    }

    #[test]
    fn a_client_certificate_names_user_and_group_and_chains_to_its_authority() {
        let authority = authority();
        let pair = authority
            .client("system:node:node1", Some("system:nodes"))
            .unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(pair.certificate.as_bytes()).unwrap();
        let certificate = pem.parse_x509().unwrap();
        let name = certificate.subject();
        assert_eq!(
            name.iter_common_name().next().unwrap().as_str().unwrap(),
            "system:node:node1"
        );
        assert_eq!(
            name.iter_organization().next().unwrap().as_str().unwrap(),
            "system:nodes"
        );
        assert_eq!(
            certificate
                .issuer()
                .iter_common_name()
                .next()
                .unwrap()
                .as_str()
                .unwrap(),
            "test"
        );
    }

    #[test]
    fn a_server_certificate_covers_its_names_and_addresses() {
        let pair = authority()
            .server("kubelet", None, &["node1"], &["10.0.1.10".parse().unwrap()])
            .unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(pair.certificate.as_bytes()).unwrap();
        let certificate = pem.parse_x509().unwrap();
        let names = certificate.subject_alternative_name().unwrap().unwrap();
        assert_eq!(names.value.general_names.len(), 2);
    }

    #[test]
    fn a_wrong_name_is_named_in_the_error() {
        let error = authority()
            .server("kubelet", None, &["n\u{f6}de"], &[])
            .err()
            .unwrap();
        assert!(error.to_string().contains("kubelet"), "{error}");
    }
}
