//! What a restart keeps, and who may have the directory.

use std::collections::HashSet;

use message_queue_sqlite::DeadReason;
use message_queue_sqlite::prelude::*;

use crate::tasks::{double, fatal, gated, heard_late, log};
use crate::world::{
    Received, World, count, end, in_time, standing_clock, start, until_count, until_record,
    until_status,
};

#[actix::test]
async fn a_clean_restart_keeps_everything() {
    let world = World::new();
    let (clock, now) = standing_clock();
    let builder = || world.builder().shards(2).clock(clock.clone());
    let queue = start(builder()).await;
    let finished = in_time(queue.submit(double::task(4))).await.unwrap();
    let failed = in_time(queue.submit(fatal::task("no luck".into()))).await.unwrap();
    let hour = Duration::from_secs(3_600);
    let delayed = in_time(queue.submit(log::task("later".into()).delay(hour))).await.unwrap();
    let cancelled = log::task("never".into()).delay(hour);
    let cancelled = in_time(queue.submit(cancelled)).await.unwrap();
    in_time(cancelled.cancel()).await.unwrap();
    let ids = [finished.id(), failed.id(), delayed.id(), cancelled.id()];
    in_time(finished).await.unwrap();
    in_time(failed).await.unwrap_err();
    let mut before = Vec::new();
    for id in ids {
        before.push(format!("{:?}", queue.record(id).await.unwrap()));
    }
    let counts = in_time(queue.counts()).await.unwrap();
    drop((delayed, cancelled));
    end(queue).await;

    let queue = start(builder()).await;
    assert_eq!(queue.recovery(), message_queue_sqlite::Recovery::default());
    for (id, before) in ids.into_iter().zip(before) {
        assert_eq!(format!("{:?}", queue.record(id).await.unwrap()), before);
    }
    assert_eq!(in_time(queue.counts()).await.unwrap(), counts);
    assert_eq!(in_time(queue.handle::<double::Task>(ids[0])).await.unwrap(), 8);
    let other = in_time(queue.handle::<fatal::Task>(ids[0])).await.unwrap_err();
    assert_eq!(other.to_string(), format!("task {} is a \"double\", not a \"fatal\"", ids[0]));
    let failed = in_time(queue.handle::<fatal::Task>(ids[1])).await.unwrap_err();
    assert!(failed.to_string().contains("no luck"), "{failed}");

    clock.set(now.saturating_add(hour));
    // a standing clock wakes nobody; asking its shard for something does
    let unheard = format!("{}-999999999", ids[2].shard()).parse().unwrap();
    assert_eq!(in_time(queue.cancel(unheard)).await.unwrap(), CancelOutcome::NotFound);
    in_time(queue.handle::<log::Task>(ids[2])).await.unwrap();
    assert_eq!(world.probe.log(), ["fatal", "later"]);
    end(queue).await;
}

#[actix::test]
async fn ids_are_never_given_out_twice() {
    let world = World::new();
    let mut seen = HashSet::new();
    for round in 0..4 {
        let queue = world.start_again(|| world.builder().shards(2)).await;
        let mut last = Vec::new();
        for number in 0..20 {
            last.push(in_time(queue.submit(double::task(number))).await.unwrap());
        }
        for handle in last {
            assert!(seen.insert(handle.id()), "{} came twice", handle.id());
            in_time(handle).await.unwrap();
        }
        match round % 2 {
            0 => end(queue).await,
            _ => drop(queue),
        }
    }
}

#[actix::test]
async fn targets_in_memory_are_gone_after_a_restart_and_the_result_is_not() {
    let world = World::new();
    let mailbox = Received::new();
    let queue = world.start().await;
    // its target never gets it: the process is over before
    let task = gated::task("one".into()).reply_to(mailbox.recipient());
    let ran = in_time(queue.submit(task)).await.unwrap().id();
    world.probe.until("one started", 1).await;
    drop(queue);

    let queue = world.start_again(|| world.builder()).await;
    world.probe.open(1);
    assert_eq!(in_time(queue.handle::<gated::Task>(ran)).await.unwrap(), "one");
    let dead = |record: &message_queue_sqlite::TaskRecord| {
        record.delivery == Delivery::Dead(DeadReason::SubscriberGone)
    };
    let record = until_record(&queue, ran, dead).await;
    assert_eq!((record.outcome, record.status), (Some(Outcome::Finished), TaskStatus::Finished));
    end(queue).await;
}

