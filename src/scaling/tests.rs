use proptest::prelude::*;

use super::*;

mod stalls;
mod trials;

const TARGET: Duration = Duration::from_millis(10);
const RETIRE_AFTER: Duration = Duration::from_secs(30);
const MINUTE: f64 = 60.0;

/// What the number of shards does to a load: the machine, and who submits.
#[derive(Clone, Debug)]
struct Plant {
    /// Submissions per second that one file can store, and that all of them can together: there are
    /// only so many cores, and one disk.
    each_per_s: f64,
    all_per_s: f64,
    /// How long a commit takes where nothing waits.
    commit_s: f64,
    waiting: f64,
}

/// How many submissions may wait, as `limits.pending_submissions` says.
const WAITING_MAX: f64 = 65_536.0;

impl Plant {
    fn capacity(&self, shards: usize) -> f64 {
        (self.each_per_s * shards as f64).min(self.all_per_s)
    }

    fn figures(&self, seconds: f64, stored: f64, wait_s: f64, shards: usize) -> Figures {
        let busy = stored / seconds / self.capacity(shards) * shards as f64;
        Figures {
            seconds,
            stored,
            waited_s: stored * wait_s,
            committing_s: busy * seconds,
            syncing_s: 0.0,
            commits: busy * seconds / self.commit_s,
            pending: self.waiting as usize,
            failing: false,
            active: shards,
            last: shards - 1,
        }
    }

    /// So many come per second, whatever becomes of them.
    fn open_loop(&mut self, seconds: f64, per_s: f64, shards: usize) -> Figures {
        let capacity = self.capacity(shards);
        let there = self.waiting + per_s * seconds;
        let stored = there.min(capacity * seconds);
        let wait_s = self.commit_s + self.waiting / capacity;
        self.waiting = (there - stored).min(WAITING_MAX);
        self.figures(seconds, stored, wait_s, shards)
    }

    /// So many clients each send another one when theirs is stored.
    fn closed_loop(&mut self, seconds: f64, clients: f64, shards: usize) -> Figures {
        let capacity = self.capacity(shards);
        let per_s = capacity.min(clients / self.commit_s);
        self.waiting = clients;
        self.figures(seconds, per_s * seconds, clients / per_s, shards)
    }
}

/// A queue as far as the controller sees it: it does what it is told.
struct World {
    plant: Plant,
    controller: Controller,
    shards: usize,
    /// Each decision, and the number of shards after it.
    changes: Vec<(Decision, usize)>,
}

impl World {
    fn new(plant: Plant, range: RangeInclusive<usize>) -> Self {
        let shards = *range.start();
        let controller = Controller::new(range, TARGET, RETIRE_AFTER);
        World { plant, controller, shards, changes: Vec::new() }
    }

    /// Lets some time pass; returns how many changes there were in it.
    fn run(
        &mut self,
        seconds: f64,
        mut load: impl FnMut(&mut Plant, f64, usize) -> Figures,
    ) -> usize {
        let before = self.changes.len();
        let mut left = seconds;
        let mut interval = TICK.as_secs_f64();
        while left > 0.0 {
            // traffic wakes one that sleeps
            let interval_s = interval.min(left.max(0.001));
            let figures = load(&mut self.plant, interval_s, self.shards);
            left -= interval_s;
            let advice = self.controller.advise(&figures);
            interval = advice.again.unwrap_or(TICK).as_secs_f64();
            self.follow(advice.decision);
        }
        self.changes.len() - before
    }

    fn follow(&mut self, decision: Option<Decision>) {
        match decision {
            None => return,
            Some(Decision::Grow { .. }) => {
                self.controller.grew(self.shards);
                self.shards += 1;
            }
            Some(Decision::GiveUp { shard, .. } | Decision::Retire { shard, .. }) => {
                self.shards -= 1;
                assert_eq!(shard, self.shards, "the last one");
            }
            Some(Decision::Keep { shard, .. }) => assert_eq!(shard, self.shards - 1),
        }
        self.changes.extend(decision.map(|decision| (decision, self.shards)));
    }

    /// How often the number went the other way than before, from a change on.
    fn turns(&self, from: usize) -> usize {
        let ways = self.changes[from..].iter().filter_map(|(decision, _)| match decision {
            Decision::Grow { .. } => Some(true),
            Decision::GiveUp { .. } | Decision::Retire { .. } => Some(false),
            Decision::Keep { .. } => None,
        });
        let ways: Vec<bool> = ways.collect();
        ways.windows(2).filter(|pair| pair[0] != pair[1]).count()
    }

    fn count(&self, what: fn(&Decision) -> bool) -> usize {
        self.changes.iter().filter(|(decision, _)| what(decision)).count()
    }

    fn retirements(&self) -> usize {
        self.count(|decision| matches!(decision, Decision::Retire { .. }))
    }

