//! What is not known here: forwarded, kept, and never in a circle.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use dns::plugins::output::Output;
use dns::serve::Served;
use dns::wire::{Data, Message, Rcode, Record, Type};

use crate::corefiles::{free_port, get, options, parse, resources};
use crate::serve::dig;

/// An upstream that says 192.0.2.1, and counts how often. It goes with the test's process.
fn upstream() -> (SocketAddr, Arc<AtomicUsize>) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((len, from)) = socket.recv_from(&mut buffer) {
            let mut message = Message::parse(&buffer[..len]).unwrap();
            message.header.response = true;
            message.header.recursion_available = true;
            let question = message.question.clone().unwrap();
            if question.kind == Type::A {
                count.fetch_add(1, Ordering::Relaxed);
                let data = Data::A(Ipv4Addr::new(192, 0, 2, 1));
                message.answers.push(Record::new(question.name, 60, data));
            } else {
                message.header.rcode = Rcode::NXDOMAIN;
            }
            socket.send_to(&message.to_bytes(), from).unwrap();
        }
    });
    (address, asked)
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().build().unwrap()
}

#[test]
fn forwarded_once_and_kept() {
    let runtime = runtime();
    let _guard = runtime.enter();
    let (upstream, asked) = upstream();
    let (port, metrics) = (free_port(), free_port());
    let corefile = parse(&format!(
        ".:{port} {{\n bind 127.0.0.1\n errors\n prometheus 127.0.0.1:{metrics}\n loop\n cache 30\n \
         forward . {upstream}\n }}\n"
    ));
    let output = Arc::new(Output::kept());
    let resources = resources(&output);
    let options = options(2);
    options
        .metrics
        .register(|registry| resources.metrics.register(registry));
    let served = Served::start(&corefile, resources, options).unwrap();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let first = dig(address, &["A.exAmple", "+noall", "+answer"]);
    assert!(
        first.starts_with("A.exAmple.\t\t30\tIN\tA\t192.0.2.1"),
        "{first}"
    );
    let again = dig(address, &["a.EXAMPLE", "+noall", "+answer"]);
    assert!(again.starts_with("a.EXAMPLE."), "{again}");
    assert_eq!(asked.load(Ordering::Relaxed), 1);

    let (_, text) = get(metrics, "/metrics").unwrap();
    let server = format!("server=\"dns://127.0.0.1:{port}\"");
    for line in [
        format!("coredns_cache_hits_total{{{server},type=\"success\",zones=\".\",view=\"\"}} 1"),
        format!("coredns_cache_misses_total{{{server},zones=\".\",view=\"\"}} 1"),
        format!("coredns_cache_entries{{{server},type=\"success\",zones=\".\",view=\"\"}} 1"),
        format!(
            "coredns_proxy_request_duration_seconds_count{{proxy_name=\"forward\",to=\"{upstream}\",rcode=\"NOERROR\"}} 1"
        ),
        "coredns_forward_max_concurrent_rejects_total 0".to_owned(),
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    runtime.block_on(served.stop());
}

#[test]
fn a_loop_is_found_and_said() {
    let runtime = runtime();
    let _guard = runtime.enter();
    let port = free_port();
    let corefile = parse(&format!(
        ".:{port} {{\n bind 127.0.0.1\n errors\n loop\n cache\n forward . 127.0.0.1:{port}\n }}\n"
    ));
    let output = Arc::new(Output::kept());
    let resources = resources(&output);
    let looping = resources.looping.clone();
    let served = Served::start(&corefile, resources, options(2)).unwrap();
    let found = runtime.block_on(async {
        let most = Duration::from_secs(10);
        tokio::time::timeout(most, looping.found()).await.unwrap()
    });
    assert!(found.starts_with("Loop (127.0.0.1:"), "{found}");
    assert!(
        found.contains(&format!(
            "-> 127.0.0.1:{port}) detected for zone \".\", see "
        )),
        "{found}"
    );
    runtime.block_on(served.stop());
}

#[test]
fn upstreams_of_a_file_are_read_again() {
    let runtime = runtime();
    let _guard = runtime.enter();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("resolv.conf");
    // Nobody listens on port 53 of these: what counts is who is asked.
    std::fs::write(&path, "nameserver 127.0.53.1\n").unwrap();
    let port = free_port();
    let corefile = parse(&format!(
        ".:{port} {{\n bind 127.0.0.1\n errors\n forward . {}\n }}\n",
        path.display()
    ));
    let output = Arc::new(Output::kept());
    let served = Served::start(&corefile, resources(&output), options(1)).unwrap();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let told = || {
        dig(address, &["a.example", "+tries=1", "+time=6"]);
        output.take()
    };
    let refused = |server: &str| format!("->{server}:53: read: connection refused");
    let first = told();
    assert!(first.contains(&refused("127.0.53.1")), "{first}");
    std::fs::write(&path, "nameserver 127.0.53.22\n").unwrap();
    let end = Instant::now() + Duration::from_secs(15);
    loop {
        let now = told();
        if now.contains(&refused("127.0.53.22")) {
            break;
        }
        assert!(Instant::now() < end, "{now}");
        std::thread::sleep(Duration::from_millis(100));
    }
    runtime.block_on(served.stop());
}
