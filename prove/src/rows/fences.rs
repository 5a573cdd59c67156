//! P5: ends of attempts and deliveries that are over, thrown at the store.

use message_queue_sqlite::proof::{Safeguard, Without, throw_stale_ends};

use crate::case::{Case, Failure, Outcome, Seen};
use crate::row::{Control, Goal, Row};

pub(crate) const FENCES: Row = Row {
    name: "P5",
    promise: "attempts are fenced",
    test: "stale ends and deliveries, also after retries, snoozes, releases, redrives and crashes",
    goals: &[
        Goal::new("stale ends", 10_000),
        Goal::new(WHILE_RUNNING, 5_000),
        Goal::new("stale deliveries", 10_000),
    ],
    never: &["taken"],
    case: stale_ends,
    controls: &[Control {
        without: "the fence",
        fails: "taken",
        within: 5,
        case: |case| {
            let _without = Without::the(Safeguard::Fence);
            stale_ends(case)
        },
    }],
    side_by_side: 2,
};

const STEPS: u64 = 400;

/// What the fence is for: of an end of a task that doesn't run, its state says already that it's stale.
const WHILE_RUNNING: &str = "stale ends while a later attempt runs";

fn stale_ends(case: &Case) -> Outcome {
    let thrown = throw_stale_ends(&case.scratch().join("queue"), case.seed, STEPS);
    let thrown = thrown.map_err(|what| Failure::new("taken", what))?;
    let seen = Seen::default().count("stale ends", thrown.ends);
    let seen = seen.count(WHILE_RUNNING, thrown.ends_of_running);
    Ok(seen.count("stale deliveries", thrown.deliveries))
}
