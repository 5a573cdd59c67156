use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

#[test]
fn attempts_share_one_value() {
    let kept = Cached::new(AtomicUsize::new(0)).keep();
    kept.share().unwrap().fetch_add(1, Ordering::Relaxed);
    assert_eq!(kept.share().unwrap().load(Ordering::Relaxed), 1);
}

#[test]
fn after_a_take_there_is_nothing_to_share() {
    let kept = Cached::new(String::from("socket")).keep();
    assert_eq!(kept.share().unwrap().take().unwrap(), "socket");
    assert!(kept.share().is_none());
}

#[test]
fn a_value_that_another_share_holds_is_not_taken() {
    let kept = Cached::new(7).keep();
    let (first, second) = (kept.share().unwrap(), kept.share().unwrap());
    let first = first.take().unwrap_err();
    assert_eq!(*first, 7);
    assert!(kept.share().is_some(), "the queue has its share back");
    drop(second);
    assert_eq!(first.take().unwrap(), 7);
}

#[test]
fn a_value_that_was_never_submitted_can_be_taken() {
    assert_eq!(Cached::from(3).take().unwrap(), 3);
}

#[test]
fn dropping_the_queues_share_frees_the_value() {
    let value = Arc::new(());
    let kept = Cached::new(Arc::clone(&value)).keep();
    drop(kept.share());
    assert_eq!(Arc::strong_count(&value), 2);
    drop(kept);
    assert_eq!(Arc::strong_count(&value), 1);
}

#[test]
fn each_attempt_gets_arguments_of_its_own() {
    let kept = Cached::new(1u8).keep();
    let source = CachedArguments::new(move || Some((kept.share()?, vec![2u8])));
    let input: Arc<dyn CachedInput> = source.into();
    let next = || *input.arguments().unwrap().downcast::<(Cached<u8>, Vec<u8>)>().unwrap();
    let (cached, mut plain) = next();
    plain.clear();
    drop(cached);
    let (cached, plain) = next();
    assert_eq!((*cached, plain), (1, vec![2]));
    assert_eq!(cached.take().unwrap(), 1);
    assert!(input.arguments().is_none());
}

#[test]
fn debug_output_shows_no_value() {
    let cached = Cached::new("CANARY");
    let shown = format!("{cached:?} {:?}", CachedArguments::new(|| Some("CANARY")));
    assert!(!shown.contains("CANARY"), "{shown}");
    assert!(!format!("{:?}", cached.keep()).contains("CANARY"));
}
