//! What an open does with what was under way.

use rusqlite::{Transaction, TransactionBehavior};

use super::delivery::Closing;
use super::fault::store_error;
use super::row::{self, Details};
use super::sqlite::{Changes, SqliteStore};
use super::work::Work;
use super::{Batch, ClaimBudget, Memory, Recovered, Settlement};
use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::lifecycle::{self, AttemptEvent, Next, Situation, State, Transition};
use crate::record::{DeadReason, Delivery, RetryPolicy, TaskStatus};

/// How many rows one step of a recovery looks at.
const STEP: usize = 1_000;

/// How many ready rows are looked at for names that aren't registered.
const NAME_SAMPLE: usize = 10_000;

/// What a process had in hand, in order of ids. Served by task_live.
pub(super) const LIVE: &str = "
    select id, name, state, delivery, volatile, priority, claim_no, failures, crashes, parent,
           details, started_at, delivery_left
      from task
     where live = 1 and id > ?1
     order by id
     limit ?2";

/// Served by task_pending.
pub(super) const UNDELIVERED: &str = "select count(*) from task where delivery = 1";

/// Served by the primary key.
pub(super) const BACK_TO_PENDING: &str =
    "update task set delivery = 1 where id = ?1 and delivery = 6";

/// Served by task_ready.
pub(super) const SAMPLE: &str = "
    select name from task where state = 1 order by rank limit ?1";

/// A row that a process had in hand.
struct Live {
    settlement: Settlement,
    definition: Option<usize>,
    state: State,
    delivery: Delivery,
    /// How many of its deliveries are open.
    left: u32,
    volatile: bool,
}

impl SqliteStore {
    /// After a process ended: what ran is ready again and a crash the more, deliveries to memory
    /// are dead, durable callbacks go on by themselves.
    pub(super) fn recover(&mut self, now: Timestamp) -> Result<Recovered, StoreError> {
        let mut recovered = Recovered::default();
        self.each_live(now, |work, live| {
            let id = live.settlement.id;
            if live.state == State::Running {
                let over = work.crashed(live)?;
                recovered.failed += u64::from(over);
                recovered.restarted += u64::from(!over);
            } else if live.volatile {
                let claim_no = live.settlement.claim_no;
                let gone = Some(DeadReason::SubscriberGone);
                work.close_one(id.sequence(), Closing::Memory { claim_no }, gone)?;
                recovered.subscribers_gone += 1;
            }
            let callbacks = live.left > u32::from(live.volatile);
            recovered.callbacks += u64::from(callbacks);
            Ok(())
        })?;
        recovered.unregistered = self.count_unregistered().map_err(store_error)?;
        self.count_undelivered().map_err(store_error)?;
        Ok(recovered)
    }

    /// After the actor was rebuilt: the file is the truth, and what lives in memory goes on.
    pub(super) fn reconcile(
        &mut self,
        now: Timestamp,
        memory: &dyn Memory,
    ) -> Result<Recovered, StoreError> {
        let mut recovered = Recovered::default();
        self.each_live(now, |work, live| {
            let id = live.settlement.id;
            if live.state == State::Running {
                if !memory.attempt_lives(id, live.settlement.claim_no) {
                    work.released(live)?;
                    recovered.restarted += 1;
                }
            } else if live.volatile
                && live.delivery == Delivery::Callbacking
                && !memory.delivery_lives(id)
            {
                let sequence = id.sequence() as i64;
                work.connection().prepare_cached(BACK_TO_PENDING)?.execute([sequence])?;
                work.changes.tally.remove(TaskStatus::Callbacking);
                work.changes.tally.add(lifecycle::status(live.state, &Delivery::Pending));
            }
            Ok(())
        })?;
        self.count_undelivered().map_err(store_error)?;
        Ok(recovered)
    }

