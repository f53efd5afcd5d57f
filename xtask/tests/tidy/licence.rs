//! SPDX expressions, as far as crates use them.

/// The licences that `deny.toml` allows: the quoted words of its `allow = […]`.
pub(crate) fn allowed(deny: &str) -> Vec<String> {
    let list = deny.split("allow = [").nth(1).unwrap();
    let list = list.split(']').next().unwrap();
    list.split('"')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

/// Whether an expression can be satisfied with allowed licences alone. None at all cannot.
pub(crate) fn satisfied(expression: &str, allowed: &[String]) -> bool {
    // Old manifests write a slash for "or".
    let spaced = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let mut tokens = spaced.split_whitespace().peekable();
    let value = any(&mut tokens, allowed);
    value && tokens.next().is_none()
}

type Tokens<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn any(tokens: &mut Tokens<'_>, allowed: &[String]) -> bool {
    let mut value = all(tokens, allowed);
    while tokens.next_if_eq(&"OR").is_some() {
        value |= all(tokens, allowed);
    }
    value
}

fn all(tokens: &mut Tokens<'_>, allowed: &[String]) -> bool {
    let mut value = one(tokens, allowed);
    while tokens.next_if_eq(&"AND").is_some() {
        value &= one(tokens, allowed);
    }
    value
}

fn one(tokens: &mut Tokens<'_>, allowed: &[String]) -> bool {
    if tokens.next_if_eq(&"(").is_some() {
        let value = any(tokens, allowed);
        return tokens.next_if_eq(&")").is_some() && value;
    }
    let Some(licence) = tokens.next() else {
        return false;
    };
    let mut name = licence.to_owned();
    if tokens.next_if_eq(&"WITH").is_some() {
        name = format!("{licence} WITH {}", tokens.next().unwrap_or_default());
    }
    // An exception only ever permits more.
    allowed.contains(&name) || allowed.iter().any(|it| it == licence)
}

#[test]
fn expressions_are_evaluated() {
    #[track_caller]
    fn check(expression: &str, expect: bool) {
        let allowed = ["MIT".to_owned(), "Apache-2.0".to_owned()];
        assert_eq!(satisfied(expression, &allowed), expect, "{expression}");
    }
    check("MIT", true);
    check("GPL-3.0", false);
    check("GPL-3.0 OR MIT", true);
    check("GPL-3.0 AND MIT", false);
    check("MIT/Apache-2.0", true);
    check("(MIT OR GPL-3.0) AND Apache-2.0", true);
    check("(MIT AND GPL-3.0) OR Unicode-3.0", false);
    check("Apache-2.0 WITH LLVM-exception", true);
    check("", false);
}
