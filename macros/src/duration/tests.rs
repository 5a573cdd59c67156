use super::{LONGEST_MS, parse, parse_range};

#[test]
fn every_unit_is_counted_in_milliseconds() {
    let all = ["7ms", "7s", "7m", "7h", "7d"].map(|text| parse(text).unwrap());
    assert_eq!(all, [7, 7_000, 420_000, 25_200_000, 604_800_000]);
}

#[test]
fn parts_are_added() {
    assert_eq!(parse("1h30m"), Ok(5_400_000));
    assert_eq!(parse(" 1s500ms "), Ok(1_500));
}

#[test]
fn a_year_is_the_longest() {
    assert_eq!(parse("365d"), Ok(LONGEST_MS));
    assert!(parse("365d1ms").unwrap_err().contains("longer than 365 days"));
}

#[test]
fn numbers_that_overflow_are_too_long_and_not_a_panic() {
    for text in ["99999999999999999999999s", "18446744073709551615d", "365d18446744073709551615ms"]
    {
        assert!(parse(text).unwrap_err().contains("longer than 365 days"), "{text}");
    }
}

#[test]
fn what_is_wrong_is_named() {
    for (text, wrong) in [
        ("", "empty"),
        ("30", "no unit"),
        ("s", "not a duration"),
        ("-1s", "not a duration"),
        ("1.5s", "no unit"),
        ("1 s", "no unit"),
        ("10min", "unknown unit `min`"),
        ("1\u{b5}s", "no unit"),
    ] {
        let message = parse(text).unwrap_err();
        assert!(message.contains(wrong), "{text:?}: {message}");
    }
}

#[test]
fn a_range_ascends() {
    assert_eq!(parse_range("1s..10m"), Ok((1_000, 600_000)));
    assert_eq!(parse_range("0ms .. 0ms"), Ok((0, 0)));
    assert!(parse_range("2s..1s").unwrap_err().contains("descends"));
    assert!(parse_range("2s").unwrap_err().contains("not a range"));
    assert!(parse_range("2s..").unwrap_err().contains("empty"));
}
