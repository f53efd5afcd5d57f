//! The escapes of paths and queries.

use std::collections::BTreeMap;

/// Resolves `%xx`; nothing if an escape is cut off or the result is not UTF-8.
pub(super) fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let high = char::from(rest.next()?).to_digit(16)?;
                let low = char::from(rest.next()?).to_digit(16)?;
                u8::try_from(high << 4 | low).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

/// Writes what has a meaning in a query as `%xx`.
pub(super) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/:".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// A query's parameters; of one that is given twice, the first.
pub(super) fn query(text: &str) -> BTreeMap<String, String> {
    let mut parameters = BTreeMap::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if let (Some(name), Some(value)) = (decode(name), decode(&value.replace('+', " "))) {
            parameters.entry(name).or_insert(value);
        }
    }
    parameters
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_go_both_ways() {
        assert_eq!(decode("sha256%3Aab").as_deref(), Some("sha256:ab"));
        assert_eq!(decode("%2e%2E").as_deref(), Some(".."));
        for cut_off in ["%", "%a", "%zz", "%ff"] {
            assert_eq!(decode(cut_off), None, "{cut_off}");
        }
        assert_eq!(encode("a b&c=d/e"), "a%20b%26c%3Dd/e");
    }

    #[test]
    fn a_query_is_split_before_it_is_unescaped() {
        let parameters = query("a=1%262&b&a=3&c=x+y");
        assert_eq!(parameters["a"], "1&2");
        assert_eq!(parameters["b"], "");
        assert_eq!(parameters["c"], "x y");
    }
}