    fn given_up(&self) -> usize {
        self.count(|decision| matches!(decision, Decision::GiveUp { .. }))
    }
}

/// One file takes 10,000 per second.
fn plant(all_per_s: f64) -> Plant {
    Plant { each_per_s: 10_000.0, all_per_s, commit_s: 0.002, waiting: 0.0 }
}

fn many(clients: f64) -> impl FnMut(&mut Plant, f64, usize) -> Figures {
    move |plant, seconds, shards| plant.closed_loop(seconds, clients, shards)
}

fn steady(per_s: f64) -> impl FnMut(&mut Plant, f64, usize) -> Figures {
    move |plant, seconds, shards| plant.open_loop(seconds, per_s, shards)
}

#[test]
fn shards_are_added_as_long_as_each_makes_it_faster() {
    let mut world = World::new(plant(30_000.0), 1..=8);
    world.run(MINUTE, many(2_048.0));
    assert_eq!(world.shards, 3, "{:?}", world.changes);
    assert_eq!((world.given_up(), world.retirements()), (1, 0));
}

#[test]
fn a_trial_that_makes_nothing_better_is_taken_back_and_the_pause_grows() {
    let mut world = World::new(plant(10_000.0), 1..=8);
    assert_eq!(world.run(20.0, many(2_048.0)), 2);
    let (decision, shards) = world.changes[1];
    let Decision::GiveUp { shard: 1, before, after } = decision else { panic!("{decision:?}") };
    assert_eq!(shards, 1);
    assert!((before.per_s - after.per_s).abs() < 1.0, "{before:?} {after:?}");
    assert_eq!(world.run(4.0 * MINUTE, many(2_048.0)), 0, "of this load the answer is known");
    // under another one: at once, then after 60 s, then after 120 s
    let tries = |world: &mut World, seconds, all_per_s| {
        world.plant.all_per_s = all_per_s;
        world.run(seconds, many(2_048.0))
    };
    assert_eq!(tries(&mut world, 10.0, 7_000.0), 2);
    assert_eq!(tries(&mut world, 50.0, 10_000.0), 0, "a minute isn't over");
    assert_eq!(tries(&mut world, 10.0, 10_000.0), 2);
    assert_eq!(tries(&mut world, 110.0, 7_000.0), 0, "two minutes aren't over");
    assert_eq!(tries(&mut world, 20.0, 7_000.0), 2);
    assert_eq!(tries(&mut world, 50.0 * MINUTE, 7_000.0), 0, "an hour isn't over");
    assert_eq!(tries(&mut world, 11.0 * MINUTE, 7_000.0), 2, "the machine may have changed");
    assert_eq!(world.shards, 1);
}

#[test]
fn a_shard_is_given_back_where_each_commit_takes_longer_than_the_target() {
    let mut world = World::new(Plant { commit_s: 0.02, ..plant(1e9) }, 1..=2);
    world.run(10.0, many(2_048.0));
    assert_eq!(world.shards, 2);
    world.run(2.0 * MINUTE, steady(500.0));
    assert_eq!(world.shards, 1, "{:?}", world.changes);
}

#[test]
fn waits_that_are_shorter_because_less_comes_are_no_success() {
    let mut world = World::new(plant(10_000.0), 1..=2);
    world.run(1.0, many(2_048.0));
    assert_eq!(world.shards, 2, "a trial is on");
    world.run(10.0, many(10.0));
    assert_eq!(world.shards, 1, "{:?}", world.changes);
}

#[test]
fn shards_that_stand_still_are_not_added_to() {
    // each commit is longer than the target, but there are few
    let slow = Plant { each_per_s: 1_000.0, commit_s: 0.05, ..plant(1e9) };
    let mut world = World::new(slow, 1..=8);
    assert_eq!(world.run(10.0 * MINUTE, steady(100.0)), 0);
}

#[test]
fn nothing_is_tried_while_a_batch_is_refused() {
    let mut world = World::new(plant(1e9), 1..=8);
    let changes = world.run(10.0 * MINUTE, |plant, seconds, shards| Figures {
        failing: true,
        ..plant.closed_loop(seconds, 2_048.0, shards)
    });
    assert_eq!(changes, 0);
}

#[test]
fn a_shard_that_cannot_be_had_is_asked_for_again_after_a_pause_that_grows() {
    let mut controller = Controller::new(1..=2, TARGET, RETIRE_AFTER);
    let (mut plant, mut asked_at, mut now) = (plant(1e9), Vec::new(), 0.0);
    while now < 3.0 * 3_600.0 {
        let figures = plant.closed_loop(0.1, 2_048.0, 1);
        now += 0.1;
        if let Some(decision) = controller.advise(&figures).decision {
            assert!(matches!(decision, Decision::Grow { .. }), "{decision:?}");
            let pause = controller.could_not_grow();
            asked_at.push((now, pause.as_secs_f64()));
        }
    }
    for pair in asked_at.windows(2) {
        let ((at, pause), (next, longer)) = (pair[0], pair[1]);
        assert!(next - at >= pause && next - at < pause + 3.0, "{asked_at:?}");
        assert!(longer >= pause * 2.0 || longer >= PAUSE_MAX_S, "{asked_at:?}");
    }
    assert!(asked_at.len() > 8, "{asked_at:?}");
}

