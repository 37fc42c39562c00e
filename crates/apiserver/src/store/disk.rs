//! The file: a redb table of key to (resourceVersion, bytes).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::{Entry, WriteError};

const OBJECTS: TableDefinition<&str, (u64, &[u8])> = TableDefinition::new("objects");
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
/// redb's own page cache; objects are in memory already.
const CACHE: usize = 2 << 20;

/// The open file.
pub(super) struct Disk {
    path: PathBuf,
    /// None after the disk failed, until it can be opened again.
    database: Option<Database>,
}

/// One line to write: None deletes.
pub(super) type Row = (Arc<str>, Option<Arc<Entry>>);

/// What a file holds: the latest resourceVersion and the objects.
pub(super) type Contents = (u64, BTreeMap<Arc<str>, Arc<Entry>>);

impl Disk {
    pub(super) fn open(path: &Path) -> Result<Self, WriteError> {
        let mut disk = Self {
            path: path.to_owned(),
            database: None,
        };
        disk.reopen()?;
        Ok(disk)
    }

    /// True where the file must be opened again before anything is written.
    pub(super) fn failed(&self) -> bool {
        self.database.is_none()
    }

    /// Opens the file again. redb answers nothing more after an I/O error.
    pub(super) fn reopen(&mut self) -> Result<(), WriteError> {
        self.database = None;
        let database = Database::builder()
            .set_cache_size(CACHE)
            .create(&self.path)
            .map_err(|e| self.named(&e.into()))?;
        self.database = Some(database);
        Ok(())
    }

    /// Reads the whole file.
    pub(super) fn load(&self) -> Result<Contents, WriteError> {
        self.read().map_err(|e| self.named(&e))
    }

    fn read(&self) -> Result<Contents, redb::Error> {
        let mut map = BTreeMap::new();
        let Some(database) = &self.database else {
            return Ok((1, map));
        };
        let txn = database.begin_read()?;
        let table = match txn.open_table(OBJECTS) {
            Ok(table) => table,
            // A new file: resourceVersions start at 1, as 0 means "any" to clients.
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok((1, map)),
            Err(e) => return Err(e.into()),
        };
        for row in table.iter()? {
            let (key, value) = row?;
            let (rev, data) = value.value();
            map.insert(
                Arc::from(key.value()),
                Arc::new(Entry::new(rev, Bytes::copy_from_slice(data))),
            );
        }
        let rev = txn.open_table(META)?.get("rev")?.map_or(1, |v| v.value());
        Ok((rev, map))
    }

    /// Writes all rows and the counter with one sync.
    pub(super) fn write(&mut self, rev: u64, rows: &[Row]) -> Result<(), WriteError> {
        let result = self.transact(rev, rows);
        result.map_err(|e| {
            let named = self.named(&e);
            self.database = None;
            named
        })
    }

    fn transact(&self, rev: u64, rows: &[Row]) -> Result<(), redb::Error> {
        let Some(database) = &self.database else {
            return Err(redb::Error::PreviousIo);
        };
        let txn = database.begin_write()?;
        {
            let mut table = txn.open_table(OBJECTS)?;
            for (key, entry) in rows {
                match entry {
                    Some(entry) => {
                        table.insert(key.as_ref(), (entry.rev, entry.data.as_ref()))?;
                    }
                    None => {
                        table.remove(key.as_ref())?;
                    }
                }
            }
            txn.open_table(META)?.insert("rev", rev)?;
        }
        txn.commit()?;
        Ok(())
    }

    fn named(&self, error: &redb::Error) -> WriteError {
        let path = self.path.display();
        match error {
            redb::Error::Io(e) if e.kind() == std::io::ErrorKind::StorageFull => {
                WriteError::Full(path.to_string())
            }
            e => WriteError::Storage(format!("writing {path}: {e}")),
        }
    }
}
