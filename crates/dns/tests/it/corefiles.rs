//! A Corefile served: its endpoints, its change and its end.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dns::chain::Resources;
use dns::corefile::files::Files;
use dns::corefile::{self, Corefile};
use dns::metrics::Metrics;
use dns::plugins::output::Output;
use dns::serve::{Bound, Options, Served};

use crate::serve::dig;

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

pub fn parse(text: &str) -> Corefile {
    match corefile::parse("Corefile", text, 53, &Files) {
        Ok((corefile, _)) => corefile,
        Err(errors) => panic!("{errors:?}"),
    }
}

pub fn resources(output: &Arc<Output>) -> Resources {
    Resources {
        search: Vec::new(),
        local: Vec::new(),
        view: Arc::default(),
        output: Arc::clone(output),
        metrics: Arc::default(),
        host: "host".to_owned(),
        upstream: Default::default(),
        looping: Default::default(),
        started: Instant::now(),
    }
}

pub fn options(workers: usize) -> Options {
    Options {
        workers,
        metrics: Arc::new(Metrics::default()),
        bound: Bound::Corefile,
    }
}

/// What a GET is answered: status and body.
pub fn get(port: u16, path: &str) -> std::io::Result<(String, String)> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap();
    Ok((status.to_owned(), body.to_owned()))
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !is() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn served_on(ports: [u16; 4]) -> String {
    let [dns, health, ready, metrics] = ports;
    format!(
        ".:{dns} {{\n bind 127.0.0.1\n errors\n health 127.0.0.1:{health} {{\n lameduck 600ms\n }}\n \
         ready 127.0.0.1:{ready}\n prometheus 127.0.0.1:{metrics}\n reload 2s 0s\n \
         hosts {{\n 10.1.2.3 a.example\n }}\n }}\n"
    )
}

#[test]
fn endpoints_reload_and_lameduck() {
    let runtime = runtime();
    let _guard = runtime.enter();
    let ports = std::array::from_fn(|_| free_port());
    let [dns, health, ready, metrics] = ports;
    let folder = tempfile::tempdir().unwrap();
    let path: PathBuf = folder.path().join("Corefile");
    std::fs::write(&path, served_on(ports)).unwrap();
    let load = {
        let path = path.clone();
        move || {
            let text = std::fs::read_to_string(&path).unwrap();
            corefile::parse("Corefile", &text, 53, &Files).map(|(corefile, _)| corefile)
        }
    };
    let output = Arc::new(Output::kept());
    let corefile = load().unwrap();
    let served = Served::start(&corefile, resources(&output), options(2)).unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = runtime.spawn(served.run(corefile, load, async {
        let _ = stopped.await;
    }));
    let address: SocketAddr = (Ipv4Addr::LOCALHOST, dns).into();
    let ask = |name: &str| dig(address, &[name, "+short"]).trim().to_owned();

    assert_eq!(ask("a.example"), "10.1.2.3");
    assert_eq!(get(health, "/health").unwrap(), ("200".into(), "OK".into()));
    assert_eq!(get(ready, "/ready").unwrap(), ("200".into(), "OK".into()));
    assert_eq!(get(ready, "/health").unwrap().0, "404");
    let (_, text) = get(metrics, "/metrics").unwrap();
    let server = format!("server=\"dns://127.0.0.1:{dns}\"");
    for line in [
        format!("coredns_plugin_enabled{{name=\"hosts\",{server},view=\"\",zone=\".\"}} 1"),
        format!(
            "coredns_dns_requests_total{{{server},view=\"\",zone=\".\",family=\"1\",proto=\"udp\",type=\"A\"}} 1"
        ),
        format!(
            "coredns_dns_responses_total{{{server},view=\"\",zone=\".\",plugin=\"hosts\",rcode=\"NOERROR\"}} 1"
        ),
        format!("coredns_dns_request_duration_seconds_count{{{server},view=\"\",zone=\".\"}} 1"),
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }

    // A broken change is told and the last good one served on; a good one is taken.
    std::fs::write(&path, "nonsense {").unwrap();
    eventually("the broken Corefile is told", || {
        output.take().contains("Corefile parse failed")
    });
    assert_eq!(ask("a.example"), "10.1.2.3");
    std::fs::write(&path, served_on(ports).replace("10.1.2.3", "10.1.2.4")).unwrap();
    eventually("the new Corefile is served", || {
        ask("a.example") == "10.1.2.4"
    });
    let (_, text) = get(metrics, "/metrics").unwrap();
    assert!(text.contains("coredns_reload_version_info{hash=\"sha512\""));

    let asked = Instant::now();
    stop.send(()).unwrap();
    eventually("it is not ready any more", || {
        get(ready, "/ready").is_ok_and(|(status, _)| status == "503")
    });
    assert_eq!(ask("a.example"), "10.1.2.4");
    assert_eq!(get(health, "/health").unwrap().0, "200");
    runtime.block_on(running).unwrap();
    assert!(asked.elapsed() >= Duration::from_millis(600));
    assert!(get(health, "/health").is_err());
    assert!(TcpStream::connect(address).is_err());
}

