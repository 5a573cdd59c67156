//! Random steps, against a model that is too simple to be wrong.

mod expected;

use std::ops::RangeInclusive;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::lifecycle::State;
use crate::store::{Passing, Takes};
use expected::{Lives, Model};

/// How many claims are remembered to be settled too late.
const LATE: usize = 16;

#[derive(Clone, Debug)]
pub(super) enum Step {
    Apply {
        items: Vec<Item>,
        slots: usize,
        prefetch: usize,
        suspect: bool,
        deliver: usize,
        /// How many tasks of the named queue may be claimed, if that is limited.
        limit: Option<usize>,
        /// Which of the tasks that may run other shards' first tasks come after, and how many may pass
        /// them.
        passing: Vec<(usize, usize)>,
    },
    Advance {
        millis: u64,
    },
    Crash,
    Close,
    /// The bits say which attempts and deliveries live in memory, in order of ids.
    Rebuild {
        lives: u32,
    },
    Maintain {
        seconds: u32,
    },
}

/// The numbers choose among what there is.
#[derive(Clone, Debug)]
pub(super) enum Item {
    Submit {
        definition: usize,
        priority: i16,
        delay: u32,
        volatile: bool,
        callbacks: usize,
        named: bool,
        key: Option<&'static str>,
    },
    Settle {
        claim: usize,
        event: u8,
    },
    SettleLate {
        claim: usize,
    },
    Deliver {
        which: usize,
        dead: bool,
    },
    DeliverLate {
        which: usize,
    },
    Cancel {
        which: usize,
        notify: bool,
    },
    Redrive {
        which: usize,
    },
}

/// How many cases there are, and how many steps a case has at least and at most: few, unless the
/// variable PROPTEST_CASES asks for more.
fn scale() -> (u32, RangeInclusive<usize>) {
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => (ProptestConfig::default().cases, 200..=200),
        None => (200, 1..=60),
    }
}

pub(super) fn config() -> ProptestConfig {
    let (cases, _) = scale();
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let limit = prop::option::weighted(0.4, 0..3usize);
    let suspect = prop::bool::weighted(0.15);
    let passing = prop_oneof![2 => Just(Vec::new()), 1 => vec((0..4usize, 0..3usize), 1..3)];
    let apply = (vec(item(), 0..6), 0..6usize, 0..4usize, suspect, 0..4usize, limit, passing);
    let apply = apply.prop_map(|(items, slots, prefetch, suspect, deliver, limit, passing)| {
        Step::Apply { items, slots, prefetch, suspect, deliver, limit, passing }
    });
    let step = prop_oneof![
        16 => apply,
        5 => (0..3_000u64).prop_map(|millis| Step::Advance { millis }),
        1 => Just(Step::Crash),
        1 => Just(Step::Close),
        1 => any::<u32>().prop_map(|lives| Step::Rebuild { lives }),
        1 => prop_oneof![Just(0), Just(3_600), Just(36_000)]
            .prop_map(|seconds| Step::Maintain { seconds }),
    ];
    vec(step, scale().1)
}

fn item() -> impl Strategy<Value = Item> {
    let key = prop_oneof![2 => Just(None), 2 => Just(Some("a")), 1 => Just(Some("b"))];
    let submit = (0..3usize, -1..2i16, 0..3u32, any::<bool>(), 0..3usize, any::<bool>(), key);
    let submit =
        submit.prop_map(|(definition, priority, delay, volatile, callbacks, named, key)| {
            Item::Submit { definition, priority, delay, volatile, callbacks, named, key }
        });
    let which = 0..64usize;
    prop_oneof![
        6 => submit,
        6 => (which.clone(), 0..8u8).prop_map(|(claim, event)| Item::Settle { claim, event }),
        1 => which.clone().prop_map(|claim| Item::SettleLate { claim }),
        3 => (which.clone(), any::<bool>()).prop_map(|(which, dead)| Item::Deliver { which, dead }),
        1 => which.clone().prop_map(|which| Item::DeliverLate { which }),
        1 => (which.clone(), any::<bool>())
            .prop_map(|(which, notify)| Item::Cancel { which, notify }),
        2 => which.prop_map(|which| Item::Redrive { which }),
    ]
}

