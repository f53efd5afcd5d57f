//! Directories of hosts: which one is for a registry, what is in it, and whether that changed.

use std::io;
use std::path::{Path, PathBuf};

use super::file::{ClientFiles, FILE_BYTES_MAX, HostSettings, HostsFile};
use super::known::HostsError;
use crate::stamp::{Stamp, stamp};

/// The file that says it all.
const HOSTS_FILE: &str = "hosts.toml";

/// The directory for registries that have none.
const DEFAULT_DIR: &str = "_default";

/// Files of certificates in one directory.
const CERTIFICATES_MAX: usize = 256;

/// A file or directory that was looked at, and what it was; none: it was not there.
pub(crate) type Watched = (PathBuf, Option<Stamp>);

/// What directories say of a registry.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// None: nothing.
    pub(super) file: Option<HostsFile>,
    /// What that was read from, and what would come before it if it were there.
    pub(super) watched: Vec<Watched>,
}

/// The names under which a registry may have a directory.
fn names(host: &str) -> Vec<String> {
    let mut names = Vec::new();
    // An IPv6 address has colons that are no port's.
    if let Some((name, port)) = host
        .rsplit_once(':')
        .filter(|(_, port)| !port.contains(']'))
    {
        names.push(format!("{name}_{port}_"));
    }
    names.push(host.to_owned());
    names
}

/// Reads what `roots` say of a registry. A directory for it comes before one for all, wherever they are.
pub(super) fn read(roots: &[PathBuf], host: &str, found: &mut Found) -> Result<(), HostsError> {
    // References have no such hosts. If they had, this would not leave the directory.
    let is_name = !host.is_empty() && !host.starts_with('.') && !host.contains('/');
    let own = if is_name { names(host) } else { Vec::new() };
    let own = roots
        .iter()
        .flat_map(|root| own.iter().map(move |name| root.join(name)));
    let default = roots.iter().map(|root| root.join(DEFAULT_DIR));
    for dir in own.chain(default) {
        if let Some(file) = read_dir(&dir, &mut found.watched)? {
            found.file = Some(file);
            return Ok(());
        }
    }
    Ok(())
}

/// What one directory says; none when it says nothing.
fn read_dir(dir: &Path, watched: &mut Vec<Watched>) -> Result<Option<HostsFile>, HostsError> {
    let there = stamp(dir);
    watched.push((dir.to_owned(), there));
    if there.is_none() {
        return Ok(None);
    }
    let path = dir.join(HOSTS_FILE);
    watched.push((path.clone(), stamp(&path)));
    let mut file = match read_file(&path) {
        Ok(bytes) if bytes.trim_ascii().is_empty() => certificates(dir)?,
        Ok(bytes) => {
            let file = HostsFile::parse(&bytes);
            Some(file.map_err(|source| HostsError::File { path, source })?)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => certificates(dir)?,
        Err(source) => return Err(HostsError::Read { source }),
    };
    if let Some(file) = &mut file {
        let all = file.hosts.iter_mut().chain([&mut file.server]);
        for path in all.flat_map(|host| absolute(host, dir)) {
            let stamp = stamp(&path);
            watched.push((path, stamp));
        }
    }
    Ok(file)
}

/// What was found of one registry's directory.
#[derive(Debug)]
#[non_exhaustive]
pub struct Looked {
    /// The directory.
    pub dir: PathBuf,
    /// Why nothing of this registry can be read.
    pub error: Option<HostsError>,
    /// Fields that are not known and not used.
    pub unknown: Vec<String>,
    /// Files that are named and not there.
    pub missing: Vec<PathBuf>,
}

/// Looks at all directories below `roots`; those that are not there are no error.
pub(super) fn look(roots: &[PathBuf]) -> Vec<Looked> {
    let entries = roots
        .iter()
        .flat_map(|root| fs_err::read_dir(root).into_iter().flatten().flatten());
    let mut dirs: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    dirs.sort();
    let looked = dirs.into_iter().filter(|dir| dir.is_dir()).map(|dir| {
        let mut watched = Vec::new();
        let (error, unknown) = match read_dir(&dir, &mut watched) {
            Ok(file) => (None, file.map(|file| file.unknown).unwrap_or_default()),
            Err(error) => (Some(error), Vec::new()),
        };
        let is_missing = |(path, stamp): &Watched| stamp.is_none() && !path.ends_with(HOSTS_FILE);
        let missing = watched.into_iter().filter(is_missing);
        Looked {
            error,
            unknown,
            missing: missing.map(|(path, _)| path).collect(),
            dir,
        }
    });
    looked.collect()
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    use std::io::Read as _;
    let limit = u64::try_from(FILE_BYTES_MAX).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    let file = fs_err::File::open(path)?;
    // One more than is taken, so that what is too long is seen to be.
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Makes all paths of a host absolute, and lists them.
fn absolute(host: &mut HostSettings, dir: &Path) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    let mut make = |path: &mut PathBuf| {
        *path = dir.join(&path);
        paths.push(path.clone());
    };
    host.ca.iter_mut().for_each(&mut make);
    for files in &mut host.client {
        make(&mut files.certificate);
        files.key.iter_mut().for_each(&mut make);
    }
    paths
}

/// A directory as docker has it: `*.crt` are authorities, `*.cert` with `*.key` says who we are.
fn certificates(dir: &Path) -> Result<Option<HostsFile>, HostsError> {
    let failed = |source| HostsError::Read { source };
    let mut names = Vec::new();
    for entry in fs_err::read_dir(dir)
        .map_err(failed)?
        .take(CERTIFICATES_MAX)
    {
        names.push(PathBuf::from(entry.map_err(failed)?.file_name()));
    }
    names.sort();
    let ends = |name: &Path, end: &str| name.extension().is_some_and(|found| found == end);
    let mut server = HostSettings::default();
    for name in &names {
        if ends(name, "crt") {
            server.ca.push(name.clone());
        } else if ends(name, "cert") {
            let key = name.with_extension("key");
            if !names.contains(&key) {
                let path = dir.join(name);
                return Err(HostsError::NoKey { path });
            }
            server.client.push(ClientFiles {
                certificate: name.clone(),
                key: Some(key),
            });
        }
    }
    let says_nothing = server.ca.is_empty() && server.client.is_empty();
    Ok((!says_nothing).then(|| HostsFile {
        hosts: Vec::new(),
        server,
        unknown: Vec::new(),
    }))
}
