//! The plugin starts once for each pod and each operation: what it weighs is paid every time.

/// The most a release build may weigh. A debug build is several times that.
const RELEASE: u64 = 2_500_000;

#[test]
fn the_release_binary_stays_small() {
    let debug = std::path::Path::new(env!("CARGO_BIN_EXE_flatnet-cni"));
    let release = debug
        .ancestors()
        .nth(2)
        .unwrap()
        .join("release/flatnet-cni");
    let Ok(metadata) = std::fs::metadata(&release) else {
        testing::skip(
            "the_release_binary_stays_small",
            &format!("no release build at {}", release.display()),
        );
        return;
    };
    assert!(
        metadata.len() <= RELEASE,
        "{} has {} bytes, more than {RELEASE}",
        release.display(),
        metadata.len()
    );
}
