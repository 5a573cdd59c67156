//! Settings with mistakes.

use super::*;

#[test]
fn all_mistakes_are_reported_together() {
    let place = Place::new()
        .environment("test", "[shards]\ncount = 0\n[storage]\npath = 'x'")
        .file("[workers]\ncount = 'many'\nconcurrency = 4.5")
        .variable("MQS__SHARDS__COUNT", "65")
        .variable("MQS__TASKS__BACKOFF_MIN", "11m")
        .variable("MQS__TASK__TIMEOUT", "1s");
    let expected = [
        "shards.count is 0 in settings/test.toml; allowed is \"auto\" or 1 to 64",
        "there is no key storage.path in settings/test.toml",
        "workers.concurrency is a number with a fraction in mine.toml; allowed is 1 to 4096",
        "workers.count is \"many\" in mine.toml; allowed is \"auto\" or 1 to 256",
        "shards.count is \"65\" in MQS__SHARDS__COUNT; allowed is \"auto\" or 1 to 64",
        "there is no key task.timeout in MQS__TASK__TIMEOUT; did you mean tasks.timeout?",
        "tasks.backoff_min is \"11m\"; allowed is at most tasks.backoff_max, which is \"10m\"",
    ];
    assert_eq!(place.mistakes(), expected);
    let error = place.load().unwrap_err();
    assert_eq!(error.mistakes()[0].key(), Some("shards.count"));
    let text = error.to_string();
    assert!(text.starts_with("the settings have 7 mistakes: shards.count is 0 in "), "{text}");
    assert!(!text.contains('\n'), "{text}");
}

#[test]
fn unknown_keys_come_with_a_suggestion() {
    let suggestions = [
        ("shard.count", Some("shards.count")),
        ("shards.cuont", Some("shards.count")),
        ("worker.concurency", Some("workers.concurrency")),
        ("durability", Some("storage.durability")),
        ("tasks.durabilty", Some("storage.durability")),
        ("max-workers", Some("max_workers")),
        ("middleware_nums", Some("middleware_num")),
        ("workers.count.x", Some("workers.count")),
        ("tasks.colour", None),
        ("storage.path", None),
        ("x", None),
        ("", None),
        ("数", None),
    ];
    for (key, suggestion) in suggestions {
        let SettingsMistake::Unknown { suggestion: found, .. } =
            SettingsMistake::unknown(key, "here")
        else {
            panic!("{key}");
        };
        assert_eq!(found.as_deref(), suggestion, "{key}");
    }
    for key in KEYS {
        let misspelt = format!("{}s", key.name);
        let mistake = SettingsMistake::unknown(&misspelt, "here").to_string();
        assert!(mistake.ends_with(&format!("did you mean {}?", key.name)), "{mistake}");
    }
}

