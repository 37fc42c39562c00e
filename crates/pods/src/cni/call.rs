//! One call of the plugin: its command and environment.

use serde::{Deserialize, Serialize};

use super::{CniError, code};

/// What the runtime wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Command {
    /// Attach a container.
    Add,
    /// Detach it.
    Del,
    /// Is the attachment as ADD left it?
    Check,
    /// Could an ADD be served?
    Status,
    /// Remove what is not in the list of valid attachments.
    Gc,
    /// Which versions are spoken?
    Version,
}

/// A call as its environment describes it, checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Call {
    /// CNI_COMMAND.
    pub command: Command,
    /// CNI_CONTAINERID; empty for STATUS, GC and VERSION.
    #[serde(default)]
    pub container_id: String,
    /// CNI_NETNS; may be empty for DEL.
    #[serde(default)]
    pub netns: String,
    /// CNI_IFNAME.
    #[serde(default)]
    pub ifname: String,
    /// CNI_ARGS as given.
    #[serde(default)]
    pub args: String,
}

impl Call {
    /// Reads the call from an environment; error 4 names what is missing or wrong.
    pub fn from_env(get: impl Fn(&str) -> Option<String>) -> Result<Call, CniError> {
        let get = |name: &str| get(name).unwrap_or_default();
        let bad = |message: String| CniError::new(code::BAD_ENVIRONMENT, message);
        let command = match get("CNI_COMMAND").as_str() {
            "ADD" => Command::Add,
            "DEL" => Command::Del,
            "CHECK" => Command::Check,
            "STATUS" => Command::Status,
            "GC" => Command::Gc,
            "VERSION" => Command::Version,
            "" => {
                return Err(bad(
                    "required env variables [CNI_COMMAND] missing".to_owned()
                ));
            }
            other => return Err(bad(format!("unknown CNI_COMMAND: {other}"))),
        };
        let call = Call {
            command,
            container_id: get("CNI_CONTAINERID"),
            netns: get("CNI_NETNS"),
            ifname: get("CNI_IFNAME"),
            args: get("CNI_ARGS"),
        };
        call.validate()?;
        Ok(call)
    }

    /// Checks what [`Call::from_env`] promises; for calls that came over the socket.
    pub fn validate(&self) -> Result<(), CniError> {
        let (container, netns) = match self.command {
            Command::Add | Command::Check => (true, true),
            Command::Del => (true, false),
            Command::Status | Command::Gc | Command::Version => (false, false),
        };
        let missing: Vec<&str> = [
            ("CNI_CONTAINERID", container && self.container_id.is_empty()),
            ("CNI_NETNS", netns && self.netns.is_empty()),
            ("CNI_IFNAME", container && self.ifname.is_empty()),
        ]
        .into_iter()
        .filter_map(|(name, missing)| missing.then_some(name))
        .collect();
        if !missing.is_empty() {
            let message = format!("required env variables [{}] missing", missing.join(","));
            return Err(CniError::new(code::BAD_ENVIRONMENT, message));
        }
        if container {
            if !is_name(&self.container_id) || self.container_id.len() > 256 {
                return Err(CniError::new(
                    code::BAD_ENVIRONMENT,
                    "invalid characters in CNI_CONTAINERID",
                )
                .details(format!(
                    "{:?}: letters, digits, '_', '.' and '-' only, at most 256",
                    self.container_id
                )));
            }
            check_ifname(&self.ifname)?;
        }
        Ok(())
    }
}

/// Letters, digits, `_`, `.`, `-`, the first a letter or a digit.
pub(super) fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
}

fn check_ifname(name: &str) -> Result<(), CniError> {
    let cause = if name.len() > 15 {
        "it has more than 15 characters"
    } else if name == "." || name == ".." {
        "it is . or .."
    } else if name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control()) {
        "it contains /, : or white space"
    } else {
        return Ok(());
    };
    Err(
        CniError::new(code::BAD_ENVIRONMENT, "CNI_IFNAME is not an interface name")
            .details(format!("{name:?}: {cause}")),
    )
}

