//! Which shard a submission goes to.
//!
//! The one place where that is decided: pure, from what is known of each shard.

/// What routing knows about a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ShardLoad {
    /// Whether it takes submissions.
    pub(crate) open: bool,
    /// Tasks that are ready in it or on their way to it.
    pub(crate) waiting: usize,
}

/// The open shard with the fewest waiting tasks; the first after `last` among equals, so that an
/// idle queue spreads its tasks.
pub(crate) fn choose(
    shards: usize,
    last: usize,
    load: impl Fn(usize) -> ShardLoad,
) -> Option<usize> {
    let in_turn = (1..=shards).map(|step| (last + step) % shards);
    let open = in_turn.map(|index| (index, load(index))).filter(|(_, load)| load.open);
    open.min_by_key(|(_, load)| load.waiting).map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(shards: &[ShardLoad], last: usize) -> Option<usize> {
        super::choose(shards.len(), last, |index| shards[index])
    }

    fn load(waiting: usize) -> ShardLoad {
        ShardLoad { open: true, waiting }
    }

    #[test]
    fn the_least_loaded_open_shard_is_chosen() {
        let shards = [load(5), load(2), load(3)];
        assert_eq!(choose(&shards, 0), Some(1));
        let closed = [load(5), ShardLoad { open: false, waiting: 0 }, load(3)];
        assert_eq!(choose(&closed, 0), Some(2));
        assert_eq!(choose(&[ShardLoad { open: false, waiting: 0 }], 0), None);
        assert_eq!(choose(&[], 0), None);
    }

    #[test]
    fn equal_shards_take_turns() {
        let shards = [load(0); 3];
        let mut last = 0;
        let turns: Vec<_> = (0..6)
            .map(|_| {
                last = choose(&shards, last).unwrap();
                last
            })
            .collect();
        assert_eq!(turns, [1, 2, 0, 1, 2, 0]);
    }
}
