//! `WWW-Authenticate`: what a registry wants to see.

use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

/// What a registry wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// Name and password with every request.
    Basic,
    /// A token from a token server.
    Bearer {
        /// The token server.
        realm: String,
        /// How the token server calls the registry.
        service: String,
        /// What the registry wants the token to be good for.
        scopes: Vec<String>,
    },
}

/// The best challenge among the headers: tokens before passwords.
pub(super) fn best(headers: &HeaderMap) -> Option<Challenge> {
    let mut basic = false;
    for header in headers.get_all(WWW_AUTHENTICATE) {
        for (scheme, parameters) in parse(header.to_str().unwrap_or_default()) {
            let parameter = |name: &str| {
                parameters
                    .iter()
                    .find(|(found, _)| found.eq_ignore_ascii_case(name))
                    .map(|(_, value)| value.clone())
            };
            if scheme.eq_ignore_ascii_case("bearer")
                && let Some(realm) = parameter("realm")
            {
                let scopes = parameter("scope").unwrap_or_default();
                return Some(Challenge::Bearer {
                    realm,
                    service: parameter("service").unwrap_or_default(),
                    scopes: scopes.split_whitespace().map(str::to_owned).collect(),
                });
            }
            basic |= scheme.eq_ignore_ascii_case("basic");
        }
    }
    basic.then_some(Challenge::Basic)
}

/// Splits `Scheme name="value", name=value, Scheme …` (RFC 9110, 11.6.1).
fn parse(text: &str) -> Vec<(String, Vec<(String, String)>)> {
    let mut found: Vec<(String, Vec<(String, String)>)> = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let end = rest
            .find(|c: char| c.is_whitespace() || c == ',' || c == '=')
            .unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let after = after.trim_start();
        if let (Some(value), Some((_, parameters))) = (after.strip_prefix('='), found.last_mut()) {
            let (value, after) = parse_value(value.trim_start());
            parameters.push((word.to_owned(), value));
            rest = after;
        } else {
            if !word.is_empty() {
                found.push((word.to_owned(), Vec::new()));
            }
            rest = after.strip_prefix('=').unwrap_or(after);
        }
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == ',');
    }
    found
}

/// A value, quoted or not, and what follows it.
fn parse_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text
            .find(|c: char| c.is_whitespace() || c == ',')
            .unwrap_or(text.len());
        let (value, after) = text.split_at(end);
        return (value.to_owned(), after);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return (value, quoted.split_at(at + 1).1),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            c => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(headers: &[&str], expect: Option<Challenge>) {
        let mut map = HeaderMap::new();
        for header in headers {
            map.append(WWW_AUTHENTICATE, header.parse().unwrap());
        }
        assert_eq!(best(&map), expect, "{headers:?}");
    }

    fn bearer(realm: &str, service: &str, scopes: &[&str]) -> Option<Challenge> {
        Some(Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.to_owned(),
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        })
    }

    #[test]
    fn challenges_are_read() {
        check(&["Basic realm=\"a, b\""], Some(Challenge::Basic));
        check(&["basic"], Some(Challenge::Basic));
        check(
            &[
                "Bearer realm=\"https://t/x?y=1,2\",service=\"s\",scope=\"repository:a:pull,push repository:b:pull\"",
            ],
            bearer(
                "https://t/x?y=1,2",
                "s",
                &["repository:a:pull,push", "repository:b:pull"],
            ),
        );
        check(
            &["bearer Realm = https://t , SERVICE=s"],
            bearer("https://t", "s", &[]),
        );
        check(&["Bearer realm=\"a\\\"b\""], bearer("a\"b", "", &[]));
        check(
            &["Basic realm=\"x\", Bearer realm=\"https://t\""],
            bearer("https://t", "", &[]),
        );
        check(
            &[
                "Negotiate",
                "Basic realm=\"x\"",
                "Bearer realm=\"https://t\"",
            ],
            bearer("https://t", "", &[]),
        );
    }

    #[test]
    fn what_is_no_challenge_is_none() {
        for header in [
            "",
            ",,,",
            "=",
            "==",
            "=\"",
            "Negotiate",
            "Bearer service=\"s\"",
            "\"\"",
        ] {
            check(&[header], None);
        }
    }
}
