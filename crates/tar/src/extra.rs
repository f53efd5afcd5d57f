//! What an archive says of an entry and a tree has no place for.

/// Pax records: keyword and value.
pub type PaxRecords = Vec<(Box<[u8]>, Box<[u8]>)>;

/// What an archive says of an entry and a tree has no place for: whoever writes an archive anew can pass it on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Extra {
    /// The owner's name; empty if none is said. Not necessarily UTF-8.
    pub user: Box<[u8]>,
    /// The group's name; empty if none is said. Not necessarily UTF-8.
    pub group: Box<[u8]>,
    /// Pax records that mean nothing to this crate (access and change times, access control lists as text, what
    /// vendors have), sorted by keyword. Those of global headers are not among them.
    pub records: PaxRecords,
}
