//! What credentials of object stores are found with.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use crate::secret::Secret;

/// Beginnings of the names of variables that say who one is at an object store.
const PREFIXES: [&str; 3] = ["AWS_", "ALIBABA_CLOUD_", "OSS_"];

/// Where credentials of object stores come from: variables of an environment, and files below a home
/// directory or named by the variables. Files are read when a request is signed, not before.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ObjectCredentials {
    pub(super) home: Option<PathBuf>,
    pub(super) variables: BTreeMap<String, Secret>,
}

impl ObjectCredentials {
    /// None at all: buckets that anybody may read.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Those of whoever runs this.
    #[must_use]
    pub fn from_env() -> Self {
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| PREFIXES.iter().any(|prefix| name.starts_with(prefix)));
        Self::of(std::env::home_dir(), variables)
    }

    /// Those of this environment.
    #[must_use]
    pub fn of(
        home: Option<PathBuf>,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Self {
        let variables = variables.into_iter();
        Self {
            home,
            variables: variables
                .map(|(name, value)| (name, Secret::new(value)))
                .collect(),
        }
    }

    /// The first of these variables that is set and not empty.
    pub(super) fn variable(&self, names: &[&str]) -> Option<&str> {
        let values = names.iter().filter_map(|name| self.variables.get(*name));
        let mut values = values.map(Secret::expose).filter(|value| !value.is_empty());
        values.next()
    }
}

impl fmt::Debug for ObjectCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectCredentials")
            .field("home", &self.home)
            .field("variables", &self.variables.keys())
            .finish()
    }
}
