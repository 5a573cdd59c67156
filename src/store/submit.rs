//! Inserting tasks, already claimed where nothing stands before them.

use std::collections::HashSet;

use rusqlite::params;

use super::changes::Arrival;
use super::claim::{Candidate, Pick};
use super::kinds::KindId;
use super::row::{Details, checksum};
use super::work::{Work, is_constraint, prepared};
use super::{Claim, ClaimInput, NewTask};
use crate::clock::Timestamp;
use crate::error::{StoreError, StoreErrorKind};
use crate::lifecycle::State;
use crate::order::Place;
use crate::record::{Counters, Encoded, TaskId, TaskStatus};

/// Stores a task that nobody has claimed. The times that it hasn't had yet are filled in, and mean
/// nothing: a row that grows in a full page later makes SQLite split the page.
pub(super) const INSERT: &str = "
    insert into task (id, kind, state, delivery, targets, priority, rank, claim_no, failures,
        crashes, checksum, submitted_at, started_at, due_or_ended_at, details, payload)
    values (?1, ?2, ?3, 0, ?4, ?5, ?6, 0, 0, 0, ?7, ?8, ?8, ?9, ?10, ?11)";

/// Stores a task that runs at once. A statement of its own: most tasks of a queue that keeps up are
/// stored by it, and constants cost less than parameters.
pub(super) const INSERT_CLAIMED: &str = "
    insert into task (id, kind, state, delivery, targets, priority, rank, claim_no, failures,
        crashes, checksum, submitted_at, started_at, due_or_ended_at, details, payload)
    values (?1, ?2, 2, 0, ?3, ?4, ?5, 1, 0, 0, ?6, ?7, ?7, ?7, ?8, ?9)";

/// Where a task stands. Served by the primary key.
pub(super) const RANK: &str = "select rank from task where id = ?1";

/// What a new row needs besides its task.
struct Fresh {
    sequence: u64,
    kind: KindId,
    place: Place,
    state: State,
    due: Option<Timestamp>,
}

/// What the submissions before one in its batch have.
#[derive(Default)]
struct Before<'t> {
    keys: HashSet<&'t str>,
    ids: HashSet<u64>,
}