#[actix::test]
async fn a_present_subscriber_does_not_hide_that_a_target_is_gone() {
    let world = World::new();
    let gone = Received::new();
    let queue = world.start().await;
    let task = gated::task("one".into()).reply_to(gone.recipient());
    let id = in_time(queue.submit(task)).await.unwrap().id();
    world.probe.until("one started", 1).await;
    drop(queue);

    let queue = world.start_again(|| world.builder()).await;
    let mut present = Received::new();
    let _guard = queue.subscribe::<gated::Task>(present.recipient()).await.unwrap();
    world.probe.open(1);
    assert_eq!(present.next().await.id(), id);
    let dead = |record: &message_queue_sqlite::TaskRecord| {
        record.delivery == Delivery::Dead(DeadReason::SubscriberGone)
    };
    until_record(&queue, id, dead).await;
    end(queue).await;
}

#[actix::test]
async fn a_result_that_was_on_its_way_to_memory_is_dead_after_a_restart() {
    struct Slow(crate::probe::Probe);
    impl Actor for Slow {
        type Context = Context<Self>;
    }
    impl actix::Handler<TaskResult> for Slow {
        type Result = actix::ResponseFuture<()>;
        fn handle(&mut self, _: TaskResult, _: &mut Context<Self>) -> Self::Result {
            let probe = self.0.clone();
            Box::pin(async move {
                probe.note("slow has it");
                probe.pass().await;
            })
        }
    }
    let world = World::new();
    let queue = world.start().await;
    let slow = Slow(world.probe.clone()).start();
    let id = in_time(queue.submit(double::task(1).reply_to(slow.recipient()))).await.unwrap().id();
    world.probe.until("slow has it", 1).await;
    until_status(&queue, id, TaskStatus::Callbacking).await;
    drop(queue);

    let queue = world.start_again(|| world.builder()).await;
    assert_eq!(queue.recovery().subscribers_gone, 1);
    let record = queue.record(id).await.unwrap();
    assert_eq!(record.delivery, Delivery::Dead(DeadReason::SubscriberGone));
    assert_eq!(in_time(queue.handle::<double::Task>(id)).await.unwrap(), 2);
    world.probe.open(1);
    end(queue).await;
}

#[actix::test]
async fn durable_callbacks_that_had_not_started_go_on_after_a_restart() {
    let world = World::new();
    let queue = world.start_narrow().await;
    let first = double::task(1).then(heard_late::callback());
    let first = in_time(queue.submit(first)).await.unwrap().id();
    world.probe.until(&format!("hearing {first}"), 1).await;
    drop(queue);
    let queue = world.start_again(|| world.builder_with(world.narrow())).await;
    assert_eq!((queue.recovery().restarted, queue.recovery().callbacks), (1, 1));
    world.probe.open(1);
    until_status(&queue, first, TaskStatus::Callbacked).await;
    end(queue).await;
}

#[actix::test]
async fn a_second_queue_on_the_directory_is_locked_out_until_the_first_has_ended() {
    let world = World::new();
    let queue = world.start().await;
    let second = in_time(world.builder().start()).await;
    let Err(Error::Locked { pid, since }) = second else { panic!("{second:?}") };
    assert_eq!(pid, std::process::id());
    assert!(since > 1_000_000_000, "{since}");
    // the first isn't harmed by the attempt
    in_time(in_time(queue.submit(double::task(1))).await.unwrap()).await.unwrap();
    end(queue).await;
    end(world.start().await).await;
}

