use std::collections::HashMap;

use message_queue_sqlite_macros::task;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::attempt::{Input, tests::attempt};
use crate::record::{ShardId, TaskId};
use crate::registry::{Definition, Place};
use crate::task::TaskError;

#[task]
async fn nothing() -> Result<(), TaskError> {
    Ok(())
}

/// Attempts of these ranks, numbered from this one on.
fn ranked(first: u64, ranks: &[i64]) -> Vec<Arc<Attempt>> {
    let place = Place { module_path: "", file: "waiting.rs", line: 1 };
    let one = |(sequence, rank): (u64, &i64)| {
        let attempt = attempt(Definition::of_task::<nothing::Task>(place), Input::Cached(None));
        let id = TaskId::new(ShardId(0), sequence);
        Arc::new(Attempt { id, rank: *rank, ..attempt })
    };
    (first..).zip(ranks).map(one).collect()
}

fn numbers(waiting: &Waiting) -> Vec<u64> {
    waiting.0.iter().map(|one| one.attempt.id.sequence()).collect()
}

#[test]
fn attempts_start_in_the_order_of_their_ranks() {
    let mut waiting = Waiting::default();
    waiting.add(Vec::new(), 16);
    waiting.add(ranked(0, &[10, 20, 20, 30]), 16);
    // in front of all, between two, behind an equal, and at the end
    waiting.add(ranked(4, &[5, 15, 20, 40]), 16);
    waiting.add(ranked(8, &[1]), 16);
    waiting.add(ranked(9, &[40]), 16);
    assert_eq!(numbers(&waiting), [8, 4, 0, 5, 1, 2, 6, 3, 7, 9]);
}

#[test]
fn none_is_passed_by_more_than_stood_before_it() {
    let mut waiting = Waiting::default();
    waiting.add(ranked(0, &[50, 60, 70]), 2);
    waiting.add(ranked(3, &[10, 20, 65]), 2);
    assert_eq!(numbers(&waiting), [3, 4, 0, 1, 5, 2]);
    // the first was passed by two, as many as ran before it; one more may pass the last, which has been
    // passed by three where four may
    waiting.add(ranked(6, &[5, 6, 7]), 2);
    assert_eq!(numbers(&waiting), [3, 4, 0, 6, 1, 5, 2, 7, 8]);
    waiting.add(ranked(9, &[1]), 2);
    assert_eq!(numbers(&waiting), [3, 4, 0, 6, 1, 5, 2, 9, 7, 8]);
    assert_eq!(waiting.take().count(), 10);
    assert!(waiting.pop().is_none());
}

proptest! {
    /// Whatever comes and starts, in whatever order.
    #[test]
    fn a_wait_is_at_most_doubled_and_nobody_waits_needlessly(
        steps in vec((vec(0..20i64, 0..12), 0..12usize), 1..40),
        running in 0..5usize,
    ) {
        let (mut waiting, mut next, mut begun) = (Waiting::default(), 0, 0);
        // how many may have begun before each
        let mut latest: HashMap<u64, usize> = HashMap::new();
        for (mut ranks, starts) in steps {
            ranks.sort_unstable();
            let count = ranks.len() as u64;
            waiting.add(ranked(next, &ranks), running);
            for (at, one) in waiting.0.iter().enumerate() {
                let number = one.attempt.id.sequence();
                if number >= next {
                    latest.insert(number, begun + at + running + at);
                }
                // what stands after it is before it only where one can't be passed any more
                let before = waiting.0.iter().take(at).rev();
                let mut open = before.take_while(|other| other.may_pass > 0);
                prop_assert!(number < next || open.all(|other| other.attempt.rank <= one.attempt.rank));
            }
            next += count;
            for _ in 0..starts {
                let Some(attempt) = waiting.pop() else { break };
                prop_assert!(begun <= latest[&attempt.id.sequence()]);
                begun += 1;
            }
        }
        for attempt in waiting.take() {
            prop_assert!(begun <= latest[&attempt.id.sequence()]);
            begun += 1;
        }
        prop_assert_eq!(begun as u64, next);
    }
}
