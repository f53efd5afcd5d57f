//! What this node's store has, an image that is made here does not store again.

use serde_json::Value;

use crate::harness::{Numbers, Stage, succeed};
use crate::shared::{assert_right, convert, mount, umount};

#[test]
fn the_store_is_a_dictionary_for_what_is_made_on_the_node() {
    let Some(stage) = Stage::new() else { return };
    let mut files = stage.files.clone();
    files.insert("new".to_owned(), Numbers::new(5).bytes(30_000));
    let (base, app) = (
        stage.registry.reference("base:1"),
        stage.registry.reference("app:1"),
    );
    convert(&stage, &stage.files, &[], &base);
    let dir = mount(&stage, &base, "base");
    convert(&stage, &files, &["--chunk-dict", "store"], &app);
    let said = succeed(&stage.draught(&["--format", "json", "inspect", &app]));
    let said: Value = serde_json::from_str(&said).unwrap();
    let layers = said["images"][0]["layers"].as_array().unwrap();
    let from = |layer: &&Value| layer["annotations"]["dev.draught.blob.from"].is_string();
    let foreign = layers.iter().filter(from).count();
    assert_eq!(foreign, 1, "{layers:?}");
    let own = layers
        .iter()
        .filter(|layer| layer["role"] == "data" && !from(layer));
    let own_bytes: u64 = own.map(|layer| layer["bytes"].as_u64().unwrap()).sum();
    assert!(
        own_bytes < 200_000,
        "only the new file is stored: {own_bytes}"
    );
    umount(&stage, &dir);
    let dir = mount(&stage, &app, "app");
    assert_right(&dir, &files);
    umount(&stage, &dir);
}
