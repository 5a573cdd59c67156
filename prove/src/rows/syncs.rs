//! P4: a sync fails and its bytes are gone, though the system's cache shows them still. The queue goes
//! on, a process is started anew, and later comes a power cut.

use std::fs;
use std::path::Path;
use std::sync::Mutex;

use message_queue_sqlite::QueueBuilder;
use message_queue_sqlite::prelude::*;
use message_queue_sqlite::proof::{Safeguard, Without};
use message_queue_sqlite_faults::{Faults, Operation, Plan, Recording};

use crate::case::{Case, Failure, Outcome, Seen};
use crate::history::History;
use crate::image::{self, Cut};
use crate::row::{Control, Goal, Row};
use crate::scene::{self, Called, block_on, harness, in_time, lock, start_when_free, started};

pub(crate) const SYNCS: Row = Row {
    name: "P4",
    promise: "a failed fsync is safe",
    test: "an fsync fails and drops its bytes, the process starts again, a power cut follows",
    goals: &[Goal::new("failed syncs", 10_000)],
    never: &["lost", "corrupt"],
    case: failed_sync,
    controls: &[Control {
        without: "the TRUNCATE checkpoint at each open",
        fails: "lost or corrupt",
        within: 300,
        case: |case| {
            let _without = Without::the(Safeguard::CheckpointAtOpen);
            failed_sync(case).map_err(|failure| match failure.kind {
                "lost" | "corrupt" => Failure::new("lost or corrupt", failure.what),
                _ => failure,
            })
        },
    }],
    side_by_side: 2,
};

/// How many syncs a case has at least, before the restart and after it.
const SYNCS_MIN: u64 = 20;

const CLIENTS: u64 = 3;
const TASKS: u64 = 12;

fn failed_sync(case: &Case) -> Outcome {
    let dir = case.scratch().join("disk");
    fs::create_dir(&dir).map_err(harness)?;
    let faults = Faults::below(&dir);
    faults.record(Recording { seed: case.seed, ignores_syncs: false });
    let (queue, history) = (dir.join("queue"), Mutex::new(History::default()));
    let mut random = case.random(1);
    // a queue that is dropped is to be as one whose process was killed
    let _killed = Without::the(Safeguard::CheckpointAtClose);
    block_on(async {
        let first = started(builder(&queue).start().await)?;
        faults.arm(Plan::fail(Operation::Sync).at(random.u64(1..=SYNCS_MIN)));
        submit(&first, &history, 0).await?;
        if random.bool() {
            drop(first);
        } else {
            let ended = in_time("stuck", "the shutdown", first.shutdown(scene::LIMIT)).await?;
            // the sync of the end may be the one that fails
            drop(ended);
        }
        faults.heal();
        let second = started(start_when_free(|| builder(&queue)).await?)?;
        submit(&second, &history, CLIENTS * TASKS).await?;
        let cut = cut(&faults, &queue, &history)?;
        drop(second);
        Ok(cut)
    })
    .and_then(|cut| {
        let seen = Seen::default().count("failed syncs", faults.fired());
        let seen = seen.count("acknowledged before the cut", cut.history.acknowledged.len() as u64);
        image::check(&case.in_memory()?.path().join("image"), &cut)?;
        Ok(seen)
    })
}

/// The disk as it would be now, and what is known by now.
fn cut(faults: &Faults, queue: &Path, history: &Mutex<History>) -> Result<Cut, Failure> {
    let history = lock(history).clone();
    let image = faults.image().ok_or_else(|| harness("the disk isn't recorded"))?;
    Ok(Cut { image, manifest: fs::read(queue.join("manifest.json")).ok(), history })
}

/// A log that isn't folded back by itself meanwhile, which would write its commits once more.
fn settings() -> Settings {
    let mut settings = scene::settings(1);
    settings.storage.wal_limit = 16 << 20;
    settings
}

fn builder(dir: &Path) -> QueueBuilder {
    scene::builder(settings(), dir, Called::nobody())
}

/// Submits numbers from `first` on, from several clients. What is refused isn't acknowledged.
async fn submit(queue: &Queue, history: &Mutex<History>, first: u64) -> Result<(), Failure> {
    let client = async |client: u64| {
        for number in (first + client..).step_by(CLIENTS as usize).take(TASKS as usize) {
            lock(history).tried.insert(number);
            let submitting = queue.submit(scene::submission(number));
            if let Ok(handle) = in_time("stuck", "an answer", submitting).await? {
                lock(history).acknowledged.insert(handle.id(), number);
            }
        }
        Ok(())
    };
    let (a, b, c) = tokio::join!(client(0), client(1), client(2));
    a.and(b).and(c)
}
