//! Ordering keys: tasks of one key run one at a time, in order of submission.
//!
//! A key belongs to one of a fixed number of slots, and a slot to a shard, so that all tasks of a key
//! that haven't ended are in one file. A fixed number, as in Redis Cluster, which has 16,384 of them:
//! when the number of shards changes, slots move and keys don't. A slot moves only while no task of it
//! waits or runs. So where its tasks are says where it belongs, and nothing else has to be stored: two
//! records of it could differ after a crash.

use std::collections::BTreeMap;

/// How many slots there are. It is part of the format of the directory.
pub(crate) const SLOTS: usize = 1024;

/// The longest key, in bytes.
pub(crate) const KEY_MAX: usize = 255;

/// The slot of a key: CRC-32 of its bytes, modulo [`SLOTS`].
pub(crate) fn slot_of(key: &str) -> u16 {
    let hash = crc32fast::hash(key.as_bytes()) as usize;
    (hash % SLOTS) as u16
}

/// Whether a text can be a key: from 1 to [`KEY_MAX`] bytes.
pub(crate) fn is_valid_key(key: &str) -> bool {
    (1..=KEY_MAX).contains(&key.len())
}

/// Gives each slot a shard out of the `active` ones, evenly.
///
/// A slot with tasks in it stays with its shard (`live`, by slot). Others stay where they were
/// (`before`, empty at the start), unless that shard isn't active or has more than its part.
pub(crate) fn place_slots(live: &[Option<u16>], before: &[u16], active: &[u16]) -> Vec<u16> {
    assert!(!active.is_empty(), "some shard takes new tasks");
    let share = SLOTS.div_ceil(active.len());
    let mut filled: BTreeMap<u16, usize> = active.iter().map(|shard| (*shard, 0)).collect();
    let mut placed = vec![None; SLOTS];
    for (slot, shard) in placed.iter_mut().zip(live) {
        *slot = *shard;
        shard.map(|shard| filled.get_mut(&shard).map(|count| *count += 1));
    }
    for (slot, shard) in placed.iter_mut().zip(before).filter(|(slot, _)| slot.is_none()) {
        if let Some(count) = filled.get_mut(shard).filter(|count| **count < share) {
            *count += 1;
            *slot = Some(*shard);
        }
    }
    let least = |filled: &mut BTreeMap<u16, usize>| {
        let (shard, count) = filled.iter_mut().min_by_key(|(_, count)| **count)?;
        *count += 1;
        Some(*shard)
    };
    let placed = placed.into_iter().map(|slot| slot.or_else(|| least(&mut filled)));
    placed.map(|shard| shard.unwrap_or(active[0])).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counts(placed: &[u16]) -> BTreeMap<u16, usize> {
        let mut counts = BTreeMap::new();
        placed.iter().for_each(|shard| *counts.entry(*shard).or_insert(0) += 1);
        counts
    }

    #[test]
    fn slots_without_tasks_are_spread_evenly_and_few_move_when_a_shard_is_added() {
        let nothing = [None; SLOTS];
        let two = place_slots(&nothing, &[], &[0, 1]);
        assert_eq!(counts(&two), BTreeMap::from([(0, 512), (1, 512)]));
        let three = place_slots(&nothing, &two, &[0, 1, 2]);
        assert_eq!(counts(&three), BTreeMap::from([(0, 342), (1, 342), (2, 340)]));
        let moved = two.iter().zip(&three).filter(|(one, other)| one != other).count();
        assert_eq!(moved, 340);
    }

    proptest! {
        #[test]
        fn a_slot_with_tasks_never_moves_and_the_others_are_with_active_shards(
            live in prop::collection::vec(prop::option::weighted(0.3, 0..6_u16), SLOTS),
            before in prop::collection::vec(0..6_u16, SLOTS),
            active in prop::sample::subsequence(vec![0, 1, 2, 3, 4, 5], 1..6),
        ) {
            let placed = place_slots(&live, &before, &active);
            prop_assert_eq!(placed.len(), SLOTS);
            for (slot, shard) in placed.iter().enumerate() {
                match live[slot] {
                    Some(stays) => prop_assert_eq!(*shard, stays),
                    None => prop_assert!(active.contains(shard)),
                }
            }
            // once more: nothing has a reason to move
            prop_assert_eq!(place_slots(&live, &placed, &active), placed);
        }
    }

    #[test]
    fn a_key_stays_in_its_slot_whatever_the_version() {
        // `lane.slot` in the files relies on these numbers
        assert_eq!(["user-7", "a", "ключ"].map(slot_of), [801, 579, 538]);
    }

    #[test]
    fn many_keys_fill_the_slots_evenly() {
        let mut filled = [0_u32; SLOTS];
        (0..100 * SLOTS).for_each(|n| filled[usize::from(slot_of(&format!("user-{n}")))] += 1);
        assert!(filled.iter().all(|count| (40..=180).contains(count)), "{filled:?}");
    }

    #[test]
    fn a_key_has_from_1_to_255_bytes() {
        assert!(!is_valid_key(""));
        assert!(is_valid_key("ü"));
        assert!(is_valid_key(&"k".repeat(255)));
        assert!(!is_valid_key(&"k".repeat(256)));
    }
}
