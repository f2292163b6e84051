use super::*;
use crate::storage::mark::{Mark, Position, Tag};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;
use tempfile::TempDir;
use uuid::Uuid;

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("h.db");
    (folder, path)
}

/// A database with a few rows, closed cleanly.
fn made(path: &Path) {
    let file = DatabaseFile::claim(path).unwrap();
    fill(&file.connect().unwrap());
}

fn fill(db: &Connection) {
    db.execute_batch(
        "INSERT INTO user VALUES (1, 'ana', '', '', '', '', '', 0, NULL, '{}'), (2, '', '', '', '', '', '', 2, NULL, '{}');
         INSERT INTO property VALUES (7, 1, NULL, 'casa', 'x', 2.5, 1, 1, '{}');
         INSERT INTO matches VALUES (3, 7, 9, 98.4, 1, NULL, '{}', 1, 1);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
         INSERT INTO notification (id, user, channel, kind, created_ms, address) SELECT i, 1, 0, 3, i, hex(randomblob(90)) FROM n;",
    )
    .unwrap();
}

const FILLED: Counts = Counts { users: 1, properties: 1, matches: 1, notifications: 500 };

/// What lies in the folder: names, digests of the bytes, times.
fn all_of(folder: &TempDir) -> BTreeMap<PathBuf, (u64, SystemTime)> {
    let entries = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let seen = |path: PathBuf| {
        let mut hasher = DefaultHasher::new();
        fs::read(&path).unwrap().hash(&mut hasher);
        let modified = path.metadata().unwrap().modified().unwrap();
        (path, (hasher.finish(), modified))
    };
    entries.map(seen).collect()
}

/// What a power cut leaves: the files as they are while a server runs on them, in another folder.
fn crashed(with_index: bool) -> (TempDir, PathBuf) {
    let ((_folder, path), (other, copy)) = (folder(), folder());
    let file = DatabaseFile::claim(&path).unwrap();
    let db = file.connect().unwrap();
    fill(&db);
    for suffix in ["", "-wal", "-shm", ".id"].iter().filter(|suffix| with_index || **suffix != "-shm") {
        fs::copy(beside(&path, suffix), beside(&copy, suffix)).unwrap();
    }
    assert!(
        copy.metadata().unwrap().len() < beside(&copy, "-wal").metadata().unwrap().len(),
        "the rows are in the log"
    );
    (other, copy)
}

fn foreign_bytes() -> Vec<u8> {
    let (_folder, path) = folder();
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE t (a)").unwrap();
    fs::read(path).unwrap()
}

#[test]
fn a_second_process_is_told_whose_it_is() {
    let (_folder, path) = folder();
    let first = DatabaseFile::claim(&path).unwrap();
    let me = std::process::id().to_string();
    let second = DatabaseFile::claim(&path).unwrap_err();
    assert!(second.to_string().contains(&format!("in use by PID {me}; ")), "{second}");
    assert!(second.is_database());
    assert_eq!(inspect(&path).unwrap(), Inspection::InUse { pid: me.clone() });
    // Another name of the same file.
    drop(first.connect().unwrap());
    let link = path.with_file_name("link.db");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert!(matches!(DatabaseFile::claim(&link), Err(OpenError::InUse { pid, .. }) if pid == me));
    drop(first);
    assert!(DatabaseFile::claim(&link).is_ok());
}

#[test]
fn asking_does_not_keep_a_server_from_starting() {
    let (_folder, path) = folder();
    drop(DatabaseFile::claim(&path).unwrap());
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| (0..2_000).filter(|_| holder(&path).is_some()).count());
        for _ in 0..2_000 {
            drop(DatabaseFile::claim(&path).unwrap());
        }
        asking.join().unwrap();
    });
}

