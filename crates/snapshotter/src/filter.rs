//! containerd's filters: which snapshots a list is to have.
//!
//! `FIELD`, `FIELD==VALUE`, `FIELD!=VALUE`, `FIELD~=REGEX`, several of them joined by commas, all of which must hold. A
//! field is `name`, `parent`, `kind` or `labels.KEY`; keys and values may be quoted. Origin: the documentation of
//! containerd's package `filters`.

use crate::record::{Kind, Record};

/// Bytes of a filter.
const FILTER_BYTES_MAX: usize = 16 << 10;
/// Bytes that a regular expression may take once it is compiled: thousands of times what anybody needs.
const REGEX_BYTES_MAX: usize = 1 << 20;

/// Why a filter can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("filter {filter:?}, at byte {at}: {problem}")]
pub struct FilterError {
    /// The filter.
    pub filter: String,
    /// Where in it.
    pub at: usize,
    /// What is wrong.
    pub problem: String,
}

/// Which snapshots are wanted: those that match any.
#[derive(Debug)]
pub(crate) struct Filters(Vec<Vec<Selector>>);

#[derive(Debug)]
struct Selector {
    field: Field,
    test: Test,
}

#[derive(Debug, PartialEq, Eq)]
enum Field {
    Name,
    Parent,
    Kind,
    Label(String),
    /// A field that no snapshot has.
    Unknown,
}

#[derive(Debug)]
enum Test {
    Present,
    Equal(String),
    NotEqual(String),
    Matches(Box<regex::Regex>),
}

impl Filters {
    /// Reads filters; none at all match everything.
    pub(crate) fn parse(filters: &[String]) -> Result<Self, FilterError> {
        let all = filters.iter().map(|text| Parser::new(text).parse());
        all.collect::<Result<_, _>>().map(Self)
    }

    pub(crate) fn matches(&self, name: &str, record: &Record) -> bool {
        let all = |selectors: &Vec<Selector>| selectors.iter().all(|it| it.matches(name, record));
        self.0.is_empty() || self.0.iter().any(all)
    }
}

/// Checks that filters can be read, as [`Filters::parse`] does: for fuzzing.
///
/// # Errors
/// [`FilterError`].
pub fn check(filters: &[String]) -> Result<(), FilterError> {
    Filters::parse(filters).map(drop)
}

