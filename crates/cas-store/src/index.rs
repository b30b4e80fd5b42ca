//! The index: second names of blobs, results of actions, memos of pure functions. SQLite, one connection a process.
//!
//! Everything in it can be computed again, so a lost or damaged index costs misses and is begun anew.

use std::path::Path;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use cas_blob::Descriptor;
use cas_digest::{Digest, DigestFunction};
use cas_fs::FsError;
use rusqlite::{Connection, OptionalExtension, params};

use crate::StoreError;

/// How long a process waits for another one's write.
const BUSY: Duration = Duration::from_secs(60);

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS alias(function TEXT NOT NULL, hash BLOB NOT NULL, size INTEGER NOT NULL,
        primary_function TEXT NOT NULL, primary_hash BLOB NOT NULL,
        PRIMARY KEY(function, hash, size)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS action(lane TEXT NOT NULL, function TEXT NOT NULL, hash BLOB NOT NULL, size INTEGER NOT NULL,
        result BLOB NOT NULL, PRIMARY KEY(lane, function, hash, size)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS memo(kind TEXT NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL,
        PRIMARY KEY(kind, key)) WITHOUT ROWID;
";

/// Keys and values of memos.
pub type MemoRows = Vec<(Vec<u8>, Vec<u8>)>;

/// A name space of action results with its own writers. Results of weaker sandboxes never meet those of the strict one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActionLane(String);

impl ActionLane {
    /// Results of steps that ran in the strict sandbox.
    #[must_use]
    pub fn strict() -> Self {
        Self("strict".to_owned())
    }
}

#[derive(Debug)]
pub(crate) struct Index(Mutex<Connection>);

impl Index {
    /// Opens the index, and begins a new one when it is damaged.
    pub(crate) fn open(path: &Path, quarantine: &Path) -> Result<Self, StoreError> {
        match Self::connect(path) {
            Ok(index) => Ok(index),
            Err(error)
                if matches!(
                    error.sqlite_error_code(),
                    Some(rusqlite::ErrorCode::NotADatabase | rusqlite::ErrorCode::DatabaseCorrupt)
                ) =>
            {
                cas_fs::rename(path, &quarantine.join(format!("index-{}.db", std::process::id())))?;
                for suffix in ["db-wal", "db-shm"] {
                    remove_if_there(&path.with_extension(suffix))?;
                }
                Ok(Self::connect(path)?)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn connect(path: &Path) -> Result<Self, rusqlite::Error> {
        let connection = Connection::open(path)?;
        connection.busy_timeout(BUSY)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        connection.execute_batch(SCHEMA)?;
        Ok(Self(Mutex::new(connection)))
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        // A panic while the lock was held left no half-done statement: SQLite rolled it back.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(crate) fn alias(&self, name: &Descriptor) -> Result<Option<Descriptor>, StoreError> {
        let connection = self.lock();
        let mut statement = connection.prepare_cached(
            "SELECT primary_function, primary_hash FROM alias WHERE function = ?1 AND hash = ?2 AND size = ?3",
        )?;
        let row: Option<(String, Vec<u8>)> = statement
            .query_row(params![name.digest.function().name(), name.digest.value(), name.size.cast_signed()], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .optional()?;
        // A row that makes no sense is a miss, as a lost one is.
        Ok(row.and_then(|(function, hash)| {
            let function: DigestFunction = function.parse().ok()?;
            let digest = Digest::from_value(function, &hash).ok()?;
            Some(Descriptor { digest, size: name.size })
        }))
    }

    pub(crate) fn put_alias(&self, name: &Descriptor, primary: &Descriptor) -> Result<(), StoreError> {
        let connection = self.lock();
        connection.prepare_cached("INSERT OR REPLACE INTO alias VALUES(?1, ?2, ?3, ?4, ?5)")?.execute(params![
            name.digest.function().name(),
            name.digest.value(),
            name.size.cast_signed(),
            primary.digest.function().name(),
            primary.digest.value(),
        ])?;
        Ok(())
    }

    pub(crate) fn action(&self, lane: &ActionLane, key: &Descriptor) -> Result<Option<Vec<u8>>, StoreError> {
        let connection = self.lock();
        let mut statement = connection.prepare_cached(
            "SELECT result FROM action WHERE lane = ?1 AND function = ?2 AND hash = ?3 AND size = ?4",
        )?;
        let key = params![lane.0, key.digest.function().name(), key.digest.value(), key.size.cast_signed()];
        Ok(statement.query_row(key, |row| row.get(0)).optional()?)
    }

    pub(crate) fn put_action(&self, lane: &ActionLane, key: &Descriptor, result: &[u8]) -> Result<Vec<u8>, StoreError> {
        self.lock().prepare_cached("INSERT OR IGNORE INTO action VALUES(?1, ?2, ?3, ?4, ?5)")?.execute(params![
            lane.0,
            key.digest.function().name(),
            key.digest.value(),
            key.size.cast_signed(),
            result
        ])?;
        Ok(self.action(lane, key)?.unwrap_or_else(|| result.to_vec()))
    }

    pub(crate) fn remove_action(&self, lane: &ActionLane, key: &Descriptor) -> Result<(), StoreError> {
        self.lock()
            .prepare_cached("DELETE FROM action WHERE lane = ?1 AND function = ?2 AND hash = ?3 AND size = ?4")?
            .execute(params![lane.0, key.digest.function().name(), key.digest.value(), key.size.cast_signed()])?;
        Ok(())
    }

    pub(crate) fn memo(&self, kind: &str, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let connection = self.lock();
        let mut statement = connection.prepare_cached("SELECT value FROM memo WHERE kind = ?1 AND key = ?2")?;
        Ok(statement.query_row(params![kind, key], |row| row.get(0)).optional()?)
    }

    pub(crate) fn memos(&self, kind: &str) -> Result<MemoRows, StoreError> {
        let connection = self.lock();
        let mut statement = connection.prepare_cached("SELECT key, value FROM memo WHERE kind = ?1 ORDER BY key")?;
        let rows = statement.query_map(params![kind], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    pub(crate) fn put_memo(&self, kind: &str, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.lock()
            .prepare_cached("INSERT OR REPLACE INTO memo VALUES(?1, ?2, ?3)")?
            .execute(params![kind, key, value])?;
        Ok(())
    }
}

fn remove_if_there(path: &Path) -> Result<(), FsError> {
    match cas_fs::remove_file(path) {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}
