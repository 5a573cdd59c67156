//! Tasks that are submitted again by their ids: who hears of their ends.

use super::*;
use crate::proof::{Panics, Point};

#[callback(name = "again.held")]
async fn held(_result: TaskResult, gate: Data<Arc<Gate>>) -> Result<(), TaskError> {
    gate.open.acquire().await.map_err(|_| TaskError::fatal("closed"))?.forget();
    Ok(())
}

/// A queue that sends one result at a time, and the points that hold its actors.
async fn world() -> (World, Panics) {
    let mut panics = None;
    let adjust = |settings: &mut Settings| {
        panics = Some(Panics::in_directory(&settings.storage.dir));
        settings.delivery.in_flight = 1;
    };
    let world = World::with(1, adjust, |builder| builder.register_callback::<held::Callback>());
    (world.await, panics.unwrap())
}

impl World {
    async fn until_delivery_is(&self, id: TaskId, delivery: &Delivery) {
        let is = async {
            while self.queue.record(id).await.unwrap().delivery != *delivery {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(30), is).await.unwrap_or_else(|_| panic!("never {delivery:?}"));
    }

    /// Submits again, with a closure: the receiver hears whether it is called or dropped.
    async fn again(&self, id: TaskId) -> oneshot::Receiver<TaskStatus> {
        let (call, called) = oneshot::channel();
        let closure = move |result: TaskResult| call.send(result.status()).unwrap();
        let again = self.queue.submit(gated::task(0).with_id(id).on_result(closure)).await;
        assert_eq!(again.unwrap().id(), id);
        called
    }
}

async fn in_time<T>(called: oneshot::Receiver<T>) -> Result<T, oneshot::error::RecvError> {
    timeout(Duration::from_secs(30), called).await.expect("it is called or dropped")
}

// They were let go of while the result waited for its turn.
#[actix::test]
async fn those_of_both_submissions_hear_a_result_that_waits_for_its_turn() {
    let (world, panics) = world().await;
    world.gate.open.add_permits(2);
    let heard = Arc::new(AtomicUsize::new(0));
    let mailbox = Counter(heard.clone()).start().recipient();
    let hears = |number| {
        let heard = heard.clone();
        let closure = move |_| {
            heard.fetch_add(10, Ordering::SeqCst);
        };
        gated::task(number).reply_to(mailbox.clone()).on_result(closure)
    };
    // the one that is on its way keeps the others waiting
    let (delivers, go_on) = panics.hold(Point::CallbackDeliver);
    let first = world.queue.submit(hears(1)).await.unwrap();
    delivers.await.unwrap();
    let second = world.queue.submit(hears(2)).await.unwrap();
    world.until_delivery_is(second.id(), &Delivery::Pending).await;
    let again = world.queue.submit(hears(2).with_id(second.id())).await.unwrap();
    assert_eq!(again.id(), second.id());
    // answered behind the look at what became of it
    world.queue.counts().await.unwrap();
    drop(go_on);
    // a mailbox gets a result once, each closure hears of it
    world.until("all hear", |_| heard.load(Ordering::SeqCst) >= 32).await;
    for handle in [first, second] {
        world.until_delivery_is(handle.id(), &Delivery::Callbacked).await;
    }
    assert_eq!(heard.load(Ordering::SeqCst), 32);
}

// Nobody looked for it at the end, because the attempt knew of none.
#[actix::test]
async fn a_closure_hears_the_end_although_the_first_submission_had_none() {
    let (world, _) = world().await;
    let handle = world.queue.submit(gated::task(0)).await.unwrap();
    world.until("it runs", |world| world.gate.runs.load(Ordering::SeqCst) == 1).await;
    let called = world.again(handle.id()).await;
    world.gate.open.add_permits(1);
    assert_eq!(in_time(called).await, Ok(TaskStatus::Callbacking));
    let later = gated::task(0).delay(Duration::from_secs(3_600));
    let handle = world.queue.submit(later).await.unwrap();
    let called = world.again(handle.id()).await;
    assert_eq!(handle.cancel().await.unwrap(), CancelOutcome::Removed);
    assert_eq!(in_time(called).await, Ok(TaskStatus::Callbacking));
    world.until_delivery_is(handle.id(), &Delivery::Callbacked).await;
}

// They were neither called nor freed until the shard was built anew.
#[actix::test]
async fn a_closure_that_comes_too_late_is_freed() {
    let (world, panics) = world().await;
    world.gate.open.add_permits(3);
    // nobody wanted to hear of it
    let silent = world.queue.submit(gated::task(0)).await.unwrap();
    let id = silent.id();
    timeout(Duration::from_secs(30), silent.into_future()).await.unwrap().unwrap();
    in_time(world.again(id).await).await.unwrap_err();
    let (delivers, go_on) = panics.hold(Point::CallbackDeliver);
    let on_its_way = world.queue.submit(gated::task(0).on_result(|_| {})).await.unwrap();
    delivers.await.unwrap();
    let too_late = world.again(on_its_way.id()).await;
    // answered behind the look at what became of it; freed is it by the actor that is held
    world.queue.counts().await.unwrap();
    drop(go_on);
    in_time(too_late).await.unwrap_err();
    world.until_delivery_is(on_its_way.id(), &Delivery::Callbacked).await;
    in_time(world.again(on_its_way.id()).await).await.unwrap_err();
    // its durable callback goes on
    let reported = world.queue.submit(gated::task(0).then(held::callback())).await.unwrap();
    world.until_delivery_is(reported.id(), &Delivery::Callbacking).await;
    in_time(world.again(reported.id()).await).await.unwrap_err();
    world.gate.open.add_permits(1);
    world.until_delivery_is(reported.id(), &Delivery::Callbacked).await;
}
