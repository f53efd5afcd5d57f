//! Bearer tokens, as registries hand them out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use base64::Engine as _;

use crate::http::Head;

/// How clients must identify themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth {
    /// Name and password that the token server wants; `None` gives tokens to anybody.
    pub user: Option<(String, String)>,
    /// How long a token is good for.
    pub lifetime: Duration,
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            user: None,
            lifetime: Duration::from_secs(300),
        }
    }
}

#[derive(Debug)]
struct Grant {
    expires: Instant,
    scopes: BTreeSet<String>,
}

/// The token server.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    auth: Option<Auth>,
    grants: BTreeMap<String, Grant>,
    issued: u64,
}

impl Tokens {
    pub(super) fn require(&mut self, auth: Option<Auth>) {
        self.auth = auth;
        self.expire();
    }

    pub(super) fn expire(&mut self) {
        self.grants.clear();
    }

    pub(super) fn issued(&self) -> u64 {
        self.issued
    }

    pub(super) fn required(&self) -> bool {
        self.auth.is_some()
    }

    /// Answers a request to the token server: status and JSON.
    pub(super) fn answer(&mut self, head: &Head) -> (u16, serde_json::Value) {
        let Some(auth) = &self.auth else {
            return (404, serde_json::json!({}));
        };
        if head.word(0) != "GET" {
            return (405, serde_json::json!({"details": "ask with GET"}));
        }
        let wanted = auth.user.as_ref().map(|(name, password)| {
            let text = format!("{name}:{password}");
            let text = base64::engine::general_purpose::STANDARD.encode(text);
            format!("Basic {text}")
        });
        let given = head.header("authorization");
        if wanted.is_some() && wanted.as_deref() != given {
            return (
                401,
                serde_json::json!({"details": "wrong name or password"}),
            );
        }
        let query = head.word(1).split_once('?').map_or("", |(_, query)| query);
        let scopes = query
            .split('&')
            .filter_map(|pair| pair.strip_prefix("scope="))
            .flat_map(|value| {
                let value = unescape(value);
                value
                    .split(' ')
                    .flat_map(one_action_each)
                    .collect::<Vec<_>>()
            })
            .collect();
        self.issued += 1;
        let token = format!("token-{}-{:?}", self.issued, std::process::id());
        let expires = Instant::now() + auth.lifetime;
        self.grants.insert(token.clone(), Grant { expires, scopes });
        let document = serde_json::json!({
            "token": token,
            "access_token": token,
            // The specification's minimum; clients that trust it learn of an earlier end by a 401.
            "expires_in": auth.lifetime.as_secs().max(60),
        });
        (200, document)
    }

    /// What a request lacks, as the challenge that answers it.
    pub(super) fn challenge(&self, head: &Head, path: &str) -> Option<String> {
        self.auth.as_ref()?;
        let needed = scope_of(head.word(0), path);
        let token = head
            .header("authorization")
            .and_then(|value| value.strip_prefix("Bearer "));
        let grant = token.and_then(|token| self.grants.get(token));
        let grant = grant.filter(|grant| Instant::now() < grant.expires);
        let error = match (token, grant) {
            (None, _) => "",
            (Some(_), None) => ",error=\"invalid_token\"",
            (_, Some(grant)) => {
                let enough = needed.iter().flat_map(|scope| one_action_each(scope));
                if enough
                    .into_iter()
                    .all(|scope| grant.scopes.contains(&scope))
                {
                    return None;
                }
                ",error=\"insufficient_scope\""
            }
        };
        let host = head.header("host").unwrap_or_default();
        let scope = needed
            .map(|scope| format!(",scope=\"{scope}\""))
            .unwrap_or_default();
        Some(format!(
            "Bearer realm=\"http://{host}/token\",service=\"draught-test\"{scope}{error}"
        ))
    }
}

/// The scope that a request needs, with all its actions.
fn scope_of(method: &str, path: &str) -> Option<String> {
    let rest = path.strip_prefix("/v2/").filter(|rest| !rest.is_empty())?;
    if rest == "_catalog" {
        return Some("registry:catalog:*".to_owned());
    }
    let ends = ["/blobs/", "/manifests/", "/tags/", "/referrers/"];
    let name = ends.iter().find_map(|end| rest.split_once(end))?.0;
    let actions = match method {
        "GET" | "HEAD" => "pull",
        "DELETE" => "delete",
        _ => "pull,push",
    };
    Some(format!("repository:{name}:{actions}"))
}

/// `repository:a:pull,push` as `repository:a:pull` and `repository:a:push`.
fn one_action_each(scope: &str) -> Vec<String> {
    let (what, actions) = scope.rsplit_once(':').unwrap_or((scope, ""));
    actions
        .split(',')
        .map(|action| format!("{what}:{action}"))
        .collect()
}

fn unescape(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [rest.next().unwrap_or(b'0'), rest.next().unwrap_or(b'0')];
                let digits = String::from_utf8_lossy(&digits).into_owned();
                u8::from_str_radix(&digits, 16).unwrap_or(b'?')
            }
            byte => byte,
        });
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_needs_the_scope_of_its_repository() {
        let check = |method: &str, path: &str, expect: Option<&str>| {
            assert_eq!(scope_of(method, path).as_deref(), expect, "{method} {path}");
        };
        check("GET", "/v2/", None);
        check("GET", "/v2/a/b/manifests/1", Some("repository:a/b:pull"));
        check("HEAD", "/v2/a/blobs/sha256:00", Some("repository:a:pull"));
        check(
            "POST",
            "/v2/a/blobs/uploads/",
            Some("repository:a:pull,push"),
        );
        check("DELETE", "/v2/a/manifests/1", Some("repository:a:delete"));
        check("GET", "/v2/_catalog", Some("registry:catalog:*"));
    }

    #[test]
    fn scopes_are_unescaped() {
        assert_eq!(
            unescape("repository%3Aa%2Fb%3Apull%2Cpush+x"),
            "repository:a/b:pull,push x"
        );
    }
}
