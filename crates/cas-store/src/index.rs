//! The index: second names of blobs, results of actions, memos of pure functions. SQLite, one connection a process.
//!
//! Everything in it can be computed again, so a lost or damaged index costs misses and is begun anew. A row's last use is
//! noted to the hour, when the session ends, so that a hit costs no write.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cas_blob::{ActionLane, Descriptor};
use cas_digest::{Digest, DigestFunction};
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use crate::StoreError;
use crate::disk::{Disk, HostDisk};
use crate::objects::USE_RESOLUTION_SECONDS;
use crate::pins::PinFile;
use crate::vault::Vault;

/// How long a process waits for another one's write.
const BUSY: Duration = Duration::from_secs(60);
/// Attempts to set the journal's kind, and how long one waits for the next.
const MODE_ATTEMPTS: u32 = 2_000;
const MODE_PAUSE: Duration = Duration::from_millis(5);
/// Most rows that one transaction changes, so that nobody waits long for it.
const BATCH: usize = 256;
/// Uses that are kept in memory before they are written.
const MAX_PENDING_USES: usize = 10_000;
/// Version of the tables, as `user_version` says it. 0 is a new file, or one from before rows had their last use.
const VERSION: i64 = 1;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS alias(function TEXT NOT NULL, hash BLOB NOT NULL, size INTEGER NOT NULL,
        primary_function TEXT NOT NULL, primary_hash BLOB NOT NULL,
        PRIMARY KEY(function, hash, size)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS action(lane TEXT NOT NULL, function TEXT NOT NULL, hash BLOB NOT NULL, size INTEGER NOT NULL,
        result BLOB NOT NULL, PRIMARY KEY(lane, function, hash, size)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS memo(kind TEXT NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL,
        PRIMARY KEY(kind, key)) WITHOUT ROWID;
    ALTER TABLE action ADD COLUMN used INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE memo ADD COLUMN used INTEGER NOT NULL DEFAULT 0;
    PRAGMA user_version = 1;
";

/// Keys and values of memos.
pub type MemoRows = Vec<(Vec<u8>, Vec<u8>)>;

/// A row that can be forgotten: what it says can be computed again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Row {
    /// A result of an action.
    Action {
        /// Name of the lane.
        lane: String,
        /// The action.
        key: Descriptor,
        /// The `ActionResult` message.
        result: Vec<u8>,
    },
    /// What a pure function gave.
    Memo {
        /// Name of the function.
        kind: String,
        /// What was given to it.
        key: Vec<u8>,
        /// What it gave.
        value: Vec<u8>,
    },
}

/// Name of a row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum RowName {
    Action(String, Descriptor),
    Memo(String, Vec<u8>),
}

#[derive(Debug)]
pub(crate) struct Index {
    connection: Mutex<Connection>,
    /// Rows that were used and whose note of it is old.
    uses: Mutex<BTreeSet<RowName>>,
}

impl Index {
    /// Opens the index, and begins a new one when it is damaged. On a network file system it works without shared memory.
    ///
    /// An index that is new gets the second names that pins know.
    pub(crate) fn open(vault: &Vault<HostDisk>, network: bool) -> Result<Self, StoreError> {
        let path = vault.folder.join("index.db");
        let is_new = vault.disk.stat(&path)?.is_none_or(|stat| stat.size == 0);
        let (connection, is_new) = match Self::connect(&path, network) {
            Ok(connection) => (connection, is_new),
            Err(error) if is_damage(&error) => {
                Self::remove(vault)?;
                (Self::connect(&path, network)?, true)
            }
            Err(error) => return Err(error.into()),
        };
        let index = Self { connection: Mutex::new(connection), uses: Mutex::default() };
        if is_new {
            index.restore_names(vault)?;
        }
        Ok(index)
    }

    /// Puts back the second names that pins know.
    fn restore_names(&self, vault: &Vault<HostDisk>) -> Result<(), StoreError> {
        // A pin that cannot be read is reported by who asks for pins; the others serve.
        for entry in vault.disk.list(&vault.folder.join("pins"))? {
            let path = vault.folder.join("pins").join(&entry.name);
            let PinFile::Whole(pin) = vault.read_pin(&entry.name, &path)? else { continue };
            for (name, primary) in &pin.names {
                self.put_alias(name, primary)?;
            }
        }
        Ok(())
    }

