use super::{Kind, distance, is_valid_name, unknown};

#[test]
fn a_near_miss_gets_a_suggestion() {
    assert!(unknown(Kind::Task, "max_attemps").contains("did you mean `max_attempts`?"));
    assert!(unknown(Kind::Task, "timout").contains("did you mean `timeout`?"));
    assert!(unknown(Kind::Callback, "bloking").contains("did you mean `blocking`?"));
}

#[test]
fn a_far_miss_gets_the_whole_list() {
    assert!(unknown(Kind::Task, "colour").contains("there are name, queue, priority"));
}

#[test]
fn a_callback_is_told_which_options_only_tasks_have() {
    assert!(unknown(Kind::Callback, "use_cache").contains("only a task has"));
}

#[test]
fn distance_counts_letters_put_in_left_out_and_changed() {
    assert_eq!(distance("name", "name"), 0);
    assert_eq!(distance("nme", "name"), 1);
    assert_eq!(distance("naame", "name"), 1);
    assert_eq!(distance("nome", "name"), 1);
    assert_eq!(distance("", "name"), 4);
}

#[test]
fn names_are_short_lowercase_and_no_paths() {
    for name in ["a", "_", "7", "mail.send", "a-b_c.9", &"x".repeat(63)] {
        assert!(is_valid_name(name), "{name}");
    }
    for name in ["", ".a", "-a", "A", "a b", "a/b", "a\0", "é", &"x".repeat(64)] {
        assert!(!is_valid_name(name), "{name:?}");
    }
}
