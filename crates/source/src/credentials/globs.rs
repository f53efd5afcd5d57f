//! Which images a text of Kubernetes is for: `*.example.com:5000/team`.
//!
//! Origin: `matchImages` and `auth` of `kubelet.config.k8s.io/v1` and `credentialprovider.kubelet.k8s.io/v1`.

/// The name that Kubernetes has for docker's hub in old files.
const HUB_HOSTS: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];

/// How much of `host/repository` a pattern names: bytes of its path, then of its host; none when it names
/// something else.
///
/// `*` and `?` stand for characters of one part of the host's name. A port must be the same if the pattern
/// has one. Of the path, whole parts count: `team` is not for `team-of-others`.
pub(super) fn matches(pattern: &str, host: &str, repository: &str) -> Option<(usize, usize)> {
    let url = ["https://", "http://"]
        .into_iter()
        .find_map(|scheme| pattern.strip_prefix(scheme));
    let (wanted, path) = url
        .unwrap_or(pattern)
        .split_once('/')
        .unwrap_or((url.unwrap_or(pattern), ""));
    // A URL has the version of the interface in it, which is no part of a repository.
    let is_url = url.is_some() || HUB_HOSTS.contains(&wanted);
    let versions = ["v1", "v2"].into_iter().filter(|_| is_url);
    let path = versions
        .filter_map(|version| path.strip_prefix(version))
        .find(|path| path.is_empty() || path.starts_with('/'))
        .unwrap_or(path)
        .trim_matches('/');
    let is_within = path.is_empty()
        || repository
            .strip_prefix(path)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    (is_within && is_host(wanted, host)).then_some((path.len(), wanted.len()))
}

fn split_port(host: &str) -> (&str, &str) {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (name, port),
        _ => (host, ""),
    }
}

fn is_host(pattern: &str, host: &str) -> bool {
    let pattern = pattern.to_ascii_lowercase();
    if HUB_HOSTS.contains(&pattern.as_str()) {
        return host == "docker.io";
    }
    let (pattern, wanted_port) = split_port(&pattern);
    let host = host.to_ascii_lowercase();
    let (name, port) = split_port(&host);
    if !wanted_port.is_empty() && wanted_port != port {
        return false;
    }
    let (patterns, parts) = (pattern.split('.'), name.split('.'));
    patterns.clone().count() == parts.clone().count()
        && patterns
            .zip(parts)
            .all(|(pattern, part)| is_part(pattern.as_bytes(), part.as_bytes()))
}

/// Whether `text` is what `pattern` stands for.
fn is_part(pattern: &[u8], text: &[u8]) -> bool {
    // The last star, and where what follows it was last thought to begin.
    let (mut at, mut read, mut star) = (0, 0, None);
    while let Some(&byte) = text.get(read) {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, read));
                at += 1;
            }
            Some(&wanted) if wanted == b'?' || wanted == byte => {
                at += 1;
                read += 1;
            }
            _ => {
                let Some((after, from)) = star else {
                    return false;
                };
                star = Some((after, from + 1));
                (at, read) = (after + 1, from + 1);
            }
        }
    }
    let rest = pattern.get(at..).unwrap_or_default();
    rest.iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_name_the_images_that_kubernetes_says() {
        for (pattern, image, expect) in [
            ("reg.example", "reg.example/a", true),
            ("reg.example", "reg.example:5000/a", true),
            ("reg.example:5000", "reg.example:5000/a", true),
            ("reg.example:5000", "reg.example:5001/a", false),
            ("reg.example:5000", "reg.example/a", false),
            ("*.example", "reg.example/a", true),
            ("*.example", "a.reg.example/a", false),
            ("*.*.example", "a.reg.example/a", true),
            ("r*g.example", "reg.example/a", true),
            ("r?g.example", "reg.example/a", true),
            ("r*x.example", "reg.example/a", false),
            ("*a*b*.example", "xaxxbx.example/a", true),
            ("example", "reg.example/a", false),
            ("reg.example.evil", "reg.example/a", false),
            ("reg.example/team", "reg.example/team/app", true),
            ("reg.example/team", "reg.example/team", true),
            ("reg.example/team", "reg.example/teamwork/app", false),
            ("reg.example/team/", "reg.example/team/app", true),
            ("https://reg.example/v1/", "reg.example/a", true),
            ("https://reg.example/v2/team", "reg.example/team/a", true),
            ("https://reg.example/v2/team", "reg.example/a", false),
            ("reg.example/v1", "reg.example/a", false),
            ("reg.example/v1", "reg.example/v1/a", true),
            ("index.docker.io/v1/", "docker.io/library/a", true),
            ("https://index.docker.io/v1/", "docker.io/library/a", true),
            ("docker.io", "docker.io/library/a", true),
            ("docker.io", "reg.example/a", false),
            ("", "reg.example/a", false),
            ("*", "reg.example/a", false),
            ("*", "localhost:5000/a", true),
            ("127.0.0.1:5000", "127.0.0.1:5000/a", true),
        ] {
            let (host, repository) = image.split_once('/').unwrap();
            let found = matches(pattern, host, repository).is_some();
            assert_eq!(found, expect, "{pattern} {image}");
        }
    }
}
