//! Durations and sizes.

use std::time::Duration;

use proptest::prelude::*;

use crate::settings::units::*;

#[test]
fn durations_are_read() {
    let cases = [
        ("0", Duration::ZERO),
        ("0s", Duration::ZERO),
        ("30s", Duration::from_secs(30)),
        (" 10 m ", Duration::from_secs(600)),
        ("1h30m", Duration::from_secs(5400)),
        ("1d 2h 3m 4s", Duration::from_secs(93_784)),
        ("250ms", Duration::from_millis(250)),
        ("1ms1us1ns", Duration::new(0, 1_001_001)),
        ("18446744073709551615s", Duration::from_secs(u64::MAX)),
    ];
    for (text, duration) in cases {
        assert_eq!(parse_duration(text), Ok(duration), "{text}");
    }
}

#[test]
fn sizes_are_read() {
    let cases = [
        ("0", 0),
        ("17B", 17),
        ("64 MiB", 64 << 20),
        ("1GiB512KiB", (1 << 30) + (512 << 10)),
        ("18446744073709551615B", u64::MAX),
    ];
    for (text, bytes) in cases {
        assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
    }
}

#[test]
fn what_is_no_duration_or_size_is_refused() {
    use ParseUnitError::{NoNumber, NoUnit, Order, TooLarge, UnknownUnit};
    let durations = [
        ("", NoNumber),
        ("s", NoNumber),
        ("-1s", NoNumber),
        ("1s x", NoNumber),
        ("none", NoNumber),
        ("30", NoUnit),
        ("00", NoUnit),
        ("1.5s", NoUnit),
        ("1s2", NoUnit),
        ("1w", UnknownUnit),
        ("1S", UnknownUnit),
        ("1sec", UnknownUnit),
        ("1µs", UnknownUnit),
        ("1s1m", Order),
        ("1s1s", Order),
        ("18446744073709551616s", TooLarge),
        ("18446744073709551615s1000ms", TooLarge),
        ("340282366920938463463374607431768211456ns", TooLarge),
        ("340282366920938463463374607431768211455d", TooLarge),
        ("99999999999999999999999999999999999999999999s", TooLarge),
    ];
    for (text, error) in durations {
        assert_eq!(parse_duration(text), Err(error), "{text}");
    }
    let sizes = [
        ("1024", NoUnit),
        ("1MB", UnknownUnit),
        ("1mib", UnknownUnit),
        ("1B1KiB", Order),
        ("16777216TiB", TooLarge),
    ];
    for (text, error) in sizes {
        assert_eq!(parse_bytes(text), Err(error), "{text}");
    }
}

#[test]
fn texts_are_short() {
    let show = |secs| show_duration(Duration::from_secs(secs));
    assert_eq!([0, 30, 90, 86_400].map(show), ["0s", "30s", "1m30s", "1d"]);
    assert_eq!([0, 17, 1 << 20, 1025].map(show_bytes), ["0B", "17B", "1MiB", "1KiB1B"]);
}

proptest! {
    #[test]
    fn what_is_shown_reads_back(secs: u64, nanos in 0u32..1_000_000_000, bytes: u64) {
        let duration = Duration::new(secs, nanos);
        prop_assert_eq!(parse_duration(&show_duration(duration)), Ok(duration));
        prop_assert_eq!(parse_bytes(&show_bytes(bytes)), Ok(bytes));
    }

    #[test]
    fn no_text_is_worse_than_an_error(text in "[0-9]{0,5}[a-zµBi ]{0,4}.{0,4}[0-9]{0,40}[smB]?") {
        parse_duration(&text).ok();
        parse_bytes(&text).ok();
    }
}
