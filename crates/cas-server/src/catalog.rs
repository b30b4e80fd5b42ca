//! What the registry has: names, tags, and what manifests need. SQLite, one connection, one server.
//!
//! Unlike the index of the store, nothing of this can be computed again: what is answered to whoever pushed is on the disk. Bytes are not here, and
//! what keeps them from being removed is not either (`registry`). Format: docs/formats/registry-server.md.

use std::path::Path;

use cas_blob::Descriptor;
use cas_digest::Digest;
use cas_oci::TagClass;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use crate::manifest::Need;
use crate::refusal::Refusal;
use crate::route::Page;

/// `casr`: so that nothing else is taken for one.
const APPLICATION: i64 = 0x6361_7372;
const VERSION: i64 = 1;

const SCHEMA: &str = "
    CREATE TABLE repository(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
    CREATE TABLE blob(repository INTEGER NOT NULL, digest TEXT NOT NULL, size INTEGER NOT NULL,
        PRIMARY KEY(repository, digest)) WITHOUT ROWID;
    CREATE INDEX blob_digest ON blob(digest);
    CREATE TABLE manifest(repository INTEGER NOT NULL, digest TEXT NOT NULL, size INTEGER NOT NULL,
        media_type TEXT NOT NULL, subject TEXT, artifact_type TEXT, descriptor TEXT,
        PRIMARY KEY(repository, digest)) WITHOUT ROWID;
    CREATE INDEX referrer ON manifest(repository, subject, digest) WHERE subject IS NOT NULL;
    CREATE TABLE need(repository INTEGER NOT NULL, digest TEXT NOT NULL, manifest TEXT NOT NULL, size INTEGER NOT NULL,
        PRIMARY KEY(repository, digest, manifest)) WITHOUT ROWID;
    CREATE INDEX need_manifest ON need(repository, manifest);
    CREATE TABLE tag(repository INTEGER NOT NULL, name TEXT NOT NULL, digest TEXT NOT NULL,
        PRIMARY KEY(repository, name)) WITHOUT ROWID;
    CREATE INDEX tag_digest ON tag(repository, digest);
    PRAGMA application_id = 0x63617372;
    PRAGMA user_version = 1;
";

/// Why there is no catalog.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenCatalogError {
    #[error("it is no index of a registry")]
    Other,
    #[error("a newer program made it")]
    Newer,
    #[error("another server has it open")]
    InUse,
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
}

/// A manifest of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) blob: Descriptor,
    pub(crate) media_type: String,
}

/// A manifest that comes to a repository.
#[derive(Debug)]
pub(crate) struct New<'a> {
    pub(crate) kept: Kept,
    pub(crate) needs: &'a [Need],
    pub(crate) subject: Option<Digest>,
    pub(crate) artifact_type: Option<&'a str>,
    pub(crate) descriptor: String,
}

#[derive(Debug)]
pub(crate) struct Catalog(Connection);

type Answer<T> = Result<T, Refusal>;