impl Selector {
    fn matches(&self, name: &str, record: &Record) -> bool {
        let value = match &self.field {
            Field::Name => Some(name),
            Field::Parent => Some(record.parent.as_str()),
            Field::Kind => Some(match record.kind {
                Kind::View => "view",
                Kind::Active => "active",
                Kind::Committed => "committed",
            }),
            Field::Label(key) => record.labels.get(key).map(String::as_str),
            Field::Unknown => None,
        };
        // A name that is empty is none, a label that is there is, whatever it holds.
        let is_label = matches!(self.field, Field::Label(_));
        let present = value.is_some_and(|value| is_label || !value.is_empty());
        let text = value.unwrap_or_default();
        match &self.test {
            Test::Present => present,
            Test::Equal(wanted) => value.is_some() && text == wanted,
            Test::NotEqual(wanted) => text != wanted,
            Test::Matches(regex) => value.is_some() && regex.is_match(text),
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    fn error(&self, problem: impl Into<String>) -> FilterError {
        FilterError {
            filter: self.text.chars().take(200).collect(),
            at: self.at,
            problem: problem.into(),
        }
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn eat(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn parse(mut self) -> Result<Vec<Selector>, FilterError> {
        if self.text.len() > FILTER_BYTES_MAX {
            return Err(self.error(format!("it is longer than {FILTER_BYTES_MAX} bytes")));
        }
        let mut selectors = Vec::new();
        if self.text.is_empty() {
            return Ok(selectors);
        }
        loop {
            selectors.push(self.selector()?);
            if self.peek().is_none() {
                return Ok(selectors);
            }
            if !self.eat(",") {
                return Err(self.error("a comma was expected"));
            }
        }
    }

    fn selector(&mut self) -> Result<Selector, FilterError> {
        let mut path = vec![self.field()?];
        while self.eat(".") {
            path.push(self.field()?);
        }
        let field = match path
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .as_slice()
        {
            ["name"] => Field::Name,
            ["parent"] => Field::Parent,
            ["kind"] => Field::Kind,
            ["labels", key @ ..] if !key.is_empty() => Field::Label(key.join(".")),
            _ => Field::Unknown,
        };
        let test = if self.eat("==") {
            Test::Equal(self.value(false)?)
        } else if self.eat("!=") {
            Test::NotEqual(self.value(false)?)
        } else if self.eat("~=") {
            let pattern = self.value(true)?;
            let mut builder = regex::RegexBuilder::new(&pattern);
            let regex = builder.size_limit(REGEX_BYTES_MAX).build();
            Test::Matches(Box::new(regex.map_err(|error| {
                self.error(format!("its regular expression can't be used: {error}"))
            })?))
        } else {
            Test::Present
        };
        Ok(Selector { field, test })
    }

    fn field(&mut self) -> Result<String, FilterError> {
        if self.peek() == Some('"') {
            return self.quoted();
        }
        let is_field = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
        let rest = self.rest();
        let len = rest.find(|c| !is_field(c)).unwrap_or(rest.len());
        let field = rest.get(..len).unwrap_or_default();
        if field.is_empty() {
            return Err(self.error("the name of a field was expected"));
        }
        self.at += len;
        Ok(field.to_owned())
    }

    fn value(&mut self, is_regex: bool) -> Result<String, FilterError> {
        match self.peek() {
            Some('"') => self.quoted(),
            Some(quote @ ('/' | '|')) if is_regex => self.delimited(quote),
            _ => {
                let rest = self.rest();
                let end = |c: char| c == ',' || c == '"' || c.is_whitespace();
                let len = rest.find(end).unwrap_or(rest.len());
                let value = rest.get(..len).unwrap_or_default();
                if value.is_empty() {
                    return Err(self.error("a value was expected"));
                }
                self.at += len;
                Ok(value.to_owned())
            }
        }
    }

    /// A regular expression between two of its delimiters, which it may hold after a backslash.
    fn delimited(&mut self, quote: char) -> Result<String, FilterError> {
        let mut value = String::new();
        let mut chars = self.rest().char_indices().skip(1).peekable();
        while let Some((at, c)) = chars.next() {
            if c == quote {
                self.at += at + c.len_utf8();
                return Ok(value);
            }
            if c == '\\' && chars.peek().is_some_and(|(_, next)| *next == quote) {
                continue;
            }
            value.push(c);
        }
        Err(self.error("what is quoted here does not end"))
    }

    /// A text in double quotes, with Go's escapes.
    fn quoted(&mut self) -> Result<String, FilterError> {
        let mut bytes = Vec::new();
        let mut chars = self.rest().char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            let mut buffer = [0; 4];
            match c {
                '"' => {
                    self.at += at + 1;
                    let text = String::from_utf8(bytes);
                    return text.map_err(|_| self.error("what is quoted here is no UTF-8"));
                }
                '\\' => {
                    let escaped = chars.next().map(|(_, c)| c);
                    let digits = match escaped {
                        Some('x') => 2,
                        Some('u') => 4,
                        Some('U') => 8,
                        _ => 0,
                    };
                    if digits > 0 {
                        let text: String = chars.by_ref().take(digits).map(|(_, c)| c).collect();
                        let code = u32::from_str_radix(&text, 16).ok();
                        let code = code.filter(|_| text.len() == digits);
                        match (digits, code, code.and_then(char::from_u32)) {
                            (2, Some(code), _) => bytes.extend(u8::try_from(code)),
                            (_, _, Some(c)) => {
                                bytes.extend_from_slice(c.encode_utf8(&mut buffer).as_bytes());
                            }
                            _ => return Err(self.error("an escape here is none")),
                        }
                        continue;
                    }
                    bytes.push(match escaped {
                        Some('a') => 0x07,
                        Some('b') => 0x08,
                        Some('f') => 0x0c,
                        Some('n') => b'\n',
                        Some('r') => b'\r',
                        Some('t') => b'\t',
                        Some('v') => 0x0b,
                        Some('\\') => b'\\',
                        Some('"') => b'"',
                        Some('\'') => b'\'',
                        _ => return Err(self.error("an escape here is none")),
                    });
                }
                c => bytes.extend_from_slice(c.encode_utf8(&mut buffer).as_bytes()),
            }
        }
        Err(self.error("what is quoted here does not end"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Labels;

    fn record() -> Record {
        let labels = [
            ("containerd.io/snapshot.ref", "sha256:abc"),
            ("a", ""),
            ("with \"quotes\"", "x,y"),
        ];
        Record {
            id: 1,
            kind: Kind::Committed,
            parent: "below".to_owned(),
            labels: Labels::from(labels.map(|(name, value)| (name.to_owned(), value.to_owned()))),
            created: 0,
            updated: 0,
            bytes: 0,
            inodes: 0,
            lazy: None,
            eager: None,
        }
    }

    fn matches(filters: &[&str]) -> bool {
        let filters: Vec<String> = filters.iter().map(|text| (*text).to_owned()).collect();
        Filters::parse(&filters).unwrap().matches("top", &record())
    }

    #[test]
    fn what_containerd_asks_is_answered() {
        assert!(matches(&[]));
        assert!(matches(&[
            r#"labels."containerd.io/snapshot.ref"==sha256:abc,parent=="below""#
        ]));
        assert!(!matches(&[
            r#"labels."containerd.io/snapshot.ref"==sha256:abc,parent=="""#
        ]));
        assert!(!matches(&[
            r#"labels."containerd.io/snapshot.ref"==sha256:abd,parent=="below""#
        ]));
    }

    #[test]
    fn every_operator_works() {
        for (filter, expect) in [
            ("name==top", true),
            ("name!=top", false),
            ("kind==committed", true),
            ("kind==active", false),
            ("name~=^t.p$", true),
            ("name~=/^t.p$/", true),
            ("name~=|^o|", false),
            (r#"name~="^t""#, true),
            ("labels.a", true),
            ("labels.b", false),
            ("labels.a==\"\"", true),
            ("labels.b!=x", true),
            ("parent", true),
            ("size==3", false),
            (r#"labels."with \"quotes\""=="x,y""#, true),
            ("labels.\"\\x61\"", true),
        ] {
            assert_eq!(matches(&[filter]), expect, "{filter}");
        }
        assert!(matches(&["name==other", "parent==below"]));
        assert!(!matches(&["name==other", "parent==other"]));
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        for filter in [
            "==x",
            "name==",
            "name==x,",
            "name=x",
            "name==\"x",
            "name~=/x",
            "name~=(",
            "a..b",
            "labels.\"\\q\"",
            "name==x y",
        ] {
            assert!(Filters::parse(&[filter.to_owned()]).is_err(), "{filter}");
        }
    }
}
