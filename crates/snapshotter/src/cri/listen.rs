//! A socket that nobody else can connect to, not even for a moment.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use tokio::net::UnixListener;

/// Who may connect: its owner.
const MODE: u32 = 0o600;

/// Listens at `path`, in place of whoever did before. It is made in a directory that only we can enter, and moved
/// when its permissions are right.
///
/// # Errors
/// What making it says.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    let private = tempfile::Builder::new()
        .prefix(".draught-")
        .tempdir_in(parent)?;
    let temporary = private.path().join("s");
    let listener = UnixListener::bind(&temporary)?;
    fs_err::set_permissions(&temporary, std::fs::Permissions::from_mode(MODE))?;
    fs_err::rename(&temporary, path)?;
    Ok(listener)
}
