//! A shard that takes long to be added: the queue works meanwhile, and ends in order.
#![expect(clippy::unwrap_used, reason = "a test fails where its helper does")]

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use message_queue_sqlite::prelude::*;
use message_queue_sqlite::{QueueBuilder, ShardId};
use tokio::time::timeout;
use tracing_subscriber::filter::LevelFilter;

/// The longest that anything here may take.
const LONGEST: Duration = Duration::from_secs(30);

#[task(name = "growing.double")]
async fn double(number: u64) -> Result<u64, io::Error> {
    Ok(number * 2)
}

/// Everything that is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn has(&self, text: &str) -> bool {
        String::from_utf8_lossy(&self.0.lock().unwrap()).contains(text)
    }

    /// A figure of the first event with this text.
    fn figure(&self, text: &str, name: &str) -> f64 {
        let log = String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned();
        let event = log.lines().find(|line| line.contains(text)).unwrap();
        let mut fields = event.split_whitespace().filter_map(|field| field.split_once('='));
        fields.find(|(field, _)| *field == name).unwrap().1.parse().unwrap()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn builder(dir: &Path) -> QueueBuilder {
    let mut settings = Settings::default();
    settings.storage.dir = dir.to_path_buf();
    settings.storage.busy_timeout = LONGEST * 2;
    settings.shards.target_wait = Duration::from_micros(10);
    settings.limits.batch = 1;
    Queue::builder().settings(settings).register::<double::Task>()
}

/// A directory as a crash leaves it while a second shard is added: its file is complete, the
/// manifest doesn't say so yet.
async fn half_grown(dir: &Path) {
    let queue = builder(dir).shards(2).start().await.unwrap();
    queue.shutdown(LONGEST).await.unwrap();
    let manifest = dir.join("manifest.json");
    let text = std::fs::read_to_string(&manifest).unwrap();
    let at = text.rfind("\"ready\"").unwrap();
    let text = format!("{}\"creating\"{}", &text[..at], &text[at + 7..]);
    std::fs::write(&manifest, text).unwrap();
}

#[tokio::test]
async fn a_shard_that_takes_long_to_be_added_holds_up_nobody_and_is_closed_in_order() {
    let log = Log::default();
    let writer = log.clone();
    let events = tracing_subscriber::fmt().with_max_level(LevelFilter::INFO).with_ansi(false);
    events.with_writer(move || writer.clone()).init();
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("queue");
    half_grown(&dir).await;
    let second = rusqlite::Connection::open(dir.join("shard-001.db")).unwrap();
    second.execute_batch("begin immediate").unwrap();

    let queue = builder(&dir).shards_between(1, 2).start().await.unwrap();
    assert_eq!(queue.shard_counts().total(), 1);
    let mut stored = Vec::new();
    let mut submit = async || {
        let submissions = (0..16).map(|lane| queue.submit(double::task(lane)));
        for submitted in futures(submissions).await {
            stored.push(submitted.unwrap().id());
        }
    };
    let growing = async {
        while !log.has("one more shard is tried") {
            submit().await;
        }
        // it waits for its file now, and everything else goes on
        submit().await;
    };
    timeout(LONGEST, growing).await.expect("one more is wanted");
    let [shards, per_s, wait_s, busy] = ["shards", "per_s", "wait_s", "busy"]
        .map(|name| log.figure("one more shard is tried", name));
    assert_eq!(shards, 1.0);
    assert!(per_s > 1.0 && wait_s > 10e-6 && busy > 0.0, "{per_s} {wait_s} {busy}");
    assert_eq!(queue.shard_counts().total(), 1);
    queue.counts().await.unwrap();
    queue.backup(place.path().join("backup")).await.unwrap();
    assert!(stored.iter().all(|id| id.shard() == ShardId(0)));

    let ending = tokio::spawn({
        let queue = queue.clone();
        async move { queue.shutdown(LONGEST).await.unwrap() }
    });
    let refused = async { while queue.submit(double::task(1)).await.is_ok() {} };
    timeout(LONGEST, refused).await.expect("the queue is ending");
    second.execute_batch("commit").unwrap();
    drop(second);
    let report = timeout(LONGEST, ending).await.expect("it ends").unwrap();
    assert_eq!(report.unclosed, []);
    assert!(log.has("a shard takes tasks, on trial"), "it came up before the end");

    let second = rusqlite::Connection::open(dir.join("shard-001.db")).unwrap();
    let clean = second.query_row("select clean from meta", [], |row| row.get::<_, bool>(0));
    assert!(clean.unwrap(), "it was closed as the others");
    drop(second);
    let queue = builder(&dir).shards(1).start().await.unwrap();
    assert_eq!(queue.shard_counts().retired, 1);
    for id in stored {
        timeout(LONGEST, queue.handle::<double::Task>(id).result()).await.unwrap().unwrap();
    }
    queue.shutdown(LONGEST).await.unwrap();
}

/// Awaits all of them, each of which goes on by itself.
async fn futures<F>(all: impl Iterator<Item = F>) -> Vec<F::Output>
where
    F: Future<Output: Unpin>,
{
    let mut all: Vec<_> = all.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        for (future, output) in all.iter_mut().filter(|(_, output)| output.is_none()) {
            if let std::task::Poll::Ready(ready) = future.as_mut().poll(context) {
                *output = Some(ready);
            }
        }
        match all.iter().all(|(_, output)| output.is_some()) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
    all.into_iter().filter_map(|(_, output)| output).collect()
}