    /// Forgets everything, because the file is damaged.
    pub(crate) fn begin_anew(&self, vault: &Vault<HostDisk>) -> Result<(), StoreError> {
        let network = crate::network::name(&vault.folder)?.is_some();
        {
            let mut connection = self.lock();
            // Closed first: its files must not be written to any more.
            *connection = Connection::open_in_memory()?;
            Self::remove(vault)?;
            *connection = Self::connect(&vault.folder.join("index.db"), network)?;
        }
        self.restore_names(vault)
    }

    /// Removes the files of an index.
    fn remove(vault: &Vault<HostDisk>) -> Result<(), StoreError> {
        for name in ["index.db-wal", "index.db-shm", "index.db-journal", "index.db"] {
            vault.disk.remove(&vault.folder.join(name))?;
        }
        Ok(())
    }

    fn connect(path: &Path, network: bool) -> Result<Connection, rusqlite::Error> {
        let mut connection = Connection::open(path)?;
        connection.busy_timeout(BUSY)?;
        let mode = if network { "DELETE" } else { "WAL" };
        let mut patience = MODE_ATTEMPTS;
        while let Err(error) = connection.pragma_update(None, "journal_mode", mode) {
            // For this alone SQLite does not wait for others: several processes may begin with a new index at once.
            patience -= 1;
            if patience == 0 || error.sqlite_error_code() != Some(rusqlite::ErrorCode::DatabaseBusy) {
                return Err(error);
            }
            std::thread::sleep(MODE_PAUSE);
        }
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        if version(&connection)? < VERSION {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            // Another process may have been faster.
            if version(&transaction)? < VERSION {
                transaction.execute_batch(SCHEMA)?;
            }
            transaction.commit()?;
        }
        Ok(connection)
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        // A panic while the lock was held left no half-done statement: SQLite rolled it back.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the file is whole, as far as SQLite can tell.
    pub(crate) fn is_whole(&self) -> Result<bool, StoreError> {
        let answer: Result<String, _> = self.lock().query_row("PRAGMA integrity_check(1)", [], |row| row.get(0));
        match answer {
            Ok(answer) if answer == "ok" => {}
            Ok(_) => return Ok(false),
            Err(error) if is_damage(&error) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        // SQLite lets a column hold anything.
        let odd = "SELECT (SELECT count(*) FROM action WHERE typeof(lane) != 'text' OR typeof(function) != 'text'
                OR typeof(hash) != 'blob' OR typeof(size) != 'integer' OR typeof(result) != 'blob'
                OR typeof(used) != 'integer')
            + (SELECT count(*) FROM memo WHERE typeof(kind) != 'text' OR typeof(key) != 'blob'
                OR typeof(value) != 'blob' OR typeof(used) != 'integer')
            + (SELECT count(*) FROM alias WHERE typeof(function) != 'text' OR typeof(hash) != 'blob'
                OR typeof(size) != 'integer' OR typeof(primary_function) != 'text' OR typeof(primary_hash) != 'blob')";
        let odd: Result<i64, _> = self.lock().query_row(odd, [], |row| row.get(0));
        // A table that is not there is damage as well.
        Ok(odd.is_ok_and(|count| count == 0))
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
            let digest = digest(&function, &hash)?;
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

    /// Forgets the second names of what is gone.
    pub(crate) fn remove_aliases_of(&self, is_gone: &dyn Fn(&Digest) -> bool) -> Result<(), StoreError> {
        let mut doomed = Vec::new();
        {
            let connection = self.lock();
            let mut statement =
                connection.prepare("SELECT function, hash, size, primary_function, primary_hash FROM alias")?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let (function, hash, size): (String, Vec<u8>, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
                let primary = digest(&row.get::<_, String>(3)?, &row.get::<_, Vec<u8>>(4)?);
                if primary.is_none_or(|primary| is_gone(&primary)) {
                    doomed.push((function, hash, size));
                }
            }
        }
        self.in_batches(&doomed, |transaction, (function, hash, size)| {
            transaction
                .prepare_cached("DELETE FROM alias WHERE function = ?1 AND hash = ?2 AND size = ?3")?
                .execute(params![function, hash, size])
        })
    }

    pub(crate) fn action(&self, lane: &ActionLane, key: &Descriptor) -> Result<Option<Vec<u8>>, StoreError> {
        let row: Option<(Vec<u8>, i64)> = {
            let connection = self.lock();
            let mut statement = connection.prepare_cached(
                "SELECT result, used FROM action WHERE lane = ?1 AND function = ?2 AND hash = ?3 AND size = ?4",
            )?;
            let key = params![lane.name(), key.digest.function().name(), key.digest.value(), key.size.cast_signed()];
            statement.query_row(key, |row| Ok((row.get(0)?, row.get(1)?))).optional()?
        };
        let Some((result, used)) = row else { return Ok(None) };
        self.note_use(used, || RowName::Action(lane.name().to_owned(), *key))?;
        Ok(Some(result))
    }

    /// Whether this result is the first one.
    pub(crate) fn put_action(&self, lane: &ActionLane, key: &Descriptor, result: &[u8]) -> Result<bool, StoreError> {
        let connection = self.lock();
        let mut statement = connection.prepare_cached("INSERT OR IGNORE INTO action VALUES(?1, ?2, ?3, ?4, ?5, ?6)")?;
        let row = params![
            lane.name(),
            key.digest.function().name(),
            key.digest.value(),
            key.size.cast_signed(),
            result,
            HostDisk.now(),
        ];
        Ok(statement.execute(row)? > 0)
    }

    /// Removes a result if it is this one.
    pub(crate) fn remove_action(&self, lane: &ActionLane, key: &Descriptor, result: &[u8]) -> Result<(), StoreError> {
        let connection = self.lock();
        let mut statement = connection.prepare_cached(
            "DELETE FROM action WHERE lane = ?1 AND function = ?2 AND hash = ?3 AND size = ?4 AND result = ?5",
        )?;
        let (function, size) = (key.digest.function().name(), key.size.cast_signed());
        statement.execute(params![lane.name(), function, key.digest.value(), size, result])?;
        Ok(())
    }

    pub(crate) fn memo(&self, kind: &str, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let row: Option<(Vec<u8>, i64)> = {
            let connection = self.lock();
            let mut statement =
                connection.prepare_cached("SELECT value, used FROM memo WHERE kind = ?1 AND key = ?2")?;
            statement.query_row(params![kind, key], |row| Ok((row.get(0)?, row.get(1)?))).optional()?
        };
        let Some((value, used)) = row else { return Ok(None) };
        self.note_use(used, || RowName::Memo(kind.to_owned(), key.to_vec()))?;
        Ok(Some(value))
    }

    pub(crate) fn memos(&self, kind: &str) -> Result<MemoRows, StoreError> {
        let connection = self.lock();
        let mut statement = connection.prepare_cached("SELECT key, value FROM memo WHERE kind = ?1 ORDER BY key")?;
        let rows = statement.query_map(params![kind], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    pub(crate) fn put_memo(&self, kind: &str, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.lock().prepare_cached("INSERT OR REPLACE INTO memo VALUES(?1, ?2, ?3, ?4)")?.execute(params![
            kind,
            key,
            value,
            HostDisk.now()
        ])?;
        Ok(())
    }

    pub(crate) fn remove_memo(&self, kind: &str, key: &[u8]) -> Result<bool, StoreError> {
        let connection = self.lock();
        let mut statement = connection.prepare_cached("DELETE FROM memo WHERE kind = ?1 AND key = ?2")?;
        Ok(statement.execute(params![kind, key])? > 0)
    }

    fn note_use(&self, used: i64, name: impl FnOnce() -> RowName) -> Result<(), StoreError> {
        if used.saturating_add(USE_RESOLUTION_SECONDS) >= HostDisk.now() {
            return Ok(());
        }
        let is_full = {
            let mut uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
            uses.insert(name());
            uses.len() >= MAX_PENDING_USES
        };
        if is_full { self.write_uses() } else { Ok(()) }
    }

    /// Writes down which rows were used.
    pub(crate) fn write_uses(&self) -> Result<(), StoreError> {
        let uses = std::mem::take(&mut *self.uses.lock().unwrap_or_else(PoisonError::into_inner));
        let uses: Vec<RowName> = uses.into_iter().collect();
        let now = HostDisk.now();
        self.in_batches(&uses, |transaction, name| match name {
            RowName::Action(lane, key) => transaction
                .prepare_cached(
                    "UPDATE action SET used = ?5 WHERE lane = ?1 AND function = ?2 AND hash = ?3 AND size = ?4",
                )?
                .execute(params![lane, key.digest.function().name(), key.digest.value(), key.size.cast_signed(), now]),
            RowName::Memo(kind, key) => transaction
                .prepare_cached("UPDATE memo SET used = ?3 WHERE kind = ?1 AND key = ?2")?
                .execute(params![kind, key, now]),
        })
    }

    /// Every row that can be forgotten, with the second of its last use; the newest first.
    pub(crate) fn rows(&self) -> Result<Vec<(Row, i64)>, StoreError> {
        let connection = self.lock();
        let mut all: Vec<(Row, i64)> = Vec::new();
        let mut statement = connection.prepare("SELECT lane, function, hash, size, result, used FROM action")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let Some(digest) = digest(&row.get::<_, String>(1)?, &row.get::<_, Vec<u8>>(2)?) else { continue };
            let key = Descriptor { digest, size: row.get::<_, i64>(3)?.cast_unsigned() };
            all.push((Row::Action { lane: row.get(0)?, key, result: row.get(4)? }, row.get(5)?));
        }
        drop(rows);
        drop(statement);
        let mut statement = connection.prepare("SELECT kind, key, value, used FROM memo")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            all.push((Row::Memo { kind: row.get(0)?, key: row.get(1)?, value: row.get(2)? }, row.get(3)?));
        }
        all.sort_by(|(a_row, a), (b_row, b)| b.cmp(a).then_with(|| a_row.cmp(b_row)));
        Ok(all)
    }

    /// Number of second names, results and memos.
    pub(crate) fn counts(&self) -> Result<(u64, u64, u64), StoreError> {
        let connection = self.lock();
        let count = |table: &str| -> Result<u64, rusqlite::Error> {
            connection
                .query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, i64>(0))
                .map(i64::cast_unsigned)
        };
        Ok((count("alias")?, count("action")?, count("memo")?))
    }

    /// Forgets rows, unless they say something else by now.
    pub(crate) fn remove_rows(&self, doomed: &[Row]) -> Result<(), StoreError> {
        self.in_batches(doomed, |transaction, row| match row {
            Row::Action { lane, key, result } => transaction
                .prepare_cached(
                    "DELETE FROM action
                     WHERE lane = ?1 AND function = ?2 AND hash = ?3 AND size = ?4 AND result = ?5",
                )?
                .execute(params![
                    lane,
                    key.digest.function().name(),
                    key.digest.value(),
                    key.size.cast_signed(),
                    result
                ]),
            Row::Memo { kind, key, value } => transaction
                .prepare_cached("DELETE FROM memo WHERE kind = ?1 AND key = ?2 AND value = ?3")?
                .execute(params![kind, key, value]),
        })
    }

    fn in_batches<T>(
        &self,
        items: &[T],
        change: impl Fn(&Transaction<'_>, &T) -> Result<usize, rusqlite::Error>,
    ) -> Result<(), StoreError> {
        for batch in items.chunks(BATCH) {
            let mut connection = self.lock();
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            for item in batch {
                change(&transaction, item)?;
            }
            transaction.commit()?;
        }
        Ok(())
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        // A use that is not noted makes a row leave earlier than it should, which costs computing it again.
        let _ = self.write_uses();
    }
}

fn version(connection: &Connection) -> Result<i64, rusqlite::Error> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(rusqlite::ErrorCode::NotADatabase | rusqlite::ErrorCode::DatabaseCorrupt))
}

fn digest(function: &str, hash: &[u8]) -> Option<Digest> {
    let function: DigestFunction = function.parse().ok()?;
    Digest::from_value(function, hash).ok()
}