impl Work<'_> {
    /// Inserts the batch's submissions and claims up to the budget, in the one order.
    pub(super) fn submit_and_claim(&mut self) -> rusqlite::Result<()> {
        let batch = self.batch;
        let mut fresh = Vec::with_capacity(batch.submissions.len());
        let mut candidates = Vec::new();
        let mut before = Before::default();
        for (index, task) in batch.submissions.iter().enumerate() {
            let row = self.plan(task, &mut before)?;
            if row.state == State::Ready && task.id.is_none() {
                let what = Pick::Fresh(index);
                candidates.push(Candidate { place: row.place, kind: row.kind, what });
            }
            fresh.push(row);
        }
        let picks = self.pick(candidates);
        let mut claimed = vec![false; fresh.len()];
        for pick in &picks {
            if let Pick::Fresh(index) = pick.what {
                claimed[index] = true;
            }
        }
        let mut orphaned = Vec::new();
        for (index, row) in fresh.iter().enumerate() {
            let task = &batch.submissions[index];
            let answer = match self.insert(task, row, claimed[index]) {
                _ if self.was_never_given(task) => Err(never_given()),
                Err(fault) if is_constraint(&fault) => Err(super::fault::store_error(fault)),
                other => Ok(other?),
            };
            // nobody waits for one that this shard has no number for
            if let (Err(_), Some(key)) = (&answer, &task.key)
                && row.state != State::Held
                && !self.was_never_given(task)
            {
                orphaned.push(key.clone());
            }
            self.result.submitted.push(answer);
        }
        // tasks that came with it were to wait for one that isn't stored
        for key in orphaned {
            self.release_first(&key)?;
        }
        if !self.changes.arrivals.is_empty() {
            let stored = picks.iter().filter_map(|pick| match pick.what {
                Pick::Stored(place) => Some(place),
                Pick::Fresh(_) => None,
            });
            let stored: HashSet<Place> = stored.collect();
            self.changes.arrivals.retain(|arrival| !stored.contains(&arrival.place));
        }
        // in the picked order, not in that of submission
        for run in picks.chunk_by(|one, next| next.follows(one)) {
            match run[0].what {
                Pick::Fresh(index) if self.result.submitted[index].is_ok() => {
                    let claim = self.fresh_claim(
                        &batch.submissions[index],
                        &fresh[index],
                        run[0].prefetched,
                    );
                    self.result.claims.push(claim);
                }
                Pick::Fresh(_) => {}
                Pick::Stored(first) => self.claim_stored(first, run)?,
            }
        }
        Ok(())
    }

    /// Whether the task claims an id that this shard neither gave out nor skipped.
    fn was_never_given(&self, task: &NewTask) -> bool {
        task.id.is_some_and(|id| !(1..self.store.next).contains(&id.sequence()))
    }

    fn plan<'t>(&mut self, task: &'t NewTask, before: &mut Before<'t>) -> rusqlite::Result<Fresh> {
        let now = self.now();
        let due = task.due_at.filter(|due| *due > now);
        let (sequence, known) = match task.id {
            Some(id) => {
                let again = !before.ids.insert(id.sequence());
                (id.sequence(), again || self.store.exists(id.sequence())?)
            }
            None => (self.next_submission(), false),
        };
        let held = match &task.key {
            Some(key) if !known && !self.was_never_given(task) => {
                !before.keys.insert(key) || self.store.first_of(key)?.is_some()
            }
            _ => false,
        };
        Ok(Fresh {
            sequence,
            kind: self.kind_of(task.definition, task.queue, task.codec)?,
            place: self.place(due.unwrap_or(now), task.priority, sequence),
            state: match due {
                _ if held => State::Held,
                Some(_) => State::Waiting,
                None => State::Ready,
            },
            due,
        })
    }

    /// Inserts one task; an id that is stored already is left as it is.
    fn insert(&mut self, task: &NewTask, row: &Fresh, claim: bool) -> rusqlite::Result<TaskId> {
        let id = self.id(row.sequence);
        // an id can be in a batch twice
        let known = task.id.is_some() && self.store.exists(row.sequence)?;
        if known || self.was_never_given(task) {
            return Ok(id);
        }
        let details = Details::of_task(task);
        let (details, payload) = (details.as_deref(), task.payload.as_deref());
        let kind = self.kind(row.kind).expect("the kind of a submission was stored before it");
        let checksum = checksum(&kind.hasher, task.codec, row.sequence, payload, details);
        let (sequence, now) = (row.sequence as i64, self.now().as_micros());
        let (kind, targets) = (row.kind.0, i64::from(task.volatile));
        let (priority, rank) = (task.priority, row.place.rank);
        let connection = self.connection();
        if claim {
            prepared(&mut self.statements.insert_claimed, connection, INSERT_CLAIMED)?.execute(
                params![sequence, kind, targets, priority, rank, checksum, now, details, payload],
            )?;
        } else {
            let (state, due) = (row.state.code(), row.due.map_or(now, Timestamp::as_micros));
            prepared(&mut self.statements.insert, connection, INSERT)?.execute(params![
                sequence, kind, state, targets, priority, rank, checksum, now, due, details,
                payload
            ])?;
        }
        if let Some(key) = &task.key {
            self.enter_lane(key, row.sequence)?;
        }
        let status = if claim { TaskStatus::Running } else { TaskStatus::NotStarted };
        self.changes.tally.add(status);
        match (row.state, row.due) {
            _ if claim => self.changes.handled.taken.push(row.sequence),
            (State::Waiting, Some(due)) => self.wait(row.sequence, due)?,
            (State::Ready, _) => self.changes.arrivals.push(Arrival {
                place: row.place,
                kind: row.kind,
                suspect: false,
            }),
            _ => {}
        }
        Ok(id)
    }

    /// The claim of a task that was inserted as claimed.
    fn fresh_claim(&self, task: &NewTask, row: &Fresh, prefetched: bool) -> Claim {
        Claim {
            id: self.id(row.sequence),
            definition: task.definition,
            kind: row.kind,
            queue: task.queue,
            key: task.key.clone(),
            counters: Counters { claim_no: 1, failures: 0, crashes: 0 },
            priority: task.priority,
            submitted_at: self.now(),
            input: match &task.payload {
                Some(bytes) => {
                    ClaimInput::Encoded(Encoded { codec: task.codec, bytes: bytes.clone() })
                }
                None => ClaimInput::Cached,
            },
            overrides: task.overrides.clone(),
            callbacks: task.callbacks.clone(),
            volatile: task.volatile,
            parent: None,
            rank: row.place.rank,
            prefetched,
        }
    }

    /// Inserts a durable callback of a task that ends in this transaction.
    ///
    /// It stands just before where its parent stood, also before those that came in one bulk with
    /// it: what was begun is ended first. Behind the backlog, callbacks would come when all of that
    /// has run.
    pub(super) fn insert_callback(
        &mut self,
        name: &std::sync::Arc<str>,
        parent: u64,
        parent_claim_no: u32,
        priority: i16,
    ) -> rusqlite::Result<()> {
        let sequence = self.next_sequence();
        let mut select = self.connection().prepare_cached(RANK)?;
        let rank: i64 = select.query_row([parent as i64], |row| row.get(0))?;
        let place = Place { rank: rank.saturating_sub(1), sequence };
        let kind = self.kind_of_callback(name)?;
        let codec = crate::codec::Codec::default();
        let details = Details::of_callback(parent, parent_claim_no);
        let hasher = super::row::name_hasher(name);
        let checksum = checksum(&hasher, codec, sequence, None, details.as_deref());
        let (now, connection) = (self.now().as_micros(), self.connection());
        prepared(&mut self.statements.insert, connection, INSERT)?.execute(params![
            sequence as i64,
            kind.0,
            State::Ready.code(),
            0,
            priority,
            place.rank,
            checksum,
            now,
            now,
            details,
            None::<&[u8]>,
        ])?;
        self.changes.tally.add(TaskStatus::NotStarted);
        self.changes.arrivals.push(Arrival { place, kind, suspect: false });
        Ok(())
    }
}

fn never_given() -> StoreError {
    StoreError::new(StoreErrorKind::Other, "this shard never gave out that task id")
}
