//! Profiles, which people move between nodes.

use draught_profile::{Limits, Profile};

/// What is understood is within the limits, and is the same when it is written and read again.
pub(crate) fn profile(bytes: &[u8]) {
    let limits = Limits::default();
    let Ok(profile) = Profile::parse(bytes, &limits) else {
        return;
    };
    assert!(profile.touches.len() <= limits.touches_max);
    let longest = profile.touches.iter().map(|touch| touch.path.len()).max();
    assert!(longest.unwrap_or(0) <= limits.path_bytes_max);
    let again = Profile::parse(&profile.encode(), &limits);
    assert_eq!(again.as_ref().ok(), Some(&profile), "{again:?}");
    // Cleaning up leaves something that can be read, and is done once.
    let mut compact = profile;
    compact.compact();
    let mut twice = compact.clone();
    twice.compact();
    assert_eq!(twice, compact);
}
