//! What stands in the parentheses of an attribute.

use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream, Parser};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{Error, Expr, ExprLit, ExprUnary, Ident, Lit, Token, UnOp};

use crate::duration;

/// Which of the two attributes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Task,
    Callback,
}

impl Kind {
    /// The word in messages and docs.
    pub(crate) fn noun(self) -> &'static str {
        match self {
            Kind::Task => "task",
            Kind::Callback => "callback",
        }
    }

    fn options(self) -> &'static [&'static str] {
        match self {
            Kind::Task => &[
                "name",
                "queue",
                "priority",
                "max_attempts",
                "timeout",
                "backoff",
                "codec",
                "use_cache",
                "blocking",
            ],
            Kind::Callback => &["name", "queue", "max_attempts", "timeout", "backoff", "blocking"],
        }
    }
}

/// Every mistake that is found, reported together.
#[derive(Default)]
pub(crate) struct Mistakes(Option<Error>);

impl Mistakes {
    pub(crate) fn add(&mut self, mistake: Error) {
        match &mut self.0 {
            Some(all) => all.combine(mistake),
            None => self.0 = Some(mistake),
        }
    }

    pub(crate) fn at(&mut self, place: &impl quote::ToTokens, message: impl std::fmt::Display) {
        self.add(Error::new_spanned(place, message));
    }

    pub(crate) fn into_error(self) -> Option<Error> {
        self.0
    }
}

/// The options that were given.
#[derive(Default)]
pub(crate) struct Options {
    pub(crate) name: Option<String>,
    queue: Option<String>,
    priority: Option<i16>,
    max_attempts: Option<u32>,
    timeout_ms: Option<u64>,
    backoff_ms: Option<(u64, u64)>,
    codec: Option<&'static str>,
    pub(crate) use_cache: bool,
    /// Where it says `blocking`.
    pub(crate) blocking: Option<Span>,
}

/// `key` or `key = value`.
struct Entry {
    key: Ident,
    value: Option<Expr>,
}

impl Parse for Entry {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let key = Ident::parse_any(input)?;
        let value = match input.parse::<Option<Token![=]>>()? {
            Some(_) => Some(input.parse()?),
            None => None,
        };
        Ok(Entry { key, value })
    }
}

impl Options {
    /// Reads all options; what is wrong goes to `mistakes`.
    pub(crate) fn parse(kind: Kind, tokens: TokenStream, mistakes: &mut Mistakes) -> Self {
        let mut options = Options::default();
        let entries = match Punctuated::<Entry, Token![,]>::parse_terminated.parse2(tokens) {
            Ok(entries) => entries,
            Err(mistake) => {
                mistakes.add(mistake);
                return options;
            }
        };
        let mut seen = Vec::new();
        for entry in entries {
            let key = entry.key.to_string();
            if seen.contains(&key) {
                mistakes.at(&entry.key, format_args!("`{key}` is given twice"));
            } else if !kind.options().contains(&key.as_str()) {
                mistakes.at(&entry.key, unknown(kind, &key));
            } else if let Err(mistake) = options.set(&key, &entry) {
                mistakes.add(mistake);
            }
            seen.push(key);
        }
        options
    }

    fn set(&mut self, key: &str, entry: &Entry) -> syn::Result<()> {
        match key {
            "name" => self.name = Some(name(entry, "mail.send")?),
            "queue" => self.queue = Some(name(entry, "mail")?),
            "priority" => {
                self.priority = Some(integer(entry, i64::from(i16::MIN)..=i64::from(i16::MAX))?);
            }
            "max_attempts" => self.max_attempts = Some(integer(entry, 1..=1000)?),
            "timeout" => {
                let (text, place) = string(entry, "\"30s\"")?;
                let timeout = duration::parse(&text).map_err(|wrong| Error::new(place, wrong))?;
                if timeout == 0 {
                    return Err(Error::new(place, "timeout is 0; allowed is from 1ms to 365d"));
                }
                self.timeout_ms = Some(timeout);
            }
            "backoff" => {
                let (text, place) = string(entry, "\"1s..10m\"")?;
                let range = duration::parse_range(&text);
                self.backoff_ms = Some(range.map_err(|wrong| Error::new(place, wrong))?);
            }
            "codec" => {
                let (text, place) = string(entry, "\"json\"")?;
                self.codec = Some(match text.as_str() {
                    "bincode" => "Bincode",
                    "json" => "Json",
                    _ => {
                        let message =
                            format!("no codec {text:?}; there are \"bincode\" and \"json\"");
                        return Err(Error::new(place, message));
                    }
                });
            }
            "use_cache" => self.use_cache = flag(entry)?,
            _ => self.blocking = flag(entry)?.then(|| entry.key.span()),
        }
        Ok(())
    }

