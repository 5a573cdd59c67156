//! SIM and P10: the whole queue under simulated time, with panics, failing disks, slow commits and
//! crashes, and without any of these, but in order.

use std::path::Path;
use std::time::Duration;

use message_queue_sqlite::proof::{Safeguard, Without};

use crate::case::{Case, Failure, Outcome as CaseOutcome, Seen};
use crate::row::{Control, Goal, Row};
use crate::scene::{START, runtime};
use crate::simulation::{World, print_events};

pub(crate) const SIMULATION: Row = Row {
    name: "SIM",
    promise: "the invariants hold at each step, whatever happens in whatever order",
    test: "all actors on one thread under a simulated clock: 500 random steps, with panics, failing disks, slow commits, crashes, restarts, hours and days",
    goals: &[Goal::new("seeds", 2_000)],
    never: &[
        "lost",
        "stuck",
        "twice",
        "early",
        "out of order",
        "refused and stored",
        "another run of the same seed that differs",
    ],
    case: simulate,
    controls: &[
        Control {
            without: "the log of what was in hand, when a file is opened after a crash",
            fails: "found",
            within: 10,
            case: |case| without(Safeguard::InHand, case),
        },
        Control {
            without: "the state that a task must have for its end to be written",
            fails: "found",
            within: 60,
            case: |case| without(Safeguard::EndedOnce, case),
        },
        Control {
            without: "COMMIT",
            fails: "found",
            within: 10,
            case: |case| without(Safeguard::Commit, case),
        },
    ],
    side_by_side: 2,
};

pub(crate) const ORDER: Row = Row {
    name: "P10",
    promise: "tasks start in the order of their ranks, within what priorities, keys, queues and delays say",
    test: "200 random steps of a whole queue with one slot against a model: submissions, bulks, delays, retries, snoozes, cancellations, redrives, pauses, limits, keys, callbacks, windows of 2 rows and more",
    goals: &[Goal::new("cases", 10_000)],
    never: &["out of order", "early", "twice", "lost", "stuck"],
    case: |case| {
        let (seen, _) = run(case, ORDER_STEPS, World::in_order)?;
        Ok(seen.only(&["steps", "submissions", "attempts", "simulated days"]).count("cases", 1))
    },
    controls: &[Control {
        without: "priority in a task's rank",
        fails: "order",
        within: 20,
        case: |case| {
            let _without = Without::the(Safeguard::Priority);
            run(case, ORDER_STEPS, World::in_order).map(|(seen, _)| seen)
        },
    }],
    side_by_side: 2,
};

const STEPS: u64 = 500;
const ORDER_STEPS: u64 = 200;

/// So many of the seeds are run twice.
const AGAIN: u64 = 20;

fn without(safeguard: Safeguard, case: &Case) -> CaseOutcome {
    let _without = Without::the(safeguard);
    let found = run(case, STEPS, World::new).map(|(seen, _)| seen);
    found.map_err(|failure| match failure.kind {
        "harness" => failure,
        // what it does first depends on the seed
        _ => Failure::new("found", failure),
    })
}

fn simulate(case: &Case) -> CaseOutcome {
    let (seen, trace) = run(case, STEPS, World::new)?;
    if !case.seed.is_multiple_of(AGAIN) {
        return Ok(seen);
    }
    match run(case, STEPS, World::new)? {
        (_, again) if again == trace => Ok(seen.count("seeds run twice, the same again", 1)),
        _ => Err(Failure::new("differs", "another run of the same seed")),
    }
}

/// Runs the seed; gives back what was seen, and a number that is the same for the same run.
fn run(case: &Case, steps: u64, world: fn(&Case, &Path) -> World) -> Result<(Seen, u64), Failure> {
    print_events();
    // a process that dies doesn't get to that
    let _killed = Without::the(Safeguard::CheckpointAtClose);
    let runtime = runtime(tokio::runtime::Builder::new_current_thread().start_paused(true));
    let _entered = runtime.enter();
    let place = case.in_memory()?;
    let mut world = world(case, place.path());
    world.run(&runtime, steps)?;
    let (submitted, stored) = world.model.figures();
    let days = Duration::from_micros((world.known.now() - START).unsigned_abs()).as_secs() / 86_400;
    let seen = Seen::default()
        .count("seeds", 1)
        .count("steps", steps)
        .count("submissions", submitted)
        .count("acknowledged", stored)
        .count("attempts", world.known.attempts())
        .count("crashes", world.crashes)
        .count("starts that failed", world.failed_starts)
        .count("restarts", world.restarts)
        .count("panics of actors", world.injected)
        .count("simulated days", days);
    Ok((seen, world.known.traced()))
}