impl Catalog {
    /// Opens the file, and makes it when it is not there; whether it is new.
    pub(crate) fn open(path: &Path) -> Result<(Self, bool), OpenCatalogError> {
        let mut connection = Connection::open(path)?;
        let in_use = |error: rusqlite::Error| match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => OpenCatalogError::InUse,
            Some(rusqlite::ErrorCode::NotADatabase) => OpenCatalogError::Other,
            _ => OpenCatalogError::Sqlite(error),
        };
        // One process at a time, so that no shared memory is needed either.
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE").map_err(in_use)?;
        let number = |connection: &Connection, name: &str| -> Result<i64, rusqlite::Error> {
            connection.pragma_query_value(None, name, |row| row.get(0))
        };
        connection.pragma_update(None, "journal_mode", "WAL").map_err(in_use)?;
        connection.pragma_update(None, "synchronous", "NORMAL").map_err(in_use)?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Exclusive).map_err(in_use)?;
        let version = number(&transaction, "user_version")?;
        let tables: i64 = transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        let is_new = version == 0 && tables == 0;
        if is_new {
            transaction.execute_batch(SCHEMA)?;
        } else if number(&transaction, "application_id")? != APPLICATION {
            return Err(OpenCatalogError::Other);
        } else if version > VERSION {
            return Err(OpenCatalogError::Newer);
        }
        transaction.commit().map_err(in_use)?;
        Ok((Self(connection), is_new))
    }

    /// Whether what is written next is on the disk before it is told: with all that was written before it, for that is the order of the log.
    fn flushes(&self, is_flushed: bool) -> Answer<()> {
        let level = if is_flushed { "FULL" } else { "NORMAL" };
        Ok(self.0.pragma_update(None, "synchronous", level)?)
    }

    fn repository(&self, name: &str) -> Answer<Option<i64>> {
        let mut statement = self.0.prepare_cached("SELECT id FROM repository WHERE name = ?1")?;
        Ok(statement.query_row([name], |row| row.get(0)).optional()?)
    }

    /// Size of a blob that a repository has.
    pub(crate) fn blob(&self, name: &str, digest: &Digest) -> Answer<Option<Descriptor>> {
        let mut statement = self.0.prepare_cached(
            "SELECT size FROM blob JOIN repository ON repository.id = blob.repository WHERE name = ?1 AND digest = ?2",
        )?;
        let size = statement.query_row(params![name, digest.to_string()], size_of_first).optional()?;
        Ok(size.map(|size| Descriptor { digest: *digest, size }))
    }

    /// The same of whatever repository has it.
    pub(crate) fn blob_of_any(&self, digest: &Digest) -> Answer<Option<Descriptor>> {
        let mut statement = self.0.prepare_cached("SELECT size FROM blob WHERE digest = ?1 LIMIT 1")?;
        let size = statement.query_row([digest.to_string()], size_of_first).optional()?;
        Ok(size.map(|size| Descriptor { digest: *digest, size }))
    }

    /// A repository has a blob from now on, as far as power is not lost before a manifest comes.
    pub(crate) fn add_blob(&mut self, name: &str, blob: &Descriptor) -> Answer<()> {
        self.flushes(false)?;
        let transaction = self.0.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let repository = make_repository(&transaction, name)?;
        transaction.prepare_cached("INSERT OR REPLACE INTO blob VALUES(?1, ?2, ?3)")?.execute(params![
            repository,
            blob.digest.to_string(),
            blob.size.cast_signed()
        ])?;
        Ok(transaction.commit()?)
    }

    /// A repository has a blob no more; whether it had it.
    pub(crate) fn remove_blob(&mut self, name: &str, digest: &Digest) -> Answer<bool> {
        let Some(repository) = self.repository(name)? else { return Ok(false) };
        let mut statement = self.0.prepare_cached("DELETE FROM blob WHERE repository = ?1 AND digest = ?2")?;
        Ok(statement.execute(params![repository, digest.to_string()])? > 0)
    }

    /// A manifest of a repository.
    pub(crate) fn manifest(&self, name: &str, digest: &Digest) -> Answer<Option<Kept>> {
        let mut statement = self.0.prepare_cached(
            "SELECT size, media_type FROM manifest JOIN repository ON repository.id = manifest.repository
             WHERE name = ?1 AND digest = ?2",
        )?;
        let row = statement.query_row(params![name, digest.to_string()], |row| {
            Ok(Kept { blob: Descriptor { digest: *digest, size: size_of_first(row)? }, media_type: row.get(1)? })
        });
        Ok(row.optional()?)
    }

    /// What a tag names.
    pub(crate) fn tag(&self, name: &str, tag: &str) -> Answer<Option<Digest>> {
        let mut statement = self.0.prepare_cached(
            "SELECT digest FROM tag JOIN repository ON repository.id = tag.repository
             WHERE repository.name = ?1 AND tag.name = ?2",
        )?;
        let digest: Option<String> = statement.query_row(params![name, tag], |row| row.get(0)).optional()?;
        Ok(digest.and_then(|digest| digest.parse().ok()))
    }

    /// The first of `tags` that names something else than `digest` and must not move.
    pub(crate) fn taken(&self, name: &str, tags: &[String], digest: &Digest) -> Answer<Option<Refusal>> {
        for tag in tags {
            let class = TagClass::of(tag);
            if class == TagClass::Moving {
                continue;
            }
            if let Some(found) = self.tag(name, tag)?
                && found != *digest
            {
                return Ok(Some(Refusal::Taken { tag: tag.clone(), found, class }));
            }
        }
        Ok(None)
    }

    /// A repository has a manifest from now on, and tags name it.
    pub(crate) fn add_manifest(&mut self, name: &str, new: &New<'_>, tags: &[String]) -> Answer<()> {
        let digest = new.kept.blob.digest.to_string();
        self.flushes(true)?;
        let transaction = self.0.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let repository = make_repository(&transaction, name)?;
        transaction.execute(
            "INSERT OR REPLACE INTO manifest VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                repository,
                digest,
                new.kept.blob.size.cast_signed(),
                new.kept.media_type,
                new.subject.map(|subject| subject.to_string()),
                new.subject.and(new.artifact_type),
                new.subject.map(|_| &new.descriptor),
            ],
        )?;
        {
            let mut statement = transaction.prepare_cached("INSERT OR REPLACE INTO need VALUES(?1, ?2, ?3, ?4)")?;
            for need in new.needs {
                let (needed, size) = (need.blob.digest.to_string(), need.blob.size.cast_signed());
                statement.execute(params![repository, needed, digest, size])?;
            }
            let mut statement = transaction.prepare_cached("INSERT OR REPLACE INTO tag VALUES(?1, ?2, ?3)")?;
            for tag in tags {
                statement.execute(params![repository, tag, digest])?;
            }
        }
        Ok(transaction.commit()?)
    }

    /// Removes a tag; whether it was there.
    pub(crate) fn remove_tag(&mut self, name: &str, tag: &str) -> Answer<bool> {
        let Some(repository) = self.repository(name)? else { return Ok(false) };
        self.flushes(true)?;
        let mut statement = self.0.prepare_cached("DELETE FROM tag WHERE repository = ?1 AND name = ?2")?;
        Ok(statement.execute(params![repository, tag])? > 0)
    }

    /// Removes a manifest and its tags; whether it was there.
    pub(crate) fn remove_manifest(&mut self, name: &str, digest: &Digest) -> Answer<bool> {
        let Some(repository) = self.repository(name)? else { return Ok(false) };
        self.flushes(true)?;
        let key = params![repository, digest.to_string()];
        let transaction = self.0.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let count = transaction.execute("DELETE FROM manifest WHERE repository = ?1 AND digest = ?2", key)?;
        transaction.execute("DELETE FROM need WHERE repository = ?1 AND manifest = ?2", key)?;
        transaction.execute("DELETE FROM tag WHERE repository = ?1 AND digest = ?2", key)?;
        transaction.commit()?;
        Ok(count > 0)
    }

    /// A manifest of a repository that needs a blob or another manifest.
    pub(crate) fn needed_by(&self, name: &str, digest: &Digest) -> Answer<Option<Digest>> {
        let mut statement = self.0.prepare_cached(
            "SELECT manifest FROM need JOIN repository ON repository.id = need.repository
             WHERE name = ?1 AND digest = ?2 LIMIT 1",
        )?;
        let by: Option<String> = statement.query_row(params![name, digest.to_string()], |row| row.get(0)).optional()?;
        Ok(by.and_then(|by| by.parse().ok()))
    }

    /// Everything that a manifest needs.
    pub(crate) fn needs(&self, name: &str, digest: &Digest) -> Answer<Vec<Descriptor>> {
        let mut statement = self.0.prepare_cached(
            "SELECT size, digest FROM need JOIN repository ON repository.id = need.repository
             WHERE name = ?1 AND manifest = ?2 ORDER BY digest",
        )?;
        let rows = statement.query_map(params![name, digest.to_string()], descriptor)?;
        Ok(rows.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
    }

    /// All manifests of all repositories, with the names of these.
    pub(crate) fn manifests(&self) -> Answer<Vec<(String, Descriptor)>> {
        let mut statement = self.0.prepare(
            "SELECT size, digest, name FROM manifest JOIN repository ON repository.id = manifest.repository
             ORDER BY name, digest",
        )?;
        let rows = statement.query_map([], |row| Ok((row.get::<_, String>(2)?, descriptor(row)?)))?;
        let rows = rows.collect::<Result<Vec<_>, _>>()?;
        Ok(rows.into_iter().filter_map(|(name, blob)| Some((name, blob?))).collect())
    }

    /// Tags of a repository, and whether there are more; `None` where there is no such repository.
    pub(crate) fn tags(&self, name: &str, page: &Page) -> Answer<Option<(Vec<String>, bool)>> {
        let Some(repository) = self.repository(name)? else { return Ok(None) };
        let mut statement =
            self.0.prepare_cached("SELECT name FROM tag WHERE repository = ?1 AND name > ?2 ORDER BY name LIMIT ?3")?;
        let rows = statement.query_map(params![repository, page.after, limit(page)], |row| row.get(0))?;
        Ok(Some(cut(rows.collect::<Result<Vec<String>, _>>()?, page)))
    }

    /// Names of repositories, and whether there are more.
    pub(crate) fn repositories(&self, page: &Page) -> Answer<(Vec<String>, bool)> {
        let mut statement =
            self.0.prepare_cached("SELECT name FROM repository WHERE name > ?1 ORDER BY name LIMIT ?2")?;
        let rows = statement.query_map(params![page.after, limit(page)], |row| row.get(0))?;
        Ok(cut(rows.collect::<Result<Vec<String>, _>>()?, page))
    }

    /// Digests and descriptors of manifests about `subject`, and whether there are more.
    pub(crate) fn referrers(
        &self,
        name: &str,
        subject: &Digest,
        artifact_type: Option<&str>,
        page: &Page,
    ) -> Answer<(Vec<(String, String)>, bool)> {
        let Some(repository) = self.repository(name)? else { return Ok((Vec::new(), false)) };
        let mut statement = self.0.prepare_cached(
            "SELECT digest, descriptor FROM manifest WHERE repository = ?1 AND subject = ?2 AND digest > ?3
             AND (?4 IS NULL OR artifact_type = ?4) ORDER BY digest LIMIT ?5",
        )?;
        let row = params![repository, subject.to_string(), page.after, artifact_type, limit(page)];
        let rows = statement.query_map(row, |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(cut(rows.collect::<Result<Vec<_>, _>>()?, page))
    }
}

fn size_of_first(row: &rusqlite::Row<'_>) -> rusqlite::Result<u64> {
    row.get::<_, i64>(0).map(i64::cast_unsigned)
}

fn descriptor(row: &rusqlite::Row<'_>) -> rusqlite::Result<Option<Descriptor>> {
    let (size, digest) = (size_of_first(row)?, row.get::<_, String>(1)?);
    Ok(digest.parse().ok().map(|digest| Descriptor { digest, size }))
}

fn make_repository(transaction: &Transaction<'_>, name: &str) -> rusqlite::Result<i64> {
    transaction.prepare_cached("INSERT OR IGNORE INTO repository(name) VALUES(?1)")?.execute([name])?;
    transaction.prepare_cached("SELECT id FROM repository WHERE name = ?1")?.query_row([name], |row| row.get(0))
}

/// One more than is wanted tells whether there are more.
fn limit(page: &Page) -> i64 {
    i64::try_from(page.most).unwrap_or(i64::MAX - 1) + 1
}

fn cut<T>(mut rows: Vec<T>, page: &Page) -> (Vec<T>, bool) {
    let is_cut = rows.len() > page.most;
    rows.truncate(page.most);
    (rows, is_cut)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cas_digest::DigestFunction;

    #[test]
    fn an_index_has_one_server_and_is_none_of_others() {
        let folder = tempfile::tempdir().expect("the temporary folder is writable");
        let path = folder.path().join("registry.db");
        let (mut first, is_new) = Catalog::open(&path).expect("it is made");
        assert!(is_new);
        let blob = Descriptor::of(DigestFunction::Sha256, b"x");
        first.add_blob("a", &blob).expect("it is open");
        assert!(matches!(Catalog::open(&path), Err(OpenCatalogError::InUse)));
        drop(first);
        let (second, is_new) = Catalog::open(&path).expect("it is free");
        assert!(!is_new);
        assert_eq!(second.blob("a", &blob.digest).expect("it is open"), Some(blob));
        assert_eq!(second.blob("b", &blob.digest).expect("it is open"), None);
        second.0.pragma_update(None, "user_version", 2).expect("it is open");
        drop(second);
        assert!(matches!(Catalog::open(&path), Err(OpenCatalogError::Newer)));
        let other = folder.path().join("other.db");
        Connection::open(&other).expect("it is made").execute_batch("CREATE TABLE t(a)").expect("it is open");
        assert!(matches!(Catalog::open(&other), Err(OpenCatalogError::Other)));
        cas_fs::write(&other, &[b'x'; 5_000]).expect("it is ours");
        assert!(matches!(Catalog::open(&other), Err(OpenCatalogError::Other)));
    }
}