/// A certificate for localhost, its key and its authority, in files.
fn certificate(folder: &Path) -> [String; 3] {
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, "authority");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let ca = rcgen::CertifiedIssuer::self_signed(params, ca_key).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let leaf = params.signed_by(&key, &ca).unwrap();
    [
        ("cert.pem", leaf.pem()),
        ("key.pem", key.serialize_pem()),
        ("ca.pem", ca.pem()),
    ]
    .map(|(name, pem)| {
        let path = folder.join(name);
        std::fs::write(&path, pem).unwrap();
        path.to_str().unwrap().to_owned()
    })
}

/// What a program says, both ways.
fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    [output.stdout, output.stderr]
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .concat()
}

#[test]
fn tls_and_https() {
    const TEST: &str = "tls_and_https";
    if testing::program(TEST, "dig").is_none() || testing::program(TEST, "kdig").is_none() {
        return;
    }
    let runtime = runtime();
    let _guard = runtime.enter();
    let folder = tempfile::tempdir().unwrap();
    let [cert, key, ca] = certificate(folder.path());
    let [tls, https, strict, clear] = std::array::from_fn(|_| free_port());
    let hosts = "bind 127.0.0.1\n hosts {\n 10.1.2.3 a.example\n }\n";
    let corefile = parse(&format!(
        "tls://.:{tls} https://.:{https} {{\n {hosts} tls {cert} {key}\n }}\n\
         tls://.:{strict} {{\n {hosts} tls {cert} {key} {ca} {{\n client_auth require_and_verify\n \
         }}\n }}\n\
         https://.:{clear} {{\n {hosts} }}\n"
    ));
    let output = Arc::new(Output::kept());
    let served = Served::start(&corefile, resources(&output), options(1)).unwrap();
    let port = |port: u16| port.to_string();

    let by_dig = |port: u16, more: &[&str]| {
        let (port, ca) = (port.to_string(), format!("+tls-ca={ca}"));
        let common = [
            "@127.0.0.1",
            "-p",
            &port,
            &ca,
            "+tls-hostname=localhost",
            "+tries=1",
        ];
        said(
            "dig",
            &[&common[..], &["a.example", "+timeout=5"], more].concat(),
        )
    };
    for (port, how) in [(tls, "+tls"), (https, "+https"), (https, "+https-get")] {
        let said = by_dig(port, &[how]);
        assert!(said.contains("10.1.2.3"), "{how}: {said}");
    }
    let ca_option = format!("+tls-ca={ca}");
    let strictly = |more: &[&str]| {
        let port = port(strict);
        let common = [
            "@127.0.0.1",
            "-p",
            &port,
            "+tls",
            &ca_option,
            "+tls-hostname=localhost",
        ];
        said(
            "kdig",
            &[&common[..], &["a.example", "+timeout=3", "+retry=0"], more].concat(),
        )
    };
    assert!(!strictly(&[]).contains("10.1.2.3"));
    let (with_cert, with_key) = (
        format!("+tls-certfile={cert}"),
        format!("+tls-keyfile={key}"),
    );
    let answer = strictly(&[&with_cert, &with_key]);
    assert!(answer.contains("10.1.2.3"), "{answer}");

    // Without a certificate HTTPS is spoken in the clear, for a proxy in front.
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, clear)).unwrap();
    let mut exchange = |request: &[u8], ends: &str| {
        stream.write_all(request).unwrap();
        let mut text = Vec::new();
        while !String::from_utf8_lossy(&text).contains(ends) {
            let mut bytes = [0; 4096];
            let len = stream.read(&mut bytes).unwrap();
            assert_ne!(len, 0, "{}", String::from_utf8_lossy(&text));
            text.extend_from_slice(&bytes[..len]);
        }
        String::from_utf8_lossy(&text).into_owned()
    };
    let asked = "AAABAAABAAAAAAAAAWEHZXhhbXBsZQAAAQAB";
    let get = format!("GET /dns-query?dns={asked} HTTP/1.1\r\nHost: x\r\n\r\n");
    let answer = exchange(get.as_bytes(), "\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert!(
        answer.contains("content-type: application/dns-message"),
        "{answer}"
    );
    assert!(answer.contains("cache-control: max-age=3600"), "{answer}");
    for (request, status) in [
        ("GET /other HTTP/1.1\r\nHost: x\r\n\r\n", "404"),
        ("GET /dns-query HTTP/1.1\r\nHost: x\r\n\r\n", "400"),
        ("GET /dns-query?dns=%%% HTTP/1.1\r\nHost: x\r\n\r\n", "400"),
        (
            "POST /dns-query HTTP/1.1\r\nHost: x\r\nContent-Type: a/b\r\nContent-Length: 0\r\n\r\n",
            "415",
        ),
        (
            "PUT /dns-query HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
            "400",
        ),
    ] {
        let answer = exchange(request.as_bytes(), "\r\n\r\n");
        assert!(
            answer.contains(&format!("HTTP/1.1 {status}")),
            "{request}: {answer}"
        );
    }
    runtime.block_on(served.stop());
}
