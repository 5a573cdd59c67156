//! The exact order, with far more ready rows than are kept in memory.

use super::*;

fn narrow() -> StoreOptions {
    StoreOptions { window: 4, ..options() }
}

/// Claims one after the other until nothing is left; a batch may find nothing while the window is
/// being refilled, but says then that there is more.
async fn drain<F: Factory>(world: &mut World<F>, slots: usize) -> Vec<TaskId> {
    let mut claimed = Vec::new();
    loop {
        let claims = world.claim(slots).await;
        claimed.extend(ids(&claims));
        let outlook = world.runnable();
        if claims.is_empty() && !outlook.more && outlook.ready == 0 {
            return claimed;
        }
        assert!(claimed.len() < 10_000, "the store never runs dry");
    }
}

/// The order in which tasks of one moment run.
fn in_order(mut tasks: Vec<(i16, TaskId)>) -> Vec<TaskId> {
    tasks.sort_by_key(|(priority, id)| (-i32::from(*priority), *id));
    tasks.into_iter().map(|(_, id)| id).collect()
}

async fn submit_with<F: Factory>(
    world: &mut World<F>,
    priorities: impl IntoIterator<Item = i16>,
) -> Vec<(i16, TaskId)> {
    let priorities: Vec<i16> = priorities.into_iter().collect();
    let id = world.submit(priorities.iter().copied().map(with_priority).collect()).await;
    priorities.into_iter().zip(id).collect()
}

pub(super) async fn a_backlog_longer_than_the_window_is_claimed_in_the_exact_order<F: Factory>(
    factory: F,
) {
    let mut world = World::with(factory, narrow());
    let tasks = submit_with(&mut world, (0..60).map(|n| n * 7 % 5)).await;
    assert!(world.runnable().ready <= 4);
    assert_eq!(drain(&mut world, 3).await, in_order(tasks));
}

pub(super) async fn rows_that_become_ready_before_and_behind_the_watermark_keep_the_order<
    F: Factory,
>(
    factory: F,
) {
    let mut world = World::with(factory, narrow());
    let mut tasks = submit_with(&mut world, [5; 10]).await;
    let mut claimed = ids(&world.claim(1).await);
    // before, within and behind what the window holds now
    tasks.extend(submit_with(&mut world, [9, 5, 1, 7]).await);
    claimed.extend(drain(&mut world, 2).await);
    let first = tasks.remove(0).1;
    let mut expected = vec![first];
    expected.extend(in_order(tasks));
    assert_eq!(claimed, expected);
}

pub(super) async fn a_row_evicted_from_the_window_is_claimed_in_its_turn<F: Factory>(factory: F) {
    let mut world = World::with(factory, narrow());
    let mut tasks = submit_with(&mut world, [1; 4]).await;
    // the window now holds all four to the end; each of these pushes one of them out
    assert!(world.claim(0).await.is_empty());
    for priority in 2..7 {
        tasks.extend(submit_with(&mut world, [priority]).await);
        assert!(world.runnable().ready <= 4);
    }
    assert_eq!(drain(&mut world, 1).await, in_order(tasks));
}

pub(super) async fn cancelling_the_whole_window_uncovers_what_is_behind_it<F: Factory>(factory: F) {
    let mut world = World::with(factory, narrow());
    let mut tasks = submit_with(&mut world, [3; 12]).await;
    let head = ids(&world.claim(1).await);
    assert_eq!(head, [tasks.remove(0).1]);
    let cancellations = tasks.drain(..5).map(|(_, id)| cancelled(id)).collect();
    let claim = ClaimBudget { slots: 2, ..ClaimBudget::default() };
    let fresh = vec![with_priority(0)];
    let batch = Batch { cancellations, claim, submissions: fresh, ..world.batch() };
    let result = world.apply(batch).await;
    let mut claimed = ids(&result.claims);
    tasks.push((0, *result.submitted[0].as_ref().unwrap()));
    claimed.extend(drain(&mut world, 2).await);
    assert_eq!(claimed, in_order(tasks));
}

pub(super) async fn names_that_are_not_registered_wait_and_block_nobody<F: Factory>(factory: F) {
    let mut world = World::with(factory, narrow());
    let unknown = world.submit(vec![NewTask { priority: 9, ..task(QUICK) }; 20]).await;
    let known = world.submit(vec![task(MAIL), task(MAIL)]).await;
    let names: Vec<Arc<str>> = NAMES.into_iter().map(Arc::from).collect();
    // two in the middle of the stretch come back to their places
    world.run(unknown[0], AttemptEvent::Finished).await;
    assert_eq!(ids(&world.claim(2).await), unknown[1..3]);
    world.close().await;
    let all = world.options.clone();
    world.options.names = names[..1].into();
    world.options.subscribers = vec![Vec::new()].into();
    world.close().await;
    assert_eq!(world.recovered.unregistered, 19);
    assert_eq!(drain(&mut world, 3).await, known);
    assert_eq!(world.status(unknown[1]).await, TaskStatus::NotStarted);
    assert_eq!(world.record(unknown[1]).await.name.as_ref(), "quick");
    world.options = all;
    world.close().await;
    let claimed = drain(&mut world, 3).await;
    assert_eq!(claimed[..19], unknown[1..], "they run where they are known");
}

pub(super) async fn many_rows_that_become_due_at_once_are_all_claimed<F: Factory>(factory: F) {
    let mut world = World::new(factory);
    let due_at = Some(world.now.saturating_add(SECOND));
    let id = world.submit(vec![NewTask { due_at, ..task(MAIL) }; 2_500]).await;
    world.advance(SECOND);
    let mut claimed = Vec::new();
    while world.store().outlook().next_due.is_some() || world.runnable().ready > 0 {
        claimed.extend(ids(&world.claim(3_000).await));
    }
    claimed.extend(drain(&mut world, 3_000).await);
    assert_eq!(claimed, id);
}
