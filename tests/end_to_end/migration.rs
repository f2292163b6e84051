//! A database of the first version, and a start that is cut short anywhere in bringing it up to date: the next one finds
//! some whole version with all its rows, and finishes.

use crate::disk::{Disk, Done, Errno, in_memory};
use crate::power_loss::{Chance, World};
use crate::server::{Server, user};
use habittod::storage::file::{DatabaseFile, digest_of};
use rusqlite::Connection;
use serde_json::Value;
use std::fs;
use std::path::Path;

const MATCHES: i64 = 300;
const NOTIFICATIONS: i64 = 700;
/// Each version brought a table or an index of this name.
const BROUGHT: [&str; 6] = ["notification", "refresh_family", "inbox", "visitor", "property_active", "user_barred"];
/// What a power loss may have left of one moment: tries.
const LOSSES: usize = 2;

/// Files of version 1, the same every time.
struct First {
    folder: tempfile::TempDir,
    /// Of all rows, once they are up to date.
    digest: String,
    schema: Vec<String>,
}

impl First {
    fn make() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let db = Connection::open(folder.path().join("habittod.db")).unwrap();
        db.execute_batch(include_str!("version_1.sql")).unwrap();
        db.close().unwrap();
        fs::write(folder.path().join("habittod.db.id"), "").unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
        let undisturbed = tempfile::tempdir().unwrap();
        copy(folder.path(), undisturbed.path());
        let db = up_to_date(undisturbed.path());
        Self { folder, digest: digest_of(&db).unwrap(), schema: schema(&db) }
    }

    /// Whatever was left there is some whole version, and is brought up to date without loss. Which version it was.
    fn survives(&self, folder: &Path, when: &str) -> usize {
        // As another program would find it, which may tidy up: so a copy.
        let aside = in_memory();
        copy(folder, aside.path());
        let found = Connection::open(aside.path().join("habittod.db")).unwrap();
        let version = whole_version(&found, when);
        let db = up_to_date(folder);
        assert_eq!(whole_version(&db, when), BROUGHT.len());
        assert_eq!(digest_of(&db).unwrap(), self.digest, "{when}");
        assert_eq!(schema(&db), self.schema, "{when}");
        version
    }
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// Opened as a server opens it.
fn up_to_date(folder: &Path) -> Connection {
    DatabaseFile::claim(&folder.join("habittod.db")).unwrap().connect().unwrap()
}

fn number(db: &Connection, sql: &str) -> i64 {
    db.query_row(sql, [], |row| row.get(0)).unwrap()
}

fn schema(db: &Connection) -> Vec<String> {
    let mut all = db.prepare("SELECT name || ': ' || coalesce(sql, '') FROM sqlite_schema ORDER BY name").unwrap();
    all.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

/// The version that it says it has, once all that makes one is seen to be there, and nothing of the next.
fn whole_version(db: &Connection, when: &str) -> usize {
    let check: String = db.pragma_query_value(None, "quick_check", |row| row.get(0)).unwrap();
    assert_eq!(check, "ok", "{when}");
    let version: usize = db.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    for (before, brought) in BROUGHT.iter().enumerate() {
        let is_there = number(db, &format!("SELECT count(*) FROM sqlite_schema WHERE name = '{brought}'")) == 1;
        assert_eq!(is_there, before < version, "{brought} in version {version}, {when}");
    }
    assert_eq!(number(db, "SELECT count(*) FROM notification"), NOTIFICATIONS, "{when}");
    if version >= 3 {
        assert_eq!(number(db, "SELECT count(*) FROM inbox"), NOTIFICATIONS, "{when}");
        assert_eq!(number(db, "SELECT count(*) FROM pair"), MATCHES, "{when}");
        assert_eq!(number(db, "SELECT count(*) FROM suit"), MATCHES, "{when}");
    }
    version
}

#[test]
fn a_database_of_the_first_version_is_served_with_all_its_rows() {
    let (first, disk) = (First::make(), Disk::fast());
    copy(first.folder.path(), disk.folder.path());
    let mut server = Server::start_on(&disk, false, &[]).unwrap();
    let page = server.call("GET", "/api/notifications/", &user(1), Value::Null);
    assert_eq!((page.status, &page.body["count"]), (200, &Value::from(400)));
    let mine = server.call("GET", "/api/matches/my/", &user(101), Value::Null);
    assert_eq!(mine.body["data"]["count"], 1);
    server.kill();
    first.survives(disk.folder.path(), "after it was served");
}

/// Killed in place of the first call that touches the disk, then the second, and so on; the same with calls that fail.
#[test]
fn a_start_that_ends_anywhere_in_a_migration_leaves_a_whole_version() {
    let first = First::make();
    let mut found = [0; BROUGHT.len() + 1];
    for n in 1.. {
        for kill in [true, false] {
            let disk = Disk::fast();
            copy(first.folder.path(), disk.folder.path());
            if kill {
                disk.kill_at(n);
            } else {
                disk.fail_one(n, [Errno::Io, Errno::NoSpace][n as usize % 2]);
            }
            match Server::start_on(&disk, false, &[]) {
                Ok(mut server) => server.kill(),
                Err(ended) if kill => assert_eq!(ended.code(), None, "call {n}"),
                Err(ended) => assert!(matches!(ended.code(), Some(1 | 3)), "call {n}: {ended}"),
            }
            let was_reached = disk.calls() >= n;
            found[first.survives(disk.folder.path(), &format!("call {n}, killed: {kill}"))] += 1;
            if !was_reached {
                assert!(n > 20, "only {n} calls");
                assert!(found[1..].iter().all(|count| *count > 0), "{found:?}");
                println!("{n} calls; by version: {found:?}");
                return;
            }
        }
    }
}

/// The power goes after each step of a start that is written down.
#[test]
fn a_power_loss_anywhere_in_a_migration_leaves_a_whole_version() {
    let (first, disk) = (First::make(), Disk::fast());
    copy(first.folder.path(), disk.folder.path());
    let folder = disk.folder.path().canonicalize().unwrap();
    Server::start_on(&disk, true, &[]).unwrap().kill();
    let done = disk.record();
    let mut world = World::default();
    for name in ["habittod.db", "habittod.db.id"] {
        world.put(&folder.join(name), fs::read(first.folder.path().join(name)).unwrap());
    }
    let (mut chance, mut found) = (Chance(0x5eed), [0; BROUGHT.len() + 1]);
    for (at, step) in done.iter().enumerate() {
        if !matches!(step, Done::Sent(_)) {
            world.change(step);
        }
        for _ in 0..LOSSES {
            let place = in_memory();
            world.leave_behind(&mut chance, &folder, place.path());
            found[first.survives(place.path(), &format!("step {at}"))] += 1;
        }
    }
    assert!(found[1..].iter().all(|count| *count > 0), "{found:?}");
    println!("{} steps; by version: {found:?}", done.len());
}
