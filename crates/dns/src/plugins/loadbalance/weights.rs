//! The file with weights of addresses: a name on a line, its addresses and their weights on the
//! lines below.

use std::collections::HashMap;
use std::net::IpAddr;

use rand::Rng;

use crate::wire::{Name, Record};

/// Weights of addresses, by name. An address that is not there weighs 1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Weights(HashMap<Name, Vec<(IpAddr, u8)>>);

impl Weights {
    /// Reads the file's text; `path` is for what is wrong in it.
    ///
    /// # Errors
    /// A line is neither a name, nor an address and a weight from 1 to 255, nor a comment.
    pub fn parse(text: &str, path: &str) -> Result<Self, String> {
        let mut names: HashMap<Name, Vec<(IpAddr, u8)>> = HashMap::new();
        let mut current: Option<Name> = None;
        for (number, line) in text.lines().enumerate() {
            let wrong = |what: String| format!("{path}:{}: {what}", number + 1);
            let fields: Vec<&str> = line.split_whitespace().collect();
            match *fields.as_slice() {
                [] => {}
                [first, ..] if first.starts_with('#') => {}
                [word] => {
                    if word.parse::<IpAddr>().is_ok() {
                        return Err(wrong(format!("{word} has no weight")));
                    }
                    let name = word.parse::<Name>();
                    let name =
                        name.map_err(|error| wrong(format!("{word:?} is no name: {error}")))?;
                    names.entry(name.clone()).or_default();
                    current = Some(name);
                }
                [ip, weight] => {
                    let ip = ip
                        .parse()
                        .map_err(|_| wrong(format!("{ip:?} is no address")))?;
                    let weight = weight.parse::<u8>().ok().filter(|&weight| weight > 0);
                    let weight = weight.ok_or_else(|| {
                        wrong(format!("{:?} is no weight from 1 to 255", fields[1]))
                    })?;
                    let name = current.as_ref();
                    let name = name.ok_or_else(|| wrong("no name comes before it".to_owned()))?;
                    names.entry(name.clone()).or_default().push((ip, weight));
                }
                _ => {
                    return Err(wrong(format!(
                        "{line:?} is no name, nor an address and its weight"
                    )));
                }
            }
        }
        Ok(Self(names))
    }

    fn of(&self, record: &Record) -> u32 {
        let known = self.0.get(&record.name).into_iter().flatten();
        let ip = record.data.ip();
        let found = known.into_iter().find(|(known, _)| Some(*known) == ip);
        found.map_or(1, |(_, weight)| u32::from(*weight))
    }

    /// Which of the addresses comes first this time.
    pub(super) fn pick(&self, addresses: &[Record], rng: &mut impl Rng) -> usize {
        let all: u32 = addresses.iter().map(|record| self.of(record)).sum();
        if all == 0 {
            return 0;
        }
        let mut at = rng.random_range(0..all);
        for (index, record) in addresses.iter().enumerate() {
            let weight = self.of(record);
            if at < weight {
                return index;
            }
            at -= weight;
        }
        0
    }
}