// It was asked for again after seconds each time, and had submissions refused.
#[test]
fn a_shard_that_fails_on_trial_again_and_again_is_tried_less_and_less_often() {
    let mut controller = Controller::new(1..=2, TARGET, RETIRE_AFTER);
    let (mut plant, mut asked_at, mut now) = (plant(1e9), Vec::new(), 0.0);
    while now < 3.0 * 3_600.0 {
        let figures = plant.closed_loop(0.1, 2_048.0, 1);
        now += 0.1;
        if controller.advise(&figures).decision.is_some() {
            controller.grew(1);
            controller.watch_anew();
            asked_at.push(now);
        }
    }
    let gaps: Vec<f64> = asked_at.windows(2).map(|pair| pair[1] - pair[0]).collect();
    for pair in gaps.windows(2) {
        assert!(pair[1] > pair[0] * 1.5 || pair[1] >= PAUSE_MAX_S, "{gaps:?}");
    }
    assert!((9..20).contains(&asked_at.len()), "{gaps:?}");
}

#[test]
fn an_idle_queue_goes_to_its_least_number_and_is_left_alone_then() {
    let mut world = World::new(plant(1e9), 2..=5);
    world.run(MINUTE, many(2_048.0));
    assert_eq!(world.shards, 5);
    let idle = |_: &mut Plant, seconds, active| Figures {
        seconds,
        active,
        last: active - 1,
        ..Figures::default()
    };
    world.run(29.0, idle);
    assert_eq!(world.shards, 5);
    assert_eq!(world.run(5.0 * MINUTE, idle), 3);
    assert_eq!(world.shards, 2);
    let figures = idle(&mut world.plant, 0.1, 2);
    assert_eq!(world.controller.advise(&figures), Advice { decision: None, again: None });
}

#[test]
fn an_idle_queue_sleeps_until_a_retirement_is_due() {
    let mut world = World::new(plant(1e9), 1..=2);
    world.run(10.0, many(2_048.0));
    let idle = Figures { seconds: 0.1, active: 2, last: 1, ..Figures::default() };
    let again = world.controller.advise(&idle).again.unwrap();
    assert!(again > Duration::from_secs(29), "{again:?}");
    let slept = Figures { seconds: again.as_secs_f64(), ..idle };
    let decision = world.controller.advise(&slept).decision;
    assert!(matches!(decision, Some(Decision::Retire { shard: 1, .. })), "{decision:?}");
}

#[test]
fn a_load_with_much_room_gives_shards_back_and_one_without_does_not() {
    let mut world = World::new(plant(1e9), 1..=3);
    world.run(MINUTE, steady(25_000.0));
    assert_eq!(world.shards, 3);
    assert_eq!(world.run(10.0 * MINUTE, steady(16_000.0)), 0, "two would be busy");
    world.run(10.0 * MINUTE, steady(8_000.0));
    assert_eq!(world.shards, 2, "one would be busy");
    world.run(10.0 * MINUTE, steady(3_000.0));
    assert_eq!(world.shards, 1);
    assert_eq!(world.retirements(), 2);
}

#[test]
fn each_phase_of_a_load_that_rises_and_falls_changes_the_direction_at_most_once() {
    let mut world = World::new(plant(40_000.0), 1..=8);
    let phases = [3_000.0, 15_000.0, 33_000.0, 60_000.0, 9_000.0, 2_000.0, 25_000.0, 100.0];
    // what has come together meanwhile is reason enough for one more
    let wanted = [1, 2, 4, 4, 2, 1, 4, 1];
    for (per_s, wanted) in phases.into_iter().zip(wanted) {
        let from = world.changes.len();
        world.run(4.0 * MINUTE, steady(per_s));
        assert!(world.turns(from) <= 1, "{per_s}: {:?}", &world.changes[from..]);
        assert_eq!(world.shards, wanted, "{per_s}: {:?}", &world.changes[from..]);
    }
}

#[test]
fn a_load_that_comes_back_after_each_retirement_stops_the_retirements() {
    let mut world = World::new(plant(1e9), 1..=2);
    for _ in 0..40 {
        world.run(40.0, steady(15_000.0));
        world.run(40.0, steady(500.0));
    }
    assert!((1..=3).contains(&world.retirements()), "{:?}", world.changes);
}

