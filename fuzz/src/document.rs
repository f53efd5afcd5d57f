//! What registries send, and what people type.

use draught_oci::{Any, Document, ImageConfig, Limits, Location, media_type};

/// A document that is accepted keeps its bytes, and its content can be written and read again.
pub(crate) fn document(data: &[u8]) {
    let limits = Limits::default();
    for kind in [
        media_type::MANIFEST,
        media_type::INDEX,
        media_type::DOCKER_MANIFEST,
        "",
    ] {
        if let Ok(read) = Any::parse(data.to_vec(), kind, &limits) {
            assert_eq!(read.bytes(), data);
        }
    }
    if let Ok(read) = Document::<ImageConfig>::parse(data.to_vec(), &limits) {
        let again = Document::write(read.content().clone());
        let again = Document::<ImageConfig>::parse(again.into_bytes(), &limits);
        let again = again.expect("what we write can be read");
        assert_eq!(again.content(), read.content());
    }
}

/// A location that is accepted is printed so that it is read as the same one.
pub(crate) fn location(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(location) = text.parse::<Location>() {
        let again = location.to_string().parse::<Location>();
        assert_eq!(again.as_ref(), Ok(&location), "{text:?}");
    }
}
