//! Which program stands for which image. Pure: a reference and what the pod says, to
//! program, arguments and environment.

use std::path::PathBuf;

use super::FOLDER;
use crate::shim::Mount;

/// Where every image looks for programs: the machine's, then what the machine lacks.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:\
                    /usr/lib/flatnet/bin:/usr/lib/flatnet/busybox";

/// What to run for a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// The image's own environment, PATH included; the pod's overrides it by name.
    pub env: Vec<(String, String)>,
    /// Mounts the program needs, to go before the pod's own.
    pub mounts: Vec<Mount>,
    /// Links the program needs (`ContainerSpec::links`).
    pub links: Vec<(PathBuf, PathBuf)>,
    /// Where the image is unknown and gave no program: the sentence for an Event on the pod.
    pub note: Option<String>,
}

/// What an image brings.
#[derive(Clone, Copy)]
struct Image {
    /// Goes before the arguments.
    entrypoint: &'static [&'static str],
    /// The arguments where the pod has none.
    command: &'static [&'static str],
    /// Folder that goes before the machine's programs.
    first: Option<&'static str>,
    /// Names at the root that lead to a built-in program.
    links: &'static [(&'static str, &'static str)],
    /// With arguments that are options or a URL, this program goes before them.
    options_to: Option<&'static str>,
}

const PLAIN: Image = Image {
    entrypoint: &[],
    command: &["sh"],
    first: None,
    links: &[],
    options_to: None,
};
const BUILT_IN: Image = Image {
    first: Some("bin"),
    command: &[],
    ..PLAIN
};

/// The image of a repository name without `docker.io` and `library`.
fn image(repository: &str) -> Option<Image> {
    // The test images of Kubernetes and pause have moved from registry to registry.
    let moved = [
        "registry.k8s.io/",
        "k8s.gcr.io/",
        "gcr.io/google_containers/",
        "gcr.io/google-containers/",
    ];
    let kubernetes = moved.iter().find_map(|r| repository.strip_prefix(r));
    let tests = kubernetes
        .and_then(|r| r.strip_prefix("e2e-test-images/"))
        .or_else(|| repository.strip_prefix("gcr.io/kubernetes-e2e-test-images/"));
    if let Some(name) = tests {
        return match name {
            "agnhost" => Some(AGNHOST),
            "busybox" | "nginx" | "httpd" => image(name),
            "jessie-dnsutils" => Some(Image {
                command: &["sleep", "infinity"],
                ..PLAIN
            }),
            _ => None,
        };
    }
    if kubernetes == Some("coredns/coredns") || repository == "coredns/coredns" {
        return Some(Image {
            entrypoint: &["/coredns"],
            links: &[("/coredns", "coredns")],
            ..BUILT_IN
        });
    }
    if kubernetes == Some("pause") {
        return Some(Image {
            entrypoint: &["/pause"],
            links: &[("/pause", "pause")],
            ..BUILT_IN
        });
    }
    Some(match repository {
        "nginx" | "nginxinc/nginx-unprivileged" | "bitnami/nginx" => Image {
            command: &["nginx", "-g", "daemon off;"],
            ..BUILT_IN
        },
        "kennethreitz/httpbin" => Image {
            command: &["httpbin"],
            ..BUILT_IN
        },
        "httpd" => Image {
            command: &["httpd-foreground"],
            ..BUILT_IN
        },
        "busybox" => Image {
            first: Some("busybox"),
            ..PLAIN
        },
        "alpine" => Image {
            command: &["/bin/sh"],
            ..PLAIN
        },
        "curlimages/curl" => Image {
            command: &["curl", "--help"],
            options_to: Some("curl"),
            ..PLAIN
        },
        "nicolaka/netshoot" | "debian" | "ubuntu" | "bash" | "fedora" | "rockylinux"
        | "infoblox/dnstools" | "tutum/dnsutils" => Image {
            command: &["bash"],
            ..PLAIN
        },
        "wbitt/network-multitool" | "praqma/network-multitool" => Image {
            command: &["nginx", "-g", "daemon off;"],
            ..BUILT_IN
        },
        "python" => Image {
            command: &["python3"],
            ..PLAIN
        },
        "hashicorp/http-echo" => Image {
            entrypoint: &["/http-echo"],
            links: &[("/http-echo", "http-echo")],
            ..BUILT_IN
        },
        "traefik/whoami" | "containous/whoami" => Image {
            entrypoint: &["/whoami"],
            links: &[("/whoami", "whoami")],
            ..BUILT_IN
        },
        "gcr.io/google-samples/hello-app"
        | "us-docker.pkg.dev/google-samples/containers/gke/hello-app" => Image {
            entrypoint: &["/hello-app"],
            links: &[("/hello-app", "hello-app")],
            ..BUILT_IN
        },
        _ => return None,
    })
}