#[test]
fn one_is_made_whole_and_only_for_us() {
    use std::os::unix::fs::PermissionsExt;
    let (folder, path) = folder();
    assert_eq!(inspect(&path).unwrap(), Inspection::Absent);
    assert!(all_of(&folder).is_empty());
    // A crash in the middle of making one.
    fs::write(beside(&path, ".new"), b"half").unwrap();
    fs::write(beside(&path, ".new-journal"), b"half").unwrap();
    let file = DatabaseFile::claim(&path).unwrap();
    let db = file.connect().unwrap();
    fill(&db);
    for suffix in ["", "-wal", "-shm", ".id", ".lock"] {
        assert_eq!(beside(&path, suffix).metadata().unwrap().permissions().mode() & 0o777, 0o600, "{suffix}");
    }
    assert!(!beside(&path, ".new").exists() && !beside(&path, ".new-journal").exists());
    for (pragma, value) in
        [("synchronous", "2"), ("journal_mode", "wal"), ("foreign_keys", "0"), ("cache_size", "-8192")]
    {
        let is = db.pragma_query_value(None, pragma, |row| row.get_ref(0).map(|v| format!("{v:?}"))).unwrap();
        assert!(is.contains(value) || is.contains(&format!("{:?}", value.as_bytes())), "{pragma}: {is}");
    }
    let reader = connect_to_read(&path).unwrap();
    assert!(reader.execute("DELETE FROM user", []).is_err());
    drop((reader, db));
    assert_eq!(inspect(&path).unwrap(), Inspection::InUse { pid: std::process::id().to_string() });
    drop(file);
    assert_eq!(inspect(&path).unwrap(), Inspection::Whole(FILLED));
}

