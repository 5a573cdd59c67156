use std::time::Duration;

use message_queue_sqlite_macros::{callback, task};

use super::*;
use crate::result::TaskResult;
use crate::task::{Data, Handler, Requirement, TaskContext, TaskOptions};

mod found {
    use super::*;

    #[task(name = "found.one", timeout = "30s", codec = "json")]
    pub(super) async fn one(_ctx: TaskContext) {}

    #[callback(name = "found.done", blocking)]
    pub(super) fn done(_: TaskResult, _: Data<u8>, _: Data<u8>, _: Data<u16>) {}

    pub(super) mod deep {
        use super::*;

        #[task(name = "found.two", use_cache, blocking)]
        pub(crate) fn two() {}
    }
}

mod found_elsewhere {
    use super::*;

    #[task]
    async fn elsewhere() {}
}

const HERE: &str = module_path!();

/// A definition without the macro.
struct ByHand<const WHICH: u8>;

impl<const WHICH: u8> Task for ByHand<WHICH> {
    type Args = ();
    type Output = ();
    const NAME: &'static str = if WHICH == 2 { "By Hand" } else { "by.hand" };

    fn options() -> TaskOptions {
        match WHICH {
            3 => TaskOptions::new()
                .max_attempts(0)
                .timeout(Duration::ZERO)
                .backoff(Duration::from_secs(2), Duration::from_secs(1)),
            _ => TaskOptions::new(),
        }
    }

    fn requires() -> Vec<Requirement> {
        Vec::new()
    }

    fn handler() -> Handler<Self> {
        Handler::future(|(), _| async {})
    }
}

fn messages(mistakes: Vec<StartError>) -> Vec<String> {
    mistakes.iter().map(ToString::to_string).collect()
}

#[test]
fn discovery_ends_at_the_boundary_of_a_module() {
    let mut registry = Registry::new();
    assert_eq!(registry.discover(&format!("{HERE}::found")), 3);
    assert_eq!(registry.task_names(), ["found.done", "found.one", "found.two"]);
    assert_eq!(registry.discover(&format!("{HERE}::found::deep::")), 1);
    assert_eq!(registry.discover(&format!("{HERE}::foun")), 0);
    assert_eq!(registry.discover(""), 0);
}

#[test]
fn everything_is_discovered_below_the_module_and_in_the_whole_program() {
    let (mut registry, mut all) = (Registry::new(), Registry::new());
    registry.discover(HERE);
    assert_eq!(registry.task_names(), ["elsewhere", "found.done", "found.one", "found.two"]);
    assert!(all.discover_all() >= 4);
    assert!(registry.task_names().iter().all(|name| all.get(name).is_some()));
}

#[test]
fn a_definition_carries_what_its_macro_says() {
    let mut registry = Registry::new();
    registry.discover(HERE);
    let one = registry.get("found.one").unwrap();
    assert_eq!((one.role, one.blocking, one.cached), (Role::Task, false, false));
    assert_eq!(one.options, found::one::Task::options());
    assert_eq!(one.place.module_path, format!("{HERE}::found"));
    assert!(one.place.to_string().contains("registry/tests.rs:"), "{}", one.place);
    let two = registry.get("found.two").unwrap();
    assert_eq!((two.blocking, two.cached), (true, true));
    let done = registry.get("found.done").unwrap();
    assert_eq!((done.role, done.blocking), (Role::Callback, true));
}

#[test]
fn mounting_a_definition_twice_is_no_mistake() {
    let mut registry = Registry::new();
    registry.discover(&format!("{HERE}::found::deep"));
    registry.discover(HERE);
    registry.register::<found::one::Task>();
    registry.register_callback::<found::done::Callback>();
    assert_eq!(registry.definitions().len(), 4);
    let mut data = DataMap::default();
    data.insert(1u8);
    data.insert(1u16);
    assert_eq!(messages(registry.check(&data)), [""; 0]);
}

#[test]
fn two_definitions_of_one_name_are_both_named() {
    let mut registry = Registry::new();
    registry.register::<ByHand<0>>();
    registry.register::<ByHand<1>>();
    let line = line!();
    let mistakes = registry.check(&DataMap::default());
    let [StartError::DuplicateName { name, first, second }] = &mistakes[..] else {
        panic!("{mistakes:?}");
    };
    let place = |line: u32| format!("{}:{line}", file!());
    let expected = ("by.hand", &place(line - 2), &place(line - 1));
    assert_eq!((name.as_str(), first, second), expected);
    assert_eq!(registry.definitions().len(), 1);
}

#[test]
fn all_mistakes_are_reported_together() {
    let mut registry = Registry::new();
    registry.register::<ByHand<2>>();
    registry.register::<ByHand<3>>();
    registry.register_callback::<found::done::Callback>();
    let mut data = DataMap::default();
    data.insert(1u16);
    let mistakes = messages(registry.check(&data));
    for (mistake, wrong) in mistakes.iter().zip([
        "\"By Hand\"",
        "max_attempts is 0; allowed is from 1 to 1000",
        "timeout is 0ns; allowed is from 1 ms to 365 days",
        "backoff is 2s..1s; allowed is an ascending range up to 365 days",
        "needs Data<u8>, and the builder has none",
    ]) {
        assert!(mistake.contains(wrong), "{mistake}");
        assert!(mistake.contains("registry/tests.rs:"), "{mistake}");
    }
    assert_eq!(mistakes.len(), 5, "{mistakes:?}");
}

#[test]
fn an_index_stays_with_its_definition() {
    let mut registry = Registry::new();
    registry.register::<found::one::Task>();
    let index = registry.index_of("found.one").unwrap();
    registry.discover(HERE);
    assert_eq!(&*registry.definition(index).name, "found.one");
    assert_eq!(registry.index_of("unheard.of"), None);
    for (index, definition) in registry.definitions().iter().enumerate() {
        assert_eq!(registry.index_of(&definition.name), Some(index));
    }
}

#[test]
fn names_are_short_lowercase_and_no_paths() {
    for name in ["a", "_", "7", "mail.send", "a-b_c.9", &"x".repeat(63)] {
        assert!(is_valid_name(name), "{name}");
    }
    let long = "x".repeat(64);
    for name in ["", ".", "..", "-a", "A", "a b", "a/b", "a\\b", "a\0", "a'", "file:a", "é", &long]
    {
        assert!(!is_valid_name(name), "{name:?}");
    }
}

#[test]
fn a_long_name_is_cut_in_the_message() {
    struct Nobody;
    impl actix::Actor for Nobody {
        type Context = actix::Context<Self>;
    }
    impl actix::Handler<TaskResult> for Nobody {
        type Result = ();
        fn handle(&mut self, _: TaskResult, _: &mut Self::Context) {}
    }
    let mut registry = Registry::new();
    actix::System::new().block_on(async {
        let mailbox = actix::Actor::start(Nobody).recipient();
        registry.subscriber(&"Q".repeat(300), mailbox);
    });
    let mistakes = registry.check(&DataMap::default());
    let [StartError::InvalidName { name, place }] = &mistakes[..] else { panic!("{mistakes:?}") };
    assert_eq!(*name, "Q".repeat(80));
    assert!(place.contains("registry/tests.rs:"), "{place}");
    assert_eq!(registry.task_names(), [""; 0], "a subscriber isn't a task");
}
