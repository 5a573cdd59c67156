//! P2: power cuts. A whole queue works on a recorded disk, is dropped with tasks under way, and is
//! started again; images of the disk, as a power cut would leave it, are opened by other queues.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use message_queue_sqlite::prelude::*;
use message_queue_sqlite::proof::{Safeguard, Without};
use message_queue_sqlite_faults::{Faults, Recording};

use crate::case::{Case, Failure, Outcome, Seen};
use crate::history::History;
use crate::image::{self, Cut};
use crate::row::{Control, Goal, Row};
use crate::scene::{
    self, Called, block_on, harness, in_time, lock, start_when_free, started, until_all_ended,
};

pub(crate) const CUTS: Row = Row {
    name: "P2",
    promise: "an acknowledged task survives a power cut",
    test: "the disk loses random sectors of what wasn't synced, under the whole queue and its start after a crash",
    goals: &[Goal::new("cuts", 50_000)],
    never: &["lost", "corrupt"],
    case: |case| cuts(case, |_| {}, false),
    controls: &[
        Control {
            without: "synchronous = FULL (NORMAL)",
            fails: "lost",
            within: 200,
            case: |case| cuts(case, |settings| settings.storage.durability = NORMAL, false),
        },
        Control {
            without: "a disk that syncs (synchronous = OFF)",
            fails: "lost or corrupt",
            within: 200,
            case: |case| any_harm(cuts(case, |_| {}, true)),
        },
    ],
    side_by_side: 2,
};

const NORMAL: message_queue_sqlite::settings::Durability =
    message_queue_sqlite::settings::Durability::Normal;

/// How many images a case takes, and how many operations there are between two at most.
const IMAGES: u64 = 25;
const APART: u64 = 60;

/// How many clients submit in each life, and how many tasks each.
const CLIENTS: u64 = 6;
const TASKS: u64 = 8;

/// Without any sync there is more than one way to end.
fn any_harm(outcome: Outcome) -> Outcome {
    outcome.map_err(|failure| match failure.kind {
        "lost" | "corrupt" | "twice" | "unexpected" => {
            Failure::new("lost or corrupt", failure.what)
        }
        _ => failure,
    })
}

fn cuts(case: &Case, adjust: fn(&mut Settings), ignores_syncs: bool) -> Outcome {
    let dir = case.scratch().join("disk");
    fs::create_dir(&dir).map_err(harness)?;
    let history = Arc::new(Mutex::new(History::default()));
    let taken = {
        let faults = Faults::below(&dir);
        faults.record(Recording { seed: case.seed, ignores_syncs });
        let cuts: Arc<Mutex<Vec<Cut>>> = Arc::default();
        let (into, known, queue) = (cuts.clone(), history.clone(), dir.join("queue"));
        faults.take_images(IMAGES, APART, move |image| {
            let manifest = fs::read(queue.join("manifest.json")).ok();
            let history = lock(&known).clone();
            lock(&into).push(Cut { image, manifest, history });
        });
        let mut settings = scene::settings(1 + (case.seed % 2) as usize);
        adjust(&mut settings);
        block_on(work(settings, &dir.join("queue"), &history))?;
        std::mem::take(&mut *lock(&cuts))
    };
    let (mut seen, memory) = (Seen::default(), case.in_memory()?);
    for (index, cut) in taken.into_iter().enumerate() {
        let place = memory.path().join(format!("image-{index}"));
        let harmed =
            |failure: Failure| Failure::new(failure.kind, format!("cut {index}: {}", failure.what));
        seen = seen.count("acknowledged before a cut", cut.history.acknowledged.len() as u64);
        image::check(&place, &cut).map_err(harmed)?;
        seen = seen.count("cuts", 1);
    }
    Ok(seen)
}

/// Submits tasks from several clients, in two lives of the queue, and lets them end.
async fn work(settings: Settings, dir: &Path, history: &Mutex<History>) -> Result<(), Failure> {
    let builder = || scene::builder(settings.clone(), dir, Called::nobody());
    {
        // a queue that is dropped is to be as one whose process was killed
        let _killed = Without::the(Safeguard::CheckpointAtClose);
        let first = started(builder().start().await)?;
        submit(&first, history, 0).await?;
        drop(first);
        let second = started(start_when_free(builder).await?)?;
        submit(&second, history, CLIENTS * TASKS).await?;
        until_all_ended(&second).await?;
        drop(second);
    }
    let third = started(start_when_free(builder).await?)?;
    in_time("stuck", "the shutdown", third.shutdown(scene::LIMIT)).await?.map_err(harness)?;
    Ok(())
}

/// Submits numbers from `first` on, from several clients.
async fn submit(queue: &Queue, history: &Mutex<History>, first: u64) -> Result<(), Failure> {
    let client = async |client: u64| {
        for number in (first + client..).step_by(CLIENTS as usize).take(TASKS as usize) {
            lock(history).tried.insert(number);
            let submitting = queue.submit(scene::submission(number));
            let handle = in_time("stuck", "an answer", submitting).await?.map_err(harness)?;
            lock(history).acknowledged.insert(handle.id(), number);
        }
        Ok::<(), Failure>(())
    };
    let (a, b, c, d, e, f) =
        tokio::join!(client(0), client(1), client(2), client(3), client(4), client(5));
    [a, b, c, d, e, f].into_iter().collect()
}
