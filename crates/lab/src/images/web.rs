//! The well-known web servers: nginx, httpd, http-echo, whoami, hello-app.

use std::fmt::Write as _;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::time::Instant;

use http::{HeaderValue, Method, StatusCode, header};

use super::arguments::Flags;
use super::netexec::canonical;
use super::serve::{self, Answer, Asked};

const PLAIN: &str = "text/plain; charset=utf-8";
/// Where nginx serves from.
const NGINX_ROOT: &str = "/usr/share/nginx/html";
/// The page nginx brings.
const WELCOME: &str = include_str!("welcome.html");
const NGINX_VERSION: &str = "1.27.5";

/// `nginx ...`: its page, or the files mounted at its root.
pub(super) fn nginx(args: &[String]) -> i32 {
    if args.iter().any(|a| a == "-v" || a == "-V") {
        eprintln!("nginx version: nginx/{NGINX_VERSION}");
        return 0;
    }
    if args.iter().any(|a| a == "-t" || a == "-s") {
        eprintln!("nginx: configuration file /etc/nginx/nginx.conf test is successful");
        return 0;
    }
    let configuration = nginx_configuration(Path::new("/etc/nginx/conf.d"));
    let ports = nginx_ports(&configuration);
    for statement in not_done(&configuration) {
        eprintln!("[warn] 1#1: flatnet's stand-in for nginx serves files only: no {statement:?}");
    }
    serve::run(async move {
        serve::say("/docker-entrypoint.sh: Configuration complete; ready for start up");
        for port in ports {
            serve::http(port, serve::handler(async |asked| nginx_answer(&asked))).await?;
        }
        let now = jiff::Timestamp::now()
            .strftime("%Y/%m/%d %H:%M:%S")
            .to_string();
        eprintln!("{now} [notice] 1#1: nginx/{NGINX_VERSION}");
        eprintln!("{now} [notice] 1#1: start worker processes");
        Ok(())
    })
}

/// What a mounted configuration of nginx says.
fn nginx_configuration(folder: &Path) -> String {
    let mut texts = String::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().extension().is_some_and(|e| e == "conf") {
            texts += &fs::read_to_string(entry.path()).unwrap_or_default();
        }
    }
    texts
}

/// The ports of its `listen` statements; 80 without one.
fn nginx_ports(text: &str) -> Vec<u16> {
    let mut ports = listens(text);
    if ports.is_empty() {
        let set = std::env::var("NGINX_PORT")
            .ok()
            .and_then(|p| p.parse().ok());
        ports.push(set.unwrap_or(80));
    }
    ports
}

/// Its statements that this stand-in does not carry out.
fn not_done(text: &str) -> Vec<&'static str> {
    let known = [
        "proxy_pass",
        "return",
        "rewrite",
        "upstream",
        "fastcgi_pass",
        "ssl_certificate",
    ];
    let words = text.lines().filter_map(|l| l.split_whitespace().next());
    let words: Vec<&str> = words.collect();
    known.into_iter().filter(|k| words.contains(k)).collect()
}