    /// The expression of type `TaskOptions`; `None` if it would be the default.
    pub(crate) fn expression(&self, private: &TokenStream) -> Option<TokenStream> {
        let millis = |ms: u64| quote!(#private::Duration::from_millis(#ms));
        let mut setters = Vec::new();
        setters.extend(self.queue.as_ref().map(|queue| quote!(.queue(#queue))));
        setters.extend(self.priority.map(|priority| quote!(.priority(#priority))));
        setters.extend(self.max_attempts.map(|attempts| quote!(.max_attempts(#attempts))));
        setters.extend(self.timeout_ms.map(millis).map(|timeout| quote!(.timeout(#timeout))));
        setters.extend(self.backoff_ms.map(|(min, max)| {
            let (min, max) = (millis(min), millis(max));
            quote!(.backoff(#min, #max))
        }));
        setters.extend(self.codec.map(|codec| {
            let codec = Ident::new(codec, Span::call_site());
            quote!(.codec(#private::Codec::#codec))
        }));
        (!setters.is_empty()).then(|| quote!(#private::TaskOptions::new() #(#setters)*))
    }
}

/// Whether a name matches `^[a-z0-9_][a-z0-9_.-]{0,62}$`.
pub(crate) fn is_valid_name(name: &str) -> bool {
    let first = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    name.len() <= 63
        && name.bytes().next().is_some_and(first)
        && name.bytes().all(|byte| first(byte) || byte == b'.' || byte == b'-')
}

fn name(entry: &Entry, example: &str) -> syn::Result<String> {
    let (name, place) = string(entry, &format!("{example:?}"))?;
    if is_valid_name(&name) {
        return Ok(name);
    }
    let shown: String = name.chars().take(80).collect();
    let message =
        format!("{shown:?} is not a valid name; names match ^[a-z0-9_][a-z0-9_.-]{{0,62}}$");
    Err(Error::new(place, message))
}

fn string(entry: &Entry, example: &str) -> syn::Result<(String, Span)> {
    let key = &entry.key;
    match &entry.value {
        Some(Expr::Lit(ExprLit { lit: Lit::Str(text), .. })) => Ok((text.value(), text.span())),
        Some(other) => {
            let message = format!("`{key}` is a string, as in `{key} = {example}`");
            Err(Error::new_spanned(other, message))
        }
        None => {
            let message = format!("`{key}` needs a value, as in `{key} = {example}`");
            Err(Error::new_spanned(key, message))
        }
    }
}

fn integer<T: TryFrom<i64>>(
    entry: &Entry,
    allowed: std::ops::RangeInclusive<i64>,
) -> syn::Result<T> {
    let key = &entry.key;
    let Some(value) = &entry.value else {
        return Err(Error::new_spanned(key, format!("`{key}` needs a value, as in `{key} = 3`")));
    };
    let (sign, literal) = match value {
        Expr::Unary(ExprUnary { op: UnOp::Neg(_), expr, .. }) => (-1, &**expr),
        other => (1, other),
    };
    let Expr::Lit(ExprLit { lit: Lit::Int(digits), .. }) = literal else {
        let message = format!("`{key}` is a whole number, as in `{key} = 3`");
        return Err(Error::new_spanned(value, message));
    };
    let number = digits.base10_parse::<i64>().ok().map(|number| sign * number);
    let number = number.filter(|number| allowed.contains(number));
    number.and_then(|number| T::try_from(number).ok()).ok_or_else(|| {
        let (from, to) = allowed.into_inner();
        let given = if sign < 0 { format!("-{digits}") } else { digits.to_string() };
        Error::new_spanned(value, format!("{key} is {given}; allowed is from {from} to {to}"))
    })
}

fn flag(entry: &Entry) -> syn::Result<bool> {
    match &entry.value {
        None => Ok(true),
        Some(Expr::Lit(ExprLit { lit: Lit::Bool(flag), .. })) => Ok(flag.value),
        Some(other) => {
            let message = format!("`{}` is a flag and takes no value", entry.key);
            Err(Error::new(other.span(), message))
        }
    }
}

/// What to say about an option that doesn't exist: the nearest one, or all.
fn unknown(kind: Kind, key: &str) -> String {
    let noun = kind.noun();
    if kind == Kind::Callback && Kind::Task.options().contains(&key) {
        return format!("a callback has no option `{key}`, only a task has");
    }
    let nearest = kind.options().iter().map(|option| (distance(key, option), option)).min();
    match nearest {
        Some((steps, option)) if steps <= 1 + option.len() / 4 => {
            format!("a {noun} has no option `{key}`; did you mean `{option}`?")
        }
        _ => format!("a {noun} has no option `{key}`; there are {}", kind.options().join(", ")),
    }
}

/// How many letters must be put in, left out or changed to get from one word to the other.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let change = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests;
