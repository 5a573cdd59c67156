//! Submissions on their way: how they are split, counted and timed.

use super::*;
use crate::actors::ledger::ShardState;
use crate::admission::{Admission, AdmissionLimits, Demand};
use crate::codec::Codec;
use crate::panic_message::OneByOne;

fn came(lens: &[usize]) -> VecDeque<Came> {
    lens.iter().map(|len| Came { len: *len, at: Instant::now() }).collect()
}

#[test]
fn what_came_together_is_split_where_a_batch_ends() {
    let lens = |of: &VecDeque<Came>| of.iter().map(|came| came.len).collect::<Vec<_>>();
    let cases: [(usize, &[usize], &[usize]); 6] = [
        (0, &[], &[3, 4, 5]),
        (2, &[2], &[1, 4, 5]),
        (3, &[3], &[4, 5]),
        (8, &[3, 4, 1], &[4]),
        (12, &[3, 4, 5], &[]),
        (20, &[3, 4, 5], &[]),
    ];
    for (len, first, rest) in cases {
        let mut all = came(&[3, 4, 5]);
        let times: Vec<_> = all.iter().map(|came| came.at).collect();
        let split = split_off(&mut all, len);
        assert_eq!((lens(&all), lens(&split)), (first.to_vec(), rest.to_vec()), "at {len}");
        assert!(split.back().is_none_or(|last| last.at == times[2]));
    }
}

#[test]
fn all_that_wait_are_counted_from_when_the_first_of_them_came() {
    let ledger = ShardLedger::new(ShardId(0), ShardState::Open, true);
    let mut incoming = Incoming::new(ledger);
    let now = Instant::now();
    let at = |before_ms| now.checked_sub(Duration::from_millis(before_ms)).unwrap();
    incoming.came.push_back(Came { len: 3, at: at(20) });
    incoming.came.push_back(Came { len: 2, at: at(5) });
    assert_eq!(incoming.waited(now), Duration::from_millis(3 * 20 + 2 * 5));
}

fn accepted(bytes: usize) -> Accepted {
    let task = NewTask {
        id: None,
        definition: 0,
        queue: QueueIndex::DEFAULT,
        key: None,
        codec: Codec::Json,
        payload: Some(vec![0; bytes].into()),
        priority: 0,
        due_at: None,
        volatile: false,
        callbacks: None,
        overrides: None,
    };
    Accepted { task, delay: None, cached: OneByOne::default(), targets: OneByOne::default() }
}

#[test]
fn large_arguments_count_in_the_load_until_they_are_there_or_given_up() {
    let ledger = ShardLedger::new(ShardId(0), ShardState::Open, true);
    let limits = AdmissionLimits { tasks: 100, bytes: 1 << 20, ready: None, cached: 1 };
    let admission = Admission::new(limits);
    let kib = || ledger.gauges.incoming_kib.load(Ordering::SeqCst);
    let push = |incoming: &mut Incoming, bytes: usize| {
        let demand = Demand { tasks: 1, weight: admission::weight(bytes), cached: 0 };
        let permit = admission.try_enter(demand).unwrap();
        incoming.push([accepted(bytes)], permit, Waiter::One(None));
    };
    let mut incoming = Incoming::new(ledger.clone());
    [10, 10_240, 20, 20_480].into_iter().for_each(|bytes| push(&mut incoming, bytes));
    assert_eq!(kib(), 30);
    let mut first = incoming.take_first(2);
    assert_eq!((first.kib, incoming.kib, kib()), (10, 20, 30));
    let tasks = first.take_tasks(Timestamp::from_micros(0));
    drop(tasks);
    drop(first);
    assert_eq!(kib(), 20);
    let mut later = Incoming::new(ledger.clone());
    push(&mut later, 4_096);
    incoming.append(later);
    assert_eq!(kib(), 24);
    drop(incoming);
    assert_eq!(kib(), 0);
}
