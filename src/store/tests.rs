//! What the database is asked, and what it refuses: plans, constraints, checksums.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;

use super::open::OpenKind;
use super::sqlite::{SqliteStore, StoreOptions, open_store};
use super::testing::{self, Place};
use super::*;
use crate::clock::Clock;
use crate::lifecycle::Next;
use crate::order::Ageing;
use crate::queues::{QueueIndex, Queues};
use crate::record::{Outcome, ShardId};

const NOW: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

/// One shard of a queue with two definitions.
struct Shard {
    place: Place,
    directory: Option<Directory>,
}

impl Shard {
    fn new() -> Self {
        Shard { place: Place::with_shards(1), directory: None }
    }

    fn open(&mut self) -> SqliteStore {
        self.directory = None;
        let directory = self.place.open();
        let opened = testing::first(&directory, 0).unwrap();
        self.directory = Some(directory);
        let options = StoreOptions {
            clock: Clock::default(),
            syncs: true,
            names: vec![Arc::from("mail"), Arc::from("on_end")].into(),
            queue_of: vec![QueueIndex::DEFAULT; 2].into(),
            queues: Queues::new(),
            subscribers: vec![Vec::new(); 2].into(),
            ageing: Ageing::new(Duration::from_secs(60)),
            max_crashes: 3,
            window: 100,
            keep_results: Duration::from_secs(60),
            keep_dead: Duration::from_secs(60),
            sweep: Duration::from_secs(60),
        };
        open_store(opened, ShardId(0), options, NOW, OpenKind::First, None).unwrap().0
    }

    /// Changes the closed file as another program would.
    fn alter(&self, sql: &str) {
        let stranger = testing::stranger(&self.place.shard(0));
        stranger.execute_batch(sql).unwrap();
    }
}

fn task() -> NewTask {
    NewTask {
        id: None,
        definition: 0,
        queue: QueueIndex::DEFAULT,
        key: None,
        codec: Codec::default(),
        payload: Some(Arc::from(&b"payload"[..])),
        priority: 0,
        due_at: None,
        volatile: false,
        callbacks: None,
        overrides: None,
    }
}

fn batch() -> Batch {
    Batch { now: NOW, deliver: 100, ..Batch::default() }
}

fn claim(slots: usize) -> ClaimBudget {
    ClaimBudget { slots, ..ClaimBudget::default() }
}

fn finished(claim: &Claim) -> Settlement {
    let counters = claim.counters;
    Settlement {
        id: claim.id,
        claim_no: counters.claim_no,
        definition: claim.definition,
        kind: claim.kind,
        key: claim.key.clone(),
        priority: claim.priority,
        transition: Transition { next: Next::Ended(Outcome::Finished), counters, failure: None },
        output: Some(Arc::from(&b"output"[..])),
        started_at: NOW,
        ended_at: NOW,
        notify: claim.volatile,
        callbacks: claim.callbacks.clone(),
        parent: claim.parent,
    }
}

mod checkpoints;
mod constraints;
mod lanes;
mod lists;
mod plans;
mod rows;
mod steps;