fn event(number: u8) -> AttemptEvent {
    match number {
        0 => failure(),
        1 => fatal(),
        2 => AttemptEvent::Snoozed(SECOND),
        3 => AttemptEvent::Released,
        _ => AttemptEvent::Finished,
    }
}

/// The store and the model, step by step.
struct Pair<F: Factory> {
    world: World<F>,
    model: Model,
}

/// Runs the steps on both, comparing all after each; in the end claims everything that may run.
pub(super) fn check<F: Factory>(factory: F, steps: &[Step]) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        // four rows in memory, and a level outweighs a second
        let options = StoreOptions { window: 4, ..options() };
        let world = World::with(factory, options);
        let mut pair = Pair { model: Model { now: world.now, ..Model::default() }, world };
        for step in steps {
            pair.step(step).await;
        }
        pair.drain().await;
    });
}

impl<F: Factory> Pair<F> {
    async fn step(&mut self, step: &Step) {
        let Pair { world, model } = self;
        match step {
            Step::Apply { items, slots, prefetch, suspect, deliver, limit, passing } => {
                let takes =
                    |index| Takes { quick_ns: (index == QUICK).then_some(5), blocking: false };
                let takes = (0..NAMES.len()).map(takes).collect();
                let named = world.options.queues.get_or_add("named");
                let mut claim = if *suspect {
                    ClaimBudget { suspect: true, ..ClaimBudget::default() }
                } else {
                    let (slots, prefetch) = (*slots, *prefetch);
                    ClaimBudget { slots, prefetch, takes, behind_ns: 6, ..ClaimBudget::default() }
                };
                if let Some(tasks) = limit {
                    claim.queues.limit(named, *tasks);
                }
                let at = |(after, tasks): &(usize, usize)| {
                    let rank = model.rows[model.runnable(false).get(*after)?].place.rank;
                    Some(Passing { rank, tasks: *tasks })
                };
                claim.passing = passing.iter().filter_map(at).collect();
                let batch = Batch { claim, deliver: *deliver, ..world.batch() };
                let batch = fill(model, batch, items, named);
                self.apply(batch).await;
                return;
            }
            Step::Advance { millis } => {
                world.advance(Duration::from_millis(*millis));
                model.now = world.now;
                return;
            }
            Step::Crash => {
                world.crash().await;
                assert_eq!(world.recovered, model.crash());
            }
            Step::Close => {
                world.close().await;
                assert_eq!(world.recovered, model.crash());
            }
            Step::Rebuild { lives } => {
                let held = model.claims.iter().map(|claim| claim.id);
                let mut held: Vec<TaskId> = held.chain(model.on_their_way()).collect();
                held.sort();
                let alive = |index: usize| lives >> (index % 32) & 1 == 1;
                let alive = held.into_iter().enumerate().filter(|(index, _)| alive(*index));
                let memory = Lives(alive.map(|(_, id)| id).collect());
                world.rebuild(&memory).await;
                model.rebuild(&memory);
            }
            Step::Maintain { seconds } => {
                world.advance(*seconds * SECOND);
                model.now = world.now;
                let now = world.now;
                world.store().maintain(now).await.unwrap();
                model.purge();
            }
        }
        let all = world.all().await;
        model.adopt(&all);
        self.compare(&all);
    }