#[actix::test]
async fn a_queue_may_grow_by_shards_and_never_loses_one() {
    let world = World::new();
    let queue = start(world.builder().shards(3)).await;
    let mut ids: Vec<TaskId> = Vec::new();
    // a shard whose file seems slow comes last
    in_time(async {
        while ids.iter().map(|id| id.shard()).collect::<HashSet<_>>().len() < 3 {
            ids.push(queue.submit(double::task(ids.len() as u64)).await.unwrap().id());
        }
    })
    .await;
    until_count(&queue, TaskStatus::Finished, ids.len() as u64).await;
    end(queue).await;
    for shards in [1, 5] {
        let queue = start(world.builder().shards(shards)).await;
        for (number, id) in (0..).zip(&ids) {
            assert_eq!(in_time(queue.handle::<double::Task>(*id)).await.unwrap(), number * 2);
        }
        end(queue).await;
    }
}

#[actix::test]
async fn stored_tasks_whose_name_is_not_registered_wait_and_are_counted() {
    let world = World::new();
    let queue = world.start_narrow().await;
    in_time(queue.submit(gated::task("gate".into()))).await.unwrap();
    world.probe.until("gate started", 1).await;
    let mut ids = Vec::new();
    for number in 0..5 {
        ids.push(in_time(queue.submit(double::task(number))).await.unwrap().id());
    }
    drop(queue);

    let stranger = || {
        Queue::builder()
            .settings(world.settings())
            .register::<log::Task>()
            .data(world.probe.clone())
    };
    let queue = world.start_again(stranger).await;
    assert_eq!(queue.recovery().unregistered, 6);
    // it runs what it knows
    in_time(in_time(queue.submit(log::task("known".into()))).await.unwrap()).await.unwrap();
    assert_eq!(count(&queue, TaskStatus::NotStarted).await, 6);
    assert_eq!(&*queue.record(ids[0]).await.unwrap().name, "double");
    end(queue).await;

    let queue = world.start().await;
    world.probe.open(1);
    for (number, id) in (0..).zip(ids) {
        assert_eq!(in_time(queue.handle::<double::Task>(id)).await.unwrap(), number * 2);
    }
    end(queue).await;
}

#[actix::test]
async fn a_backup_of_a_running_queue_is_restored_and_skips_ids() {
    let world = World::new();
    let queue = start(world.builder().shards(2)).await;
    let mut ids = Vec::new();
    for number in 0..10 {
        ids.push(in_time(queue.submit(double::task(number))).await.unwrap().id());
    }
    let hour = Duration::from_secs(3_600);
    let waiting = in_time(queue.submit(log::task("waits".into()).delay(hour))).await.unwrap().id();
    until_count(&queue, TaskStatus::Finished, 10).await;
    let backup = world.place.path().join("backup");
    in_time(queue.backup(&backup)).await.unwrap();
    // goes on afterwards
    let after = in_time(queue.submit(double::task(99))).await.unwrap();
    let later = after.id();
    in_time(after).await.unwrap();
    let again = in_time(queue.backup(&backup)).await;
    assert!(matches!(again, Err(Error::Backup { .. })), "{again:?}");
    end(queue).await;

    let restored = world.place.path().join("restored");
    Queue::restore(&backup, &restored).unwrap();
    assert!(matches!(Queue::restore(&backup, &restored), Err(Error::Backup { .. })));
    let queue = start(world.builder().dir(&restored)).await;
    for (number, id) in (0..).zip(ids) {
        assert_eq!(in_time(queue.handle::<double::Task>(id)).await.unwrap(), number * 2);
    }
    assert_eq!(queue.status(waiting).await.unwrap(), TaskStatus::NotStarted);
    // what was stored after the backup isn't in it, and its id isn't given out again
    assert!(queue.record(later).await.is_err());
    for number in 0..4 {
        let id = in_time(queue.submit(double::task(number))).await.unwrap().id();
        assert!(id.sequence() > 1 << 32, "{id}");
    }
    end(queue).await;
}
