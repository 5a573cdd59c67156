use std::sync::atomic::AtomicUsize;

use super::*;
use crate::prelude::*;
use crate::record::ShardId;

#[task(name = "scaler.count")]
async fn count(runs: Data<Arc<AtomicUsize>>) -> Result<(), TaskError> {
    runs.fetch_add(1, Ordering::SeqCst);
    Ok(())
}

async fn start(dir: &std::path::Path, shards: usize) -> Queue {
    let mut settings = Settings::default();
    settings.storage.dir = dir.to_path_buf();
    let builder = Queue::builder().settings(settings).shards(shards).register::<count::Task>();
    builder.data(Arc::new(AtomicUsize::new(0))).start().await.unwrap()
}

/// A queue whose number of shards follows the load.
async fn start_following(dir: &std::path::Path) -> Queue {
    let mut settings = Settings::default();
    settings.storage.dir = dir.to_path_buf();
    let builder = Queue::builder().settings(settings).shards_between(1, 2);
    let runs = Arc::new(AtomicUsize::new(0));
    builder.register::<count::Task>().data(runs).start().await.unwrap()
}

/// Waits until the scaler waits for traffic.
async fn until_asleep(queue: &Queue) {
    let look = async {
        while !queue.shared().traffic.sleeps.load(Ordering::Relaxed) {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(30), look).await.expect("it sleeps");
}

#[actix::test]
async fn a_retired_shard_takes_tasks_while_no_active_one_can() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("queue");
    start(&dir, 3).await.shutdown(GRACE).await.unwrap();
    let queue = start(&dir, 1).await;
    let shards = &queue.shared().shards;
    let stored = async || queue.submit(count::task()).await.unwrap().id().shard();
    assert_eq!(stored().await, ShardId(0));
    shards[0].set_state(ShardState::Quarantined);
    shards[1].set_state(ShardState::Quarantined);
    for _ in 0..5 {
        assert_eq!(stored().await, ShardId(2));
    }
    shards[2].set_state(ShardState::Quarantined);
    let refused = queue.submit(count::task()).await;
    assert!(matches!(refused, Err(Error::ShardUnavailable { .. })), "{refused:?}");
    shards[0].set_state(ShardState::Open);
    assert_eq!(stored().await, ShardId(0));
    queue.shutdown(GRACE).await.unwrap();
}

// There was one, its file was damaged, and all submissions were refused although seven more might be had.
#[actix::test]
async fn another_shard_stands_in_where_all_are_out_of_service() {
    let place = tempfile::tempdir().unwrap();
    let queue = start_following(&place.path().join("queue")).await;
    let shards = &queue.shared().shards;
    assert_eq!(queue.submit(count::task()).await.unwrap().id().shard(), ShardId(0));
    until_asleep(&queue).await;
    shards[0].set_state(ShardState::Quarantined);
    let stored = async {
        loop {
            match queue.submit(count::task()).await {
                Ok(handle) => return handle,
                Err(error) => assert!(matches!(error, Error::ShardUnavailable { .. }), "{error}"),
            }
        }
    };
    let handle = timeout(Duration::from_secs(30), stored).await.expect("one stands in");
    assert_eq!(handle.id().shard(), ShardId(1));
    handle.await.unwrap();
    // it takes none when it is well, but can be had again
    shards[0].set_state(ShardState::Open);
    for _ in 0..5 {
        assert_eq!(queue.submit(count::task()).await.unwrap().id().shard(), ShardId(1));
    }
    shards[1].set_state(ShardState::Quarantined);
    let back = async {
        while !shards[0].is_active() || shards[1].is_active() {
            queue.submit(count::task()).await.unwrap();
        }
    };
    timeout(Duration::from_secs(30), back).await.expect("it is taken back");
    shards[1].set_state(ShardState::Open);
    queue.shutdown(GRACE).await.unwrap();
}

/// A scaler over a queue that isn't watched by one.
fn over(queue: &Queue, range: std::ops::RangeInclusive<usize>) -> Scaler {
    let (shared, threads) = (queue.shared().clone(), ShardThreads::default());
    let controller = Controller::new(range, TICK, TICK);
    Scaler { shared, threads, controller, spare: None, lost: Lost::default() }
}

