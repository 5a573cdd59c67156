use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use super::*;
use crate::codec::Codec;
use crate::record::ShardId;

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_cancelled_token_wakes_those_who_wait() {
    let token = CancelToken::new();
    let flag = Arc::new(Flag(AtomicBool::new(false)));
    let waker = Waker::from(Arc::clone(&flag));
    let mut cx = Context::from_waker(&waker);
    let mut waiting = pin!(token.cancelled());
    assert_eq!(waiting.as_mut().poll(&mut cx), Poll::Pending);
    assert!(!token.is_cancelled() && !flag.0.load(Ordering::SeqCst));
    token.cancel();
    assert!(token.is_cancelled() && flag.0.load(Ordering::SeqCst));
    assert_eq!(waiting.as_mut().poll(&mut cx), Poll::Ready(()));
}

#[test]
fn waiting_for_a_cancelled_token_ends_at_once() {
    let token = CancelToken::new();
    token.cancel();
    token.cancel();
    let mut cx = Context::from_waker(Waker::noop());
    assert_eq!(pin!(token.cancelled()).poll(&mut cx), Poll::Ready(()));
}

#[test]
fn an_input_shows_no_values() {
    let bytes = b"CANARY"[..].into();
    let encoded = Input::Encoded(Encoded { codec: Codec::Json, bytes }.into());
    assert_eq!(format!("{encoded:?}"), "Json(6 bytes)");
    let Input::Encoded(input) = &encoded else { unreachable!() };
    assert_eq!(input.take().as_deref(), Some(&b"CANARY"[..]));
    assert_eq!(input.take(), None, "there is one reader");
    assert_eq!(format!("{encoded:?}"), "Json(taken)");
    assert_eq!(format!("{:?}", Input::Cached(None)), "lost");
}

/// An attempt of this definition, as a worker gets it.
pub(crate) fn attempt(definition: Definition, input: Input) -> Attempt {
    let second = Duration::from_secs(1);
    Attempt {
        lasts_ns: 0,
        id: TaskId::new(ShardId(2), 7),
        definition: Arc::new(definition),
        counters: Counters { claim_no: 4, failures: 2, crashes: 1 },
        priority: -5,
        rank: 0,
        submitted_at: Timestamp::from_micros(1),
        retry: RetryPolicy { max_attempts: 5, backoff_min: second, backoff_max: second },
        timeout: Some(Duration::from_secs(60)),
        input,
        callbacks: None,
        volatile: false,
        parent: None,
        kind: Default::default(),
        queue: Default::default(),
        key: None,
        cancel: CancelToken::new(),
        index: 0,
        worker: 0.into(),
        alone: None,
        cancel_requested: AtomicBool::new(false),
        overdue: AtomicBool::new(false),
    }
}