#[test]
fn a_vanished_database_is_not_replaced() {
    let (folder, path) = folder();
    made(&path);
    let whole = fs::read(&path).unwrap();
    for empty in [true, false] {
        if empty {
            fs::write(&path, b"").unwrap()
        } else {
            fs::remove_file(&path).unwrap()
        }
        let before = all_of(&folder);
        let to_write = DatabaseFile::claim(&path).unwrap().connect().unwrap_err();
        for refusal in [to_write, inspect(&path).unwrap_err()] {
            assert!(matches!(&refusal, OpenError::Missing { trace, .. } if trace.ends_with("h.db.id")), "{refusal}");
        }
        assert_eq!(all_of(&folder).keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
    }
    // A backup put in its place, with or without the marker, is a database; the marker comes back.
    for keep_marker in [true, false] {
        fs::write(&path, &whole).unwrap();
        if !keep_marker {
            fs::remove_file(marker(&path)).unwrap()
        }
        drop(DatabaseFile::claim(&path).unwrap().connect().unwrap());
        assert!(marker(&path).exists());
        assert_eq!(inspect(&path).unwrap(), Inspection::Whole(FILLED));
    }
    // Without the marker, nothing is nothing, and so is an empty file; but a log without its database is not.
    fs::remove_file(marker(&path)).unwrap();
    fs::write(&path, b"").unwrap();
    fs::write(beside(&path, "-wal"), b"rows").unwrap();
    assert!(matches!(inspect(&path), Err(OpenError::Missing { trace, .. }) if trace.ends_with("h.db-wal")));
    fs::remove_file(beside(&path, "-wal")).unwrap();
    assert_eq!(inspect(&path).unwrap(), Inspection::Absent);
    drop(DatabaseFile::claim(&path).unwrap().connect().unwrap());
    assert_eq!(inspect(&path).unwrap(), Inspection::Whole(Counts::default()));
}

type Judge = fn(&OpenError) -> bool;

#[test]
fn what_is_not_ours_or_not_whole_stays_as_it_is() {
    let (_folder, path) = folder();
    made(&path);
    let whole = fs::read(&path).unwrap();
    let with = |at: usize, bytes: &[u8]| {
        let mut changed = whole.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        changed
    };
    let middle = whole.len() / 2 / 4096 * 4096;
    let damaged: Judge = |e| matches!(e, OpenError::Damaged { .. });
    let foreign: Judge = |e| matches!(e, OpenError::Foreign { .. });
    let newer: Judge = |e| matches!(e, OpenError::Newer { found: 99, .. });
    let cases: [(&str, Vec<u8>, bool, Judge); 11] = [
        ("text", b"not a database\n".repeat(20), false, foreign),
        ("text in place of ours", b"not a database\n".repeat(20), true, damaged),
        ("shorter than a header", whole[..50].to_vec(), true, damaged),
        ("another program's", foreign_bytes(), false, foreign),
        ("a page short", whole[..whole.len() - 4096].to_vec(), true, damaged),
        ("a byte short", whole[..whole.len() - 1].to_vec(), true, damaged),
        ("only a header", whole[..4096].to_vec(), true, damaged),
        ("a page overwritten", with(middle, &[0xff; 200]), true, damaged),
        ("a page zeroed", with(middle, &[0; 4096]), true, damaged),
        ("no page size", with(16, &[0, 3]), true, damaged),
        ("newer", with(60, &99_u32.to_be_bytes()), true, newer),
    ];
    for (name, bytes, marked, judge) in cases {
        let (folder, path) = folder();
        fs::write(&path, &bytes).unwrap();
        if marked {
            fs::write(marker(&path), b"").unwrap()
        }
        let before = all_of(&folder);
        let refusal = inspect(&path).unwrap_err();
        assert!(judge(&refusal) && refusal.is_database(), "{name}: {refusal}");
        assert!(!refusal.to_string().contains('\n'), "{name}: {refusal}");
        assert_eq!(all_of(&folder), before, "{name}");
        let file = DatabaseFile::claim(&path).unwrap();
        let refusal = file.connect().unwrap_err();
        assert!(judge(&refusal), "{name}: {refusal}");
        drop(file);
        assert!(backup(&path, &path.with_file_name("copy.db")).is_err(), "{name}");
        fs::remove_file(beside(&path, ".lock")).unwrap();
        assert_eq!(all_of(&folder), before, "{name}");
    }
}

#[test]
fn after_a_crash_the_log_is_read_but_not_touched() {
    for with_index in [true, false] {
        let (folder, path) = crashed(with_index);
        let before = all_of(&folder);
        assert_eq!(inspect(&path).unwrap(), Inspection::Whole(FILLED), "index: {with_index}");
        assert!(digest(&path).unwrap().is_some());
        assert_eq!(all_of(&folder), before, "index: {with_index}");
        let elsewhere = tempfile::tempdir().unwrap();
        let copy = elsewhere.path().join("copy.db");
        backup(&path, &copy).unwrap();
        assert_eq!(inspect(&copy).unwrap(), Inspection::Whole(FILLED));
        assert_eq!(all_of(&folder), before, "index: {with_index}");
        drop(DatabaseFile::claim(&path).unwrap().connect().unwrap());
        assert_eq!(inspect(&path).unwrap(), Inspection::Whole(FILLED));
    }
}

/// Killed between the header of a log and its first frame.
#[test]
fn a_log_without_frames_is_none() {
    let ((folder, path), (_other, torn)) = (folder(), crashed(true));
    made(&path);
    let header = fs::read(beside(&torn, "-wal")).unwrap()[..32].to_vec();
    let reader = connect_to_read(&path).unwrap();
    reader.query_row("SELECT count(*) FROM user", [], |row| row.get::<_, i64>(0)).unwrap();
    let index = fs::read(beside(&path, "-shm")).unwrap();
    drop(reader);
    for with_index in [true, false] {
        fs::write(beside(&path, "-wal"), &header).unwrap();
        if with_index {
            fs::write(beside(&path, "-shm"), &index).unwrap();
        }
        let before = all_of(&folder);
        assert_eq!(inspect(&path).unwrap(), Inspection::Whole(FILLED), "with its index: {with_index}");
        assert_eq!(all_of(&folder), before);
        DatabaseFile::claim(&path).unwrap().connect().unwrap();
        assert_eq!(inspect(&path).unwrap(), Inspection::Whole(FILLED), "with its index: {with_index}");
    }
}

#[test]
fn damage_beside_a_log_stays_as_it_is() {
    for with_index in [true, false] {
        let (_folder, path) = folder();
        made(&path);
        let (other, copy) = folder_with_log(&path, with_index);
        let mut bytes = fs::read(&copy).unwrap();
        let middle = bytes.len() / 2 / 4096 * 4096;
        bytes[middle..middle + 4096].fill(0xee);
        fs::write(&copy, bytes).unwrap();
        let before = all_of(&other);
        assert!(matches!(inspect(&copy), Err(OpenError::Damaged { .. })), "index: {with_index}");
        let file = DatabaseFile::claim(&copy).unwrap();
        assert!(matches!(file.connect(), Err(OpenError::Damaged { .. })), "index: {with_index}");
        fs::remove_file(beside(&copy, ".lock")).unwrap();
        assert_eq!(all_of(&other), before, "index: {with_index}");
    }
}

/// The database of `path`, with one more commit in a log, in another folder.
fn folder_with_log(path: &Path, with_index: bool) -> (TempDir, PathBuf) {
    let (other, copy) = folder();
    let db = DatabaseFile::claim(path).unwrap().connect().unwrap();
    db.execute_batch("INSERT INTO meta VALUES ('x', 1)").unwrap();
    for suffix in ["", "-wal", "-shm", ".id"].iter().filter(|suffix| with_index || **suffix != "-shm") {
        fs::copy(beside(path, suffix), beside(&copy, suffix)).unwrap();
    }
    (other, copy)
}

#[test]
fn surroundings_are_named() {
    let (folder, path) = folder();
    let nowhere = folder.path().join("no/such/h.db");
    for refusal in [DatabaseFile::claim(&nowhere).unwrap_err(), inspect(&nowhere).unwrap_err()] {
        assert!(refusal.to_string().contains("make the folder") && refusal.is_database(), "{refusal}");
    }
    for refusal in [DatabaseFile::claim(folder.path()).unwrap_err(), inspect(folder.path()).unwrap_err()] {
        assert!(refusal.to_string().contains("a folder; storage.path names a file"), "{refusal}");
    }
    fs::write(&path, b"").unwrap();
    let under_a_file = path.join("h.db");
    assert!(matches!(DatabaseFile::claim(&under_a_file), Err(OpenError::Environment { .. })));
    assert!(matches!(inspect(&under_a_file), Err(OpenError::Environment { .. })));
    let locked_out = folder.path().join("other.db");
    fs::create_dir(beside(&locked_out, ".lock")).unwrap();
    for refusal in [DatabaseFile::claim(&locked_out).unwrap_err(), inspect(&locked_out).unwrap_err()] {
        assert!(refusal.to_string().contains("other.db.lock: ") && refusal.is_database(), "{refusal}");
    }
    let odd = folder.path().join("ñ %20?#&=.db");
    made(&odd);
    assert_eq!(inspect(&odd).unwrap(), Inspection::Whole(FILLED));
}

/// A link whose volume is not mounted, or whose database is lost; and what is no file at all.
#[test]
fn a_link_that_leads_nowhere_and_what_is_no_file_stay_as_they_are() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    use std::os::unix::{fs::symlink, net::UnixListener};
    for target in ["gone/h.db", "lost/h.db", "h.db"] {
        let (folder, path) = folder();
        made(&folder.path().join("made.db"));
        fs::create_dir(folder.path().join("lost")).unwrap();
        fs::write(folder.path().join("lost/h.db.id"), b"").unwrap();
        symlink(target, &path).unwrap();
        let refused = refusals(&path, &folder.path().join("copy.db"));
        assert!(refused.iter().all(|e| e.contains(&format!("h.db: a link to {target}, which "))), "{refused:?}");
        assert_eq!(path.read_link().unwrap(), Path::new(target));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 5, "{target}");
    }
    let (folder, path) = folder();
    let node = |kind| mknodat(CWD, &path, kind, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let make: [&dyn Fn(); 2] = [&|| node(FileType::Fifo), &|| drop(UnixListener::bind(&path).unwrap())];
    for make in make {
        make();
        let refused = refusals(&path, &folder.path().join("copy.db"));
        assert!(refused.iter().all(|e| e.contains("h.db: not a regular file; ")), "{refused:?}");
        assert!(!path.metadata().unwrap().is_file());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        fs::remove_file(&path).unwrap();
    }
}

