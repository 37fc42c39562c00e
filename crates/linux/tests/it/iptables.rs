use linux::fake::Fake;
use linux::{Host, Kernel, iptables, run_in};
use nft::IpFamily;

use crate::{namespace, root};

const TEXT: &str = "*nat
:KUBE-SERVICES - [0:0]
:KUBE-MARK-MASQ - [0:0]
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
-A KUBE-SERVICES -m comment --comment \"a b -j C\" -j KUBE-MARK-MASQ
-I PREROUTING -j KUBE-SERVICES
COMMIT
";

/// The rules of a listing in order.
fn rules(listing: &str) -> Vec<&str> {
    listing
        .lines()
        .filter(|line| line.starts_with("-A"))
        .collect()
}

/// The same steps on the real one and on the one in memory.
fn steps(kernel: &mut dyn Kernel, family: IpFamily) {
    // Looking makes no table.
    for _ in 0..2 {
        assert_eq!(kernel.iptables_save(family).unwrap(), "");
    }
    kernel.iptables_restore(family, TEXT).unwrap();
    let saved = kernel.iptables_save(family).unwrap();
    let jump = "-A PREROUTING -j KUBE-SERVICES";
    let mark = "-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000";
    let service = "-A KUBE-SERVICES -m comment --comment \"a b -j C\" -j KUBE-MARK-MASQ";
    let mut found = rules(&saved);
    found.sort_unstable();
    assert_eq!(found, [mark, service, jump]);

    // Nothing of it is made.
    let wrong = "*nat\n:KUBE-OTHER - [0:0]\n-D KUBE-SERVICES -j ACCEPT\nCOMMIT\n";
    let error = kernel.iptables_restore(family, wrong).unwrap_err();
    let quoted = error.to_string().contains("`-D KUBE-SERVICES -j ACCEPT`");
    assert!(quoted, "{error}");
    assert_eq!(rules(&kernel.iptables_save(family).unwrap()), rules(&saved));

    // A chain that is declared is empty; the others stay.
    let less = "*nat\n:KUBE-SERVICES - [0:0]\nCOMMIT\n";
    kernel.iptables_restore(family, less).unwrap();
    let saved = kernel.iptables_save(family).unwrap();
    let mut found = rules(&saved);
    found.sort_unstable();
    assert_eq!(found, [mark, jump]);

    let gone = "*nat\n:KUBE-MARK-MASQ - [0:0]\n-D PREROUTING -j KUBE-SERVICES\n-X KUBE-SERVICES\n-X KUBE-MARK-MASQ\nCOMMIT\n";
    kernel.iptables_restore(family, gone).unwrap();
    let saved = kernel.iptables_save(family).unwrap();
    assert!(!saved.contains("KUBE"), "{saved}");
}

#[test]
fn the_real_one_and_the_one_in_memory_agree() {
    for family in [IpFamily::V4, IpFamily::V6] {
        steps(&mut Fake::default(), family);
    }
    if !root("iptables") || testing::program("iptables", "iptables-restore").is_none() {
        return;
    }
    let (netns, _) = namespace();
    run_in(&netns, || {
        let mut host = Host::open().unwrap();
        for family in [IpFamily::V4, IpFamily::V6] {
            steps(&mut host, family);
        }
    })
    .unwrap();
}

/// More than a pipe holds, and a refusal at its end.
#[test]
fn a_long_text() {
    if !root("iptables, long text") || testing::program("iptables", "iptables-restore").is_none() {
        return;
    }
    let (netns, _) = namespace();
    let chains = |end: &str| {
        let mut text = String::from("*nat\n");
        for number in 0..5000 {
            text += &format!(":KUBE-SEP-{number} - [0:0]\n");
        }
        text + end + "COMMIT\n"
    };
    run_in(&netns, || {
        let error = iptables::restore(IpFamily::V4, &chains("-X KUBE-NOT-THERE\n"), |_| Ok(()))
            .unwrap_err();
        assert!(
            error.to_string().ends_with("`-X KUBE-NOT-THERE`"),
            "{error}"
        );
        iptables::restore(IpFamily::V4, &chains(""), |_| Ok(())).unwrap();
        let saved = iptables::save(IpFamily::V4).unwrap();
        assert_eq!(saved.matches(":KUBE-SEP-").count(), 5000);
    })
    .unwrap();
}
