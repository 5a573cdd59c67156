//! Ids, lookups, lists, retention and copies.

use super::*;

pub(super) async fn an_id_that_was_stored_already_is_stored_once<F: Factory>(factory: F) {
    let mut world = World::new(factory);
    let id = world.submit_one(with_priority(1)).await;
    let again = NewTask { id: Some(id), ..with_priority(7) };
    assert_eq!(world.submit(vec![again.clone(), again.clone()]).await, [id, id]);
    assert_eq!(world.record(id).await.priority, 1);
    world.run(id, AttemptEvent::Finished).await;
    assert_eq!(world.submit_one(again).await, id);
    assert!(world.claim(9).await.is_empty(), "it doesn't run a second time");
    // a number that a crash skipped was perhaps given out
    world.crash().await;
    let skipped = TaskId::new(id.shard(), id.sequence() + 1);
    let lost = NewTask { id: Some(skipped), ..task(MAIL) };
    assert_eq!(world.submit(vec![lost.clone(), lost]).await, [skipped, skipped]);
    assert_eq!(ids(&world.claim(9).await), [skipped]);
}

pub(super) async fn an_id_that_was_never_given_out_is_refused<F: Factory>(factory: F) {
    let mut world = World::new(factory);
    let id = world.submit_one(task(MAIL)).await;
    let [zero, ahead] = [0, id.sequence() + 1].map(|sequence| TaskId::new(id.shard(), sequence));
    let claimed = |id| NewTask { id: Some(id), ..task(MAIL) };
    let submissions = vec![claimed(zero), claimed(ahead), task(MAIL)];
    let result = world.apply(Batch { submissions, ..world.batch() }).await;
    assert!(result.submitted[0].is_err() && result.submitted[1].is_err());
    assert_eq!(*result.submitted[2].as_ref().unwrap(), ahead, "the others are stored");
    assert_eq!(world.all().await.len(), 2);
}

pub(super) async fn a_lookup_tells_gone_from_never<F: Factory>(factory: F) {
    let mut world = World::new(factory);
    let id = world.submit_one(task(MAIL)).await;
    let next = TaskId::new(id.shard(), id.sequence() + 1);
    let zero = TaskId::new(id.shard(), 0);
    for never in [next, zero] {
        assert!(matches!(world.store().get(never).await.unwrap(), Lookup::Never));
    }
    world.run(id, AttemptEvent::Finished).await;
    world.advance(3_600 * SECOND);
    let now = world.now;
    assert_eq!(world.store().maintain(now).await.unwrap().purged, 1);
    assert!(matches!(world.store().get(id).await.unwrap(), Lookup::Gone));
    world.close().await;
    assert!(matches!(world.store().get(id).await.unwrap(), Lookup::Gone));
    assert!(matches!(world.store().get(next).await.unwrap(), Lookup::Never));
}

pub(super) async fn records_are_removed_when_their_time_is_over_and_dead_ones_later<F: Factory>(
    factory: F,
) {
    let mut world = World::new(factory);
    let well = world.submit_one(task(MAIL)).await;
    world.run(well, AttemptEvent::Finished).await;
    let failed = world.submit_one(task(MAIL)).await;
    world.run(failed, fatal()).await;
    let unheard = world.submit_one(awaited()).await;
    world.run(unheard, AttemptEvent::Finished).await;
    let dead = Some(DeadReason::SubscriberGone);
    world.deliver(vec![DeliveryEnd { id: unheard, claim_no: 1, dead }]).await;
    let mut left = Vec::new();
    for seconds in [3_599, 1, 32_399, 1] {
        world.advance(seconds * SECOND);
        let now = world.now;
        let maintained = world.store().maintain(now).await.unwrap();
        assert!(maintained.again_at.is_some_and(|at| at > now));
        world.check_counts().await;
        left.push(world.all().await.iter().map(|record| record.id).collect::<Vec<_>>());
    }
    let kept_longer = vec![failed, unheard];
    assert_eq!(left, [vec![well, failed, unheard], kept_longer.clone(), kept_longer, vec![]]);
}

