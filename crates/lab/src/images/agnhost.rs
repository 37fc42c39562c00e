//! Kubernetes' test image: one program with a subcommand for each thing tests need.

use std::fs;
use std::time::{Duration, Instant};

use http::StatusCode;
use tokio::io::AsyncWriteExt;

use super::arguments::Flags;
use super::serve::{self, Answer, Asked};
use super::{connect, netexec, web};

/// `agnhost SUBCOMMAND ...`
pub(super) fn main(args: &[String]) -> i32 {
    let Some((command, rest)) = args.split_first() else {
        println!("Usage:\n  agnhost [command]");
        return 0;
    };
    let done = match command.as_str() {
        "pause" => {
            println!("Paused");
            return pause();
        }
        "connect" => return connect::main(rest),
        "netexec" => netexec::main(rest),
        "serve-hostname" => serve_hostname(rest),
        "porter" => porter(rest),
        "liveness" => Ok(liveness()),
        "test-webserver" => test_webserver(rest),
        "tcp-reset" => tcp_reset(rest),
        "no-snat-test" => no_snat_test(rest),
        "entrypoint-tester" => {
            println!("[/agnhost {}]", args.join(" "));
            Ok(0)
        }
        "etc-hosts" => fs::read_to_string("/etc/hosts")
            .map_err(|e| e.to_string())
            .map(|text| {
                println!("{text}");
                0
            }),
        "dns-suffix" => Ok(print_resolver("search")),
        "dns-server-list" => Ok(print_resolver("nameserver")),
        _ => Err(format!("unknown command {command:?} for \"agnhost\"")),
    };
    done.unwrap_or_else(|text| {
        eprintln!("Error: {text}");
        1
    })
}

/// Does nothing until it is told to end.
pub(super) fn pause() -> i32 {
    serve::run(async { Ok(()) })
}

/// The words of all lines of resolv.conf that begin with `key`.
fn print_resolver(key: &str) -> i32 {
    let text = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    println!("{}", resolver_words(&text, key).join(","));
    0
}

fn resolver_words<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    let lines = text.lines().map(str::split_whitespace);
    let mut found = lines.filter_map(|mut words| (words.next() == Some(key)).then_some(words));
    // The last search line counts, as resolv.conf(5) says; each nameserver does.
    if key == "search" {
        found.next_back().into_iter().flatten().collect()
    } else {
        found.flatten().collect()
    }
}

fn port(flags: &Flags, name: &str, default: i32) -> Result<u16, String> {
    let number = flags.number(name, default)?;
    u16::try_from(number)
        .map_err(|_| format!("invalid argument \"{number}\" for \"--{name}\" flag"))
}

fn serve_hostname(args: &[String]) -> Result<i32, String> {
    let flags = Flags::parse(args, &["port"], &["tcp", "udp", "http", "close"])?;
    let port = port(&flags, "port", 9376)?;
    let (tcp, udp) = (flags.switch("tcp", false), flags.switch("udp", false));
    let http = flags.switch("http", true);
    if http && (tcp || udp) {
        return Err("Can't server TCP/UDP mode and HTTP mode at the same time".into());
    }
    let close = flags.switch("close", false);
    Ok(serve::run(async move {
        let name = serve::host_name();
        if tcp {
            let listener = serve::listen(port).await?;
            let name = name.clone();
            tokio::spawn(async move {
                while let Ok((mut stream, peer)) = listener.accept().await {
                    serve::log(&format!("TCP request from {}", serve::plain(peer)));
                    let _ = stream.write_all(name.as_bytes()).await;
                }
            });
        }
        if udp {
            answer_datagrams(port, name.clone()).await?;
        }
        if http {
            let handler = serve::handler(move |asked: Asked| {
                let name = name.clone();
                async move {
                    serve::log(&format!("HTTP request from {}", asked.peer));
                    let mut answer = plain_text(name);
                    if close {
                        let value = http::HeaderValue::from_static("close");
                        answer.headers_mut().insert(http::header::CONNECTION, value);
                    }
                    answer
                }
            });
            serve::http(port, handler).await?;
        }
        serve::log(&format!("Serving on port {port}."));
        Ok(())
    }))
}

/// Answers every datagram with the same text.
async fn answer_datagrams(port: u16, text: String) -> Result<(), String> {
    let socket = serve::listen_udp(port).await?;
    tokio::spawn(async move {
        let mut buffer = [0; 2048];
        loop {
            if let Ok((_, peer)) = socket.recv_from(&mut buffer).await {
                let _ = socket.send_to(text.as_bytes(), peer).await;
            }
        }
    });
    Ok(())
}

