//! The kubelet's configuration of credential-provider plugins.
//!
//! Origin: `kubelet.config.k8s.io/v1`, `CredentialProviderConfig`.

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use super::file::CredentialError;
use super::globs;
use crate::duration;
use crate::secret::Secret;

/// What the configuration must call itself. The older versions have the same fields.
const API_VERSIONS: [&str; 3] = [
    "kubelet.config.k8s.io/v1",
    "kubelet.config.k8s.io/v1beta1",
    "kubelet.config.k8s.io/v1alpha1",
];

/// What we speak with plugins: versions of `credentialprovider.kubelet.k8s.io`.
const PROTOCOLS: [&str; 3] = [
    "credentialprovider.kubelet.k8s.io/v1",
    "credentialprovider.kubelet.k8s.io/v1beta1",
    "credentialprovider.kubelet.k8s.io/v1alpha1",
];

/// Plugins in one configuration. The kubelet of a cloud has one.
const PLUGINS_MAX: usize = 64;

/// No `Debug`: environments have secrets.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireConfig {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    providers: Vec<WireProvider>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireProvider {
    #[serde(default)]
    name: String,
    #[serde(default)]
    match_images: Vec<String>,
    #[serde(default)]
    default_cache_duration: Option<String>,
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: Vec<WireEnv>,
    #[serde(default)]
    token_attributes: Option<WireTokenAttributes>,
}

#[derive(Deserialize)]
struct WireEnv {
    name: String,
    #[serde(default)]
    value: String,
}

/// Whatever is in it: we have no service account.
#[derive(Deserialize)]
struct WireTokenAttributes {}

/// One plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plugin {
    pub(super) name: String,
    pub(super) match_images: Vec<String>,
    /// How long an answer counts that does not say so itself.
    pub(super) cache_default: Duration,
    pub(super) protocol: &'static str,
    pub(super) args: Vec<String>,
    pub(super) env: Vec<(String, Secret)>,
}

impl Plugin {
    /// Whether it is asked for this repository.
    pub(super) fn is_for(&self, host: &str, repository: &str) -> bool {
        self.match_images
            .iter()
            .any(|pattern| globs::matches(pattern, host, repository).is_some())
    }
}

/// Reads a configuration.
pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Vec<Plugin>, CredentialError> {
    let config: WireConfig = serde_saphyr::from_slice(bytes).map_err(|error| {
        let at = error.location();
        CredentialError::ConfigSyntax {
            path: path.to_owned(),
            line: at.map_or(0, |at| at.line()),
            column: at.map_or(0, |at| at.column()),
        }
    })?;
    let wrong = |field: String, problem| CredentialError::ConfigField {
        path: path.to_owned(),
        field,
        problem,
    };
    if !API_VERSIONS.contains(&config.api_version.as_str()) {
        let problem = "not kubelet.config.k8s.io/v1";
        return Err(wrong("apiVersion".to_owned(), problem));
    }
    if config.kind != "CredentialProviderConfig" {
        let problem = "not CredentialProviderConfig";
        return Err(wrong("kind".to_owned(), problem));
    }
    if config.providers.len() > PLUGINS_MAX {
        return Err(wrong("providers".to_owned(), "too many"));
    }
    let mut plugins = Vec::new();
    for (index, provider) in config.providers.into_iter().enumerate() {
        let field = |name: &str| format!("providers[{index}].{name}");
        let plugin = to_plugin(provider);
        plugins.push(plugin.map_err(|(name, problem)| wrong(field(name), problem))?);
    }
    Ok(plugins)
}

/// One plugin; else the field that is wrong, and why.
fn to_plugin(wire: WireProvider) -> Result<Plugin, (&'static str, &'static str)> {
    let is_file_name = !wire.name.is_empty()
        && ![".", ".."].contains(&wire.name.as_str())
        && !wire.name.contains(['/', '\\', '\0'])
        && !wire.name.contains(char::is_whitespace);
    if !is_file_name {
        return Err(("name", "not the name of a file"));
    }
    if wire.match_images.is_empty() {
        return Err(("matchImages", "empty"));
    }
    let protocol = PROTOCOLS.into_iter().find(|it| *it == wire.api_version);
    let protocol = protocol.ok_or(("apiVersion", "not credentialprovider.kubelet.k8s.io/v1"))?;
    if wire.token_attributes.is_some() {
        let problem = "wants tokens of service accounts, which only a kubelet has";
        return Err(("tokenAttributes", problem));
    }
    let text = wire.default_cache_duration.unwrap_or_default();
    let cache_default = duration::parse(&text);
    let cache_default =
        cache_default.ok_or(("defaultCacheDuration", "not a duration such as 12h"))?;
    let env = wire.env.into_iter();
    Ok(Plugin {
        name: wire.name,
        match_images: wire.match_images,
        cache_default,
        protocol,
        args: wire.args,
        env: env.map(|one| (one.name, Secret::new(one.value))).collect(),
    })
}
