//! Hostile bytes for a queue that runs.

use std::cell::RefCell;
use std::future::Future;

use message_queue_sqlite::FailureKind;
use message_queue_sqlite::prelude::*;

use super::{Tree, block_on, scratch, units};

/// When a target gives up waiting.
const LIMIT: Duration = Duration::from_secs(60);

/// A queue knows at most 1,000 names of queues; a fresh one comes before that.
const USES: u32 = 500;

#[task(name = "hostile.text", max_attempts = 1)]
async fn text(text: String) -> Result<String, TaskError> {
    Ok(text)
}

#[task(name = "hostile.pair", max_attempts = 2, backoff = "1ms..2ms")]
async fn pair(number: u64, bytes: Vec<u8>) -> Result<(u64, usize), TaskError> {
    Ok((number, bytes.len()))
}

#[task(name = "hostile.tree", max_attempts = 1, codec = "json")]
async fn tree(tree: Tree) -> Result<(), TaskError> {
    drop(tree);
    Ok(())
}

#[callback(name = "hostile.heard")]
async fn heard(result: TaskResult) -> Result<(), TaskError> {
    drop(result);
    Ok(())
}

/// A queue in a directory of its own.
struct Live {
    queue: Queue,
    uses: u32,
    _place: tempfile::TempDir,
}

thread_local! {
    static LIVE: RefCell<Option<Live>> = const { RefCell::new(None) };
}

/// A queue that was used before, or a fresh one.
fn live() -> Queue {
    LIVE.with_borrow_mut(|live| {
        if live.as_ref().is_none_or(|live| live.uses >= USES) {
            if let Some(old) = live.take() {
                block_on(in_time(old.queue.shutdown(LIMIT))).expect("a queue can be shut down");
            }
            let place = scratch();
            let settings = small(Settings::default());
            let builder = Queue::builder().settings(settings).dir(place.path().join("queue"));
            let starting = builder.discover(module_path!()).start();
            let queue = block_on(in_time(starting)).expect("a queue starts in an empty directory");
            *live = Some(Live { queue, uses: 0, _place: place });
        }
        let live = live.as_mut().expect("it was just made");
        live.uses += 1;
        live.queue.clone()
    })
}

/// Settings of a queue that is soon started.
pub(super) fn small(mut settings: Settings) -> Settings {
    settings.storage.wal_limit = 1 << 20;
    settings.storage.cache = 1 << 20;
    settings.shards.count = Some(1);
    settings.workers.count = Some(1);
    settings
}

pub(super) async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.expect("everything is answered in time")
}

/// Uses a text as the name of a queue, and as everything else that has a text form.
pub fn names(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    units(&text);
    let queue = live();
    block_on(in_time(async {
        let paused = queue.pause_queue(&text).await;
        assert!(is_mistake(&paused), "{paused:?}");
        let known = queue.named_queues().iter().any(|queue| *queue.name == *text);
        assert_eq!(known, paused.is_ok(), "a name is known if it was taken");
        if paused.is_ok() {
            queue.resume_queue(&text).await.expect("a queue that was paused can be resumed");
        }
    }));
}

/// Submits a task that is made of the bytes. What is taken ends; else the error says the mistake.
pub fn submissions(bytes: &[u8]) {
    let [choice, options, priority, number, rest @ ..] = bytes else { return };
    let split = rest.len().min(usize::from(*number));
    let (word, payload) = rest.split_at(split);
    let word = String::from_utf8_lossy(word).into_owned();
    let codec = if choice & 1 == 0 { Codec::Bincode } else { Codec::Json };
    let name = match choice >> 1 & 7 {
        0 | 1 => "hostile.text",
        2 | 3 => "hostile.pair",
        4 | 5 => "hostile.tree",
        6 => "hostile.heard",
        _ => &word,
    };
    let mut submit = Submit::raw(name, codec, payload);
    let is_on = |bit: u8| options >> bit & 1 == 1;
    if is_on(0) {
        submit = submit.queue(word.clone());
    }
    if is_on(1) {
        submit = submit.key(word.clone());
    }
    if is_on(2) {
        submit = submit.priority(i16::from(*priority as i8) * 256);
    }
    if is_on(3) {
        submit = submit.max_attempts(u32::from(*priority) * 5);
    }
    if is_on(4) {
        submit = submit.timeout(Duration::from_secs(u64::from(*number)) * 200_000);
    }
    if is_on(5) {
        let millis = |number: &u8| Duration::from_millis(u64::from(*number) / 8);
        submit = submit.backoff(millis(number), millis(priority));
    }
    if is_on(6) {
        submit = submit.then(heard::callback());
    }
    let queue = live();
    block_on(in_time(async {
        let answer = queue.submit_raw(submit).await;
        assert!(is_mistake(&answer), "{answer:?}");
        if let Ok(id) = answer {
            let result = queue.handle::<text::Task>(id).result().await;
            let result = result.expect("what was taken ends");
            let (outcome, failure) = (result.outcome(), result.failure());
            assert!(matches!(outcome, Outcome::Finished | Outcome::Failed), "{outcome:?}");
            let panicked = failure.is_some_and(|failure| failure.kind == FailureKind::Panicked);
            assert!(!panicked, "{failure:?}");
        }
    }));
}

/// Whether an answer is good, or an error of who asks.
fn is_mistake<T>(answer: &Result<T, Error>) -> bool {
    let mistake = |error: &Error| {
        matches!(
            error,
            Error::InvalidName { .. }
                | Error::InvalidOption { .. }
                | Error::UnknownTask { .. }
                | Error::PayloadTooLarge { .. }
        )
    };
    answer.as_ref().err().is_none_or(mistake)
}
