//! Names of repositories and tags: what may become part of a path.

use std::fmt;

use draught_digest::{Algorithm, Digest};

/// Bytes in a repository's name, at most: clients limit host and name together to 255.
const NAME_BYTES_MAX: usize = 255;

/// Bytes in a tag, at most; the specification's number.
const TAG_BYTES_MAX: usize = 128;

/// A repository's name: lower-case components joined by `/`, none of them special to a filesystem.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RepositoryName(String);

impl RepositoryName {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let valid = text.len() <= NAME_BYTES_MAX && text.split('/').all(is_component);
        valid.then(|| Self(text.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Letters and digits, in runs separated by one `.`, one or two `_`, or any number of `-`.
pub(crate) fn is_component(text: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let mut rest = text.as_bytes();
    loop {
        let run = rest.iter().take_while(|&&byte| alphanumeric(byte)).count();
        if run == 0 {
            return false;
        }
        rest = rest.get(run..).unwrap_or_default();
        if rest.is_empty() {
            return true;
        }
        let run = rest.iter().take_while(|&&byte| !alphanumeric(byte)).count();
        let (separator, tail) = rest.split_at(run);
        let valid =
            matches!(separator, b"." | b"_" | b"__") || separator.iter().all(|&byte| byte == b'-');
        if !valid {
            return false;
        }
        rest = tail;
    }
}

/// A tag; never begins with a dot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Tag(String);

impl Tag {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let valid = text.len() <= TAG_BYTES_MAX
            && text.bytes().next().is_some_and(word)
            && text
                .bytes()
                .all(|byte| word(byte) || byte == b'.' || byte == b'-');
        valid.then(|| Self(text.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// What stands after `manifests/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reference {
    Tag(Tag),
    Digest(Digest),
}

/// A digest of the one algorithm that registries use; the error says what to do.
pub(crate) fn parse_digest(text: &str) -> Result<Digest, String> {
    let digest: Digest = text.parse().map_err(|_| match text.split_once(':') {
        Some((algorithm, _)) if algorithm != "sha256" => {
            format!("digests of the algorithm {algorithm:?} are not supported; use sha256")
        }
        _ => {
            format!("{text:?} is not a digest: 64 lower-case hexadecimal digits follow \"sha256:\"")
        }
    })?;
    match digest.algorithm() {
        Algorithm::Sha256 => Ok(digest),
        other => Err(format!(
            "digests of the algorithm {:?} are not supported; use sha256",
            other.name()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_the_specification_allows_are_taken() {
        for name in [
            "a",
            "0",
            "library/debian",
            "a.b",
            "a_b",
            "a__b",
            "a--b-c",
            "a/b/c",
            "x/blobs/y",
        ] {
            assert!(RepositoryName::parse(name).is_some(), "{name:?}");
        }
    }

    #[test]
    fn names_that_could_leave_the_directory_are_refused() {
        for name in [
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            ".",
            "..",
            "../a",
            "a/../b",
            "a/./b",
            "A",
            "a..b",
            "a___b",
            "_a",
            "a_",
            "-a",
            "a-",
            "a._b",
            "a-_b",
            "a\0b",
            "a b",
            "a%2e",
            "ä",
            "_blobs",
            "a/_tags",
            "a\\b",
            &"a".repeat(256),
        ] {
            assert!(RepositoryName::parse(name).is_none(), "{name:?}");
        }
    }

    #[test]
    fn tags_are_words() {
        for tag in ["latest", "1.0", "_x", "A-b.c", &"a".repeat(128)] {
            assert!(Tag::parse(tag).is_some(), "{tag:?}");
        }
        for tag in [
            "",
            ".",
            "..",
            ".a",
            "-a",
            "a/b",
            "a b",
            "a:b",
            &"a".repeat(129),
        ] {
            assert!(Tag::parse(tag).is_none(), "{tag:?}");
        }
    }

    #[test]
    fn a_digest_of_another_algorithm_is_refused_by_name() {
        let sha512 = format!("sha512:{}", "0".repeat(128));
        assert!(parse_digest(&sha512).unwrap_err().contains("\"sha512\""));
        let blake3 = Digest::blake3(b"").to_string();
        assert!(parse_digest(&blake3).unwrap_err().contains("\"blake3\""));
        assert!(parse_digest("sha256:00").unwrap_err().contains("64"));
        assert_eq!(
            parse_digest(&Digest::sha256(b"").to_string()),
            Ok(Digest::sha256(b""))
        );
    }
}
