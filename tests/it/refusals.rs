//! What a submission is refused for, and what becomes of bytes that nobody can read.

use std::time::SystemTime;

use message_queue_sqlite::prelude::*;
use message_queue_sqlite::{Clock, CodecError};

use crate::tasks::{double, heard, log};
use crate::world::{World, end, in_time, start, until_record};

/// Options that keep one definition's values apart from another's.
mod hostile {
    use message_queue_sqlite::prelude::*;
    use serde::Serializer;

    pub(super) const PATH: &str = module_path!();

    #[derive(Serialize, Deserialize)]
    pub(super) struct Nested {
        pub(super) inner: Option<Box<Nested>>,
    }

    #[task(name = "hostile.numbers")]
    pub(super) async fn numbers(given: Vec<u64>) {
        drop(given);
    }

    #[task(name = "hostile.nested")]
    pub(super) async fn nested(given: Nested) {
        drop(given);
    }

    #[task(name = "hostile.units")]
    pub(super) async fn units(given: Vec<()>) {
        drop(given);
    }

    /// Takes this many bytes when it is written.
    #[derive(Deserialize)]
    pub(super) struct Large(pub(super) usize);

    impl Serialize for Large {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            // never written to and refused unread: it takes no memory
            serializer.serialize_bytes(&vec![0; self.0])
        }
    }

    #[task(name = "hostile.large")]
    pub(super) async fn large(_given: Large) {}

    /// Contains itself when it is written.
    #[derive(Deserialize)]
    pub(super) struct Endless;

    impl Serialize for Endless {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_newtype_struct("Endless", self)
        }
    }

    #[task(name = "hostile.endless", max_attempts = 1)]
    pub(super) async fn endless() -> Result<Endless, TaskError> {
        Ok(Endless)
    }

    #[task(name = "hostile.endless.blocking", blocking, max_attempts = 1, codec = "json")]
    pub(super) fn endless_blocking() -> Result<Endless, TaskError> {
        Ok(Endless)
    }

    #[task(name = "hostile.refuses", codec = "json")]
    pub(super) async fn refuses(given: std::collections::HashMap<(u8, u8), u8>) {
        drop(given);
    }
}

#[actix::test]
async fn bad_options_are_refused_before_anything_is_written() {
    let world = World::new();
    let mut settings = world.settings();
    settings.limits.payload = 100;
    let queue = start(world.builder_with(settings)).await;
    let second = Duration::from_secs(1);
    let too_long = Duration::from_secs(366 * 24 * 60 * 60);
    let many = (0..17).fold(double::task(1), |task, _| task.then(heard::callback()));
    for (option, submission) in [
        ("delay", double::task(1).delay(too_long)),
        ("delay", double::task(1).delay(Duration::MAX)),
        ("at", double::task(1).at(SystemTime::UNIX_EPOCH + too_long * 9_000)),
        ("max_attempts", double::task(1).max_attempts(0)),
        ("max_attempts", double::task(1).max_attempts(1_001)),
        ("max_attempts", double::task(1).max_attempts(u32::MAX)),
        ("timeout", double::task(1).timeout(Duration::ZERO)),
        ("timeout", double::task(1).timeout(Duration::from_nanos(1))),
        ("timeout", double::task(1).timeout(Duration::MAX)),
        ("backoff", double::task(1).backoff(2 * second, second)),
        ("backoff", double::task(1).backoff(second, Duration::MAX)),
        ("callbacks", many),
    ] {
        let shown = format!("{submission:?}");
        let refused = in_time(queue.submit(submission)).await;
        assert!(
            matches!(&refused, Err(Error::InvalidOption { option: named, .. }) if *named == option),
            "{shown}: {refused:?}"
        );
    }
    let large = in_time(queue.submit(log::task("x".repeat(100)))).await;
    assert!(matches!(large, Err(Error::PayloadTooLarge { limit: 100, actual: 101 })), "{large:?}");
    let counts = in_time(queue.counts()).await.unwrap();
    assert_eq!(counts.values().sum::<u64>(), 0, "{counts:?}");
    end(queue).await;
}

#[actix::test]
async fn bad_names_are_refused_and_never_shown_whole() {
    let world = World::new();
    let queue = world.start().await;
    let long = "n".repeat(300);
    for name in ["", "Upper", "../up", "a/b", "nul\0", "quo'te", "file:x?mode=rw", "é", &long] {
        let refused = in_time(queue.submit_raw(Submit::raw(name, Codec::Json, *b"1"))).await;
        let Err(Error::InvalidName { name: shown }) = refused else { panic!("{refused:?}") };
        assert!(shown.len() <= 80 && name.starts_with(&shown), "{shown:?}");
    }
    end(queue).await;
}

