//! What an open does with what was under way.

use rusqlite::OptionalExtension;

use super::changes::Changes;
use super::delivery::Closing;
use super::fault::store_error;
use super::kinds::KindId;
use super::row::{self, Details, Targets};
use super::sqlite::SqliteStore;
use super::transaction::Transaction;
use super::work::Work;
use super::{Batch, ClaimBudget, Memory, Recovered, Settlement};
use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::lifecycle::{self, AttemptEvent, Next, Situation, State, Transition};
use crate::proof::{self, Safeguard};
use crate::record::{DeadReason, Delivery, RetryPolicy, TaskStatus};

/// How many rows one step of a recovery looks at.
const STEP: usize = 1_000;

/// In how many stretches of each kind ready rows are counted whose names aren't registered.
const NAME_SAMPLE: usize = 64;

/// A row that a process had in hand. Served by the primary key.
pub(super) const LIVE: &str = "
    select kind, state, delivery, targets, priority, claim_no, failures, crashes, details,
           started_at
      from task
     where id = ?1 and (state = 2 or delivery = 6 or delivery = 5)";

/// Results that waited for their turn, in order of ids. Served by the primary keys.
pub(super) const PENDING: &str = "
    select id, claim_no
      from pending cross join task on task.id = pending.task and task.delivery = 1
     limit ?1";

/// Served by the primary keys.
pub(super) const UNDELIVERED: &str = "
    select count(*) from pending cross join task on task.id = pending.task and task.delivery = 1";

/// A delivery to memory begins anew; one to memory alone says that it was over. Served by the primary
/// key.
pub(super) const BACK_TO_PENDING: &str = "
    update task
       set delivery = 1, targets = iif(delivery = 5, 1, targets)
     where id = ?1 and (delivery = 6 or delivery = 5)";

/// How many rows of a kind are ready in its first stretches, each row once: one that came back to its
/// place has a stretch within another. Served by the primary keys.
pub(super) const READY: &str = "
    select count(*)
      from (select rank, first, last from ready where kind = ?1 limit ?2) as stretch
           cross join task on task.id between stretch.first and stretch.last
     where task.state = 1 and task.kind = ?1 and task.rank = stretch.rank
       and not exists (
           select 1
             from ready as before
            where before.kind = ?1 and before.rank = stretch.rank
              and before.first between task.id - 255 and stretch.first - 1
              and before.last >= task.id)";

