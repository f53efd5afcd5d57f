//! Image configurations.

use std::collections::BTreeMap;

use draught_digest::Digest;
use serde_json::{Value, json};

use crate::descriptor::parse_digest;
use crate::document::{Content, Document, Limits, ParseError};
use crate::media_type;
use crate::platform::Platform;
use crate::wire::{WireConfig, WireHistory, WireRootfs, WireRunConfig, nonempty, nonempty_text};

/// How an image is run and what its layers are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageConfig {
    /// When it was made, RFC 3339, as the document has it.
    pub created: Option<String>,
    /// Who made it.
    pub author: Option<String>,
    /// What it runs on.
    pub platform: Platform,
    /// How to run it.
    pub run: RunConfig,
    /// SHA-256 of each layer's uncompressed tar, lowest first.
    pub diff_ids: Vec<Digest>,
    /// How it came to be, oldest first.
    pub history: Vec<History>,
}

/// How to run an image. All empty when the image does not say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunConfig {
    /// `user`, `uid`, `user:group` or `uid:gid`.
    pub user: String,
    /// `NAME=value`, in order.
    pub env: Vec<String>,
    /// The first arguments.
    pub entrypoint: Vec<String>,
    /// The arguments after them.
    pub cmd: Vec<String>,
    /// Where to run.
    pub working_dir: String,
    /// What its maker says of it.
    pub labels: BTreeMap<String, String>,
    /// The signal that asks it to end, when it is not SIGTERM.
    pub stop_signal: String,
}

/// One step in an image's making.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// When, RFC 3339.
    pub created: Option<String>,
    /// By whom.
    pub author: Option<String>,
    /// By which command.
    pub created_by: Option<String>,
    /// Anything else.
    pub comment: Option<String>,
    /// The step made no layer.
    pub empty_layer: bool,
}

impl ImageConfig {
    /// A configuration for a platform, with layers and nothing else.
    #[must_use]
    pub fn new(platform: Platform, diff_ids: Vec<Digest>) -> Self {
        Self {
            created: None,
            author: None,
            platform,
            run: RunConfig::default(),
            diff_ids,
            history: Vec::new(),
        }
    }
}

impl Document<ImageConfig> {
    /// The same configuration over other layers, with another history; all else stays, known or not.
    ///
    /// # Errors
    /// When what comes out is over the limits.
    pub fn with_layers(
        &self,
        diff_ids: &[Digest],
        history: &[History],
        limits: &Limits,
    ) -> Result<Self, ParseError> {
        let ids: Vec<String> = diff_ids.iter().map(Digest::to_string).collect();
        let steps: Vec<WireHistory> = history.iter().map(Into::into).collect();
        self.edit(limits, |value| {
            if let Value::Object(fields) = value {
                fields.insert(
                    "rootfs".to_owned(),
                    json!({"type": "layers", "diff_ids": ids}),
                );
                fields.insert("history".to_owned(), json!(steps));
            }
        })
    }
}

impl From<&History> for WireHistory {
    fn from(step: &History) -> Self {
        Self {
            created: step.created.clone(),
            author: step.author.clone(),
            created_by: step.created_by.clone(),
            comment: step.comment.clone(),
            empty_layer: step.empty_layer.then_some(true),
        }
    }
}

impl From<WireHistory> for History {
    fn from(wire: WireHistory) -> Self {
        Self {
            created: wire.created,
            author: wire.author,
            created_by: wire.created_by,
            comment: wire.comment,
            empty_layer: wire.empty_layer.unwrap_or_default(),
        }
    }
}

impl From<WireRunConfig> for RunConfig {
    fn from(wire: WireRunConfig) -> Self {
        Self {
            user: wire.user.unwrap_or_default(),
            env: wire.env.unwrap_or_default(),
            entrypoint: wire.entrypoint.unwrap_or_default(),
            cmd: wire.cmd.unwrap_or_default(),
            working_dir: wire.working_dir.unwrap_or_default(),
            labels: wire.labels.unwrap_or_default(),
            stop_signal: wire.stop_signal.unwrap_or_default(),
        }
    }
}

impl From<&RunConfig> for WireRunConfig {
    fn from(run: &RunConfig) -> Self {
        Self {
            user: nonempty_text(&run.user),
            env: nonempty(&run.env),
            entrypoint: nonempty(&run.entrypoint),
            cmd: nonempty(&run.cmd),
            working_dir: nonempty_text(&run.working_dir),
            labels: nonempty(&run.labels),
            stop_signal: nonempty_text(&run.stop_signal),
        }
    }
}

impl Content for ImageConfig {
    const KIND: &'static str = "image configuration";

    fn decode(bytes: &[u8], limits: &Limits) -> Result<Self, ParseError> {
        let wire: WireConfig =
            serde_json::from_slice(bytes).map_err(|source| ParseError::Json {
                kind: Self::KIND,
                source,
            })?;
        if wire.rootfs.kind != "layers" {
            return Err(ParseError::Rootfs {
                found: wire.rootfs.kind,
            });
        }
        let ids = wire.rootfs.diff_ids.unwrap_or_default();
        if ids.len() > limits.descriptors_max {
            return Err(ParseError::TooMany {
                count: ids.len(),
                limit: limits.descriptors_max,
            });
        }
        let diff_ids = ids
            .iter()
            .enumerate()
            .map(|(index, id)| {
                parse_digest(id).map_err(|source| ParseError::DiffId { index, source })
            })
            .collect::<Result<_, _>>()?;
        let platform = Platform::new(
            &wire.os,
            &wire.architecture,
            wire.variant.as_deref().unwrap_or_default(),
        )
        .with_os_version(wire.os_version.unwrap_or_default())
        .with_os_features(wire.os_features.unwrap_or_default());
        Ok(Self {
            created: wire.created,
            author: wire.author,
            platform,
            run: wire.config.map(RunConfig::from).unwrap_or_default(),
            diff_ids,
            history: wire
                .history
                .unwrap_or_default()
                .into_iter()
                .map(Into::into)
                .collect(),
        })
    }

    fn encode(&self) -> Vec<u8> {
        let run = (self.run != RunConfig::default()).then(|| (&self.run).into());
        let history: Vec<WireHistory> = self.history.iter().map(Into::into).collect();
        let wire = WireConfig {
            created: self.created.clone(),
            author: self.author.clone(),
            architecture: self.platform.architecture().to_owned(),
            os: self.platform.os().to_owned(),
            os_version: nonempty_text(self.platform.os_version()),
            os_features: nonempty(&self.platform.os_features().to_vec()),
            variant: nonempty_text(self.platform.variant()),
            config: run,
            rootfs: WireRootfs {
                kind: "layers".to_owned(),
                diff_ids: Some(self.diff_ids.iter().map(Digest::to_string).collect()),
            },
            history: nonempty(&history),
        };
        // A struct of texts and numbers always has a JSON form.
        serde_json::to_vec(&wire).unwrap_or_default()
    }

    fn media_type(&self) -> &str {
        media_type::CONFIG
    }
}
