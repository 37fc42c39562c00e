//! A set of numbers kept as disjoint intervals.

use std::collections::BTreeMap;

/// Start to inclusive end; intervals never touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Intervals(BTreeMap<u128, u128>);

impl Intervals {
    pub(super) fn contains(&self, number: u128) -> bool {
        self.0
            .range(..=number)
            .next_back()
            .is_some_and(|(_, end)| *end >= number)
    }

    /// False where it was in already.
    pub(super) fn insert(&mut self, number: u128) -> bool {
        if self.contains(number) {
            return false;
        }
        let mut start = number;
        let mut end = number;
        if let Some((&left, &left_end)) = self.0.range(..number).next_back()
            && left_end.checked_add(1) == Some(number)
        {
            start = left;
        }
        if let Some(next) = number.checked_add(1)
            && let Some(right_end) = self.0.remove(&next)
        {
            end = right_end;
        }
        self.0.insert(start, end);
        true
    }

    /// False where it was not in.
    pub(super) fn remove(&mut self, number: u128) -> bool {
        let Some((&start, &end)) = self.0.range(..=number).next_back() else {
            return false;
        };
        if end < number {
            return false;
        }
        self.0.remove(&start);
        if start < number {
            self.0.insert(start, number - 1);
        }
        if number < end {
            self.0.insert(number + 1, end);
        }
        true
    }

    /// The first number from `from` to `to` (inclusive) that is not in.
    pub(super) fn first_gap(&self, from: u128, to: u128) -> Option<u128> {
        let candidate = match self.0.range(..=from).next_back() {
            Some((_, end)) if *end >= from => end.checked_add(1)?,
            _ => from,
        };
        (candidate <= to).then_some(candidate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn it_is_a_set(steps in prop::collection::vec((any::<bool>(), 0u128..40), 0..200), from in 0u128..40, to in 0u128..40) {
            let mut intervals = Intervals::default();
            let mut set = BTreeSet::new();
            for (add, number) in steps {
                if add {
                    prop_assert_eq!(intervals.insert(number), set.insert(number));
                } else {
                    prop_assert_eq!(intervals.remove(number), set.remove(&number));
                }
                // Intervals that touch would make first_gap wrong.
                let pairs: Vec<_> = intervals.0.iter().map(|(s, e)| (*s, *e)).collect();
                prop_assert!(pairs.windows(2).all(|w| w[0].1 + 1 < w[1].0));
            }
            for number in 0..40 {
                prop_assert_eq!(intervals.contains(number), set.contains(&number));
            }
            prop_assert_eq!(intervals.first_gap(from, to), (from..=to).find(|n| !set.contains(n)));
        }
    }

    #[test]
    fn the_last_number_of_all_has_no_gap_behind_it() {
        let mut intervals = Intervals::default();
        assert!(intervals.insert(u128::MAX));
        assert!(intervals.insert(u128::MAX - 1));
        assert_eq!(intervals.first_gap(u128::MAX - 1, u128::MAX), None);
    }
}
