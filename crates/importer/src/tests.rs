//! Manifests of every kind, and images opened step by step.