#[actix::test]
async fn arguments_that_do_not_encode_are_an_error_at_submission() {
    let world = World::new();
    let queue = start(world.builder().discover(hostile::PATH)).await;
    let unwritable = std::collections::HashMap::from([((1, 2), 3)]);
    let refused = in_time(queue.submit(hostile::refuses::task(unwritable))).await;
    assert!(
        matches!(&refused, Err(Error::Encode { name, .. }) if name == "hostile.refuses"),
        "{refused:?}"
    );
    end(queue).await;
}

#[actix::test]
async fn arguments_over_the_largest_limit_there_is_are_too_large_as_any_others() {
    let world = World::new();
    let mut settings = world.settings();
    settings.limits.payload = 100;
    let queue = start(world.builder_with(settings).discover(hostile::PATH)).await;
    // no queue would take as many, so no more are encoded
    let most = 512 << 20;
    let refused = in_time(queue.submit(hostile::large::task(hostile::Large(most)))).await;
    let Err(Error::PayloadTooLarge { limit: 100, actual }) = refused else { panic!("{refused:?}") };
    assert!(actual > most, "{actual}");
    end(queue).await;
}

#[actix::test]
async fn arguments_that_would_not_decode_are_refused_at_submission() {
    let world = World::new();
    let queue = start(world.builder().discover(hostile::PATH)).await;
    let leaf = hostile::Nested { inner: None };
    let deep = (0..1_000).fold(leaf, |inner, _| hostile::Nested { inner: Some(inner.into()) });
    let refused = in_time(queue.submit(hostile::nested::task(deep))).await;
    let Err(Error::Encode { source, .. }) = refused else { panic!("{refused:?}") };
    assert!(matches!(source, CodecError::TooDeep { limit: 128 }), "{source}");
    let refused = in_time(queue.submit(hostile::units::task(vec![(); 10_000]))).await;
    let Err(Error::Encode { source, .. }) = refused else { panic!("{refused:?}") };
    assert!(matches!(source, CodecError::TooManyElements { .. }), "{source}");
    end(queue).await;
}

#[actix::test]
async fn a_result_that_nests_without_end_fails_its_task_only() {
    let world = World::new();
    let queue = start(world.builder().discover(hostile::PATH)).await;
    let endless = in_time(queue.submit(hostile::endless::task())).await.unwrap();
    let blocking = in_time(queue.submit(hostile::endless_blocking::task())).await.unwrap();
    let neighbour = in_time(queue.submit(double::task(3))).await.unwrap();
    for failed in [in_time(endless).await.err(), in_time(blocking).await.err()] {
        let Some(Error::TaskFailed { kind, .. }) = failed else { panic!("{failed:?}") };
        assert_eq!(kind, FailureKind::Encode);
    }
    assert_eq!(in_time(neighbour).await.unwrap(), 6);
    end(queue).await;
}

#[actix::test]
async fn undecodable_bytes_end_as_failed_with_the_bytes_kept() {
    let world = World::new();
    let queue = start(world.builder().discover(hostile::PATH).clock(Clock::system())).await;
    let many = [253, 0, 0, 0, 0, 0, 0, 1, 0];
    let units = [253, 0, 0, 0, 0, 2, 0, 0, 0];
    let deep = vec![1u8; 1_000_000];
    for (name, codec, bytes) in [
        ("hostile.numbers", Codec::Bincode, many.to_vec()),
        ("hostile.units", Codec::Bincode, units.to_vec()),
        ("hostile.nested", Codec::Bincode, deep),
        ("double", Codec::Bincode, vec![1, 2, 3]),
        ("double", Codec::Bincode, Vec::new()),
        ("double", Codec::Json, b"12 13".to_vec()),
        ("double", Codec::Json, b"\"text\"".to_vec()),
        ("hostile.nested", Codec::Json, b"[".repeat(100_000)),
        ("hostile.nested", Codec::Json, b"{\"inner\":".repeat(100_000)),
    ] {
        let raw = Submit::raw(name, codec, bytes.clone());
        let id = in_time(queue.submit_raw(raw)).await.unwrap();
        let record = until_record(&queue, id, |record| record.status.is_ended()).await;
        assert_eq!(record.outcome, Some(Outcome::Failed), "{name}");
        assert_eq!(record.error.unwrap().kind, FailureKind::Decode, "{name}");
        // such a failure isn't tried again
        assert_eq!(record.counters.failures, 1, "{name}");
        assert_eq!(&*record.payload.unwrap().bytes, bytes, "{name}");
    }
    assert_eq!(in_time(in_time(queue.submit(double::task(3))).await.unwrap()).await.unwrap(), 6);
    end(queue).await;
}
