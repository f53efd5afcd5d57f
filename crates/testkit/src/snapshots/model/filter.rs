//! The filter language, as far as the checks speak it. Regular expressions are texts with anchors.

use draught_containerd::snapshots::{Info, Kind};

/// Whether any of the filters matches; nothing if one is none.
pub(super) fn any(filters: &[String], info: &Info) -> Option<bool> {
    if filters.is_empty() {
        return Some(true);
    }
    let all: Option<Vec<bool>> = filters.iter().map(|it| one(it, info)).collect();
    Some(all?.contains(&true))
}

fn one(filter: &str, info: &Info) -> Option<bool> {
    let mut rest = filter;
    let mut matches = true;
    loop {
        let mut path = vec![word(&mut rest)?];
        while let Some(after) = rest.strip_prefix('.') {
            rest = after;
            path.push(word(&mut rest)?);
        }
        let field = field(&path, info);
        matches &= match rest.get(..2) {
            Some(operator @ ("==" | "!=" | "~=")) => {
                rest = rest.get(2..)?;
                let value = value(&mut rest)?;
                let field = field.unwrap_or_default();
                match operator {
                    "==" => field == value,
                    "!=" => field != value,
                    _ => is_like(&field, &value),
                }
            }
            _ => field.is_some(),
        };
        match rest.strip_prefix(',') {
            Some(after) => rest = after,
            None => return rest.is_empty().then_some(matches),
        }
    }
}

fn field(path: &[String], info: &Info) -> Option<String> {
    match path.first()?.as_str() {
        "name" => Some(info.name.clone()),
        "parent" => Some(info.parent.clone()),
        "kind" => Some(
            match info.kind() {
                Kind::Active => "active",
                Kind::View => "view",
                Kind::Committed => "committed",
                Kind::Unknown => "unknown",
            }
            .to_owned(),
        ),
        "labels" => info.labels.get(&path.get(1..)?.join(".")).cloned(),
        _ => None,
    }
}

fn quoted(rest: &mut &str) -> Option<String> {
    let mut text = String::new();
    let mut chars = rest.strip_prefix('"')?.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => {
                *rest = rest.get(at + 2..)?;
                return Some(text);
            }
            '\\' => text.push(chars.next()?.1),
            other => text.push(other),
        }
    }
    None
}

fn word(rest: &mut &str) -> Option<String> {
    if rest.starts_with('"') {
        return quoted(rest);
    }
    let is_word = |char: char| char.is_ascii_alphanumeric() || char == '_';
    let end = rest.find(|char| !is_word(char)).unwrap_or(rest.len());
    let (word, after) = rest.split_at(end);
    *rest = after;
    (!word.is_empty()).then(|| word.to_owned())
}

fn value(rest: &mut &str) -> Option<String> {
    if rest.starts_with('"') {
        return quoted(rest);
    }
    let (value, after) = rest.split_at(rest.find(',').unwrap_or(rest.len()));
    *rest = after;
    Some(value.to_owned())
}

fn is_like(text: &str, pattern: &str) -> bool {
    match (pattern.strip_prefix('^'), pattern.strip_suffix('$')) {
        (Some(start), _) => text.starts_with(start),
        (_, Some(end)) => text.ends_with(end),
        _ => text.contains(pattern),
    }
}
