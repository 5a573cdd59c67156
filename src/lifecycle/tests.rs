//! Every state with every event, and the numbers that the database checks.

use proptest::prelude::*;
use schema::codes_in;

use super::*;
use crate::record::DeadReason;

const STATES: [State; 8] = [
    State::Waiting,
    State::Ready,
    State::Running,
    State::Ended(Outcome::Finished),
    State::Ended(Outcome::Failed),
    State::Ended(Outcome::Cancelled),
    State::Ended(Outcome::Expired),
    State::Held,
];

fn deliveries() -> [Delivery; 5] {
    [
        Delivery::None,
        Delivery::Pending,
        Delivery::Callbacking,
        Delivery::Callbacked,
        Delivery::Dead(DeadReason::CallbackFailed),
    ]
}

const NOW: Timestamp = Timestamp::from_micros(1_000_000_000);

const SITUATION: Situation = Situation {
    now: NOW,
    counters: Counters { claim_no: 9, failures: 1, crashes: 0 },
    retry: RetryPolicy {
        max_attempts: 3,
        backoff_min: Duration::from_secs(4),
        backoff_max: Duration::from_secs(60),
    },
    max_crashes: 3,
    cancel_requested: false,
    random: 1 << 63,
};

fn failed(kind: FailureKind, retry_in: Option<Duration>) -> AttemptEvent {
    AttemptEvent::Failed { failure: TaskFailure::new(kind, "no"), retry_in }
}

fn again(pause: Duration) -> Next {
    Next::Again { at: NOW.saturating_add(pause) }
}

/// What the schema's comments and CHECKs say about states and deliveries.
mod schema {
    const SCHEMA: &str = include_str!("../store/schema/0001_tasks.sql");

    /// The numbers that a column's CHECK allows, of those from 0 to 20.
    pub(super) fn codes_in(column: &str) -> Vec<u8> {
        let opens = format!("{column} ");
        let line = SCHEMA.lines().position(|line| line.trim_start().starts_with(&opens)).unwrap();
        let text: String = SCHEMA.lines().skip(line).take(2).collect::<Vec<_>>().join(" ");
        let check = text.split_once("check (").unwrap().1;
        let check = check.split_once(')').unwrap().0;
        (0..=20)
            .filter(|code| check.split(" or ").any(|term| allows(column, term, *code)))
            .collect()
    }

    /// Terms are `column = n` and `column between n and m`.
    fn allows(column: &str, term: &str, code: u8) -> bool {
        let term = term.trim().strip_prefix(column).unwrap().trim();
        if let Some(number) = term.strip_prefix("= ") {
            return number.parse::<u8>().unwrap() == code;
        }
        let (from, to) = term.strip_prefix("between ").unwrap().split_once(" and ").unwrap();
        (from.parse().unwrap()..=to.parse().unwrap()).contains(&code)
    }
}

#[test]
fn the_codes_are_those_that_the_schema_checks() {
    let mut states = STATES.map(State::code).to_vec();
    states.sort_unstable();
    assert_eq!(codes_in("state"), states);
    let mut codes: Vec<u8> = deliveries().iter().map(delivery_code).collect();
    codes.sort_unstable();
    assert_eq!(codes_in("delivery"), codes);
}

#[test]
fn a_state_is_read_back_from_its_code_and_from_no_other() {
    for code in 0..=u8::MAX {
        let state = State::from_code(code);
        assert_eq!(state.map(State::code), state.is_some().then_some(code));
    }
    assert!(STATES.iter().all(|state| State::from_code(state.code()) == Some(*state)));
}

#[test]
fn the_status_shows_delivery_once_it_began_and_the_outcome_before() {
    use TaskStatus::*;
    let table: [(State, [TaskStatus; 5]); 8] = [
        (State::Waiting, [NotStarted; 5]),
        (State::Ready, [NotStarted; 5]),
        (State::Running, [Running; 5]),
        (State::Held, [NotStarted; 5]),
        (STATES[3], [Finished, Finished, Callbacking, Callbacked, Finished]),
        (STATES[4], [Failed, Failed, Callbacking, Callbacked, Failed]),
        (STATES[5], [Cancelled, Cancelled, Callbacking, Callbacked, Cancelled]),
        (STATES[6], [Expired, Expired, Callbacking, Callbacked, Expired]),
    ];
    for (state, expected) in table {
        let shown = deliveries().map(|delivery| status(state, &delivery));
        assert_eq!(shown, expected, "{state:?}");
    }
}

#[test]
fn only_a_task_that_has_not_started_ends_by_cancelling() {
    let expected = [Cancel::End, Cancel::End, Cancel::Request];
    let decided = STATES.map(cancel);
    assert_eq!(decided[..3], expected);
    assert!(decided[3..7].iter().all(|decision| *decision == Cancel::TooLate));
    assert_eq!(decided[7], Cancel::End, "of one that is held");
}

#[test]
fn only_an_end_without_success_is_redriven_and_not_while_it_is_notified() {
    for state in STATES {
        for delivery in deliveries() {
            let over = !matches!(delivery, Delivery::Pending | Delivery::Callbacking);
            let badly = state != State::Held && state.code() > 3;
            assert_eq!(may_redrive(state, &delivery), over && badly, "{state:?} {delivery:?}");
        }
    }
}