fn porter(args: &[String]) -> Result<i32, String> {
    let flags = Flags::parse(args, &[], &["json-response"])?;
    let json = flags.switch("json-response", false);
    Ok(serve::run(async move {
        for (key, value) in std::env::vars() {
            let udp = key.strip_prefix("SERVE_UDP_PORT_");
            let tcp = key
                .strip_prefix("SERVE_TCP_PORT_")
                .or(key.strip_prefix("SERVE_PORT_"));
            if let Some(port) = udp.and_then(|p| p.parse().ok()) {
                answer_datagrams(port, value).await?;
            } else if let Some(port) = tcp.and_then(|p| p.parse().ok()) {
                let handler = serve::handler(move |asked: Asked| {
                    let value = value.clone();
                    async move { porter_answer(&asked, value, json) }
                });
                serve::http(port, handler).await?;
            }
        }
        Ok(())
    }))
}

fn porter_answer(asked: &Asked, value: String, json: bool) -> Answer {
    if !json {
        return plain_text(value);
    }
    let body = serde_json::json!({ "Method": asked.method.as_str(), "Body": value });
    serve::text(StatusCode::OK, "application/json", body.to_string())
}

fn liveness() -> i32 {
    serve::run(async {
        let started = Instant::now();
        let handler = serve::handler(move |asked: Asked| async move {
            match asked.uri.path() {
                "/healthz" if started.elapsed() > Duration::from_secs(10) => {
                    let text = format!("error: {}", started.elapsed().as_secs_f64());
                    serve::text(StatusCode::INTERNAL_SERVER_ERROR, PLAIN, text)
                }
                "/healthz" => plain_text("ok".to_owned()),
                "/started" => plain_text(format!("{}", started.elapsed().as_secs_f64())),
                _ => serve::text(StatusCode::NOT_FOUND, PLAIN, "404 page not found\n"),
            }
        });
        serve::http(8080, handler).await
    })
}

fn test_webserver(args: &[String]) -> Result<i32, String> {
    let flags = Flags::parse(args, &["port"], &[])?;
    let port = port(&flags, "port", 80)?;
    Ok(serve::run(async move {
        let handler = serve::handler(async |asked| web::files("/", &asked));
        serve::http(port, handler).await
    }))
}

/// Reads one byte and closes: a client that sent more gets a reset.
fn tcp_reset(args: &[String]) -> Result<i32, String> {
    let flags = Flags::parse(args, &["port"], &[])?;
    let port = port(&flags, "port", 8080)?;
    Ok(serve::run(async move {
        let listener = serve::listen(port).await?;
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let _ = tokio::io::AsyncReadExt::read_u8(&mut stream).await;
                });
            }
        });
        Ok(())
    }))
}

/// `/whoami` says who asks; `/checknosnat?ips=A,B` asks others whether they see POD_IP.
fn no_snat_test(args: &[String]) -> Result<i32, String> {
    let flags = Flags::parse(args, &["port"], &[])?;
    let port = port(&flags, "port", 8080)?;
    let own = std::env::var("POD_IP").unwrap_or_default();
    Ok(serve::run(async move {
        let handler = serve::handler(move |asked: Asked| {
            let own = own.clone();
            async move {
                match asked.uri.path() {
                    "/whoami" => plain_text(asked.peer.to_string()),
                    "/checknosnat" => check_no_snat(&asked, &own, port).await,
                    _ => serve::text(StatusCode::NOT_FOUND, PLAIN, "404 page not found\n"),
                }
            }
        });
        serve::http(port, handler).await
    }))
}

async fn check_no_snat(asked: &Asked, own: &str, port: u16) -> Answer {
    for ip in asked.form("ips").split(',') {
        let host = if ip.contains(':') {
            format!("[{ip}]")
        } else {
            ip.to_owned()
        };
        let said = netexec::fetch(&format!("{host}:{port}"), "whoami").await;
        let wrong = match said {
            Ok(said)
                if said
                    .rsplit_once(':')
                    .is_some_and(|(seen, _)| seen.trim_matches(['[', ']']) == own) =>
            {
                continue;
            }
            Ok(said) => format!("Masquerading was detected by {ip}: it saw {said}, not {own}"),
            Err(e) => e,
        };
        return serve::text(StatusCode::INTERNAL_SERVER_ERROR, PLAIN, wrong);
    }
    plain_text(String::new())
}

const PLAIN: &str = "text/plain; charset=utf-8";

fn plain_text(body: String) -> Answer {
    serve::text(StatusCode::OK, PLAIN, body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resolver_file_is_read_as_the_resolver_reads_it() {
        let text = "search old\nnameserver 10.96.0.10\nsearch a.b c\noptions ndots:5\nnameserver fd00::a\n";
        assert_eq!(resolver_words(text, "search"), ["a.b", "c"]);
        assert_eq!(
            resolver_words(text, "nameserver"),
            ["10.96.0.10", "fd00::a"]
        );
    }
}