#[test]
fn each_key_refuses_what_is_out_of_its_range() {
    let bad: &[(&str, &[&str])] = &[
        ("storage.dir", &["''", "'a\\u0000b'", "7"]),
        ("storage.durability", &["'FULL'", "true", "''"]),
        ("storage.allow_network_filesystem", &["'yes'", "1"]),
        ("storage.quick_check", &["0"]),
        ("storage.wal_limit", &["'1023KiB'", "'17GiB'", "1048576"]),
        ("storage.cache", &["0", "'65GiB'"]),
        ("storage.busy_timeout", &["'0s'", "'11m'", "5"]),
        ("shards.count", &["0", "65", "-1", "1.0", "'one'", "[1]"]),
        ("shards.min", &["0", "65", "'auto'"]),
        ("shards.max", &["0", "65", "'Auto'"]),
        ("shards.target_wait", &["0", "'9us'", "'61s'", "10"]),
        ("shards.retire_after", &["0", "'99ms'", "'25h'"]),
        ("workers.count", &["0", "257", "'Auto'", "-1", "9223372036854775807"]),
        ("workers.concurrency", &["0", "4097"]),
        ("workers.prefetch", &["-1", "8193"]),
        ("workers.blocking_threads", &["0", "513"]),
        ("tasks.max_attempts", &["0", "1001", "4294967297"]),
        ("tasks.max_crashes", &["0", "101"]),
        ("tasks.timeout", &["0", "'999us'", "'366d'", "'None'"]),
        ("tasks.backoff_min", &["0", "'366d'"]),
        ("tasks.backoff_max", &["0", "'366d'"]),
        ("tasks.ageing_per_level", &["'366d'", "'-1s'", "60"]),
        ("limits.payload", &["0", "'513MiB'", "'1MB'"]),
        ("limits.result", &["'0B'", "'513MiB'"]),
        ("limits.bulk", &["0", "1000001"]),
        ("limits.pending_submissions", &["0", "16777217"]),
        ("limits.pending_bytes", &["'1023KiB'", "'2TiB'", "65536"]),
        ("limits.ready_tasks", &["0", "1000000000001", "'None'"]),
        ("limits.window", &["0", "1048577"]),
        ("limits.cached_arguments", &["0", "1000000001"]),
        ("limits.batch", &["0", "65537"]),
        ("delivery.window", &["0", "1048577"]),
        ("delivery.backlog", &["-1", "16777217"]),
        ("delivery.mailbox_bytes", &["'0B'", "'2TiB'", "65536"]),
        ("delivery.in_flight", &["0", "1048577"]),
        ("delivery.in_flight_bytes", &["'1023KiB'", "'2TiB'", "65536"]),
        ("retention.results", &["'3651d'"]),
        ("retention.dead", &["'3651d'", "'never'"]),
        ("retention.sweep", &["'999ms'", "'8d'"]),
        ("supervision.restarts", &["-1", "1001"]),
        ("supervision.within", &["0", "'25h'"]),
        ("supervision.backoff_min", &["'25h'"]),
        ("supervision.backoff_max", &["'25h'"]),
        ("supervision.probe", &["0", "'25h'"]),
        ("shutdown.deadline", &["'25h'", "nan"]),
    ];
    let covered: BTreeSet<_> = bad.iter().map(|(key, _)| *key).collect();
    assert_eq!(covered, KEYS.iter().map(|key| key.name).collect());
    for (key, values) in bad {
        for value in *values {
            let mistakes = Place::new().file(&format!("{key} = {}", toml(value))).mistakes();
            assert_eq!(mistakes.len(), 1, "{key} = {value}: {mistakes:?}");
            assert!(mistakes[0].starts_with(&format!("{key} is ")), "{}", mistakes[0]);
        }
    }
}

/// Escapes work in double quotes only.
fn toml(value: &str) -> String {
    if value.contains('\\') { value.replace('\'', "\"") } else { value.to_owned() }
}

#[test]
fn the_program_must_keep_to_the_ranges_too() {
    let settings = changed(|settings| {
        settings.shards.count = Some(0);
        settings.workers.count = Some(0);
        settings.storage.dir = PathBuf::new();
        settings.tasks.timeout = Some(Duration::MAX);
        settings.limits.payload = usize::MAX;
        settings.supervision.backoff_min = Duration::from_secs(6);
    });
    let error = settings.check().unwrap_err();
    let shown: Vec<_> = error.mistakes().iter().map(ToString::to_string).collect();
    let expected = [
        "storage.dir is \"\"; allowed is a path that is not empty",
        "shards.count is 0; allowed is \"auto\" or 1 to 64",
        "workers.count is 0; allowed is \"auto\" or 1 to 256",
        "tasks.timeout is \"213503982334601d7h15s999ms999us999ns\"; allowed is \"none\" or a \
         duration with its unit, \"1ms\" to \"365d\"",
        "limits.payload is \"16777215TiB1023GiB1023MiB1023KiB1023B\"; allowed is a size with its \
         unit, \"1B\" to \"512MiB\"",
        "supervision.backoff_min is \"6s\"; allowed is at most supervision.backoff_max, which is \
         \"5s\"",
    ];
    assert_eq!(shown, expected);
}