/// What each way in says about a path that none takes.
fn refusals(path: &Path, copy: &Path) -> [String; 4] {
    let refused = [
        DatabaseFile::claim(path).unwrap_err(),
        inspect(path).unwrap_err(),
        digest(path).unwrap_err(),
        match backup(path, copy).unwrap_err() {
            BackupError::Source(e) => e,
            other => panic!("{other}"),
        },
    ];
    assert!(refused.iter().all(OpenError::is_database), "{refused:?}");
    refused.map(|e| e.to_string())
}

#[test]
fn a_migration_that_fails_leaves_the_old_version() {
    let mut db = Connection::open_in_memory().unwrap();
    db.execute_batch("CREATE TABLE general (a)").unwrap();
    assert!(schema::migrate(&mut db).is_err());
    let tables: i64 = db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).unwrap();
    let version: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    assert_eq!((tables, version), (1, 0));
}

#[test]
fn equal_rows_have_equal_digests() {
    let new = || {
        let mut db = Connection::open_in_memory().unwrap();
        schema::migrate(&mut db).unwrap();
        db
    };
    let of = |sql: &str| {
        let db = new();
        db.execute_batch(sql).unwrap();
        digest_of(&db).unwrap()
    };
    let empty = of("");
    assert_eq!(empty.len(), 64);
    let one = "INSERT INTO general VALUES (1, 'a', 'b', 'c', 'd', 1);";
    let two = "INSERT INTO general VALUES (2, 'a', 'b', 'c', 'd', 1);";
    // How they came to be there does not matter, nor what a node tried its disk with.
    assert_eq!(of(&format!("{two}{one}")), of(&format!("{one}{two} INSERT INTO meta VALUES ('probe', random())")));
    assert_eq!(of(&format!("{one} DELETE FROM general")), empty);
    let different = [
        one,
        two,
        "INSERT INTO general VALUES (1, 'ab', '', 'c', 'd', 1)",
        "INSERT INTO general VALUES (1, 'a', 'b', 'c', 'd', 2)",
        "INSERT INTO meta VALUES ('last_match', 1)",
        "INSERT INTO meta VALUES ('last_match', '1')",
        "INSERT INTO meta VALUES ('last_match', x'31')",
        "INSERT INTO meta VALUES ('last_match', 1.0)",
        "INSERT INTO meta VALUES ('last_match', NULL)",
        "INSERT INTO matches VALUES (3, 7, 9, 98.4, 1, NULL, '{}', 1, 1)",
        "INSERT INTO matches VALUES (3, 7, 9, 98.4, 1, '', '{}', 1, 1)",
        "INSERT INTO notification (id, user, channel, kind, created_ms) VALUES (1, 2, 0, 4, 1)",
        "INSERT INTO notification (id, user, channel, kind, created_ms, uuid) VALUES (1, 2, 0, 4, 1, x'00')",
    ];
    let mut seen: Vec<String> = different.iter().map(|sql| of(sql)).chain([empty]).collect();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), different.len() + 1);
}