    async fn apply(&mut self, batch: Batch) {
        let knew_all = !self.world.runnable().more;
        let result = self.world.apply(&batch).await;
        let all = self.world.all().await;
        let model = &mut self.model;
        let mut credits = batch.deliver;
        for (settlement, settled) in batch.settlements.iter().zip(&result.settled) {
            let fence = (settlement.id, settlement.claim_no);
            let mut held = model.claims.iter().map(|claim| (claim.id, claim.counters.claim_no));
            let ours = held.any(|claim| claim == fence);
            let Settled::Recorded { deliver } = *settled else {
                assert!(!ours, "{} holds its claim", settlement.id);
                continue;
            };
            assert!(ours, "{} was settled by a claim that isn't in force", settlement.id);
            let waiting = model.pending().len();
            model.settle(settlement);
            let asks = model.row(settlement.id).delivery == Delivery::Pending;
            assert_eq!(deliver, asks && credits > waiting);
            if deliver {
                credits -= 1;
                model.row(settlement.id).delivery = Delivery::Callbacking;
            }
            model.claims.retain(|claim| claim.id != settlement.id);
        }
        for end in &batch.deliveries {
            let row = model.rows.get(&end.id);
            if row.is_some_and(|row| row.memory && row.claim_no == end.claim_no) {
                model.close(end.id, true, end.dead);
            }
        }
        for (cancellation, outcome) in batch.cancellations.iter().zip(&result.cancelled) {
            assert_eq!(*outcome, model.cancel(*cancellation));
        }
        for (id, outcome) in batch.redrives.iter().zip(&result.redriven) {
            assert_eq!(*outcome, model.redrive(*id));
        }
        model.promote();
        for (task, id) in batch.submissions.iter().zip(&result.submitted) {
            model.insert(*id.as_ref().unwrap(), task, None);
        }
        model.adopt(&all);
        let claims = result.claims;
        let outlook = self.world.runnable();
        let more = outlook.more || outlook.ready > 0;
        self.claimed(&batch.claim, claims, knew_all, more);
        let mut pending = self.model.pending();
        pending.truncate(credits);
        let sent: Vec<TaskId> = result.deliver.iter().map(|record| record.id).collect();
        assert_eq!(sent, pending, "waiting results go out oldest first, as far as credits go");
        for id in sent {
            self.model.row(id).delivery = Delivery::Callbacking;
        }
        self.compare(&all);
    }

    /// Compares what was claimed; `knew_all` says that the store had every ready row in memory.
    fn claimed(&mut self, budget: &ClaimBudget, claims: Vec<Claim>, knew_all: bool, more: bool) {
        let model = &mut self.model;
        let claimed = ids(&claims);
        if budget.suspect {
            let mut suspects = model.runnable(true);
            suspects.retain(|id| budget.queues.left(model.rows[id].queue) > 0);
            let first = suspects.first().copied().into_iter().collect::<Vec<_>>();
            let one_of_them = claimed.len() <= 1 && claimed.iter().all(|id| suspects.contains(id));
            assert!(claimed == first || !knew_all && one_of_them, "{claimed:?} of {suspects:?}");
        } else {
            let expected = model.claimable(budget);
            assert!(expected.starts_with(&claimed), "{claimed:?} isn't the head of {expected:?}");
            assert!(claimed.len() == expected.len() || more, "{claimed:?} of {expected:?}");
        }
        for (index, claim) in claims.into_iter().enumerate() {
            assert_eq!(claim.prefetched, !budget.suspect && index >= budget.slots);
            let row = model.row(claim.id);
            row.state = State::Running;
            row.claim_no += 1;
            assert_eq!(claim.counters.claim_no, row.claim_no);
            assert_eq!((claim.definition, claim.priority), (row.definition, row.priority));
            assert_eq!((claim.parent, claim.volatile), (row.parent, row.volatile));
            assert_eq!((claim.queue, &claim.key), (row.queue, &row.key));
            model.claims.push(claim);
        }
    }

    fn compare(&mut self, all: &[TaskRecord]) {
        let Pair { world, model } = self;
        let known: Vec<TaskId> = model.rows.keys().copied().collect();
        assert_eq!(all.iter().map(|record| record.id).collect::<Vec<_>>(), known);
        for record in all {
            let row = &model.rows[&record.id];
            let counters = record.counters;
            assert_eq!(record.status, row.status(), "of {}", record.id);
            assert_eq!(record.delivery, row.delivery, "of {}", record.id);
            assert_eq!(record.outcome, row.state.outcome());
            assert_eq!(counters.claim_no, row.claim_no);
            assert_eq!((counters.failures, counters.crashes), (row.failures, row.crashes));
            let parent = row.parent.map(|parent| parent.id);
            assert_eq!((record.due_at, record.parent), (row.due, parent));
            assert_eq!(record.name.as_ref(), NAMES[row.definition]);
            let queue = world.options.queues.get(row.queue);
            assert_eq!((&record.queue, &record.key), (&queue.name, &row.key));
        }
        let outlook = world.store().outlook();
        assert_eq!(outlook.undelivered, !model.pending().is_empty());
        // each name is in two queues
        assert!(world.runnable().ready <= 4 * 2 * NAMES.len(), "the windows are bounded");
        let waits = model.rows.values().filter(|row| row.state == State::Waiting);
        let first_due = waits.filter_map(|row| row.due).min();
        let in_time = |due| outlook.next_due.is_some_and(|wakes| wakes <= due);
        assert!(first_due.is_none_or(in_time), "{:?} is after {first_due:?}", outlook.next_due);
    }