fn machine() -> impl Strategy<Value = Plant> {
    let parts = (100.0..50_000.0f64, 0.5..10.0f64, 0.0005..0.03f64);
    parts.prop_map(|(each_per_s, of_all, commit_s)| Plant {
        each_per_s,
        all_per_s: each_per_s * of_all,
        commit_s,
        waiting: 0.0,
    })
}

fn anything() -> impl Strategy<Value = f64> {
    let odd = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0, -1.0, f64::MAX, 5e-324];
    prop_oneof![prop::sample::select(odd.to_vec()), 0.0..1e6f64, 0.0..1.0f64, any::<f64>()]
}

prop_compose! {
    fn nonsense()(
        sums in (anything(), anything(), anything(), anything(), anything(), anything()),
        pending in prop_oneof![Just(0usize), any::<usize>()],
        failing in any::<bool>(),
    ) -> Figures {
        let (seconds, stored, waited_s, committing_s, syncing_s, commits) = sums;
        Figures {
            seconds,
            stored,
            waited_s,
            committing_s,
            syncing_s,
            commits,
            pending,
            failing,
            active: 0,
            last: 0,
        }
    }
}

proptest! {
    // a failure prints its seed; nothing is written beside the sources
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn no_figures_lead_out_of_the_range(
        min in 1..5usize,
        more in 0..5usize,
        figures in prop::collection::vec((nonsense(), any::<bool>()), 1..400),
        repeated in 1..20usize,
    ) {
        let range = min..=min + more;
        let mut world = World::new(plant(1e9), range.clone());
        for (figures, fails) in figures {
            for _ in 0..repeated {
                let (active, last) = (world.shards, world.shards - 1);
                let advice = world.controller.advise(&Figures { active, last, ..figures });
                if let (Some(Decision::Grow { .. }), true) = (advice.decision, fails) {
                    world.controller.could_not_grow();
                    continue;
                }
                world.follow(advice.decision);
                prop_assert!(range.contains(&world.shards), "{} of {:?}", world.shards, range);
                prop_assert!(advice.again.is_none_or(|again| again >= TICK));
            }
        }
        // and it works on from there
        world.run(24.0 * 60.0 * MINUTE, steady(0.0));
        prop_assert_eq!(world.shards, min);
        world.run(MINUTE, many(2_048.0));
        prop_assert_eq!(world.shards, min + more);
    }

    #[test]
    fn a_constant_load_finds_its_number_and_never_turns_again(
        plant in machine(),
        clients in 1.0..10_000.0f64,
        max in 1..9usize,
    ) {
        let mut world = World::new(plant, 1..=max);
        world.run(2.0 * MINUTE, many(clients));
        prop_assert!(world.turns(0) <= 1, "{:?}", world.changes);
        prop_assert_eq!(world.run(50.0 * MINUTE, many(clients)), 0, "{:?}", world.changes);
    }

    #[test]
    fn a_constant_stream_is_never_retired_from_and_is_tried_ever_more_rarely(
        plant in machine(),
        load in 0.1..3.0f64,
        max in 1..9usize,
    ) {
        let per_s = plant.each_per_s * load;
        let mut world = World::new(plant, 1..=max);
        world.run(50.0 * MINUTE, steady(per_s));
        // where more comes than can be stored, the waits grow: another load each time
        prop_assert!(world.given_up() <= 7, "{:?}", world.changes);
        prop_assert!(world.retirements() <= 1, "{:?}", world.changes);
    }

    #[test]
    fn a_load_that_moves_around_the_threshold_does_not_make_it_flap(
        plant in machine(),
        parts in prop::collection::vec((0.7..1.3f64, 1.0..100.0f64), 20..60),
        max in 2..9usize,
    ) {
        let one = plant.each_per_s.min(plant.all_per_s);
        let mut world = World::new(plant, 1..=max);
        for (part, seconds) in parts {
            world.run(seconds, steady(one * part));
        }
        prop_assert!(world.turns(0) <= 16, "{} turns: {:?}", world.turns(0), world.changes);
        prop_assert!(world.retirements() <= 2, "{:?}", world.changes);
    }

    #[test]
    fn a_load_that_comes_and_goes_faster_than_a_retirement_takes_changes_nothing_in_the_end(
        plant in machine(),
        high in 500.0..5_000.0f64,
        seconds in 1.0..28.0f64,
        max in 2..9usize,
    ) {
        let mut world = World::new(plant, 1..=max);
        for _ in 0..60 {
            world.run(seconds, many(high));
            world.run(seconds, steady(0.0));
            world.plant.waiting = 0.0;
        }
        prop_assert_eq!(world.retirements(), 0, "{:?}", world.changes);
        prop_assert!(world.given_up() <= 7, "{:?}", world.changes);
    }
}
