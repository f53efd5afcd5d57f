//! Where the two runs of the layout routine differ.

use std::io;

use draught_tree::NodeId;

use crate::write::error::WriteError;

/// The inode number of a node that has none yet: higher than any.
pub(crate) const UNSETTLED: u32 = u32::MAX;

/// What a run of the layout routine puts its bytes into.
pub(crate) trait Sink {
    /// Takes the next bytes.
    fn put(&mut self, bytes: &[u8]) -> Result<(), WriteError>;
    /// Bytes taken so far, those before the first inode included.
    fn position(&self) -> u64;
    /// A node's inode number, or [`UNSETTLED`].
    fn nid(&self, node: NodeId) -> u32;
    /// Says that a node's inode begins here.
    fn settle(&mut self, node: NodeId, nid: u32);

    /// Fills up with zeros to a multiple of `unit`, a block at most.
    fn align(&mut self, unit: u64) -> Result<(), WriteError> {
        const ZEROS: [u8; 4096] = [0; 4096];
        let missing = self.position().next_multiple_of(unit) - self.position();
        let missing = usize::try_from(missing).unwrap_or(ZEROS.len());
        self.put(ZEROS.get(..missing).unwrap_or(&ZEROS))
    }
}

/// The first run: learns inode numbers, keeps no bytes.
#[derive(Debug)]
pub(crate) struct Learn {
    pub(crate) nids: Vec<u32>,
    pub(crate) position: u64,
}

impl Sink for Learn {
    fn put(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        let bytes = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let sum = self.position.checked_add(bytes);
        self.position = sum.ok_or(WriteError::TooLarge { bytes: u64::MAX })?;
        Ok(())
    }

    fn position(&self) -> u64 {
        self.position
    }

    fn nid(&self, node: NodeId) -> u32 {
        self.nids.get(node.index()).copied().unwrap_or(UNSETTLED)
    }

    fn settle(&mut self, node: NodeId, nid: u32) {
        if let Some(slot) = self.nids.get_mut(node.index()) {
            *slot = nid;
        }
    }
}

/// The second run: writes, with the numbers learned.
#[derive(Debug)]
pub(crate) struct Write<'a, W> {
    pub(crate) nids: &'a [u32],
    pub(crate) position: u64,
    pub(crate) out: W,
}

impl<W: io::Write> Sink for Write<'_, W> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.out.write_all(bytes).map_err(WriteError::Output)?;
        self.position += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        Ok(())
    }

    fn position(&self) -> u64 {
        self.position
    }

    fn nid(&self, node: NodeId) -> u32 {
        self.nids.get(node.index()).copied().unwrap_or(UNSETTLED)
    }

    fn settle(&mut self, node: NodeId, nid: u32) {
        assert_eq!(self.nid(node), nid, "both runs of the layout routine agree");
    }
}
