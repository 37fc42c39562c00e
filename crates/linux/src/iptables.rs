//! iptables, by its own programs: the one thing in this crate that runs others. Which variant
//! (`nf_tables` or legacy) they are is a matter of the PATH.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use nft::IpFamily;

use crate::error::{Error, Result};

/// Seconds to wait for the legacy variant's lock, which all network namespaces of a machine share.
const WAIT: &str = "--wait=10";

fn program(family: IpFamily, what: &str) -> String {
    match family {
        IpFamily::V4 => format!("iptables-{what}"),
        IpFamily::V6 => format!("ip6tables-{what}"),
    }
}

/// Makes the changes of a text in the language of `iptables-restore`, in the calling thread's
/// network namespace. Chains that it does not name stay as they are; each table changes at once
/// or not at all. The error quotes the line that was refused. `begins` is told the
/// process before it can do anything.
pub fn restore(family: IpFamily, text: &str, begins: impl FnOnce(u32) -> Result<()>) -> Result<()> {
    let program = program(family, "restore");
    let output = run(&program, &["--noflush", WAIT], text, begins)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::other(program, "change", refusal(text, &said)))
}

/// What the tables hold that are there, in the same language; empty where the program is not
/// installed. All at once: over `nf_tables` the program reads all of them whichever it is asked
/// for, and asked for one that is not there, it makes it.
pub fn save(family: IpFamily) -> Result<String> {
    let program = program(family, "save");
    let output = match run(&program, &[], "", |_| Ok(())) {
        Err(error) if error.is_not_found() => return Ok(String::new()),
        output => output?,
    };
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Error::other(program, "read", refusal("", &said)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn run(
    program: &str,
    arguments: &[&str],
    input: &str,
    begins: impl FnOnce(u32) -> Result<()>,
) -> Result<Output> {
    let failed = |error: std::io::Error| {
        let missing = error.kind() == std::io::ErrorKind::NotFound;
        let error = Error::io(program, "run", &error);
        if missing {
            error.hint("install the package iptables, or use the mode nftables")
        } else {
            error
        }
    };
    let mut child = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let stdin = child.stdin.take();
    let begun = begins(child.id());
    // Without input it does nothing.
    let input = if begun.is_ok() { input } else { "" };
    let output = std::thread::scope(|scope| {
        // In a thread of its own: the program may have much to say before it has read all.
        scope.spawn(|| {
            if let Some(mut stdin) = stdin {
                // A program that ends early says why.
                let _ = stdin.write_all(input.as_bytes());
            }
        });
        child.wait_with_output().map_err(failed)
    });
    begun?;
    output
}

/// The program's words on one line, and the line of the text that they are about.
fn refusal(text: &str, said: &str) -> String {
    let words = said
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("Try `"));
    let words = words.collect::<Vec<_>>().join("; ");
    let quoted = line_number(said)
        .and_then(|number| text.lines().nth(number.checked_sub(1)?))
        .map(|line| format!(": `{line}`"));
    words + &quoted.unwrap_or_default()
}

/// The number in `line 3 failed`, `Error occurred at line: 3`, `line 3: RULE_APPEND failed`.
fn line_number(said: &str) -> Option<usize> {
    said.match_indices("line").find_map(|(at, word)| {
        let rest = said.get(at + word.len()..)?;
        let rest = rest.strip_prefix(':').unwrap_or(rest).trim_start();
        let end = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        rest.get(..end)?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::refusal;

    #[test]
    fn a_refusal_quotes_its_line() {
        let text = "*nat\n:A - [0:0]\n-A A -j B\nCOMMIT\n";
        for said in [
            "iptables-nft-restore: line 3 failed: Bad rule.",
            "iptables-restore: line 3 failed\n",
            "Couldn't load target `B'\n\nError occurred at line: 3\nTry `iptables-restore -h'",
            "iptables-restore v1.8.9 (nf_tables): \nline 3: RULE_APPEND failed (No such file)",
        ] {
            let refusal = refusal(text, said);
            assert!(refusal.ends_with(": `-A A -j B`"), "{refusal}");
            assert!(!refusal.contains('\n'), "{refusal}");
        }
        assert_eq!(refusal(text, "no line named\n"), "no line named");
        assert_eq!(
            refusal(text, "line 99999999999999999999"),
            "line 99999999999999999999"
        );
        assert_eq!(refusal(text, "line 0"), "line 0");
    }
}
