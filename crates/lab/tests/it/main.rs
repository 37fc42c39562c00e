//! Integration tests of the one-machine cluster's parts.

#![expect(clippy::unwrap_used, reason = "a test's failure is a panic")]

mod api_server;
mod balancer;
mod controllers;
mod kubelet;
mod scale;
mod scheduler;
mod shim;

/// This test binary stands in for `flatnet` where a part starts it again as
/// `flatnet lab shim` or `flatnet lab image`: before the test harness starts a thread.
#[used]
// SAFETY: the loader calls it once, before main, with no other thread; std's own
// initialiser for the arguments has run by then (it has a priority, this has none).
#[unsafe(link_section = ".init_array")]
static AS_FLATNET: extern "C" fn() = {
    extern "C" fn as_flatnet() {
        let args: Vec<String> = std::env::args_os()
            .map(|a| a.to_string_lossy().into_owned())
            .collect();
        let words: Vec<&str> = args.iter().map(String::as_str).collect();
        let code = match words.as_slice() {
            [_, "lab", "shim", dir] => lab::shim::server::main(dir.as_ref()),
            [_, "lab", "image", name, rest @ ..] => {
                let rest: Vec<String> = rest.iter().map(|a| (*a).to_owned()).collect();
                lab::images::main(name, &rest)
            }
            _ => return,
        };
        std::process::exit(code);
    }
    as_flatnet
};

use testing::root as is_root;
