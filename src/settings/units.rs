//! Durations and sizes as people write them: `30s`, `1m30s`, `64MiB`.

use std::time::Duration;

/// The units of a duration, longest first, and their nanoseconds.
const DURATION_UNITS: [(&str, u128); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// The units of a size, largest first, and their bytes.
const SIZE_UNITS: [(&str, u128); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Why a text is no duration or size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseUnitError {
    /// There is no number where one is expected.
    #[error("a number is missing")]
    NoNumber,
    /// A number has no unit. Only zero needs none.
    #[error("a unit is missing")]
    NoUnit,
    /// A unit isn't one of those allowed.
    #[error("the unit is unknown")]
    UnknownUnit,
    /// A unit comes twice, or after a smaller one.
    #[error("the units are not in descending order")]
    Order,
    /// The number is too large to be kept.
    #[error("the number is too large")]
    TooLarge,
}

/// Reads a duration: whole numbers with the units d, h, m, s, ms, us, ns in descending order, such
/// as `30s` or `1h30m`; `0` needs no unit.
///
/// # Errors
///
/// [`ParseUnitError`] for any other text, or if the sum overflows.
pub fn parse_duration(text: &str) -> Result<Duration, ParseUnitError> {
    let nanos = parse(text, &DURATION_UNITS)?;
    let secs = u64::try_from(nanos / 1_000_000_000).map_err(|_| ParseUnitError::TooLarge)?;
    let rest = u32::try_from(nanos % 1_000_000_000).map_err(|_| ParseUnitError::TooLarge)?;
    Ok(Duration::new(secs, rest))
}

/// Reads a size in bytes: whole numbers with the units TiB, GiB, MiB, KiB, B in descending order,
/// such as `64MiB`; `0` needs no unit.
///
/// # Errors
///
/// [`ParseUnitError`] for any other text, or if the sum overflows.
pub fn parse_bytes(text: &str) -> Result<u64, ParseUnitError> {
    u64::try_from(parse(text, &SIZE_UNITS)?).map_err(|_| ParseUnitError::TooLarge)
}

/// Writes a duration so that [`parse_duration`] reads it back exactly.
pub(super) fn show_duration(duration: Duration) -> String {
    show(duration.as_nanos(), &DURATION_UNITS, "0s")
}

/// Writes a size so that [`parse_bytes`] reads it back exactly.
pub(super) fn show_bytes(bytes: u64) -> String {
    show(u128::from(bytes), &SIZE_UNITS, "0B")
}

/// Adds up the numbers of `text`, each times its unit.
fn parse(text: &str, units: &[(&str, u128)]) -> Result<u128, ParseUnitError> {
    let mut rest = text.trim();
    if rest == "0" {
        return Ok(0);
    }
    let mut sum = 0u128;
    let mut allowed = units;
    loop {
        let (digits, tail) = split(rest, |c| c.is_ascii_digit());
        if digits.is_empty() {
            return Err(ParseUnitError::NoNumber);
        }
        let (unit, tail) = split(tail.trim_start(), |c| c.is_alphabetic());
        if unit.is_empty() {
            return Err(ParseUnitError::NoUnit);
        }
        if !units.iter().any(|(name, _)| *name == unit) {
            return Err(ParseUnitError::UnknownUnit);
        }
        let at = allowed.iter().position(|(name, _)| *name == unit).ok_or(ParseUnitError::Order)?;
        let number: u128 = digits.parse().map_err(|_| ParseUnitError::TooLarge)?;
        let product = number.checked_mul(allowed[at].1).ok_or(ParseUnitError::TooLarge)?;
        sum = sum.checked_add(product).ok_or(ParseUnitError::TooLarge)?;
        allowed = &allowed[at + 1..];
        rest = tail.trim_start();
        if rest.is_empty() {
            return Ok(sum);
        }
    }
}

fn split(text: &str, belongs: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !belongs(c)).unwrap_or(text.len()))
}

fn show(mut rest: u128, units: &[(&str, u128)], zero: &str) -> String {
    let mut text = String::new();
    for (name, size) in units {
        if rest >= *size {
            text += &format!("{}{name}", rest / size);
            rest %= size;
        }
    }
    if text.is_empty() { zero.to_owned() } else { text }
}

/// For `#[serde(with = "…")]`: a field that is written as text.
macro_rules! as_text {
    ($module:ident, $type:ty, $show:expr, $parse:expr) => {
        pub(super) mod $module {
            use super::*;

            pub(in crate::settings) fn serialize<S: serde::Serializer>(
                value: &$type,
                serializer: S,
            ) -> Result<S::Ok, S::Error> {
                let show: fn($type) -> String = $show;
                serializer.serialize_str(&show(*value))
            }

            pub(in crate::settings) fn deserialize<'de, D: serde::Deserializer<'de>>(
                deserializer: D,
            ) -> Result<$type, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(deserializer)?;
                let parse: fn(&str) -> Result<$type, ParseUnitError> = $parse;
                parse(&text).map_err(|error| {
                    serde::de::Error::custom(format_args!("cannot read {text:?}: {error}"))
                })
            }
        }
    };
}

as_text!(duration, Duration, show_duration, parse_duration);
as_text!(
    duration_or_none,
    Option<Duration>,
    |value| value.map_or_else(|| NONE.to_owned(), show_duration),
    |text| if text == NONE { Ok(None) } else { parse_duration(text).map(Some) }
);
as_text!(bytes, u64, show_bytes, parse_bytes);
as_text!(bytes_in_memory, usize, |value| show_bytes(value as u64), |text| parse_bytes(text)
    .and_then(|n| usize::try_from(n).map_err(|_| ParseUnitError::TooLarge)));

/// How the absence of a duration is written.
pub(super) const NONE: &str = "none";
