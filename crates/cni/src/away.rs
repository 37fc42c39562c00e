//! What the plugin does while no agent answers.

use std::fs;

use pods::Key;
use pods::cni::{Call, CniError, Command, NetConf, code};
use pods::interface::remove_in_namespace;
use pods::manager::RELEASED;
use serde_json::Value;

/// The answer to `call` with the agent away for `cause`.
pub fn answer(call: &Call, conf: &NetConf, cause: &str) -> Result<Option<Value>, CniError> {
    let away = |code: u32, message: &str| {
        let socket = conf.agent_socket.display();
        Err(CniError::new(code, message).details(format!(
            "agent at {socket}: {cause}; is `flatnet agent` running on this node?"
        )))
    };
    match call.command {
        Command::Add | Command::Check => {
            away(code::TRY_AGAIN, "the node's agent is away; try again later")
        }
        Command::Status => away(
            code::NOT_AVAILABLE,
            "the node's agent is away: no pod can be attached",
        ),
        Command::Del => release(call, conf).map(|()| None),
        // The agent compares attachments and links itself when it starts.
        Command::Gc => Ok(None),
        Command::Version => Ok(None),
    }
}

/// Takes the interface away and leaves word that its addresses are free.
fn release(call: &Call, conf: &NetConf) -> Result<(), CniError> {
    let key = Key {
        container: call.container_id.clone(),
        ifname: call.ifname.clone(),
    };
    if !call.netns.is_empty() {
        remove_in_namespace(&call.netns, &call.ifname)
            .map_err(|error| CniError::new(code::KERNEL, error.to_string()))?;
    }
    let folder = conf.state_dir.join(RELEASED);
    let marker = folder.join(key.host_link());
    let written = serde_json::to_vec(&key)
        .map_err(std::io::Error::from)
        .and_then(|json| {
            fs::create_dir_all(&folder)?;
            let new = folder.join(format!(".{}", key.host_link()));
            fs::write(&new, json)?;
            fs::rename(&new, &marker)
        });
    // Without the marker the agent still finds out: the link is gone.
    if let Err(error) = written {
        eprintln!("flatnet-cni: {}: {error}", marker.display());
    }
    Ok(())
}
