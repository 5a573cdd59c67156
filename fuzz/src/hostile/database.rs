//! Hostile bytes in the files of a queue.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use message_queue_sqlite::prelude::*;
use message_queue_sqlite::{FailureKind, TaskFailure};

use super::live::{in_time, small};
use super::{block_on, scratch};

/// How many bytes a patch has: where, three of them, and what.
const PATCH: usize = 4;

/// More patches are more of the same.
const PATCHES_MAX: usize = 64;

const TASKS: u64 = 12;

/// How long a damaged queue has to end.
const DEADLINE: Duration = Duration::from_millis(500);

/// When a target gives up waiting for something to move, and at the latest.
const UNMOVED: u32 = 50;
const LIMIT: Duration = Duration::from_secs(20);

/// What ran: the id, the number, and whether the mark beside it was the number's.
#[derive(Clone, Default)]
struct Ran(Arc<Mutex<Vec<(TaskId, u64, bool)>>>);

/// What a task knows of its number.
fn mark(number: u64) -> String {
    format!("number {number}, and nothing else: {}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

#[task(name = "damaged.task", max_attempts = 1)]
async fn task(
    number: u64,
    marked: String,
    context: TaskContext,
    ran: Data<Ran>,
) -> Result<(), TaskError> {
    let mut ran = ran.0.lock().unwrap_or_else(PoisonError::into_inner);
    ran.push((context.id(), number, marked == mark(number)));
    Ok(())
}

/// A directory with tasks that wait, as a killed process leaves it and as one that was shut down.
struct Sound {
    files: [BTreeMap<String, Vec<u8>>; 2],
    numbers: HashMap<TaskId, u64>,
}

fn sound() -> &'static Sound {
    static SOUND: OnceLock<Sound> = OnceLock::new();
    SOUND.get_or_init(|| {
        let place = scratch();
        let dir = place.path().join("queue");
        block_on(async {
            let queue = in_time(start(&dir, &Ran::default())).await.expect("a first start");
            queue.pause_queue("default").await.expect("a queue can be paused");
            let mut numbers = HashMap::new();
            for number in 0..TASKS {
                let submission = task::task(number, mark(number)).priority(number as i16 % 3);
                let handle = queue.submit(submission).await.expect("a task is taken");
                numbers.insert(handle.id(), number);
            }
            // so that they run at the next start
            fs::write(dir.join("manifest.json"), unpaused(&dir)).expect("a file can be written");
            let killed = files(&dir);
            in_time(queue.shutdown(LIMIT)).await.expect("a queue can be shut down");
            Sound { files: [killed, files(&dir)], numbers }
        })
    })
}

/// The manifest without what is set of named queues.
fn unpaused(dir: &Path) -> Vec<u8> {
    let text = fs::read(dir.join("manifest.json")).expect("there is a manifest");
    let mut manifest: serde_json::Value = serde_json::from_slice(&text).expect("it is JSON");
    manifest.as_object_mut().expect("it is an object").remove("queues");
    serde_json::to_vec(&manifest).expect("it is JSON still")
}

fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for name in ["manifest.json", "shard-000.db", "shard-000.db-wal"] {
        if let Ok(bytes) = fs::read(dir.join(name)) {
            files.insert(name.to_owned(), bytes);
        }
    }
    files
}

async fn start(dir: &Path, ran: &Ran) -> Result<Queue, Error> {
    let builder = Queue::builder().settings(small(Settings::default())).dir(dir);
    builder.register::<task::Task>().data(ran.clone()).start().await
}

/// Patches the files of a queue, starts one in them and lets run what will. The first byte chooses
/// the directory.
pub fn databases(bytes: &[u8]) {
    let Some((choice, patches)) = bytes.split_first() else { return };
    let sound = sound();
    let mut files = sound.files[usize::from(choice & 1)].clone();
    for patch in patches.chunks_exact(PATCH).take(PATCHES_MAX) {
        let at = u32::from_le_bytes([patch[0], patch[1], patch[2], 0]) as usize;
        damage(&mut files, at, patch[3]);
    }
    let place = scratch();
    let dir = place.path().join("queue");
    fs::create_dir(&dir).expect("a directory can be made");
    fs::set_permissions(&dir, Permissions::from_mode(0o700)).expect("it is ours");
    for (name, bytes) in &files {
        fs::write(dir.join(name), bytes).expect("a file can be written");
    }
    let ran = Ran::default();
    block_on(async {
        let Ok(queue) = in_time(start(&dir, &ran)).await else { return };
        settle(&queue).await;
        for id in sound.numbers.keys() {
            let record = in_time(queue.record(*id)).await;
            let failure = record.ok().and_then(|record| record.error);
            assert!(!failure.as_ref().is_some_and(panicked), "{id}: {failure:?}");
        }
        let _ = in_time(queue.shutdown(DEADLINE)).await;
    });
    for (id, number, marked) in ran.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        let submitted = sound.numbers.get(id);
        assert!(*marked, "{id} ran with {number} and the mark of another number");
        assert_eq!(submitted, Some(number), "{id} ran with other arguments than its own");
    }
}

/// Whether something panicked here. The damage may have written the kind; a place, hardly.
fn panicked(failure: &TaskFailure) -> bool {
    failure.kind == FailureKind::Panicked && failure.message.contains(".rs:")
}

/// Changes a byte of the files, counted through all of them; the file ends there if `change` is 0.
fn damage(files: &mut BTreeMap<String, Vec<u8>>, at: usize, change: u8) {
    let mut at = at % files.values().map(Vec::len).sum::<usize>().max(1);
    for bytes in files.values_mut() {
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= change;
            if change == 0 {
                bytes.truncate(at);
            }
            return;
        }
        at -= bytes.len();
    }
}

/// Waits until everything has ended, or nothing moves any more.
async fn settle(queue: &Queue) {
    let (began, mut before, mut unmoved) = (Instant::now(), None, 0);
    while let Ok(counts) = in_time(queue.counts()).await {
        let open = |status| counts.get(&status).copied().unwrap_or(0);
        if open(TaskStatus::NotStarted).saturating_add(open(TaskStatus::Running)) == 0 {
            return;
        }
        unmoved = if before.as_ref() == Some(&counts) { unmoved + 1 } else { 0 };
        if unmoved > UNMOVED || began.elapsed() > LIMIT {
            return;
        }
        before = Some(counts);
        tokio::time::sleep(Duration::from_micros(500)).await;
    }
}
