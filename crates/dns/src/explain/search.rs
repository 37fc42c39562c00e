//! The names that a pod's resolver asks for, as its `resolv.conf` says.

use crate::wire::{Name, NameError};

/// How many dots a name must have to be tried as it is before the search path, where nothing
/// is said about it (resolv.conf(5)).
const NDOTS: usize = 1;
/// The most that counts (resolv.conf(5)).
const MOST_NDOTS: usize = 15;

/// What of a `resolv.conf` decides which names are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Search {
    /// The search path.
    pub domains: Vec<String>,
    /// `options ndots:N`.
    pub ndots: usize,
}

impl Search {
    /// From the words of the `search` line and of the `options` line.
    pub fn new(domains: &[String], options: &[String]) -> Self {
        let given = options
            .iter()
            .rev()
            .find_map(|option| option.strip_prefix("ndots:"));
        let given = given.and_then(|value| value.parse().ok());
        Self {
            domains: domains.to_vec(),
            ndots: given.unwrap_or(NDOTS).min(MOST_NDOTS),
        }
    }

    /// From the text of a `resolv.conf`: of several search lines the last one counts, and
    /// `domain` is one with a single domain.
    pub fn parse(text: &str) -> Self {
        let (mut domains, mut options) = (Vec::new(), Vec::new());
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace().map(str::to_owned);
            match words.next().as_deref() {
                Some("search" | "domain") => domains = words.collect(),
                Some("options") => options.extend(words),
                _ => {}
            }
        }
        Self::new(&domains, &options)
    }

    /// The names in the order in which they are asked for, until one of them has an answer. A
    /// dot at the end makes a name complete.
    ///
    /// # Errors
    /// `text` is no name. Of the longer names, those that are too long are left out.
    pub fn names(&self, text: &str) -> Result<Vec<Name>, NameError> {
        let own: Name = text.parse()?;
        if text.ends_with('.') {
            return Ok(vec![own]);
        }
        let longer = self.domains.iter().filter_map(|domain| {
            let domain: Name = domain.parse().ok()?;
            own.join(&domain).ok()
        });
        let mut names: Vec<Name> = longer.collect();
        let dots = own.depth().saturating_sub(1);
        if dots >= self.ndots {
            names.insert(0, own);
        } else {
            names.push(own);
        }
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    fn asked(search: &Search, name: &str) -> Vec<String> {
        let names = search.names(name).unwrap();
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_pod_asks_for_its_own_namespace_first_and_for_the_internet_last() {
        let path = words("default.svc.cluster.local svc.cluster.local cluster.local");
        let pod = Search::new(&path, &words("ndots:5"));
        assert_eq!(
            asked(&pod, "google.com"),
            [
                "google.com.default.svc.cluster.local.",
                "google.com.svc.cluster.local.",
                "google.com.cluster.local.",
                "google.com.",
            ]
        );
        assert_eq!(asked(&pod, "google.com."), ["google.com."]);
        let full = "web.default.svc.cluster.local";
        assert_eq!(
            asked(&pod, full)[0],
            "web.default.svc.cluster.local.default.svc.cluster.local."
        );
        let one = Search::new(&path, &words("edns0 ndots:1"));
        assert_eq!(asked(&one, "google.com")[0], "google.com.");
        assert_eq!(asked(&one, "web")[0], "web.default.svc.cluster.local.");
    }

    #[test]
    fn without_a_word_about_dots_one_is_enough() {
        let search = Search::new(&words("lan"), &[]);
        assert_eq!(asked(&search, "a.b"), ["a.b.", "a.b.lan."]);
        assert_eq!(asked(&search, "a"), ["a.lan.", "a."]);
        assert_eq!(Search::new(&[], &words("ndots:99")).ndots, 15);
        assert!(search.names("a..b").is_err());
    }
}
