//! Which resource a path names.

use draught_digest::Digest;

use super::error::{ApiError, Code};
use super::text::decode;
use crate::names::{Reference, RepositoryName, Tag, parse_digest};

/// A resource of the API.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route {
    Base,
    Catalog,
    Blob(RepositoryName, Digest),
    Uploads(RepositoryName),
    Upload(RepositoryName, String),
    Manifest(RepositoryName, Reference),
    Tags(RepositoryName),
    Referrers(RepositoryName, Digest),
}

/// Finds the resource of an undecoded path.
pub(super) fn route(path: &str) -> Result<Route, ApiError> {
    let unknown =
        || ApiError::not_found(Code::Unsupported, format!("{path} is no part of this API"));
    let rest = match path.strip_prefix("/v2") {
        Some("" | "/") => return Ok(Route::Base),
        Some(rest) => rest.strip_prefix('/').ok_or_else(unknown)?,
        None => return Err(unknown()),
    };
    if rest == "_catalog" {
        return Ok(Route::Catalog);
    }
    // Names contain slashes, and may contain components such as `blobs`: read from the right.
    let segments: Vec<&str> = rest.split('/').collect();
    match segments.as_slice() {
        [name @ .., "blobs", "uploads"] | [name @ .., "blobs", "uploads", ""] => {
            Ok(Route::Uploads(repository(name)?))
        }
        [name @ .., "blobs", "uploads", id] => {
            Ok(Route::Upload(repository(name)?, (*id).to_owned()))
        }
        [name @ .., "blobs", text] => Ok(Route::Blob(repository(name)?, digest(text)?)),
        [name @ .., "manifests", text] => Ok(Route::Manifest(repository(name)?, reference(text)?)),
        [name @ .., "referrers", text] => Ok(Route::Referrers(repository(name)?, digest(text)?)),
        [name @ .., "tags", "list"] => Ok(Route::Tags(repository(name)?)),
        _ => Err(unknown()),
    }
}

fn repository(segments: &[&str]) -> Result<RepositoryName, ApiError> {
    let name = segments.join("/");
    RepositoryName::parse(&name).ok_or_else(|| {
        let words = format!("{name:?} is not a repository's name");
        ApiError::bad_request(Code::NameInvalid, words)
    })
}

fn digest(text: &str) -> Result<Digest, ApiError> {
    let text = decode(text).unwrap_or_default();
    parse_digest(&text).map_err(|words| ApiError::bad_request(Code::DigestInvalid, words))
}

fn reference(text: &str) -> Result<Reference, ApiError> {
    let text = decode(text).unwrap_or_default();
    if text.contains(':') {
        return digest(&text).map(Reference::Digest);
    }
    Tag::parse(&text)
        .map(Reference::Tag)
        .ok_or_else(|| ApiError::bad_request(Code::TagInvalid, format!("{text:?} is not a tag")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> RepositoryName {
        RepositoryName::parse(text).unwrap()
    }

    #[test]
    fn paths_name_resources() {
        let digest = Digest::sha256(b"");
        let check = |path: &str, route_wanted: Route| {
            assert_eq!(route(path).ok(), Some(route_wanted), "{path}");
        };
        check("/v2", Route::Base);
        check("/v2/", Route::Base);
        check("/v2/_catalog", Route::Catalog);
        check("/v2/a/b/tags/list", Route::Tags(name("a/b")));
        check(
            &format!("/v2/a/blobs/{digest}"),
            Route::Blob(name("a"), digest),
        );
        let escaped = digest.to_string().replace(':', "%3A");
        check(
            &format!("/v2/a/blobs/{escaped}"),
            Route::Blob(name("a"), digest),
        );
        check("/v2/a/blobs/uploads/", Route::Uploads(name("a")));
        check("/v2/a/blobs/uploads", Route::Uploads(name("a")));
        check(
            "/v2/a/blobs/uploads/x1",
            Route::Upload(name("a"), "x1".to_owned()),
        );
        check(
            "/v2/blobs/manifests/manifests/1",
            Route::Manifest(
                name("blobs/manifests"),
                Reference::Tag(Tag::parse("1").unwrap()),
            ),
        );
        check(
            &format!("/v2/a/referrers/{digest}"),
            Route::Referrers(name("a"), digest),
        );
    }

    #[test]
    fn paths_that_lead_elsewhere_are_refused() {
        for path in [
            "/",
            "/v1/",
            "/v2x/",
            "/v2/a",
            "/v2//tags/list",
            "/v2/../tags/list",
            "/v2/a/../b/tags/list",
            "/v2/a%2f..%2fb/tags/list",
            "/v2/%2e%2e/tags/list",
            "/v2/a/manifests/..",
            "/v2/a/manifests/%2e%2e",
            "/v2/a/manifests/",
            "/v2/a/blobs/sha256:..",
            "/v2/a/blobs/sha256:%2e%2e%2f",
            "/v2/A/tags/list",
        ] {
            assert!(route(path).is_err(), "{path}");
        }
    }
}
