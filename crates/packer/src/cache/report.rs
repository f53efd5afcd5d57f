//! What became of the caches of a conversion.

/// What the build caches did for a conversion.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CacheReport {
    /// Layers that came from a cache.
    pub hits: usize,
    /// Layers that were packed.
    pub misses: usize,
    /// Each cache, in the order in which they were named.
    pub caches: Vec<CacheUse>,
}

/// What one build cache did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CacheUse {
    /// Which.
    pub cache: String,
    /// Layers that were taken from it.
    pub hits: usize,
    /// How many layers of this conversion it has now, as far as it has room; `None` when it could not be
    /// written.
    pub exported: Option<usize>,
    /// How many layers it has now altogether; `None` when it could not be written.
    pub layers: Option<usize>,
    /// What could not be done, and why.
    pub failures: Vec<String>,
}