// It was the one that the controller would have retired, as the other one had little to do.
#[actix::test]
async fn a_shard_that_is_out_of_service_counts_for_nothing_and_is_replaced() {
    let place = tempfile::tempdir().unwrap();
    let queue = start(&place.path().join("queue"), 3).await;
    let shared = queue.shared().clone();
    let takes_tasks = || shared.shards.iter().map(|of| of.is_active()).collect::<Vec<_>>();
    let mut scaler = over(&queue, 2..=3);
    shared.set_active(&shared.shards[2], false);
    assert!(!scaler.replace_lost().await);
    shared.shards[0].set_state(ShardState::Quarantined);
    assert!(scaler.replace_lost().await);
    assert_eq!(takes_tasks(), [false, true, true], "there are to be two at least");
    shared.shards[1].set_state(ShardState::Quarantined);
    assert!(scaler.replace_lost().await);
    assert_eq!(takes_tasks(), [false, false, true], "there is no other");
    assert!(!scaler.replace_lost().await);
    assert_eq!(scaler.waits_for_shards(), None);
    // the last one is left alone
    shared.shards[2].set_state(ShardState::Quarantined);
    assert!(!scaler.replace_lost().await);
    assert_eq!(takes_tasks(), [false, false, true]);
    scaler.retire(2);
    assert_eq!(takes_tasks(), [false, false, true]);
    let wait = scaler.waits_for_shards().expect("nothing can be done");
    assert!(wait > TICK, "{wait:?}");
    // those that are well again are had once it is time to look
    shared.shards[0].set_state(ShardState::Open);
    assert!(!scaler.replace_lost().await);
    scaler.lost = Lost::default();
    assert!(scaler.replace_lost().await);
    assert_eq!(takes_tasks(), [true, false, false]);
    shared.shards.iter().for_each(|ledger| ledger.set_state(ShardState::Open));
    queue.shutdown(GRACE).await.unwrap();
}

/// What is logged.
#[derive(Clone, Default)]
struct Log(Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[actix::test]
async fn each_decision_is_logged_with_the_figures_behind_it() {
    let place = tempfile::tempdir().unwrap();
    let queue = start(&place.path().join("queue"), 2).await;
    let mut scaler = over(&queue, 1..=2);
    let before = Load { per_s: 1_200.5, wait_s: 0.25, busy: 0.75, ..Load::default() };
    let after = Load { per_s: 2_100.5, wait_s: 0.125, busy: 1.5, ..Load::default() };
    let trial = [
        ("shard", "1"),
        ("per_s_before", "1200.5"),
        ("per_s", "2100.5"),
        ("wait_s_before", "0.25"),
        ("wait_s", "0.125"),
        ("busy_before", "0.75"),
        ("busy", "1.5"),
    ];
    let load = [("per_s", "1200.5"), ("wait_s", "0.25"), ("busy", "0.75")];
    let cases = [
        (Decision::Keep { shard: 1, before, after }, "is of use, and stays", 2, &trial[..]),
        (
            Decision::GiveUp { shard: 1, before, after },
            "is of no use, and takes no new",
            1,
            &trial[..],
        ),
        (Decision::Grow { load: before }, "one more shard is tried", 1, &load[..]),
        (
            Decision::Retire { shard: 1, load: before },
            "the other shards have much room",
            1,
            &load[..],
        ),
    ];
    for (decision, text, shards, figures) in cases {
        let log = Log::default();
        let writer = log.clone();
        let events = tracing_subscriber::fmt().with_ansi(false);
        let events = events.with_writer(move || writer.clone()).finish();
        let guard = tracing::subscriber::set_default(events);
        scaler.carry_out(decision).await;
        drop(guard);
        let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        let event = log.lines().find(|line| line.contains(text)).expect(&log);
        let number = ("shards", &*shards.to_string());
        for (name, figure) in figures.iter().copied().chain([number]) {
            let field = format!("{name}={figure}");
            assert!(event.split(' ').any(|part| part == field), "{field} in {event}");
        }
    }
    queue.shutdown(GRACE).await.unwrap();
}

#[actix::test]
async fn a_scaler_sleeps_when_there_is_no_traffic() {
    let place = tempfile::tempdir().unwrap();
    let queue = start_following(&place.path().join("queue")).await;
    for _ in 0..3 {
        until_asleep(&queue).await;
        queue.submit(count::task()).await.unwrap().await.unwrap();
    }
    until_asleep(&queue).await;
    queue.shutdown(GRACE).await.unwrap();
}

#[actix::test]
async fn a_fixed_number_is_not_watched() {
    let place = tempfile::tempdir().unwrap();
    let queue = start(&place.path().join("queue"), 2).await;
    // answered by the system's thread, so what was spawned there has begun
    queue.counts().await.unwrap();
    assert!(!queue.shared().traffic.sleeps.load(Ordering::Relaxed), "nobody is to be woken");
    queue.shutdown(GRACE).await.unwrap();
}

#[tokio::test]
async fn traffic_wakes_who_waits_for_it_and_nobody_later() {
    let traffic = Traffic::default();
    traffic.stir();
    let mut next = Box::pin(traffic.next());
    assert!(timeout(Duration::ZERO, next.as_mut()).await.is_err(), "what came before is over");
    traffic.stir();
    traffic.stir();
    timeout(Duration::from_secs(30), next).await.expect("it is woken");
    assert!(timeout(Duration::ZERO, traffic.next()).await.is_err(), "once");
    traffic.ignore();
    traffic.stir();
    assert!(timeout(Duration::ZERO, traffic.next()).await.is_err(), "nobody waited");
}
