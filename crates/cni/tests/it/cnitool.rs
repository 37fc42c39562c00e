//! The specification's own runtime, `cnitool`, against the plugin.

use std::os::unix::fs::symlink;
use std::process::{Command, Output};

use linux::run_in;
use serde_json::Value;

use super::lab::{Node, Pod, can_run};

#[test]
fn the_specifications_own_runtime_is_served() {
    let test = "the_specifications_own_runtime_is_served";
    if !can_run(test) {
        return;
    }
    let Some(tool) = testing::program(test, "cnitool") else {
        return;
    };
    let node = Node::start(&["10.244.1.0/24"]);
    let pod = Pod::new("unused");
    let bin = node.dir.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    symlink(env!("CARGO_BIN_EXE_flatnet-cni"), bin.join("flatnet-cni")).unwrap();
    let run = |operation: &str| -> Output {
        let mut command = Command::new(&tool);
        command
            .args([operation, "flatnet", &pod.path()])
            .env("NETCONFPATH", node.dir.path().join("net.d"))
            .env("CNI_PATH", &bin);
        run_in(&node.netns, move || command.output())
            .unwrap()
            .unwrap()
    };
    let added = run("add");
    assert!(added.status.success(), "{added:?}");
    let result: Value = serde_json::from_slice(&added.stdout).unwrap();
    assert_eq!(result["ips"][0]["address"], "10.244.1.2/24");
    for operation in ["check", "status", "del", "del"] {
        let output = run(operation);
        assert!(output.status.success(), "{operation}: {output:?}");
    }
    assert!(pod.netlink().link("eth0").unwrap().is_none());
    assert_eq!(node.status()["attachments"].as_array().unwrap().len(), 0);
}