    /// Claims everything that may run.
    async fn drain(&mut self) {
        loop {
            let claim = ClaimBudget { slots: 3, ..ClaimBudget::default() };
            let before = self.model.claims.len();
            let batch = Batch { claim, ..self.world.batch() };
            self.apply(batch).await;
            let outlook = self.world.runnable();
            if self.model.claims.len() == before && !outlook.more && outlook.ready == 0 {
                break;
            }
        }
        assert!(self.model.runnable(false).is_empty(), "nothing that may run is forgotten");
        // all of the order has been looked at, so every suspect is known
        let suspects = self.model.runnable(true);
        assert_eq!(self.world.runnable().suspects, !suspects.is_empty());
        for _ in suspects {
            let claim = ClaimBudget { suspect: true, ..ClaimBudget::default() };
            let batch = Batch { claim, ..self.world.batch() };
            self.apply(batch).await;
        }
        assert!(self.model.runnable(true).is_empty());
    }
}

/// Turns items into a batch, choosing among what the model knows.
fn fill(model: &mut Model, mut batch: Batch, items: &[Item], queue: QueueIndex) -> Batch {
    let known: Vec<TaskId> = model.rows.keys().copied().collect();
    let choose = |which: usize| (!known.is_empty()).then(|| known[which % known.len()]);
    let dead = model.rows.iter().filter(|(_, row)| row.state.outcome().is_some());
    let ended: Vec<TaskId> = dead.map(|(id, _)| *id).collect();
    let mut claims = model.claims.clone();
    let mut sent = model.on_their_way();
    for item in items {
        match item {
            Item::Submit { definition, priority, delay, volatile, callbacks, named, key } => {
                batch.submissions.push(NewTask {
                    priority: *priority,
                    due_at: (*delay > 0).then(|| model.now.saturating_add(*delay * SECOND)),
                    volatile: *volatile,
                    queue: if *named { queue } else { QueueIndex::DEFAULT },
                    key: key.map(Arc::from),
                    ..NewTask { definition: *definition, ..with_callbacks(*callbacks) }
                });
            }
            Item::Settle { claim, event: number } if !claims.is_empty() => {
                let claim = claims.remove(claim % claims.len());
                batch.settlements.push(settlement(&claim, event(*number), model.now));
                model.late.push(claim);
            }
            Item::SettleLate { claim } if !model.late.is_empty() => {
                let claim = &model.late[claim % model.late.len()];
                batch.settlements.push(settlement(claim, AttemptEvent::Finished, model.now));
            }
            Item::Deliver { which, dead } if !sent.is_empty() => {
                let id = sent.remove(which % sent.len());
                let dead = dead.then_some(DeadReason::SubscriberFull);
                let end = DeliveryEnd { id, claim_no: model.rows[&id].claim_no, dead };
                model.late_deliveries.push(end);
                batch.deliveries.push(end);
            }
            Item::DeliverLate { which } if !model.late_deliveries.is_empty() => {
                let late = &model.late_deliveries;
                batch.deliveries.push(late[which % late.len()]);
            }
            Item::Cancel { which, notify } => {
                let chosen = choose(*which).into_iter();
                batch.cancellations.extend(chosen.map(|id| Cancellation { id, notify: *notify }));
            }
            Item::Redrive { which } if !ended.is_empty() => {
                batch.redrives.push(ended[which % ended.len()]);
            }
            _ => {}
        }
    }
    let excess = model.late.len().saturating_sub(LATE);
    model.late.drain(..excess);
    batch
}
