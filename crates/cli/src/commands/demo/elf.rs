//! What a program needs to start: its loader, and the libraries the loader would map.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

/// Bytes read from the front of a program: its headers. Program headers directly follow the 64
/// bytes of the ELF header in every program that a linker makes, and few have more than twenty.
const HEAD_BYTES_MAX: u64 = 16 * 1024;

const PROGRAM_HEADER_INTERPRETER: u32 = 3;

/// The path of the loader that a dynamically linked 64-bit little-endian program names; `None` for
/// anything else, also for static programs and scripts.
pub(crate) fn interpreter(program: &Path) -> Result<Option<PathBuf>> {
    let mut head = Vec::new();
    fs_err::File::open(program)?
        .take(HEAD_BYTES_MAX)
        .read_to_end(&mut head)?;
    Ok(interpreter_of(&head).map(PathBuf::from))
}

/// Whether these are the first bytes of a 64-bit little-endian ELF file.
fn is_elf(head: &[u8]) -> bool {
    head.starts_with(b"\x7fELF\x02\x01")
}

fn interpreter_of(head: &[u8]) -> Option<String> {
    if !is_elf(head) {
        return None;
    }
    let u16_at = |at: usize| Some(u16::from_le_bytes(*head.get(at..)?.first_chunk()?));
    let u32_at = |at: usize| Some(u32::from_le_bytes(*head.get(at..)?.first_chunk()?));
    let usize_at = |at: usize| {
        let bytes = u64::from_le_bytes(*head.get(at..)?.first_chunk()?);
        usize::try_from(bytes).ok()
    };
    let table = usize_at(32)?;
    let entry_bytes = usize::from(u16_at(54)?);
    for index in 0..usize::from(u16_at(56)?) {
        let entry = table.checked_add(index.checked_mul(entry_bytes)?)?;
        if u32_at(entry)? == PROGRAM_HEADER_INTERPRETER {
            let start = usize_at(entry.checked_add(8)?)?;
            let bytes = usize_at(entry.checked_add(32)?)?;
            let path = head.get(start..start.checked_add(bytes)?)?;
            let path = path.split(|byte| *byte == 0).next()?;
            return String::from_utf8(path.to_vec()).ok();
        }
    }
    None
}

/// Whether a file is an ELF file of this kind of machine's word size and byte order.
pub(crate) fn is_program(file: &Path) -> bool {
    let mut head = Vec::new();
    let read = fs_err::File::open(file).and_then(|file| file.take(64).read_to_end(&mut head));
    read.is_ok() && is_elf(&head)
}

/// The libraries that `loader` would map for a program or a library, as it prints them itself: so
/// its cache, its configuration and paths inside the files all count.
pub(crate) fn libraries(loader: &Path, file: &Path, found: &mut BTreeSet<PathBuf>) -> Result<()> {
    let output = Command::new(loader)
        .arg("--list")
        .arg(file)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .with_context(|| format!("ask {} for libraries", loader.display()))?;
    // A library that is not found makes it fail; the others are listed all the same.
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        // "\tlibm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x…)" or "\t/lib64/ld-… (0x…)".
        let right = line.split_once("=> ").map_or(line, |(_, right)| right);
        let path = right.trim().split(" (0x").next().unwrap_or_default();
        if path.starts_with('/') {
            found.insert(PathBuf::from(path));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_of_this_machine_names_its_loader() {
        let own = std::env::current_exe().unwrap();
        let loader = interpreter(&own).unwrap().unwrap();
        assert!(
            loader.is_absolute() && loader.exists(),
            "{}",
            loader.display()
        );
        let mut found = BTreeSet::new();
        libraries(&loader, &own, &mut found).unwrap();
        let names: Vec<_> = found.iter().filter_map(|path| path.file_name()).collect();
        assert!(names.iter().any(|name| *name == "libc.so.6"), "{names:?}");
    }

    #[test]
    fn forged_headers_have_no_loader() {
        let mut head = b"\x7fELF\x02\x01".to_vec();
        assert_eq!(interpreter_of(&head), None);
        head.resize(64, 0xff);
        assert_eq!(interpreter_of(&head), None);
        assert_eq!(interpreter_of(b"#!/bin/sh"), None);
    }
}
