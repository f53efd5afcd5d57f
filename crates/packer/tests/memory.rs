//! What a conversion needs of memory. Alone in its process, because it looks at the process' peak.
#![expect(
    clippy::unwrap_used,
    reason = "what fails here fails the test that called it"
)]

use std::io::{self, Read};

use draught_packer::{ImagePacker, LayerInput, PackOptions};
use draught_tree::{Entry, EntryKind, Meta};

/// Of which 20,000 files, each of which differs from all others.
const LAYER_BYTES: u64 = 1 << 30;
const FILE_BYTES: usize = 50_000;

/// What README and PEERS state: for any image, but for what its metadata needs.
const PEAK_BYTES_MAX: u64 = 96 << 20;

/// A tar archive that is made while it is read.
struct Endless {
    buffer: Vec<u8>,
    at: usize,
    left: u64,
    file: u64,
}

impl Endless {
    fn refill(&mut self) {
        let mut data = vec![0; FILE_BYTES];
        let mut state = self.file.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        for piece in data.chunks_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let word = (state & 0x3f3f_3f3f_0f0f_0f0f).to_le_bytes();
            piece.copy_from_slice(&word[..piece.len()]);
        }
        let entry = Entry {
            path: format!("dir{}/file{}", self.file % 100, self.file)
                .into_bytes()
                .into(),
            meta: Meta::default(),
            kind: EntryKind::File {
                bytes: data.len() as u64,
                chunks: Box::default(),
            },
        };
        self.buffer.clear();
        let mut writer = draught_tar::Writer::new(std::mem::take(&mut self.buffer));
        writer.entry(&entry).unwrap();
        writer.data(&data).unwrap();
        let mut archive = writer.finish().unwrap();
        // Without the two blocks that end an archive.
        archive.truncate(archive.len() - 1024);
        self.buffer = archive;
        self.at = 0;
        self.file += 1;
    }
}

impl Read for Endless {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.at == self.buffer.len() {
            if self.left == 0 {
                return Ok(0);
            }
            self.refill();
            self.left = self.left.saturating_sub(self.buffer.len() as u64);
        }
        let bytes = (self.buffer.len() - self.at).min(out.len());
        out[..bytes].copy_from_slice(&self.buffer[self.at..self.at + bytes]);
        self.at += bytes;
        Ok(bytes)
    }
}

fn peak_bytes() -> u64 {
    let status = fs_err::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib << 10
}

#[test]
fn a_layer_of_a_gigabyte_needs_no_more_memory_than_stated() {
    let mut packer = ImagePacker::new(PackOptions {
        spool_dir: "/var/tmp".into(),
        threads: 4.try_into().unwrap(),
        ..PackOptions::default()
    })
    .unwrap();
    let layer = Endless {
        buffer: Vec::new(),
        at: 0,
        left: LAYER_BYTES,
        file: 0,
    };
    let (report, blob) = packer.add_layer(LayerInput::new(layer), &()).unwrap();
    assert!(report.decoded_bytes >= LAYER_BYTES);
    assert!(blob.is_some());
    packer.finish().unwrap();
    let peak = peak_bytes();
    assert!(peak <= PEAK_BYTES_MAX, "{} MiB", peak >> 20);
}
