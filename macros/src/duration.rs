//! Durations as they are written in an option: `"30s"`, `"1h30m"`, `"1s..10m"`.

/// The longest duration: 365 days, in milliseconds.
pub(crate) const LONGEST_MS: u64 = 365 * DAY_MS;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

const HELP: &str = "a duration is a whole number with a unit (ms, s, m, h, d), as in \"30s\"";

/// The duration in milliseconds, or what is wrong with it.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(format!("an empty duration; {HELP}"));
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let letters = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        if number.is_empty() {
            return Err(format!("\"{text}\" is not a duration; {HELP}"));
        }
        let unit_ms = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60 * 1000,
            "h" => 60 * 60 * 1000,
            "d" => DAY_MS,
            "" => return Err(format!("\"{text}\" has no unit; {HELP}")),
            _ => return Err(format!("\"{text}\" has the unknown unit `{unit}`; {HELP}")),
        };
        let part = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit_ms));
        total = part
            .and_then(|part| total.checked_add(part))
            .filter(|total| *total <= LONGEST_MS)
            .ok_or_else(|| format!("\"{text}\" is longer than 365 days"))?;
        rest = after;
    }
    Ok(total)
}

/// Two durations around `..`, ascending.
pub(crate) fn parse_range(text: &str) -> Result<(u64, u64), String> {
    let Some((min, max)) = text.split_once("..") else {
        return Err(format!(
            "\"{text}\" is not a range; backoff is the first and the longest pause, \
             as in \"1s..10m\""
        ));
    };
    let (min, max) = (parse(min)?, parse(max)?);
    if min > max {
        return Err(format!("\"{text}\" descends; the first pause is at most the longest"));
    }
    Ok((min, max))
}

#[cfg(test)]
mod tests;