fn listens(text: &str) -> Vec<u16> {
    let lines = text
        .lines()
        .map(|l| l.split_once('#').map_or(l, |(code, _)| code));
    let mut ports: Vec<u16> = lines
        .flat_map(|l| l.split([';', '{']))
        .filter_map(|statement| {
            let mut words = statement.split_whitespace();
            let address = (words.next() == Some("listen")).then(|| words.next())??;
            address.rsplit(':').next().and_then(|p| p.parse().ok())
        })
        .collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

fn nginx_answer(asked: &Asked) -> Answer {
    let mut answer = nginx_page(asked);
    let server = format!("nginx/{NGINX_VERSION}");
    if let Ok(server) = HeaderValue::from_str(&server) {
        answer.headers_mut().insert(header::SERVER, server);
    }
    serve::say(&access_line(asked, &answer));
    answer
}

fn nginx_page(asked: &Asked) -> Answer {
    if asked.method != Method::GET && asked.method != Method::HEAD {
        return nginx_error(StatusCode::METHOD_NOT_ALLOWED, "Not Allowed");
    }
    let found = find(NGINX_ROOT, asked.uri.path());
    match found {
        Some(Found::File(path)) => match fs::read(&path) {
            Ok(content) => serve::text(StatusCode::OK, kind_of(&path), content),
            Err(_) => nginx_error(StatusCode::FORBIDDEN, "Forbidden"),
        },
        // Something is mounted there, without a page: as nginx without autoindex.
        Some(Found::Folder(_)) => nginx_error(StatusCode::FORBIDDEN, "Forbidden"),
        None if ["/", "/index.html"].contains(&asked.uri.path()) => {
            serve::text(StatusCode::OK, "text/html", WELCOME)
        }
        None => nginx_error(StatusCode::NOT_FOUND, "Not Found"),
    }
}

fn nginx_error(status: StatusCode, reason: &str) -> Answer {
    let code = status.as_u16();
    let body = format!(
        "<html>\r\n<head><title>{code} {reason}</title></head>\r\n<body>\r\n\
         <center><h1>{code} {reason}</h1></center>\r\n\
         <hr><center>nginx/{NGINX_VERSION}</center>\r\n</body>\r\n</html>\r\n"
    );
    serve::text(status, "text/html", body)
}

/// A line of the combined format, as the image of nginx writes it.
fn access_line(asked: &Asked, answer: &Answer) -> String {
    use hyper::body::Body as _;
    let time = jiff::Timestamp::now().strftime("%d/%b/%Y:%H:%M:%S +0000");
    let length = answer.body().size_hint().exact().unwrap_or(0);
    let length = if asked.method == Method::HEAD {
        0
    } else {
        length
    };
    format!(
        "{} - - [{time}] \"{} {} {:?}\" {} {length} \"{}\" \"{}\" \"{}\"",
        asked.peer.ip(),
        asked.method,
        asked.uri,
        asked.version,
        answer.status().as_u16(),
        asked.header("referer").unwrap_or("-"),
        asked.header("user-agent").unwrap_or("-"),
        asked.header("x-forwarded-for").unwrap_or("-"),
    )
}

/// `httpd-foreground`: Apache's page, or the files mounted at its root.
pub(super) fn httpd() -> i32 {
    serve::run(async {
        let handler = serve::handler(async |asked| {
            let page = "<html><body><h1>It works!</h1></body></html>\n";
            let root = "/usr/local/apache2/htdocs";
            let mut answer = match asked.uri.path() {
                "/" | "/index.html" if find(root, "/").is_none() => {
                    serve::text(StatusCode::OK, "text/html", page)
                }
                _ => files(root, &asked),
            };
            let server = HeaderValue::from_static("Apache/2.4.63 (Unix)");
            answer.headers_mut().insert(header::SERVER, server);
            serve::say(&access_line(&asked, &answer));
            answer
        });
        serve::http(80, handler).await
    })
}

/// `http-echo -text=TEXT [-listen=:5678]`
pub(super) fn http_echo(args: &[String]) -> i32 {
    let flags = Flags::parse(args, &["text", "listen", "status-code"], &["version"]);
    let echo = flags.and_then(|flags| {
        let set = std::env::var("ECHO_TEXT").unwrap_or_default();
        let text = flags.text("text", &set).to_owned();
        let port = flags
            .text("listen", ":5678")
            .rsplit(':')
            .next()
            .and_then(|p| p.parse().ok());
        let port: u16 = port.ok_or("-listen needs an address as :5678")?;
        let status = u16::try_from(flags.number("status-code", 200)?).ok();
        let status = status
            .and_then(|s| StatusCode::from_u16(s).ok())
            .ok_or("invalid -status-code")?;
        if text.is_empty() {
            return Err("Missing -text option!".to_owned());
        }
        Ok((text, port, status))
    });
    let (text, port, status) = match echo {
        Ok(echo) => echo,
        Err(e) => {
            eprintln!("{e}");
            return 127;
        }
    };
    serve::run(async move {
        let handler = serve::handler(move |asked: Asked| {
            let text = text.clone();
            async move { http_echo_answer(&asked, &text, status) }
        });
        serve::http(port, handler).await?;
        serve::log(&format!("[INFO] server is listening on :{port}"));
        Ok(())
    })
}

fn http_echo_answer(asked: &Asked, text: &str, status: StatusCode) -> Answer {
    let begun = Instant::now();
    let health = asked.uri.path() == "/health";
    let mut answer = if health {
        serve::text(StatusCode::OK, "application/json", "{\"status\":\"ok\"}\n")
    } else {
        serve::text(status, PLAIN, format!("{text}\n"))
    };
    let name = HeaderValue::from_static("http-echo");
    answer.headers_mut().insert("x-app-name", name);
    answer
        .headers_mut()
        .insert("x-app-version", HeaderValue::from_static("1.0.0"));
    let time = jiff::Timestamp::now().strftime("%Y/%m/%d %H:%M:%S");
    serve::say(&format!(
        "{time} {} {} \"{} {} {:?}\" {} {} \"{}\" {:?}",
        asked.header("host").unwrap_or_default(),
        asked.peer,
        asked.method,
        asked.uri,
        asked.version,
        answer.status().as_u16(),
        text.len() + 1,
        asked.header("user-agent").unwrap_or_default(),
        begun.elapsed(),
    ));
    answer
}

/// `whoami [-port N] [-name TEXT]`: the request as it arrived, and by whom.
pub(super) fn whoami(args: &[String]) -> i32 {
    let flags = Flags::parse(args, &["port", "name"], &["verbose"]);
    let set = std::env::var("WHOAMI_PORT_NUMBER")
        .ok()
        .and_then(|p| p.parse().ok());
    let (port, name) = match flags.and_then(|f| {
        let port = f.number("port", set.unwrap_or(80))?;
        let name = std::env::var("WHOAMI_NAME").unwrap_or_default();
        let port = u16::try_from(port).map_err(|_| format!("invalid port {port}"))?;
        Ok((port, f.text("name", &name).to_owned()))
    }) {
        Ok(found) => found,
        Err(e) => {
            eprintln!("{e}");
            return 2;
        }
    };
    serve::run(async move {
        let handler = serve::handler(move |asked: Asked| {
            let name = name.clone();
            async move { whoami_answer(&asked, &name) }
        });
        serve::http(port, handler).await?;
        serve::log(&format!("Starting up on port {port}"));
        Ok(())
    })
}

fn whoami_answer(asked: &Asked, name: &str) -> Answer {
    let addresses = own_addresses();
    match asked.uri.path() {
        "/health" => return serve::text(StatusCode::OK, PLAIN, ""),
        "/bench" => return serve::text(StatusCode::OK, "text/plain", "1"),
        "/api" => {
            let headers: serde_json::Map<String, serde_json::Value> = asked
                .headers
                .iter()
                .filter(|(n, _)| *n != header::HOST)
                .map(|(n, v)| {
                    (
                        canonical(n.as_str()),
                        vec![String::from_utf8_lossy(v.as_bytes())].into(),
                    )
                })
                .collect();
            let body = serde_json::json!({
                "hostname": serve::host_name(),
                "ip": addresses,
                "headers": headers,
                "url": asked.uri.to_string(),
                "host": asked.header("host").unwrap_or_default(),
                "method": asked.method.as_str(),
                "remoteAddr": asked.peer.to_string(),
            });
            return serve::text(StatusCode::OK, "application/json", format!("{body}\n"));
        }
        _ => {}
    }
    let mut out = String::new();
    if !name.is_empty() {
        let _ = writeln!(out, "Name: {name}");
    }
    let _ = writeln!(out, "Hostname: {}", serve::host_name());
    for address in addresses {
        let _ = writeln!(out, "IP: {address}");
    }
    let _ = writeln!(out, "RemoteAddr: {}", asked.peer);
    let _ = write!(out, "{} {} HTTP/1.1\r\n", asked.method, asked.uri);
    let _ = write!(
        out,
        "Host: {}\r\n",
        asked.header("host").unwrap_or_default()
    );
    for (key, value) in asked.headers.iter().filter(|(n, _)| *n != header::HOST) {
        let value = String::from_utf8_lossy(value.as_bytes());
        let _ = write!(out, "{}: {value}\r\n", canonical(key.as_str()));
    }
    out.push_str("\r\n");
    serve::text(StatusCode::OK, PLAIN, out)
}

fn own_addresses() -> Vec<String> {
    let Ok(all) = nix::ifaddrs::getifaddrs() else {
        return Vec::new();
    };
    all.filter_map(|i| {
        let address = i.address?;
        let v4 = address.as_sockaddr_in().map(|a| a.ip().to_string());
        v4.or_else(|| address.as_sockaddr_in6().map(|a| a.ip().to_string()))
    })
    .collect()
}

/// Google's hello-app, which many tutorials use.
pub(super) fn hello_app() -> i32 {
    let variable = |name: &str, default: &str| std::env::var(name).unwrap_or(default.to_owned());
    let port = variable("PORT", "8080").parse().unwrap_or(8080);
    let version = variable("VERSION", "1.0.0");
    serve::run(async move {
        let handler = serve::handler(move |asked: Asked| {
            let version = version.clone();
            async move {
                serve::log(&format!("Serving request: {}", asked.uri.path()));
                let name = serve::host_name();
                let body = format!("Hello, world!\nVersion: {version}\nHostname: {name}\n");
                serve::text(StatusCode::OK, PLAIN, body)
            }
        });
        serve::http(port, handler).await?;
        serve::log(&format!("Server listening on port {port}"));
        Ok(())
    })
}

/// Files below a folder, with an index for folders.
pub(super) fn files(root: &str, asked: &Asked) -> Answer {
    let missing = || serve::text(StatusCode::NOT_FOUND, PLAIN, "404 page not found\n");
    match find(root, asked.uri.path()) {
        Some(Found::File(path)) => match fs::read(&path) {
            Ok(content) => serve::text(StatusCode::OK, kind_of(&path), content),
            Err(_) => missing(),
        },
        Some(Found::Folder(path)) => {
            let entries = fs::read_dir(path).into_iter().flatten().flatten();
            let mut names: Vec<String> = entries
                .map(|e| {
                    let slash = if e.path().is_dir() { "/" } else { "" };
                    format!("{}{slash}", e.file_name().to_string_lossy())
                })
                .collect();
            names.sort();
            let list: String = names
                .iter()
                .map(|n| format!("<a href=\"{n}\">{n}</a>\n"))
                .collect();
            serve::text(
                StatusCode::OK,
                "text/html; charset=utf-8",
                format!("<pre>\n{list}</pre>\n"),
            )
        }
        None => missing(),
    }
}

enum Found {
    File(PathBuf),
    Folder(PathBuf),
}

/// The file a request path names below `root`.
fn find(root: &str, path: &str) -> Option<Found> {
    let path = serve::decode(path);
    let mut file = PathBuf::from(root);
    for part in Path::new(&path).components() {
        match part {
            Component::Normal(name) => file.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    let found = fs::metadata(&file).ok()?;
    if !found.is_dir() {
        return Some(Found::File(file));
    }
    let index = file.join("index.html");
    Some(if index.is_file() {
        Found::File(index)
    } else {
        Found::Folder(file)
    })
}

fn kind_of(path: &Path) -> &'static str {
    match path.extension().and_then(|e| e.to_str()) {
        Some("html" | "htm") => "text/html",
        Some("css") => "text/css",
        Some("js") => "application/javascript",
        Some("json") => "application/json",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("txt") | None => "text/plain",
        Some(_) => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listen_statements_give_the_ports() {
        let text = "server { listen 8080; }\n# listen 1;\nserver {\n  listen [::]:8443 ssl;\n\
                    listen 127.0.0.1:9000 default_server;\n listen 8080; }";
        assert_eq!(listens(text), [8080, 8443, 9000]);
        assert_eq!(nginx_ports(""), [80]);
        assert_eq!(nginx_configuration(Path::new("/no/such/folder")), "");
        let proxy = "location / {\n  proxy_pass http://backend;\n  return 200;\n}";
        assert_eq!(not_done(proxy), ["proxy_pass", "return"]);
    }

    #[test]
    fn paths_stay_below_the_root() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_str().unwrap();
        fs::write(folder.path().join("index.html"), "hi").unwrap();
        assert!(matches!(find(root, "/"), Some(Found::File(_))));
        assert!(find(root, "/../../etc/passwd").is_none());
        assert!(find(root, "/%2e%2e/%2e%2e/etc/passwd").is_none());
        assert!(find(root, "/missing").is_none());
    }
}