/// What CNI_ARGS says of the pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodArgs {
    /// K8S_POD_NAMESPACE.
    pub namespace: String,
    /// K8S_POD_NAME.
    pub name: String,
    /// K8S_POD_UID.
    pub uid: String,
    /// IP, as host-local takes it: one requested address.
    pub ip: Option<String>,
    /// MAC, as bridge takes it.
    pub mac: Option<String>,
}

impl PodArgs {
    /// Reads `KEY=VALUE;KEY=VALUE`; unknown keys are error 4 unless IgnoreUnknown is set.
    pub fn parse(args: &str) -> Result<PodArgs, CniError> {
        let bad = |details: String| {
            CniError::new(code::BAD_ENVIRONMENT, "CNI_ARGS is wrong").details(details)
        };
        let mut pod = PodArgs::default();
        let mut ignore = false;
        let mut unknown = Vec::new();
        for pair in args
            .split(';')
            .map(str::trim)
            .filter(|pair| !pair.is_empty())
        {
            let Some((key, value)) = pair.split_once('=') else {
                return Err(bad(format!("{pair:?} is not KEY=VALUE")));
            };
            match key {
                "IgnoreUnknown" => {
                    ignore = match value.to_ascii_lowercase().as_str() {
                        "1" | "true" => true,
                        "0" | "false" => false,
                        _ => {
                            return Err(bad(format!("IgnoreUnknown={value}: write true or false")));
                        }
                    }
                }
                "K8S_POD_NAMESPACE" => pod.namespace = value.to_owned(),
                "K8S_POD_NAME" => pod.name = value.to_owned(),
                "K8S_POD_UID" => pod.uid = value.to_owned(),
                "K8S_POD_INFRA_CONTAINER_ID" => {}
                "IP" => pod.ip = Some(value.to_owned()),
                "MAC" => pod.mac = Some(value.to_owned()),
                _ => unknown.push(pair),
            }
        }
        if unknown.is_empty() || ignore {
            Ok(pod)
        } else {
            Err(bad(format!(
                "unknown args {unknown:?}; set IgnoreUnknown=true to have them ignored"
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env<'a>(pairs: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
        |name| {
            pairs
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        }
    }

    #[test]
    fn all_missing_variables_are_named_at_once() {
        let error = Call::from_env(env(&[("CNI_COMMAND", "ADD")])).unwrap_err();
        assert_eq!(error.code, 4);
        assert_eq!(
            error.msg,
            "required env variables [CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME] missing"
        );
        let error = Call::from_env(env(&[])).unwrap_err();
        assert_eq!(error.msg, "required env variables [CNI_COMMAND] missing");
        assert!(Call::from_env(env(&[("CNI_COMMAND", "VERSION")])).is_ok());
    }

    #[test]
    fn names_are_checked() {
        let with = |id: &str, ifname: &str| {
            Call::from_env(env(&[
                ("CNI_COMMAND", "DEL"),
                ("CNI_CONTAINERID", id),
                ("CNI_IFNAME", ifname),
            ]))
            .map_err(|error| error.code)
        };
        assert!(with("a-1_b.c", "eth0").is_ok());
        assert_eq!(with("../etc", "eth0"), Err(4));
        assert_eq!(with("a", "eth0/x"), Err(4));
        assert_eq!(with("a", "averyveryverylongname"), Err(4));
        assert_eq!(with("a", ".."), Err(4));
    }

    #[test]
    fn args_are_read_and_unknown_ones_refused() {
        let pod = PodArgs::parse(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=web;K8S_POD_UID=u;X=y",
        )
        .unwrap();
        assert_eq!(
            (pod.namespace.as_str(), pod.name.as_str(), pod.uid.as_str()),
            ("ns", "web", "u")
        );
        assert_eq!(PodArgs::parse("X=y").unwrap_err().code, 4);
        assert_eq!(PodArgs::parse("IgnoreUnknown=maybe").unwrap_err().code, 4);
        assert_eq!(PodArgs::parse("nonsense").unwrap_err().code, 4);
        assert_eq!(PodArgs::parse("").unwrap(), PodArgs::default());
    }
}