/// A pass that saw only records which are kept long used to put off those that ended after it.
pub(super) async fn a_pass_is_followed_by_another_before_what_ends_meanwhile_expires<F: Factory>(
    factory: F,
) {
    let mut world = World::new(factory);
    let failed = world.submit_one(task(MAIL)).await;
    world.run(failed, fatal()).await;
    let now = world.now;
    let again_at = world.store().maintain(now).await.unwrap().again_at;
    let keep_results = options().keep_results;
    assert!(keep_results < options().keep_dead);
    assert!(again_at.is_some_and(|at| at <= now.saturating_add(keep_results)), "{again_at:?}");
}

pub(super) async fn nothing_that_is_under_way_is_ever_removed<F: Factory>(factory: F) {
    let mut world = World::new(factory);
    let callbacking = world.submit_one(with_callbacks(1)).await;
    world.run(callbacking, AttemptEvent::Finished).await;
    let callback = world.callbacks_of(callbacking).await[0];
    world.claim_one().await;
    let pending = world.submit_one(awaited()).await;
    let claim = world.claim_one().await;
    let settlements = vec![settlement(&claim, AttemptEvent::Finished, world.now)];
    world.apply(Batch { settlements, deliver: 0, ..world.batch() }).await;
    let ready = world.submit_one(task(MAIL)).await;
    let due_at = Some(world.now.saturating_add(SECOND));
    let waiting = world.submit_one(NewTask { due_at, ..task(MAIL) }).await;
    world.advance(1_000_000 * SECOND);
    let now = world.now;
    assert_eq!(world.store().maintain(now).await.unwrap().purged, 0);
    let mut left: Vec<TaskId> = world.all().await.iter().map(|record| record.id).collect();
    left.sort();
    assert_eq!(left, [callbacking, callback, pending, ready, waiting]);
}

pub(super) async fn a_list_is_paged_by_status_and_name_without_gaps<F: Factory>(factory: F) {
    let mut world = World::new(factory);
    let tasks: Vec<NewTask> = (0..23).map(|n| task([MAIL, QUICK][n % 2])).collect();
    world.submit(tasks).await;
    world.claim(9).await;
    let all = world.all().await;
    assert_eq!(all.len(), 23);
    assert!(all.is_sorted_by_key(|record| record.id));
    let filters = [
        ListFilter { name: Some(Arc::from("quick")), limit: 4, ..ListFilter::default() },
        ListFilter { status: Some(TaskStatus::Running), limit: 2, ..ListFilter::default() },
        ListFilter {
            status: Some(TaskStatus::NotStarted),
            name: Some(Arc::from("mail")),
            limit: 1,
            ..ListFilter::default()
        },
        ListFilter { name: Some(Arc::from("nobody")), limit: 5, ..ListFilter::default() },
    ];
    for mut filter in filters {
        let wanted = all.iter().filter(|record| {
            filter.status.is_none_or(|status| status == record.status)
                && filter.name.as_ref().is_none_or(|name| *name == record.name)
        });
        let wanted: Vec<TaskId> = wanted.map(|record| record.id).collect();
        let mut listed = Vec::new();
        loop {
            let page = world.store().list(&filter).await.unwrap();
            assert!(page.tasks.len() <= filter.limit);
            listed.extend(page.tasks.iter().map(|record| record.id));
            let Some(next) = page.next else { break };
            filter.after = next;
        }
        assert_eq!(listed, wanted);
    }
}

pub(super) async fn a_backup_holds_what_was_committed_and_gives_out_no_id_twice<F: Factory>(
    factory: F,
) {
    let mut world = World::new(factory);
    let ended = world.submit_one(task(MAIL)).await;
    world.run(ended, AttemptEvent::Finished).await;
    let ready = world.submit_one(task(MAIL)).await;
    let file = world.factory.backup_file();
    world.store().backup(&file).await.unwrap();
    let after = world.submit_one(task(MAIL)).await;
    let mut copy = world.factory.open_backup(&world.options, world.now);
    for (id, status) in [(ended, TaskStatus::Finished), (ready, TaskStatus::NotStarted)] {
        let Lookup::Found(record) = copy.get(id).await.unwrap() else { panic!("no {id}") };
        assert_eq!(record.status, status);
    }
    assert!(!matches!(copy.get(after).await.unwrap(), Lookup::Found(_)));
    let result = copy.apply(&Batch { submissions: vec![task(MAIL)], ..world.batch() }).await;
    let id = *result.unwrap().submitted[0].as_ref().unwrap();
    assert!(id > after, "{id} may be another task of the original");
    copy.close().await.unwrap();
}