const AGNHOST: Image = Image {
    entrypoint: &["/agnhost"],
    command: &["pause"],
    links: &[("/agnhost", "agnhost"), ("/agnhost-2", "agnhost")],
    ..BUILT_IN
};

/// The program for an image, without the mounts of the machine's folders.
pub(super) fn resolve(
    reference: &str,
    command: &[String],
    args: &[String],
    ports: &[u16],
) -> Program {
    let repository = repository(reference);
    let known = image(repository);
    let image = known.unwrap_or(PLAIN);
    let mut note = None;
    let argv = if !command.is_empty() {
        [command, args].concat()
    } else if known.is_none() && args.first().is_none_or(|a| a.starts_with('-')) {
        let (argv, sentence) = stand_in(reference, ports);
        note = Some(sentence);
        argv
    } else if args.is_empty() {
        words(&[image.entrypoint, image.command].concat())
    } else {
        let options = args
            .first()
            .is_some_and(|a| a.starts_with('-') || a.contains("://"));
        let before = image.options_to.filter(|_| options);
        [
            words(image.entrypoint),
            words(before.as_slice()),
            args.to_vec(),
        ]
        .concat()
    };
    let path = match image.first {
        Some(folder) => format!("{FOLDER}/{folder}:{PATH}"),
        None => PATH.to_owned(),
    };
    let link = |(name, program): &(&str, &str)| {
        (
            PathBuf::from(name),
            PathBuf::from(format!("{FOLDER}/bin/{program}")),
        )
    };
    Program {
        argv,
        env: [
            vec![("PATH".to_owned(), path)],
            image_env(repository, reference),
        ]
        .concat(),
        mounts: Vec::new(),
        links: image.links.iter().map(link).collect(),
        note,
    }
}

/// The server that stands for an image nobody knows, and the sentence that says so.
fn stand_in(reference: &str, ports: &[u16]) -> (Vec<String>, String) {
    let ports = if ports.is_empty() { &[8080] } else { ports };
    let mut argv = vec![format!("{FOLDER}/bin/echo-server")];
    argv.extend(ports.iter().map(u16::to_string));
    let list = ports
        .iter()
        .map(u16::to_string)
        .collect::<Vec<_>>()
        .join(", ");
    let sentence = format!(
        "Image {reference:?} is not in the built-in table and the container has no command: \
         an echo server (TCP, HTTP and UDP) on port {list} stands in for it; give the container \
         a command to run a program of this machine"
    );
    (argv, sentence)
}

/// Variables that images set and programs here read.
fn image_env(repository: &str, reference: &str) -> Vec<(String, String)> {
    let pairs: &[(&str, &str)] = match repository {
        "hashicorp/http-echo" => &[("ECHO_TEXT", "hello-world")],
        "nginxinc/nginx-unprivileged" | "bitnami/nginx" => &[("NGINX_PORT", "8080")],
        r if r.ends_with("/hello-app") && reference.ends_with(":2.0") => &[("VERSION", "2.0.0")],
        _ => &[],
    };
    pairs
        .iter()
        .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
        .collect()
}

