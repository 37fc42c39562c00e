//! Where this server answers otherwise than `CoreDNS`, and why. `docs/cluster-names.md` and
//! `docs/corefile.md` say the same to users.

/// A question that is answered in two ways.
pub struct Difference<'a> {
    pub question: &'a str,
    pub ours: &'a str,
    pub theirs: &'a str,
}

/// Why this server answers as it does; nothing where it should not.
pub fn why(difference: &Difference<'_>) -> Option<&'static str> {
    let found = DELIBERATE.iter().find(|(_, fits)| fits(difference));
    found.map(|(why, _)| *why)
}

type Fits = fn(&Difference<'_>) -> bool;

const DELIBERATE: &[(&str, Fits)] = &[
    (
        "owner names have the letters that were asked, all of them",
        |it| it.ours.eq_ignore_ascii_case(it.theirs),
    ),
    (
        "the size of messages it takes is a server's own, not that of who asks (RFC 6891, 6.2.3)",
        |it| it.ours == sized(it.theirs),
    ),
    (
        "there is no SOA record of a name that does not exist (RFC 2308)",
        |it| it.is("SOA") && it.ours.starts_with("NXDOMAIN") && it.theirs.starts_with("NOERROR"),
    ),
    (
        "a name that has records of another type exists (RFC 8020)",
        |it| {
            it.ours.starts_with("NOERROR")
                && !it.theirs.starts_with("NOERROR")
                && exists(it.question)
        },
    ),
    (
        "no cache is in front of answers from the watched state, so none bounds their TTL",
        |it| it.question.starts_with("dns-version.") && it.ours.replace("28800", "30") == it.theirs,
    ),
    ("records of class IN are not those of class CH", |it| {
        it.question.ends_with(" ch") && it.ours.starts_with("REFUSED")
    }),
    ("who asks without EDNS gets none (RFC 6891, 7)", |it| {
        !it.question.contains("edns") && it.ours == without_edns(it.theirs)
    }),
];

impl Difference<'_> {
    fn is(&self, kind: &str) -> bool {
        self.question.split(' ').nth(1) == Some(kind)
    }
}

/// Names that have records, though not of every type.
fn exists(question: &str) -> bool {
    let (name, kind) = question.split_once(' ').unwrap_or_default();
    let holds = ["dns-version.", "ns.dns."];
    holds.iter().any(|holds| name.starts_with(holds)) || name.ends_with(".arpa.") || kind == "TXT"
}

/// With our size of messages, and DO only as it was asked.
fn sized(theirs: &str) -> String {
    let lines = theirs.lines().map(|line| {
        let Some(rest) = line.strip_prefix("edns version 0 size ") else {
            return format!("{line}\n");
        };
        let rest = rest.split_once(' ').map_or("", |(_, rest)| rest);
        let rest = rest.strip_prefix("do ").unwrap_or(rest);
        format!(
            "{}\n",
            format!("edns version 0 size 1232 {rest}").trim_end()
        )
    });
    lines.collect()
}

fn without_edns(theirs: &str) -> String {
    let lines = theirs.lines().filter(|line| !line.starts_with("edns "));
    lines.map(|line| format!("{line}\n")).collect()
}
