//! Connections that are kept, and those with TLS.

use super::*;
use crate::corefile::plugins::ClientTls;

#[test]
fn connections_are_used_again() {
    run(async {
        let count = Mutex::new(0);
        let fake = Fake::start(move |_, _| {
            let mut count = count.lock().unwrap();
            *count += 1;
            match *count % 5 {
                0 => vec![Say::Address(1), Say::Close],
                _ => vec![Say::Address(1)],
            }
        })
        .await;
        let base = Options {
            force_tcp: true,
            max_fails: 0,
            ..options(&[&fake])
        };
        let one = forwards(base.clone());
        for n in 1..=10 {
            ask(&one, &udp()).await.unwrap();
            // What the server closed is noticed, without a failure for who asks.
            assert_eq!(fake.connected(), if n <= 5 { 1 } else { 2 }, "after {n}");
        }
        let none = forwards(Options {
            max_idle_conns: Some(0),
            ..base.clone()
        });
        let before = fake.connected();
        for _ in 0..3 {
            ask(&none, &udp()).await.unwrap();
        }
        assert_eq!(fake.connected() - before, 3);
        let short = forwards(Options {
            expire: Duration::from_millis(20),
            ..base
        });
        let before = fake.connected();
        for _ in 0..2 {
            ask(&short, &udp()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
        assert_eq!(fake.connected() - before, 2);
    });
}

fn certificate(folder: &std::path::Path) -> (Arc<rustls::ServerConfig>, String) {
    let made = rcgen::generate_simple_self_signed(vec!["dns.test".into()]).unwrap();
    let path = folder.join("ca.pem");
    std::fs::write(&path, made.cert.pem()).unwrap();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .unwrap();
    (Arc::new(config), path.to_str().unwrap().to_owned())
}

#[test]
fn over_tls() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let (config, ca) = certificate(folder.path());
        let fake = Fake::with(|_, _| vec![Say::Address(1)], Some(config)).await;
        let base = Options {
            to: vec![To::Server(Upstream {
                scheme: Scheme::Tls,
                address: fake.address,
                interface: None,
                server_name: None,
            })],
            tls: ClientTls {
                ca: Some(ca),
                certificate: None,
            },
            tls_servername: Some("dns.test".into()),
            ..options(&[])
        };
        let good = forwards(base.clone());
        for _ in 0..3 {
            assert_eq!(last(&ask(&good, &udp()).await.unwrap()), 1);
        }
        assert_eq!(fake.connected(), 1);
        assert!(fake.seen().iter().all(|(tcp, _)| *tcp));
        for wrong in [Some("other.test".to_owned()), None] {
            let wrong = Options {
                tls_servername: wrong,
                max_fails: 0,
                ..base.clone()
            };
            let failure = ask(&forwards(wrong), &udp()).await.unwrap_err();
            assert!(failure.text.contains("certificate"), "{}", failure.text);
        }
        let missing = Options {
            tls: ClientTls {
                ca: Some("/nowhere/ca.pem".into()),
                certificate: None,
            },
            ..base
        };
        let error = Forwards::new(&[missing], &Resources::default(), &no_files).unwrap_err();
        assert!(error.starts_with("open /nowhere/ca.pem: "), "{error}");
    });
}
