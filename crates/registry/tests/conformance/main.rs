//! What the distribution specification promises, asked of our registry, and of docker's where it
//! promises the same: a test that both pass tests the test.
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

mod delete;
mod list;
mod manifests;
mod pull;
mod push;
mod repository;

/// Makes a test of every function named: over our registry, or over both.
macro_rules! conformance {
    (both: $($both:ident)* ; ours: $($ours:ident)*) => {
        mod ours {
            $(#[tokio::test]
            async fn $both() {
                let registry = draught_testkit::registry();
                super::$both(&crate::repository::Repository::new(&registry)).await;
            })*
            $(#[tokio::test]
            async fn $ours() {
                let registry = draught_testkit::registry();
                super::$ours(&crate::repository::Repository::new(&registry)).await;
            })*
        }
        mod dockers {
            $(#[tokio::test]
            async fn $both() {
                let Some(registry) = draught_testkit::docker_registry() else { return };
                super::$both(&crate::repository::Repository::new(&registry)).await;
            })*
        }
    };
}
use conformance;
