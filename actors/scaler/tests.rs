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

#[actix::test]
async fn a_scaler_sleeps_when_there_is_no_traffic() {
    let place = tempfile::tempdir().unwrap();
    let mut settings = Settings::default();
    settings.storage.dir = place.path().join("queue");
    let builder = Queue::builder().settings(settings).shards_between(1, 2);
    let runs = Arc::new(AtomicUsize::new(0));
    let queue = builder.register::<count::Task>().data(runs).start().await.unwrap();
    let traffic = &queue.shared().traffic;
    let asleep = async || {
        let look = async {
            while !traffic.sleeps.load(Ordering::Relaxed) {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(30), look).await.expect("it sleeps");
    };
    for _ in 0..3 {
        asleep().await;
        queue.submit(count::task()).await.unwrap().await.unwrap();
    }
    asleep().await;
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
