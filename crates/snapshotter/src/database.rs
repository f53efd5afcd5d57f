//! Snapshots in a database on disk.

use std::path::{Path, PathBuf};

use redb::{
    Database as Redb, Durability, ReadableDatabase as _, ReadableTable as _, TableDefinition,
};

use crate::error::{Error, Result};
use crate::records::{Change, Records};

/// Name of a snapshot → its record as JSON.
const SNAPSHOTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("snapshots");
/// Numbers: the next identity, and the version of all this.
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");
/// Digests under which the store keeps what no snapshot wants any more.
const DOOMED: TableDefinition<'_, &str, ()> = TableDefinition::new("doomed");
const NEXT_ID: &str = "next-id";
const FORMAT: &str = "format";
/// The version that is written.
const FORMAT_VERSION: u64 = 1;
/// Bytes that the database keeps of itself in memory: everything is read once, and held by [`Records`].
const CACHE_BYTES: usize = 1 << 20;

/// See the module.
#[derive(Debug)]
pub(crate) struct Database {
    /// None: it failed, and could not be opened again yet.
    redb: Option<Redb>,
    path: PathBuf,
    next_id: u64,
}

type Done<T> = std::result::Result<T, redb::Error>;

/// Numbers, snapshots by name, and digests of what is doomed, as they are read.
type Content = ((u64, u64), Vec<(String, Vec<u8>)>, Vec<String>);

impl Database {
    /// Opens the database, or makes one, and reads all that is in it.
    pub(crate) fn open(path: &Path) -> Result<(Self, Records)> {
        let failed = |error: redb::Error| Error::Database {
            path: path.to_owned(),
            source: Box::new(error),
        };
        let mut builder = Redb::builder();
        builder.set_cache_size(CACHE_BYTES);
        let redb = builder.create(path);
        let redb = redb.map_err(|error| failed(error.into()))?;
        make(&redb).map_err(failed)?;
        let ((format, next_id), items, doomed) = read(&redb).map_err(failed)?;
        if format != FORMAT_VERSION {
            return Err(Error::Format {
                path: path.to_owned(),
                format,
                expected: FORMAT_VERSION,
            });
        }
        let database = Self {
            redb: Some(redb),
            path: path.to_owned(),
            next_id,
        };
        let mut records = Records::default();
        for (name, bytes) in items {
            match serde_json::from_slice(&bytes) {
                Ok(record) => records.note(name, record),
                Err(source) => {
                    return Err(Error::Record {
                        path: path.to_owned(),
                        name,
                        source,
                    });
                }
            }
        }
        records.apply(Change {
            doom: doomed,
            ..Change::default()
        });
        Ok((database, records))
    }

    /// Whether somebody removed its file.
    pub(crate) fn is_gone(&self) -> bool {
        !self.path.exists()
    }

    /// A new one in place of one that was removed, with all that was in it.
    pub(crate) fn make_again(&mut self, records: &Records) -> Result<()> {
        if let Some(dir) = self.path.parent() {
            fs_err::create_dir_all(dir).map_err(Error::io("make the snapshots' directory"))?;
        }
        let (mut new, _) = Self::open(&self.path)?;
        new.next_id = self.next_id;
        for (name, record) in records.iter() {
            let change = Change {
                put: Some((name.clone(), record.clone())),
                ..Change::default()
            };
            new.write(&change)?;
        }
        let change = Change {
            doom: records.doomed(),
            ..Change::default()
        };
        new.write(&change)?;
        *self = new;
        Ok(())
    }

    /// Its file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens it again after it failed, a full disk say, which it remembers; gives what is in it: the change that failed,
    /// or not.
    pub(crate) fn open_again(&mut self) -> Result<Records> {
        // It can't be open twice.
        self.redb = None;
        let (new, records) = Self::open(&self.path)?;
        self.redb = new.redb;
        // Numbers that were given since are not given again.
        self.next_id = self.next_id.max(new.next_id);
        Ok(records)
    }

    /// Whether it failed, and was not opened again.
    pub(crate) fn has_failed(&self) -> bool {
        self.redb.is_none()
    }

    /// An identity that none has had: once what has it is written, none will.
    pub(crate) fn new_id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    /// Writes a change; durable when this returns.
    pub(crate) fn write(&self, change: &Change) -> Result<()> {
        self.try_write(change).map_err(|source| Error::Write {
            source: Box::new(source),
        })
    }

    fn try_write(&self, change: &Change) -> Done<()> {
        let redb = self.redb.as_ref().ok_or(redb::Error::PreviousIo)?;
        let mut write = redb.begin_write()?;
        write.set_durability(Durability::Immediate)?;
        {
            let mut snapshots = write.open_table(SNAPSHOTS)?;
            if let Some(name) = &change.remove {
                snapshots.remove(name.as_str())?;
            }
            if let Some((name, record)) = &change.put {
                let bytes = serde_json::to_vec(record)
                    .map_err(|error| redb::Error::Io(std::io::Error::other(error)))?;
                snapshots.insert(name.as_str(), bytes.as_slice())?;
                write.open_table(NUMBERS)?.insert(NEXT_ID, self.next_id)?;
            }
            if !change.doom.is_empty() || !change.spare.is_empty() {
                let mut doomed = write.open_table(DOOMED)?;
                for digest in &change.doom {
                    doomed.insert(digest.as_str(), ())?;
                }
                for digest in &change.spare {
                    doomed.remove(digest.as_str())?;
                }
            }
        }
        write.commit()?;
        Ok(())
    }
}

fn make(redb: &Redb) -> Done<()> {
    let write = redb.begin_write()?;
    {
        write.open_table(SNAPSHOTS)?;
        write.open_table(DOOMED)?;
        let mut numbers = write.open_table(NUMBERS)?;
        if numbers.get(FORMAT)?.is_none() {
            numbers.insert(FORMAT, FORMAT_VERSION)?;
        }
    }
    write.commit()?;
    Ok(())
}

fn read(redb: &Redb) -> Done<Content> {
    let read = redb.begin_read()?;
    let numbers = read.open_table(NUMBERS)?;
    let number = |name| Ok::<_, redb::Error>(numbers.get(name)?.map(|it| it.value()));
    let numbers = (number(FORMAT)?.unwrap_or(0), number(NEXT_ID)?.unwrap_or(1));
    let mut doomed = Vec::new();
    for item in read.open_table(DOOMED)?.iter()? {
        doomed.push(item?.0.value().to_owned());
    }
    let mut items = Vec::new();
    for item in read.open_table(SNAPSHOTS)?.iter()? {
        let (name, bytes) = item?;
        items.push((name.value().to_owned(), bytes.value().to_owned()));
    }
    Ok((numbers, items, doomed))
}
