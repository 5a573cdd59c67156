//! What a start checks, all of it together.

use message_queue_sqlite::prelude::*;
use message_queue_sqlite::{QueueBuilder, StartError};

use crate::tasks::double;
use crate::world::{Captured, Received, World, end, in_time, start};

mod twice {
    use message_queue_sqlite::prelude::*;

    pub(super) const PATH: &str = module_path!();

    pub(super) mod first {
        use super::*;

        #[task(name = "twice")]
        pub(crate) async fn one() {}
    }

    mod second {
        use super::*;

        #[task(name = "twice")]
        pub(crate) async fn other() {}
    }
}

mod demanding {
    use message_queue_sqlite::prelude::*;

    pub(super) const PATH: &str = module_path!();

    pub(super) struct Database;

    #[task(name = "demanding")]
    pub(super) async fn demanding(_database: Data<Database>) {}

    #[callback(name = "demanding.callback")]
    pub(super) async fn callback(_: TaskResult, _database: Data<Database>) {}
}

async fn refused(builder: QueueBuilder) -> Error {
    in_time(builder.start()).await.expect_err("the queue starts")
}

/// The keys of the settings that a start refuses.
fn settings_in(error: &Error) -> Vec<&str> {
    let Error::Start { reasons } = error else { panic!("{error}") };
    let mistakes = reasons.iter().filter_map(|reason| match reason {
        StartError::Settings(mistake) => mistake.key(),
        _ => None,
    });
    mistakes.collect()
}

#[actix::test]
async fn two_tasks_of_one_name_fail_the_start_and_both_places_are_named() {
    let world = World::new();
    let error = refused(world.builder().discover(twice::PATH)).await;
    let Error::Start { reasons } = &error else { panic!("{error}") };
    let [StartError::DuplicateName { name, first, second }] = &reasons[..] else {
        panic!("{reasons:?}");
    };
    assert_eq!(name, "twice");
    for place in [first, second] {
        assert!(place.contains("settings_and_start.rs:"), "{place}");
        assert!(error.to_string().contains(place), "{error}");
    }
    assert_ne!(first, second);
    assert!(!world.dir().exists(), "nothing was made");
    // apart from each other they are fine
    let queue = start(world.builder().register::<twice::first::one::Task>()).await;
    assert!(queue.task_names().contains(&"twice".to_string()));
    end(queue).await;
}

#[actix::test]
async fn missing_data_fails_the_start_and_not_the_first_task() {
    let world = World::new();
    let error = refused(world.builder().discover(demanding::PATH)).await;
    let Error::Start { reasons } = &error else { panic!("{error}") };
    let missing = |reason: &&StartError| matches!(reason, StartError::MissingData { type_name, .. } if type_name.ends_with("Database"));
    assert_eq!(reasons.iter().filter(missing).count(), 2, "{reasons:?}");
    let builder = world.builder().discover(demanding::PATH).data(demanding::Database);
    let queue = start(builder).await;
    in_time(in_time(queue.submit(demanding::demanding::task())).await.unwrap()).await.unwrap();
    let task = double::task(1).then(demanding::callback::callback());
    let id = in_time(queue.submit(task)).await.unwrap().id();
    crate::world::until_status(&queue, id, TaskStatus::Callbacked).await;
    end(queue).await;
}

#[actix::test]
async fn every_mistake_of_a_start_is_reported_at_once() {
    let world = World::new();
    let mailbox = Received::new();
    let builder = world
        .builder()
        .shards(0)
        .discover(twice::PATH)
        .discover(demanding::PATH)
        .subscriber("Not/A Name", mailbox.recipient());
    let error = refused(builder).await;
    let Error::Start { reasons } = &error else { panic!("{error}") };
    assert_eq!(settings_in(&error), ["shards.count"]);
    let has = |what: fn(&StartError) -> bool| reasons.iter().any(what);
    assert!(has(|reason| matches!(reason, StartError::DuplicateName { .. })), "{reasons:?}");
    assert!(has(|reason| matches!(reason, StartError::MissingData { .. })), "{reasons:?}");
    assert!(
        has(
            |reason| matches!(reason, StartError::InvalidName { name, .. } if name == "Not/A Name")
        ),
        "{reasons:?}"
    );
}