#[test]
fn keys_must_fit_each_other() {
    let second = Duration::from_secs(1);
    let bad = [
        changed(|settings| (settings.shards.min, settings.shards.max) = (3, Some(2))),
        changed(|settings| settings.tasks.backoff_max = second / 2),
        changed(|settings| settings.supervision.backoff_max = Duration::ZERO),
        changed(|settings| settings.limits.pending_submissions = 9_999),
        changed(|settings| {
            (settings.limits.payload, settings.limits.result) = (512 << 20, 389 << 20);
        }),
    ];
    let keys = [
        "shards.min",
        "tasks.backoff_min",
        "supervision.backoff_min",
        "limits.bulk",
        "limits.payload",
    ];
    for (settings, key) in bad.into_iter().zip(keys) {
        let error = settings.check().unwrap_err();
        assert_eq!(error.mistakes().len(), 1, "{error}");
        assert_eq!(error.mistakes()[0].key(), Some(key), "{error}");
    }
    let equal = changed(|settings| {
        (settings.shards.min, settings.shards.max) = (3, Some(3));
        settings.tasks.backoff_max = second;
        settings.limits.pending_submissions = 10_000;
        (settings.limits.payload, settings.limits.result) = (512 << 20, 388 << 20);
    });
    assert_eq!(equal.check(), Ok(()));
}

#[test]
fn a_mistake_is_not_reported_again_by_its_consequences() {
    let place = Place::new().file("[tasks]\nbackoff_min = '20m'\nbackoff_max = '1x'");
    assert_eq!(place.mistakes().len(), 1, "{:?}", place.mistakes());
}

#[test]
fn the_environment_must_have_its_file() {
    let missing = Place::new().variable("MQS_ENV", "prodution").mistakes();
    let expected = "cannot read settings/prodution.toml: No such file or directory (os error 2)";
    assert_eq!(missing, [expected]);
    for name in ["../production", "a/b", ".", "a\0b"] {
        let mistakes = Place::new().variable("MQS_ENV", name).mistakes();
        assert_eq!(mistakes.len(), 1, "{mistakes:?}");
        assert!(mistakes[0].starts_with("MQS_ENV is "), "{}", mistakes[0]);
    }
    assert_eq!(Place::new().variable("MQS_ENV", "").load(), Ok(defaults()));
}

#[test]
fn a_file_that_cannot_be_read_is_a_mistake() {
    let missing = Place { file: Some("no/such/file.toml".into()), ..Place::new() }.mistakes();
    assert!(missing[0].starts_with("cannot read no/such/file.toml: "), "{}", missing[0]);

    let broken = Place::new().file("[storage]\ndir = \n").variable("MQS__SHARDS__COUNT", "0");
    let mistakes = broken.mistakes();
    let place = "cannot read mine.toml: TOML parse error at line 2, column 7: ";
    assert!(mistakes[0].starts_with(place), "{}", mistakes[0]);
    assert!(!mistakes[0].contains('\n'), "{}", mistakes[0]);
    assert_eq!(mistakes.len(), 2, "the other layers are checked all the same: {mistakes:?}");
}

#[test]
fn sections_and_keys_are_not_interchangeable() {
    assert_eq!(
        Place::new().file("shards = 4").mistakes(),
        ["shards is 4 in mine.toml; allowed is a section, such as shards.count, shards.min, \
          shards.max, shards.target_wait, shards.retire_after"]
    );
    assert_eq!(
        Place::new().file("[shards.count]").mistakes(),
        ["shards.count is a section in mine.toml; allowed is \"auto\" or 1 to 64"]
    );
    assert_eq!(
        Place::new().file("[nonsense]").mistakes(),
        ["there is no key nonsense in mine.toml"]
    );
    assert_eq!(Place::new().file("[shards]").load(), Ok(defaults()));
}

#[test]
fn messages_show_a_long_value_in_part() {
    let long = "x".repeat(10_000);
    let mistakes = Place::new().variable("MQS__STORAGE__DURABILITY", &long).mistakes();
    assert!(mistakes[0].len() < 250, "{}", mistakes[0]);
    assert!(mistakes[0].contains("xxx\"… in MQS__STORAGE__DURABILITY"), "{}", mistakes[0]);
}