#[test]
fn every_event_leads_where_the_drawing_says() {
    let wish = Duration::from_secs(7);
    let table = [
        (AttemptEvent::Finished, Next::Ended(Outcome::Finished)),
        // the second failure: from 0 to 8 s, half of it with this luck
        (failed(FailureKind::Error, None), again(Duration::from_secs(4))),
        (failed(FailureKind::Panicked, None), again(Duration::from_secs(4))),
        (failed(FailureKind::TimedOut, None), again(Duration::from_secs(4))),
        (failed(FailureKind::Error, Some(wish)), again(wish)),
        (failed(FailureKind::Fatal, Some(wish)), Next::Ended(Outcome::Failed)),
        (failed(FailureKind::Decode, None), Next::Ended(Outcome::Failed)),
        (failed(FailureKind::Encode, None), Next::Ended(Outcome::Failed)),
        (failed(FailureKind::ResultTooLarge, None), Next::Ended(Outcome::Failed)),
        (failed(FailureKind::LostArguments, None), Next::Ended(Outcome::Failed)),
        (failed(FailureKind::Corrupt, None), Next::Ended(Outcome::Failed)),
        (AttemptEvent::Snoozed(wish), again(wish)),
        (AttemptEvent::Released, Next::Back),
        (AttemptEvent::Crashed, Next::Back),
    ];
    for (event, next) in table {
        assert_eq!(after_attempt(event.clone(), &SITUATION).next, next, "{event:?}");
    }
}

#[test]
fn a_cancelled_attempt_ends_unless_it_ended_well() {
    let situation = Situation { cancel_requested: true, ..SITUATION };
    let ends = [
        failed(FailureKind::Error, None),
        failed(FailureKind::Fatal, None),
        AttemptEvent::Snoozed(Duration::from_secs(1)),
        AttemptEvent::Released,
        AttemptEvent::Crashed,
    ];
    for event in ends {
        let next = after_attempt(event.clone(), &situation).next;
        assert_eq!(next, Next::Ended(Outcome::Cancelled), "{event:?}");
    }
    let next = after_attempt(AttemptEvent::Finished, &situation).next;
    assert_eq!(next, Next::Ended(Outcome::Finished));
}

#[test]
fn the_limit_of_failures_counts_the_first_attempt() {
    for failures in 0..5 {
        let counters = Counters { failures, ..SITUATION.counters };
        let situation = Situation { counters, ..SITUATION };
        let transition = after_attempt(failed(FailureKind::Error, None), &situation);
        let ended = transition.next == Next::Ended(Outcome::Failed);
        assert_eq!(ended, failures + 1 >= 3, "after {failures} failures");
    }
}

#[test]
fn a_task_runs_alone_before_its_last_crash_ends_it() {
    for max_crashes in 1..10 {
        assert_eq!(suspect_at(max_crashes), (max_crashes - 1).max(1));
        for crashes in 0..max_crashes {
            let counters = Counters { crashes, ..SITUATION.counters };
            let situation = Situation { counters, max_crashes, ..SITUATION };
            let transition = after_attempt(AttemptEvent::Crashed, &situation);
            let last = crashes + 1 == max_crashes;
            assert_eq!(transition.next == Next::Ended(Outcome::Failed), last);
            let kind = transition.failure.map(|failure| failure.kind);
            assert_eq!(kind, last.then_some(FailureKind::Crashed));
        }
    }
}

fn any_event() -> impl Strategy<Value = AttemptEvent> {
    let pause = (0..u64::MAX).prop_map(Duration::from_millis);
    let kind = prop::sample::select(vec![
        FailureKind::Error,
        FailureKind::Fatal,
        FailureKind::Panicked,
        FailureKind::TimedOut,
        FailureKind::Decode,
        FailureKind::Encode,
        FailureKind::ResultTooLarge,
        FailureKind::LostArguments,
        FailureKind::Crashed,
        FailureKind::Corrupt,
    ]);
    prop_oneof![
        Just(AttemptEvent::Finished),
        (kind, prop::option::of(pause.clone())).prop_map(|(kind, wish)| failed(kind, wish)),
        pause.prop_map(AttemptEvent::Snoozed),
        Just(AttemptEvent::Released),
        Just(AttemptEvent::Crashed),
    ]
}

proptest! {
    // a failure prints its seed; nothing is written beside the sources
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_event_moves_its_own_counter_and_nothing_else(
        event in any_event(),
        counters in any::<(u32, u32, u32)>(),
        cancel_requested in any::<bool>(),
        random in any::<u64>(),
    ) {
        let (claim_no, failures, crashes) = counters;
        let counters = Counters { claim_no, failures, crashes };
        let situation = Situation { counters, cancel_requested, random, ..SITUATION };
        let mut expected = counters;
        match event {
            AttemptEvent::Failed { .. } => expected.failures = failures.saturating_add(1),
            AttemptEvent::Crashed if !cancel_requested => {
                expected.crashes = crashes.saturating_add(1);
            }
            _ => {}
        }
        let is_failure = matches!(event, AttemptEvent::Failed { .. });
        let transition = after_attempt(event.clone(), &situation);
        prop_assert_eq!(transition.counters, expected);
        let ends_by_crash =
            event == AttemptEvent::Crashed && transition.next == Next::Ended(Outcome::Failed);
        prop_assert_eq!(transition.failure.is_some(), is_failure || ends_by_crash);
        if let Next::Again { at } = transition.next {
            prop_assert!(at >= NOW && at <= Timestamp::MAX, "never early, never beyond time");
        }
    }
}
