//! Permits: how they are taken, waited for and given back.

use super::*;

fn admission(ready: Option<usize>) -> Admission {
    Admission::new(AdmissionLimits { tasks: 10, bytes: 100 * 1024, ready, cached: 2 })
}

fn of(tasks: usize, weight: usize) -> Demand {
    Demand { tasks, weight, cached: 0 }
}

fn in_memory(tasks: usize) -> Demand {
    Demand { tasks, weight: 0, cached: tasks }
}

fn left(admission: &Admission) -> (usize, usize) {
    (admission.tasks.available_permits(), admission.room.available_permits())
}

#[tokio::test]
async fn permits_are_merged_split_and_given_back() {
    let admission = admission(None);
    let mut permit = admission.enter(of(3, 30)).await.unwrap();
    permit.merge(admission.try_enter(of(1, 0)).unwrap());
    permit.merge(admission.try_enter(of(1, 5)).unwrap());
    assert_eq!(left(&admission), (5, 65));
    let part = permit.split(2, 10).unwrap();
    drop(permit);
    assert_eq!(left(&admission), (8, 90));
    drop(part);
    assert_eq!(left(&admission), (10, 100));
}

#[test]
fn too_heavy_a_submission_is_let_in_when_there_is_no_other() {
    let admission = admission(None);
    let light = admission.try_enter(of(1, 1)).unwrap();
    assert!(admission.try_enter(of(1, 1_000)).is_none());
    assert_eq!(left(&admission), (9, 99), "what was not let in holds nothing");
    drop(light);
    assert!(admission.try_enter(of(1, 1_000)).is_some());
}

#[test]
fn small_arguments_weigh_nothing() {
    assert_eq!([0, 256, 257, 1025, 4096].map(weight), [0, 0, 1, 2, 4]);
}

#[tokio::test]
async fn arguments_keep_their_room_in_memory_when_their_permit_is_back() {
    let admission = admission(None);
    let mut permit = admission.enter(in_memory(2)).await.unwrap();
    let kept = permit.take_cached().unwrap();
    assert!(admission.try_enter(in_memory(1)).is_none());
    assert_eq!(left(&admission), (8, 100), "what was not let in holds nothing");
    assert_eq!(admission.ends_needed(2), 2);
    drop(permit);
    // that of the other was never taken out
    assert_eq!((left(&admission), admission.ends_needed(2)), ((10, 100), 1));
    assert!(admission.try_enter(in_memory(1)).is_some());
    drop(kept);
    assert!(admission.try_enter(in_memory(2)).is_some());
}

#[tokio::test]
async fn who_waits_for_room_in_memory_holds_up_no_other() {
    let admission = Arc::new(admission(Some(4)));
    let mut permit = admission.enter(in_memory(2)).await.unwrap();
    let kept = [permit.take_cached(), permit.take_cached()];
    drop(permit);
    let mut first = caller(admission.clone(), in_memory(2));
    assert!(first.try_now().await.is_none());
    let mut second = caller(admission.clone(), in_memory(1));
    assert!(second.try_now().await.is_none());
    assert_eq!(left(&admission), (10, 100));
    assert!(admission.try_enter(of(4, 100)).is_some());
    drop(kept);
    let entered = first.try_now().await.unwrap().unwrap();
    assert!(second.try_now().await.is_none(), "it stands behind the first");
    drop(entered);
    let entered = second.try_now().await.unwrap().unwrap();
    let mut last = caller(admission.clone(), in_memory(2));
    assert!(last.try_now().await.is_none());
    admission.close();
    assert!(last.try_now().await.unwrap().is_err(), "nobody is let in any more");
    drop(entered);
}

#[tokio::test]
async fn what_is_coming_and_what_is_stored_count_against_the_limit_of_ready_tasks() {
    let admission = admission(Some(4));
    let mut coming = admission.enter(of(3, 0)).await.unwrap();
    assert!(admission.try_enter(of(2, 0)).is_none());
    assert_eq!(left(&admission), (7, 100), "what was not let in holds nothing");
    coming.merge(admission.try_enter(of(1, 0)).unwrap());
    // they are stored, so they count twice until their permits are back
    admission.not_started_moved(0, 4);
    drop(coming.split(3, 0));
    drop(coming);
    assert!(admission.try_enter(of(1, 0)).is_none());
    assert_eq!(admission.starts_needed(3), 3);
    admission.not_started_moved(4, 2);
    assert_eq!(admission.starts_needed(3), 1);
    assert!(admission.try_enter(of(3, 0)).is_none());
    assert!(admission.try_enter(of(2, 0)).is_some());
}

#[tokio::test]
async fn a_bulk_over_the_limit_of_ready_tasks_goes_alone() {
    let admission = admission(Some(4));
    admission.not_started_moved(0, 1);
    assert!(admission.try_enter(of(9, 0)).is_none());
    admission.not_started_moved(1, 0);
    let bulk = admission.try_enter(of(9, 0)).unwrap();
    assert!(admission.try_enter(of(1, 0)).is_none());
    drop(bulk);
    assert!(admission.try_enter(of(1, 0)).is_some());
}

#[tokio::test]
async fn who_waits_for_a_start_goes_on_in_order_when_tasks_have_started() {
    let admission = Arc::new(admission(Some(4)));
    admission.not_started_moved(0, 4);
    let mut first = caller(admission.clone(), of(3, 0));
    assert!(first.try_now().await.is_none());
    let mut second = caller(admission.clone(), of(1, 0));
    assert!(second.try_now().await.is_none());
    admission.not_started_moved(4, 3);
    assert!(first.try_now().await.is_none());
    assert!(second.try_now().await.is_none(), "it stands behind the first");
    assert!(admission.try_enter(of(1, 0)).is_none(), "nobody overtakes those who wait");
    admission.not_started_moved(3, 1);
    let entered = first.try_now().await.unwrap().unwrap();
    assert!(second.try_now().await.is_none());
    drop(entered);
    assert!(second.try_now().await.unwrap().is_ok());
}

#[tokio::test]
async fn who_gives_up_waiting_for_a_start_leaves_the_line() {
    let admission = Arc::new(admission(Some(4)));
    admission.not_started_moved(0, 4);
    let mut first = caller(admission.clone(), of(4, 0));
    assert!(first.try_now().await.is_none());
    drop(first);
    admission.not_started_moved(4, 3);
    assert!(admission.try_enter(of(1, 0)).is_some());
    admission.not_started_moved(3, 4);
    let mut last = caller(admission.clone(), of(1, 0));
    assert!(last.try_now().await.is_none());
    admission.close();
    assert!(last.try_now().await.unwrap().is_err(), "nobody is let in any more");
}

/// One who wants to enter, and can be asked how far it is.
struct Caller(std::pin::Pin<Box<dyn Future<Output = Result<Permit, AcquireError>>>>);

fn caller(admission: Arc<Admission>, demand: Demand) -> Caller {
    Caller(Box::pin(async move { admission.enter(demand).await }))
}

impl Caller {
    /// What came of it, if it is over.
    async fn try_now(&mut self) -> Option<Result<Permit, AcquireError>> {
        std::future::poll_fn(|context| {
            std::task::Poll::Ready(match self.0.as_mut().poll(context) {
                std::task::Poll::Ready(entered) => Some(entered),
                std::task::Poll::Pending => None,
            })
        })
        .await
    }
}