/// A row that a process had in hand.
struct Live {
    settlement: Settlement,
    definition: Option<usize>,
    state: State,
    delivery: Delivery,
    /// Whether a target in memory waits for its end, or is being sent it.
    memory: bool,
    /// Whether nothing else is open of it.
    sent: bool,
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
            } else if live.memory {
                let claim_no = live.settlement.claim_no;
                let gone = Some(DeadReason::SubscriberGone);
                work.close_one(id.sequence(), Closing::Memory { claim_no }, gone)?;
                recovered.subscribers_gone += 1;
            }
            Ok(())
        })?;
        recovered.subscribers_gone += self.end_pending(now).map_err(store_error)?;
        // what is under way now is under way to durable callbacks
        recovered.callbacks = self.standing.counts.get(TaskStatus::Callbacking);
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
            } else if live.memory
                && live.delivery == Delivery::Callbacking
                && !memory.delivery_lives(id)
            {
                let sequence = id.sequence() as i64;
                work.connection().prepare_cached(BACK_TO_PENDING)?.execute([sequence])?;
                work.changes.handled.laid.push(id.sequence());
                work.changes.handled.unsent.insert(id.sequence());
                work.pending(id.sequence())?;
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
        for step in self.standing.in_hand.sorted().chunks(STEP) {
            let step = self.live(step).map_err(store_error)?;
            for live in step.iter().filter(|live| live.sent) {
                let settlement = &live.settlement;
                self.standing.in_hand.found_sent(settlement.id.sequence(), settlement.claim_no);
            }
            let ends = step.iter().map(|live| live.settlement.callbacks.as_ref());
            let numbers = self.numbers_for_ends(ends);
            self.reserve_numbers(numbers)?;
            let batch = Batch { now, claim: ClaimBudget::default(), ..Batch::default() };
            let changes = self
                .in_transaction(&batch, |work| step.iter().try_for_each(|row| decide(work, row)))
                .map_err(store_error)?;
            self.adopt(changes);
        }
        Ok(())
    }

    /// Ends deliveries that waited for their turn: those who waited for them are gone.
    fn end_pending(&mut self, now: Timestamp) -> rusqlite::Result<u64> {
        let batch = Batch { now, ..Batch::default() };
        let mut ended = 0;
        loop {
            let mut select = self.connection.prepare_cached(PENDING)?;
            let rows = select.query_map([STEP], |row| Ok((row.get(0)?, row::count(row, 1)?)))?;
            let rows: Vec<(i64, u32)> = rows.collect::<rusqlite::Result<_>>()?;
            drop(select);
            if rows.is_empty() {
                return Ok(ended);
            }
            ended += rows.len() as u64;
            let changes = self.in_transaction(&batch, |work| {
                rows.iter().try_for_each(|(id, claim_no)| {
                    let closing = Closing::Memory { claim_no: *claim_no };
                    work.close_one(*id as u64, closing, Some(DeadReason::SubscriberGone))
                })
            })?;
            self.adopt(changes);
        }
    }

    fn in_transaction(
        &self,
        batch: &Batch,
        decide: impl FnOnce(&mut Work<'_>) -> rusqlite::Result<()>,
    ) -> rusqlite::Result<Changes> {
        let begun = Transaction::begin(&self.connection)?;
        let mut work = Work::new(self, batch);
        decide(&mut work)?;
        work.write_standing()?;
        let (changes, _) = work.finish();
        begun.commit()?;
        Ok(changes)
    }

    /// Those of the rows that are in hand still.
    fn live(&self, sequences: &[u64]) -> rusqlite::Result<Vec<Live>> {
        let mut select = self.connection.prepare_cached(LIVE)?;
        let mut found = Vec::with_capacity(sequences.len());
        for sequence in sequences {
            let row = select.query_row([*sequence as i64], |row| self.read_live(*sequence, row));
            found.extend(row.optional()?);
        }
        Ok(found)
    }

    fn read_live(&self, sequence: u64, row: &rusqlite::Row<'_>) -> rusqlite::Result<Live> {
        let kind = KindId(row.get(0)?);
        let definition = self.kinds.definition(kind);
        let code = row.get(2)?;
        // in hand, so it isn't over
        let sent = row::delivery(code, None) == Delivery::Callbacked;
        let memory = sent || Targets::read(row::count(row, 3)?).memory;
        let counters = row::counters(row, 5)?;
        let details = Details::read(row::text(row, 8)?).unwrap_or_default();
        let started_at = row.get::<_, Option<i64>>(9)?.unwrap_or_default();
        Ok(Live {
            settlement: Settlement {
                id: self.id(sequence as i64),
                claim_no: counters.claim_no,
                definition: definition.unwrap_or_default(),
                kind,
                key: details.key(),
                priority: row::priority(row, 4)?,
                transition: Transition { next: Next::Back, counters, failure: None },
                output: None,
                started_at: Timestamp::from_micros(started_at),
                ended_at: Timestamp::default(),
                notify: memory,
                callbacks: details.callbacks(),
                parent: details.parent(self.shard),
            },
            definition,
            state: row::state(row.get(1)?),
            delivery: if sent { Delivery::Callbacking } else { row::delivery(code, None) },
            memory,
            sent,
        })
    }

    fn count_undelivered(&mut self) -> rusqlite::Result<()> {
        self.undelivered = self.connection.query_row(UNDELIVERED, [], |row| row.get(0))?;
        Ok(())
    }

    /// How many ready rows have a name that this process doesn't know, up to a bound for each kind.
    fn count_unregistered(&self) -> rusqlite::Result<u64> {
        let mut ready = self.connection.prepare(READY)?;
        let strangers = self.kinds.iter().filter(|(_, kind)| kind.definition.is_none());
        let mut count = 0;
        for (kind, _) in strangers {
            count += ready.query_row((kind.0, NAME_SAMPLE), |row| row.get::<_, u64>(0))?;
        }
        Ok(count)
    }
}

impl Work<'_> {
    /// Moves a running row on after a crash; returns whether it was its last.
    fn crashed(&mut self, live: &Live) -> rusqlite::Result<bool> {
        if !proof::stands(Safeguard::InHand) {
            return Ok(false);
        }
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
        let counted = proof::stands(Safeguard::CrashCount);
        let event = if counted { AttemptEvent::Crashed } else { AttemptEvent::Released };
        let transition = lifecycle::after_attempt(event, &situation);
        let over = matches!(transition.next, Next::Ended(_));
        self.move_on(live, transition, over)?;
        Ok(over)
    }

    /// Gives a row back that was claimed and never ran.
    fn released(&mut self, live: &Live) -> rusqlite::Result<()> {
        let counters = live.settlement.transition.counters;
        self.move_on(live, Transition { next: Next::Back, counters, failure: None }, false)
    }

    fn move_on(&mut self, live: &Live, transition: Transition, over: bool) -> rusqlite::Result<()> {
        let mut settlement = live.settlement.clone();
        settlement.transition = transition;
        settlement.ended_at = self.now();
        self.settle_row(&settlement, live.definition)?;
        // a target in memory is gone with the process: its delivery opened and ends here
        if over && live.memory {
            let sequence = settlement.id.sequence();
            let closing = Closing::Memory { claim_no: settlement.claim_no };
            self.close_one(sequence, closing, Some(DeadReason::SubscriberGone))?;
        }
        Ok(())
    }
}
