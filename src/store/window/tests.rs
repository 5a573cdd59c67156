//! The window against a backlog that is kept whole: what it knows is an exact prefix.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;

use super::Window;
use crate::order::Place;

fn at(rank: i64) -> Place {
    Place { rank, sequence: 1 }
}

fn ranks(window: &Window) -> Vec<i64> {
    window.iter().map(|place| place.rank).collect()
}

/// A window over all of the backlog.
fn whole(ranks: &[i64]) -> Window {
    let mut window = Window::new();
    window.refilled(ranks.iter().map(|rank| at(*rank)), None);
    window
}

#[test]
fn a_new_window_knows_nothing_and_covers_nothing() {
    let window = Window::new();
    assert!(window.may_refill());
    assert_eq!((window.len(), window.refill_after()), (0, None));
    assert!(!window.covers(at(i64::MIN)));
}

#[test]
fn a_refill_to_the_end_covers_everything() {
    let window = whole(&[1, 5]);
    assert!(!window.may_refill());
    assert!(window.covers(at(i64::MAX)));
    assert_eq!(ranks(&window), [1, 5]);
    assert!(!Window::complete().may_refill());
}

#[test]
fn a_refill_covers_what_was_looked_at_even_if_none_of_it_may_run() {
    let mut window = Window::new();
    window.refilled([], Some(at(7)));
    assert_eq!(window.refill_after(), Some(at(7)));
    assert!(window.covers(at(7)) && !window.covers(at(8)));
    window.insert(at(6), 3);
    window.insert(at(8), 3);
    assert_eq!(ranks(&window), [6]);
}

#[test]
fn a_full_window_loses_its_tail_and_no_longer_covers_it() {
    let mut window = whole(&[3, 5]);
    window.insert(at(4), 2);
    assert_eq!(ranks(&window), [3, 4]);
    assert!(window.may_refill());
    assert!(window.covers(at(4)) && !window.covers(at(5)));
    window.insert(at(9), 2);
    assert_eq!(ranks(&window), [3, 4], "what lies beyond stays on disk");
}

#[test]
fn a_newcomer_that_would_be_the_tail_is_the_one_that_goes() {
    let mut window = whole(&[3, 5]);
    window.insert(at(7), 2);
    assert_eq!(ranks(&window), [3, 5]);
    assert!(!window.covers(at(7)));
}

#[test]
fn removing_rows_leaves_the_watermark_where_it_is() {
    let mut window = Window::new();
    window.refilled([at(1), at(2)], Some(at(2)));
    assert!(window.remove(at(2)));
    assert!(!window.remove(at(2)));
    assert!(window.remove(at(1)));
    assert_eq!(window.refill_after(), Some(at(2)));
}

#[derive(Clone, Debug)]
enum Step {
    /// A row becomes ready.
    Arrive(i64),
    /// The n-th row of the window is claimed.
    Claim(usize),
    /// A row is cancelled, wherever it is.
    Leave(i64),
    Refill,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0..40i64).prop_map(Step::Arrive),
        3 => (0..4usize).prop_map(Step::Claim),
        2 => (0..40i64).prop_map(Step::Leave),
        2 => Just(Step::Refill),
    ]
}

/// Reads on from the backlog as the store does; rows of odd rank may not run.
fn refill(window: &mut Window, backlog: &BTreeSet<Place>, capacity: usize) {
    let after = window.refill_after();
    let limit = capacity.saturating_sub(window.len());
    if !window.may_refill() || limit == 0 {
        return;
    }
    let rows = backlog.iter().copied().filter(|place| after.is_none_or(|after| *place > after));
    let rows: Vec<Place> = rows.take(limit).collect();
    let may_run: Vec<_> = rows.iter().copied().filter(|place| place.rank % 2 == 0).collect();
    window.refilled(may_run, rows.last().copied().filter(|_| rows.len() == limit));
}

proptest! {
    // a failure prints its seed; nothing is written beside the sources
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_window_is_always_an_exact_prefix(capacity in 1..6usize, steps in vec(step(), 1..80)) {
        let mut backlog = BTreeSet::new();
        let mut window = Window::new();
        for step in steps {
            match step {
                Step::Arrive(rank) => {
                    backlog.insert(at(rank));
                    if rank % 2 == 0 {
                        window.insert(at(rank), capacity);
                    }
                }
                Step::Claim(index) => {
                    let place = window.iter().nth(index);
                    if let Some(place) = place {
                        prop_assert!(backlog.remove(&place));
                        prop_assert!(window.remove(place));
                    }
                }
                Step::Leave(rank) => {
                    let there = backlog.remove(&at(rank)) && rank % 2 == 0;
                    let known = window.remove(at(rank));
                    prop_assert!(there || !known);
                }
                Step::Refill => refill(&mut window, &backlog, capacity),
            }
            prop_assert!(window.len() <= capacity);
            let covered = backlog.iter().copied();
            let covered = covered.filter(|place| place.rank % 2 == 0 && window.covers(*place));
            let covered: Vec<_> = covered.collect();
            prop_assert_eq!(window.iter().collect::<Vec<_>>(), covered);
        }
        // claiming and refilling in turn empties the backlog of what may run
        while window.len() > 0 || window.may_refill() {
            refill(&mut window, &backlog, capacity);
            let head = window.iter().next();
            if let Some(head) = head {
                let first = backlog.iter().find(|place| place.rank % 2 == 0).copied();
                prop_assert_eq!(Some(head), first);
                backlog.remove(&head);
                window.remove(head);
            }
        }
        prop_assert!(backlog.iter().all(|place| place.rank % 2 != 0));
    }
}