#[actix::test]
async fn settings_that_are_not_allowed_are_all_named() {
    let world = World::new();
    let error = refused(world.builder().shards(0).workers(0).concurrency(0)).await;
    let mut keys = settings_in(&error);
    keys.sort_unstable();
    assert_eq!(keys, ["shards.count", "workers.concurrency", "workers.count"]);
    for key in keys {
        assert!(error.to_string().contains(key), "{error}");
    }
    assert!(!world.dir().exists());
    for (shards, workers) in [(65, 1), (1, 257)] {
        let error = refused(world.builder().shards(shards).workers(workers)).await;
        assert_eq!(settings_in(&error).len(), 1, "{error}");
    }
}

#[actix::test]
async fn a_directory_without_a_parent_is_an_error() {
    let world = World::new();
    let error = refused(world.builder().dir(world.place.path().join("missing/queue"))).await;
    assert!(matches!(error, Error::Start { .. }), "{error:?}");
    assert!(!world.place.path().join("missing").exists());
}

#[actix::test]
async fn a_file_that_is_not_a_database_is_refused_and_left_alone() {
    let world = World::new();
    end(world.start().await).await;
    let file = world.dir().join("shard-000.db");
    std::fs::write(&file, b"these are my notes, not a database, and they stay").unwrap();
    let before = std::fs::read(&file).unwrap();
    let error = refused(world.builder()).await;
    let Error::Start { reasons } = &error else { panic!("{error}") };
    assert!(
        matches!(&reasons[..], [StartError::Open { what, .. }] if what.contains("shard-000.db")),
        "{reasons:?}"
    );
    assert_eq!(std::fs::read(&file).unwrap(), before);
    // nobody holds the directory any longer
    let error = refused(world.builder()).await;
    assert!(matches!(error, Error::Start { .. }), "{error:?}");
}

#[actix::test]
async fn a_missing_shard_file_is_refused() {
    let world = World::new();
    end(start(world.builder().shards(2)).await).await;
    std::fs::remove_file(world.dir().join("shard-001.db")).unwrap();
    let error = refused(world.builder()).await;
    assert!(error.to_string().contains("shard-001.db"), "{error}");
    assert!(!world.dir().join("shard-001.db").exists());
}

#[test]
fn discovering_nothing_warns_and_works() {
    let captured = Captured::default();
    let writer = captured.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(move || writer.clone())
        .with_max_level(tracing_subscriber::filter::LevelFilter::WARN)
        .finish();
    // for this thread: the start itself runs here
    tracing::subscriber::with_default(subscriber, || {
        actix::System::new().block_on(async {
            let world = World::new();
            let builder = Queue::builder().settings(world.settings()).discover("no::such::module");
            let queue = start(builder).await;
            assert!(queue.task_names().is_empty());
            let refused = in_time(queue.submit_raw(Submit::raw("any", Codec::Json, *b"1"))).await;
            assert!(matches!(refused, Err(Error::UnknownTask { .. })), "{refused:?}");
            end(queue).await;
        });
    });
    assert!(captured.text().contains("no task is registered"), "{}", captured.text());
}

#[actix::test]
async fn task_names_lists_tasks_and_callbacks_in_order() {
    let world = World::new();
    let queue = world.start().await;
    let names = queue.task_names();
    assert!(names.is_sorted());
    for name in ["double", "heard", "gated.blocking"] {
        assert!(names.contains(&name.to_string()), "{names:?}");
    }
    end(queue).await;
    // everything in the program, this file's impossible definitions too
    let error = refused(Queue::builder().settings(world.settings()).discover_all()).await;
    assert!(error.to_string().contains("\"twice\""), "{error}");
}
