//! Shell-style patterns over channel names, by the rules of Python's `fnmatch`.
//!
//! `*` is any run of characters, `?` any one, `[seq]` one of a set with ranges, `[!seq]` one outside it; a `[`
//! that is never closed stands for itself; case counts.

use std::str::Chars;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Glob(Vec<PatternToken>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum PatternToken {
    Literal(char),
    AnyOne,
    AnyRun,
    Set {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

impl Glob {
    pub(crate) fn new(pattern: &str) -> Self {
        let pattern: Vec<char> = pattern.chars().collect();
        let mut tokens = Vec::new();
        let mut at = 0;
        while let Some(&c) = pattern.get(at) {
            at += 1;
            tokens.push(match c {
                '*' => PatternToken::AnyRun,
                '?' => PatternToken::AnyOne,
                '[' => match set_end(&pattern, at) {
                    Some(end) => {
                        let set = set(&pattern[at..end]);
                        at = end + 1;
                        set
                    }
                    None => PatternToken::Literal('['),
                },
                c => PatternToken::Literal(c),
            });
        }
        Self(tokens)
    }

    /// Whether the whole name fits. Linear in practice, at worst name times pattern: on a mismatch only the
    /// last run is made longer, because an earlier one can gain nothing that the last could not.
    pub(crate) fn matches(&self, name: &str) -> bool {
        let (mut token, mut rest) = (0, name.chars());
        let mut last_run: Option<(usize, Chars<'_>)> = None;
        loop {
            match self.0.get(token) {
                Some(PatternToken::AnyRun) if token + 1 == self.0.len() => return true,
                Some(PatternToken::AnyRun) => {
                    token += 1;
                    last_run = Some((token, rest.clone()));
                    continue;
                }
                Some(one) if rest.clone().next().is_some_and(|c| one.fits(c)) => {
                    token += 1;
                    rest.next();
                    continue;
                }
                None if rest.as_str().is_empty() => return true,
                _ => {}
            }
            let Some((after, start)) = &mut last_run else {
                return false;
            };
            if start.next().is_none() {
                return false;
            }
            (token, rest) = (*after, start.clone());
        }
    }
}

impl PatternToken {
    fn fits(&self, c: char) -> bool {
        match self {
            Self::Literal(literal) => *literal == c,
            Self::AnyOne => true,
            Self::AnyRun => false,
            Self::Set { negated, ranges } => {
                ranges.iter().any(|&(low, high)| low <= c && c <= high) != *negated
            }
        }
    }
}

/// The index of the bracket that closes a set, given the index behind the one that opens it. A bracket in
/// the first place belongs to the set.
fn set_end(pattern: &[char], start: usize) -> Option<usize> {
    let mut from = start;
    if pattern.get(from) == Some(&'!') {
        from += 1;
    }
    if pattern.get(from) == Some(&']') {
        from += 1;
    }
    let rest = pattern.get(from..)?;
    rest.iter().position(|&c| c == ']').map(|end| from + end)
}

fn set(content: &[char]) -> PatternToken {
    let (negated, members) = match content {
        ['!', rest @ ..] => (true, rest),
        all => (false, all),
    };
    let mut ranges = Vec::new();
    let mut rest = members;
    loop {
        rest = match rest {
            [low, '-', high, rest @ ..] => {
                ranges.push((*low, *high));
                rest
            }
            [one, rest @ ..] => {
                ranges.push((*one, *one));
                rest
            }
            [] => return PatternToken::Set { negated, ranges },
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_fnmatch() {
        for (pattern, name, fits) in [
            ("http.request", "http.request", true),
            ("http.*", "http.request", true),
            ("http.*", "http", false),
            ("*!*", "specific.a!b", true),
            ("*a*b", "xaybzb", true),
            ("*a*b", "xaybz", false),
            ("?", "a", true),
            ("?", "", false),
            ("*", "", true),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[]]", "]", true),
            ("[", "[", true),
            ("[c-a]", "b", false),
            ("[!c-a]", "b", true),
            ("[a-]", "-", true),
            ("[--a]", ".", true),
            ("A*", "abc", false),
        ] {
            assert_eq!(Glob::new(pattern).matches(name), fits, "{pattern} {name}");
        }
    }
}