/// The reference without tag, digest, `docker.io` and `library`.
fn repository(reference: &str) -> &str {
    let name = reference
        .split_once('@')
        .map_or(reference, |(name, _)| name);
    let last = name.rfind('/').map_or(0, |n| n + 1);
    let name = match name[last..].find(':') {
        Some(colon) => &name[..last + colon],
        None => name,
    };
    let hubs = ["docker.io/", "index.docker.io/", "registry-1.docker.io/"];
    let name = hubs
        .iter()
        .find_map(|hub| name.strip_prefix(hub))
        .unwrap_or(name);
    name.strip_prefix("library/").unwrap_or(name)
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|w| (*w).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn argv(image: &str, command: &[&str], args: &[&str]) -> Vec<String> {
        resolve(image, &words(command), &words(args), &[]).argv
    }

    #[test]
    fn names_are_normalised() {
        for name in [
            "nginx",
            "nginx:1.27",
            "library/nginx",
            "docker.io/library/nginx:latest",
            "docker.io/nginx@sha256:0123456789abcdef",
            "index.docker.io/library/nginx:1.27@sha256:0123",
        ] {
            assert_eq!(repository(name), "nginx", "{name}");
        }
        assert_eq!(repository("localhost:5000/nginx:1"), "localhost:5000/nginx");
        assert_eq!(repository("nicolaka/netshoot:v0.13"), "nicolaka/netshoot");
    }

    #[test]
    fn command_and_args_override_as_kubernetes_says() {
        let agnhost = "registry.k8s.io/e2e-test-images/agnhost:2.53";
        assert_eq!(argv(agnhost, &[], &[]), ["/agnhost", "pause"]);
        assert_eq!(argv(agnhost, &[], &["netexec"]), ["/agnhost", "netexec"]);
        assert_eq!(
            argv(agnhost, &["/agnhost"], &["pause"]),
            ["/agnhost", "pause"]
        );
        assert_eq!(argv(agnhost, &["sleep"], &["1"]), ["sleep", "1"]);
        assert_eq!(
            argv("k8s.gcr.io/e2e-test-images/agnhost", &[], &[]),
            ["/agnhost", "pause"]
        );
        assert_eq!(argv("nginx", &[], &[]), ["nginx", "-g", "daemon off;"]);
        assert_eq!(argv("busybox", &[], &["wget", "x"]), ["wget", "x"]);
        assert_eq!(argv("busybox", &[], &[]), ["sh"]);
        assert_eq!(argv("registry.k8s.io/pause:3.10", &[], &[]), ["/pause"]);
        for image in ["registry.k8s.io/coredns/coredns:v1.13.1", "coredns/coredns"] {
            assert_eq!(
                argv(image, &[], &["-conf", "/etc/coredns/Corefile"]),
                ["/coredns", "-conf", "/etc/coredns/Corefile"]
            );
        }
    }

    #[test]
    fn curl_takes_options_and_commands() {
        let curl = "curlimages/curl:8.10.1";
        assert_eq!(
            argv(curl, &[], &["-s", "http://a"]),
            ["curl", "-s", "http://a"]
        );
        assert_eq!(argv(curl, &[], &["http://a"]), ["curl", "http://a"]);
        assert_eq!(argv(curl, &[], &["nslookup", "a"]), ["nslookup", "a"]);
    }

    #[test]
    fn an_unknown_image_is_an_echo_server_that_says_so() {
        let program = resolve("example.com/db:1", &[], &[], &[5432, 9187]);
        assert_eq!(
            program.argv,
            ["/usr/lib/flatnet/bin/echo-server", "5432", "9187"]
        );
        let note = program.note.unwrap();
        assert!(
            note.contains("\"example.com/db:1\"") && note.contains("5432, 9187"),
            "{note}"
        );
        let options = resolve("myapp", &[], &words(&["--verbose"]), &[]);
        assert_eq!(options.argv, ["/usr/lib/flatnet/bin/echo-server", "8080"]);
        // Its own command, or one from `kubectl run -- COMMAND`, runs.
        assert_eq!(argv("myapp", &["sleep", "1"], &[]), ["sleep", "1"]);
        assert_eq!(argv("myapp", &[], &["bash"]), ["bash"]);
        assert_eq!(resolve("myapp", &words(&["sleep"]), &[], &[]).note, None);
    }

    #[test]
    fn busybox_comes_first_in_its_own_image_only() {
        let path = |image: &str| resolve(image, &[], &[], &[]).env[0].1.clone();
        assert!(path("busybox").starts_with("/usr/lib/flatnet/busybox:"));
        assert!(path("nginx").starts_with("/usr/lib/flatnet/bin:"));
        assert!(path("debian").starts_with("/usr/local/sbin:"));
        assert!(path("debian").ends_with(":/usr/lib/flatnet/busybox"));
    }
}