#[test]
fn a_backup_is_a_whole_database_of_its_own() {
    use std::os::unix::fs::PermissionsExt;
    let (folder, path) = folder();
    let copy = folder.path().join("copy.db");
    let absent = backup(&path, &copy).unwrap_err();
    assert!(matches!(absent, BackupError::Absent { .. }), "{absent}");
    assert!(absent.to_string().starts_with('/'), "{absent}");
    assert!(all_of(&folder).is_empty());

    made(&path);
    let before = all_of(&folder);
    assert_eq!(backup(&path, &copy).unwrap(), copy.metadata().unwrap().len());
    assert_eq!(copy.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(inspect(&copy).unwrap(), Inspection::Whole(FILLED));
    assert_eq!(digest(&copy).unwrap(), digest(&path).unwrap());
    let refusal = backup(&path, &copy).unwrap_err();
    assert!(refusal.to_string().contains("not overwritten"), "{refusal}");
    fs::remove_file(&copy).unwrap();
    assert_eq!(all_of(&folder), before);
    assert!(matches!(backup(&path, &folder.path().join("no/copy.db")), Err(BackupError::Target { .. })));
    fs::write(beside(&copy, ".part"), b"").unwrap();
    assert!(matches!(backup(&path, &copy), Err(BackupError::Target { .. })));
}

/// The node that it was made of may be down, and still needs the log.
#[test]
fn a_backup_speaks_for_no_node() {
    let (folder, path) = folder();
    let copy = folder.path().join("copy.db");
    made(&path);
    let of = |id: u128| Mark {
        log: Uuid::from_u128(7),
        position: Position { ms: 5, seq: 3 },
        tag: Tag { run: Uuid::from_u128(9), number: 41 },
        node: Uuid::from_u128(id),
    };
    of(10).write(&DatabaseFile::claim(&path).unwrap().connect().unwrap()).unwrap();
    let before = all_of(&folder);
    backup(&path, &copy).unwrap();
    assert_eq!(Mark::of(&look(&copy).unwrap().unwrap()).unwrap(), Some(of(0)));
    assert_eq!(Mark::of(&look(&path).unwrap().unwrap()).unwrap(), Some(of(10)));
    fs::remove_file(&copy).unwrap();
    assert_eq!(all_of(&folder), before);
}

#[test]
fn a_backup_beside_a_writer_is_of_one_moment() {
    let (folder, path) = folder();
    made(&path);
    let file = DatabaseFile::claim(&path).unwrap();
    let db = file.connect().unwrap();
    let done = &AtomicBool::new(false);
    let db = std::thread::scope(|scope| {
        let writer = scope.spawn(move || {
            // Every commit leaves one match more than general rows.
            for n in (1_001..20_000).take_while(|_| !done.load(Ordering::Relaxed)) {
                db.execute_batch(&format!(
                    "BEGIN; INSERT INTO matches VALUES ({n}, {n}, 9, 0, 1, NULL, '{{}}', 1, 1);
                     INSERT INTO general VALUES ({n}, 'a', 'b', 'c', hex(randomblob(2000)), 1); COMMIT"
                ))
                .unwrap();
            }
            db
        });
        for n in 0..20 {
            let copy = folder.path().join(format!("copy{n}.db"));
            backup(&path, &copy).unwrap();
            let count = |table: &str| -> i64 {
                let copied = look(&copy).unwrap().unwrap();
                copied.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
            };
            assert_eq!(count("matches"), count("general") + 1);
        }
        done.store(true, Ordering::Relaxed);
        writer.join().unwrap()
    });
    assert_eq!(digest(&path).unwrap(), Some(digest_of(&db).unwrap()));
}

#[test]
fn a_statement_is_planned_once_whatever_it_is_given() {
    let (_folder, path) = folder();
    made(&path);
    let file = DatabaseFile::claim(&path).unwrap();
    for db in [file.connect().unwrap(), connect_to_read(&path).unwrap()] {
        let mut page = db.prepare("SELECT id FROM notification ORDER BY id LIMIT ?1 OFFSET ?2").unwrap();
        for (size, offset) in [(10, 0), (20, 40), (5, 490)] {
            let rows = page.query_map([size, offset], |row| row.get::<_, i64>(0)).unwrap();
            assert!(rows.map(Result::unwrap).eq(offset + 1..=offset + size));
        }
        assert_eq!(page.get_status(rusqlite::StatementStatus::RePrepare), 0);
    }
}
