//! `/proc/self/mountinfo`, see `proc_pid_mountinfo(5)`.

use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxFlags};

/// One mount of this mount namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountInfo {
    /// The number that tells it from all other mounts there are.
    pub id: u64,
    /// Major and minor number of the filesystem's device.
    pub device: (u32, u32),
    /// Where it is mounted.
    pub target: PathBuf,
    /// The filesystem's type.
    pub filesystem: String,
    /// What it was mounted from; for file-backed EROFS the path of the image.
    pub source: PathBuf,
}

/// All mounts of this mount namespace, in the order in which they were made.
///
/// # Errors
/// What reading the file says.
pub fn mountinfo() -> io::Result<Vec<MountInfo>> {
    Ok(fs_err::read("/proc/self/mountinfo")?
        .split(|byte| *byte == b'\n')
        .filter_map(parse)
        .collect())
}

/// The number of the mount that `path` leads to: of the one on top where several are stacked.
///
/// # Errors
/// What `statx` says.
pub fn mount_id(path: &Path) -> io::Result<u64> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let stat = rustix::fs::statx(CWD, path, flags, StatxFlags::MNT_ID)?;
    Ok(stat.stx_mnt_id)
}

fn parse(line: &[u8]) -> Option<MountInfo> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = std::str::from_utf8(fields.next()?).ok()?;
    let device = std::str::from_utf8(fields.nth(1)?).ok()?;
    let (major, minor) = device.split_once(':')?;
    let target = unescape(fields.nth(1)?);
    // Optional fields end with a hyphen.
    fields.find(|field| *field == b"-")?;
    let filesystem = String::from_utf8_lossy(fields.next()?).into_owned();
    let source = unescape(fields.next()?);
    Some(MountInfo {
        id: id.parse().ok()?,
        device: (major.parse().ok()?, minor.parse().ok()?),
        target,
        filesystem,
        source,
    })
}

/// Space, tab, newline and backslash come as a backslash and three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, others)) = rest.split_first() {
        let octal = (*first == b'\\').then(|| others.get(..3)).flatten();
        let value = octal
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        if let Some(value) = value {
            bytes.push(value);
            rest = others.get(3..).unwrap_or_default();
        } else {
            bytes.push(*first);
            rest = others;
        }
    }
    std::ffi::OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_with_escapes_and_optional_fields_is_read() {
        let line =
            br"36 35 0:52 / /mnt/a\040b ro,relatime shared:1 master:2 - erofs /var/x\134y ro";
        let expect = MountInfo {
            id: 36,
            device: (0, 52),
            target: "/mnt/a b".into(),
            filesystem: "erofs".into(),
            source: r"/var/x\y".into(),
        };
        assert_eq!(parse(line), Some(expect));
        assert_eq!(parse(b""), None);
    }

    #[test]
    fn the_root_is_mounted_under_the_number_that_it_says() {
        let id = mount_id(Path::new("/")).unwrap();
        let mounts = mountinfo().unwrap();
        let is_root = |mount: &MountInfo| mount.target.as_os_str() == "/" && mount.id == id;
        assert!(mounts.iter().any(is_root));
    }
}
