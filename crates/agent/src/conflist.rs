//! The CNI configuration that the runtime finds the plugin by.

use std::fs;
use std::path::Path;

use serde_json::json;

const NAME: &str = "10-flatnet.conflist";

/// Writes the configuration list into `folder`, at once and only where it differs: runtimes
/// watch the folder, and its appearance means that pods can be attached.
pub(crate) fn write(folder: &Path, socket: &Path, state: &Path) -> Result<(), String> {
    let list = json!({
        "cniVersion": "1.1.0",
        "cniVersions": pods::cni::SUPPORTED.map(|version| version.as_str()),
        "name": "flatnet",
        "plugins": [{
            "type": "flatnet-cni",
            "capabilities": {
                "portMappings": true,
                "ips": true,
                "mac": true,
                "dns": true,
                "bandwidth": true,
            },
            "agentSocket": socket,
            "stateDir": state,
        }],
    });
    let path = folder.join(NAME);
    let text = format!("{list:#}\n");
    if fs::read_to_string(&path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    let new = folder.join(format!(".{NAME}.new"));
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(&new, text))
        .and_then(|()| fs::rename(&new, &path))
        .map_err(|error| format!("CNI configuration {}: write: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_plugin_understands_its_own_configuration() {
        let dir = tempfile::tempdir().unwrap();
        super::write(
            dir.path(),
            "/run/x/agent.sock".as_ref(),
            "/var/lib/x".as_ref(),
        )
        .unwrap();
        let text = std::fs::read_to_string(dir.path().join(super::NAME)).unwrap();
        let list: serde_json::Value = serde_json::from_str(&text).unwrap();
        // As a runtime hands it to the plugin.
        let mut plugin = list["plugins"][0].clone();
        plugin["name"] = list["name"].clone();
        plugin["cniVersion"] = list["cniVersion"].clone();
        let conf = pods::cni::NetConf::parse(plugin.to_string().as_bytes()).unwrap();
        assert_eq!(conf.agent_socket, std::path::Path::new("/run/x/agent.sock"));
        assert_eq!(conf.state_dir, std::path::Path::new("/var/lib/x"));
    }
}
