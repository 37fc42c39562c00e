//! How many pods each ReplicaSet of a Deployment should have next. Numbers only.

/// One ReplicaSet in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// `spec.replicas`.
    pub wanted: i32,
    /// `status.availableReplicas`.
    pub available: i32,
}

/// The Deployment in numbers.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// `spec.replicas`.
    pub replicas: i32,
    /// Pods there may be above that.
    pub surge: i32,
    /// Pods that may be missing below that.
    pub unavailable: i32,
}

impl Bounds {
    fn least_available(self) -> i32 {
        self.replicas - self.unavailable
    }
}

fn total(sets: &[Numbers]) -> i32 {
    sets.iter().map(|set| set.wanted).sum()
}

/// Size of the new ReplicaSet in a rolling update, given the old ones.
pub fn new_size(bounds: Bounds, new: Numbers, old: &[Numbers]) -> i32 {
    if new.wanted >= bounds.replicas {
        return bounds.replicas;
    }
    let room = bounds.replicas + bounds.surge - new.wanted - total(old);
    new.wanted + room.clamp(0, bounds.replicas - new.wanted)
}

/// Sizes of the old ReplicaSets (oldest first) in a rolling update. Pods that are not
/// available go first: they are missed by nobody.
pub fn old_sizes(bounds: Bounds, new: Numbers, old: &[Numbers]) -> Vec<i32> {
    let mut sizes: Vec<i32> = old.iter().map(|set| set.wanted).collect();
    let new_unavailable = (new.wanted - new.available).max(0);
    let mut may_go = total(old) + new.wanted - bounds.least_available() - new_unavailable;
    if may_go <= 0 {
        return sizes;
    }
    for (size, set) in sizes.iter_mut().zip(old) {
        let unhealthy = (set.wanted - set.available).max(0).min(may_go);
        *size -= unhealthy;
        may_go -= unhealthy;
    }
    let available: i32 = new.available + old.iter().map(|set| set.available).sum::<i32>();
    let mut spare = (available - bounds.least_available()).min(may_go);
    for size in &mut sizes {
        let fewer = (*size).min(spare).max(0);
        *size -= fewer;
        spare -= fewer;
    }
    sizes
}

/// A set as it takes part in proportional scaling.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    /// `spec.replicas`.
    pub size: i32,
    /// Size of the whole Deployment (with surge) when this was decided.
    pub of: i32,
}

/// Sizes after the Deployment was scaled in the middle of a rollout: each set keeps its
/// share. `sets` are ordered by size, largest first; the first takes what rounding leaves.
pub fn proportional(sets: &[Share], allowed: i32) -> Vec<i32> {
    let total: i32 = sets.iter().map(|set| set.size).sum();
    let to_add = allowed - total;
    let mut added = 0;
    let mut sizes: Vec<i32> = sets
        .iter()
        .map(|set| {
            let share = if to_add == 0 || set.of <= 0 {
                0
            } else {
                // To the nearest whole pod, as Kubernetes rounds.
                let grown = 2 * i64::from(set.size) * i64::from(allowed) + i64::from(set.of);
                let target = grown.div_euclid(2 * i64::from(set.of));
                let wish = i32::try_from(target).unwrap_or(i32::MAX) - set.size;
                let rest = to_add - added;
                if to_add > 0 {
                    wish.clamp(0, rest)
                } else {
                    wish.clamp(rest, 0)
                }
            };
            added += share;
            set.size + share
        })
        .collect();
    if let Some(first) = sizes.first_mut() {
        *first = (*first + to_add - added).max(0);
    }
    sizes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(wanted: i32, available: i32) -> Numbers {
        Numbers { wanted, available }
    }

    #[test]
    fn a_rollout_goes_by_surge_and_unavailability() {
        let bounds = Bounds {
            replicas: 10,
            surge: 3,
            unavailable: 2,
        };
        assert_eq!(new_size(bounds, set(0, 0), &[set(10, 10)]), 3);
        assert_eq!(old_sizes(bounds, set(3, 0), &[set(10, 10)]), [8]);
        assert_eq!(new_size(bounds, set(3, 0), &[set(8, 8)]), 5);
        assert_eq!(old_sizes(bounds, set(5, 2), &[set(8, 8)]), [6]);
    }

    #[test]
    fn broken_old_pods_go_first() {
        let bounds = Bounds {
            replicas: 4,
            surge: 1,
            unavailable: 0,
        };
        assert_eq!(
            old_sizes(bounds, set(1, 1), &[set(2, 2), set(2, 0)]),
            [2, 1]
        );
    }

    #[test]
    fn scaling_in_the_middle_keeps_shares() {
        let shares = [Share { size: 8, of: 13 }, Share { size: 5, of: 13 }];
        assert_eq!(proportional(&shares, 26).iter().sum::<i32>(), 26);
        assert_eq!(proportional(&shares, 26), [16, 10]);
        assert_eq!(proportional(&shares, 13), [8, 5]);
        assert_eq!(proportional(&shares, 6).iter().sum::<i32>(), 6);
    }

    proptest! {
        /// Whatever pods become available in whatever order, and however late the numbers
        /// are seen, the bounds hold and the rollout ends.
        #[test]
        fn bounds_hold_and_the_rollout_ends(
            replicas in 1_i32..12, surge in 0_i32..4, unavailable in 0_i32..4,
            turns in prop::collection::vec(any::<bool>(), 30..200),
        ) {
            let unavailable = if surge == 0 && unavailable == 0 { 1 } else { unavailable.min(replicas) };
            prop_assume!(surge > 0 || unavailable > 0);
            let bounds = Bounds { replicas, surge, unavailable };
            let mut old = set(replicas, replicas);
            let mut new = set(0, 0);
            for plan in turns.into_iter().chain(std::iter::repeat_n([true, false], 60).flatten()) {
                if plan {
                    let size = new_size(bounds, new, &[old]);
                    if size == new.wanted {
                        old.wanted = old_sizes(bounds, new, &[old])[0];
                        // The ReplicaSet deletes at once; nobody has to wait for that.
                        old.available = old.available.min(old.wanted);
                    }
                    new.wanted = size;
                } else if new.available < new.wanted {
                    new.available += 1;
                }
                prop_assert!(old.available + new.available >= replicas - unavailable);
                prop_assert!(old.wanted + new.wanted <= replicas + surge);
            }
            prop_assert_eq!((old.wanted, new.wanted, new.available), (0, replicas, replicas));
        }
    }
}