    /// Shows every live row to `decide`, in transactions of bounded size.
    fn each_live(
        &mut self,
        now: Timestamp,
        mut decide: impl FnMut(&mut Work<'_>, &Live) -> rusqlite::Result<()>,
    ) -> Result<(), StoreError> {
        let mut after = 0;
        loop {
            let step = self.live_after(after).map_err(store_error)?;
            let Some(last) = step.last() else { return Ok(()) };
            after = last.settlement.id.sequence();
            let ends = step.iter().map(|live| live.settlement.callbacks.as_ref());
            let numbers = self.numbers_for_ends(ends);
            self.reserve_numbers(numbers)?;
            let batch = Batch { now, claim: ClaimBudget::default(), ..Batch::default() };
            let changes = self.decide_all(&step, &batch, &mut decide).map_err(store_error)?;
            self.adopt(changes);
        }
    }

    fn decide_all(
        &self,
        step: &[Live],
        batch: &Batch,
        decide: &mut impl FnMut(&mut Work<'_>, &Live) -> rusqlite::Result<()>,
    ) -> rusqlite::Result<Changes> {
        let begun = Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate)?;
        let mut work = Work::new(self, batch);
        for live in step {
            decide(&mut work, live)?;
        }
        work.write_tally()?;
        let (changes, _) = work.finish();
        begun.commit()?;
        Ok(changes)
    }

    fn live_after(&self, after: u64) -> rusqlite::Result<Vec<Live>> {
        let mut select = self.connection.prepare_cached(LIVE)?;
        let rows = select.query_map((after as i64, STEP), |row| {
            let definition = self.names.definition(row.get(1)?);
            let started_at = row.get::<_, Option<i64>>(11)?.unwrap_or_default();
            let counters = row::counters(row, 6)?;
            let details = Details::read(row::text(row, 10)?).unwrap_or_default();
            Ok(Live {
                settlement: Settlement {
                    id: self.id(row.get(0)?),
                    claim_no: counters.claim_no,
                    definition: definition.unwrap_or_default(),
                    priority: row::priority(row, 5)?,
                    transition: Transition {
                        next: Next::Again { at: Timestamp::default() },
                        counters,
                        failure: None,
                    },
                    output: None,
                    started_at: Timestamp::from_micros(started_at),
                    ended_at: Timestamp::default(),
                    notify: row.get(4)?,
                    callbacks: details.callbacks(),
                    parent: details
                        .parent(row.get::<_, Option<i64>>(9)?.map(|parent| self.id(parent))),
                },
                definition,
                state: row::state(row.get(2)?),
                delivery: row::delivery(row.get(3)?, None),
                left: row::count(row, 12)?,
                volatile: row.get(4)?,
            })
        })?;
        rows.collect()
    }

    fn count_undelivered(&mut self) -> rusqlite::Result<()> {
        self.undelivered = self.connection.query_row(UNDELIVERED, [], |row| row.get(0))?;
        Ok(())
    }

    /// How many of the first ready rows have a name that this process doesn't know.
    fn count_unregistered(&self) -> rusqlite::Result<u64> {
        if self.names.unregistered().next().is_none() {
            return Ok(0);
        }
        let mut select = self.connection.prepare(SAMPLE)?;
        let names = select.query_map([NAME_SAMPLE], |row| row.get::<_, i64>(0))?;
        let mut count = 0;
        for name in names {
            count += u64::from(self.names.definition(name?).is_none());
        }
        Ok(count)
    }
}

impl Work<'_> {
    /// Moves a running row on after a crash; returns whether it was its last.
    fn crashed(&mut self, live: &Live) -> rusqlite::Result<bool> {
        let situation = Situation {
            now: self.now(),
            counters: live.settlement.transition.counters,
            // no matter: a crash isn't a failure
            retry: RetryPolicy {
                max_attempts: 1,
                backoff_min: std::time::Duration::ZERO,
                backoff_max: std::time::Duration::ZERO,
            },
            max_crashes: self.store.options.max_crashes,
            cancel_requested: false,
            random: 0,
        };
        let transition = lifecycle::after_attempt(AttemptEvent::Crashed, &situation);
        let over = matches!(transition.next, Next::Ended(_));
        self.move_on(live, transition, over)?;
        Ok(over)
    }

    /// Gives a row back that was claimed and never ran.
    fn released(&mut self, live: &Live) -> rusqlite::Result<()> {
        let counters = live.settlement.transition.counters;
        let next = Next::Again { at: self.now() };
        self.move_on(live, Transition { next, counters, failure: None }, false)
    }

    fn move_on(&mut self, live: &Live, transition: Transition, over: bool) -> rusqlite::Result<()> {
        let mut settlement = live.settlement.clone();
        settlement.transition = transition;
        settlement.ended_at = self.now();
        self.settle_row(&settlement, live.definition)?;
        // a target in memory is gone with the process: its delivery opened and ends here
        if over && live.volatile {
            let sequence = settlement.id.sequence();
            let closing = Closing::Memory { claim_no: settlement.claim_no };
            self.close_one(sequence, closing, Some(DeadReason::SubscriberGone))?;
        }
        Ok(())
    }
}
