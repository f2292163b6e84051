//! What a power loss leaves behind. A server's every change to its files is written down, with every byte that it sent;
//! then the disk is put together as it may have been at some moment: all that was synced, and of the rest whatever
//! pleases chance, torn at sectors. Whatever was promised by then must be there.

use crate::disk::{Disk, Done, in_memory};
use crate::server::{Server, service, user};
use habittod::storage::file::{DatabaseFile, Inspection, inspect};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Moments in the making of the database, in ordinary work, and around a checkpoint and the end.
const MOMENTS: [usize; 3] = [60, 220, 40];
/// The same with `synchronous=NORMAL`: enough to see what it loses.
const MOMENTS_OF_NORMAL: [usize; 3] = [0, 60, 0];

#[test]
fn a_power_loss_takes_nothing_that_was_promised() {
    let disk = Disk::new();
    let done = a_day(&disk);
    let kept = lose_power(&disk, &done, MOMENTS, Syncs::AsTheyWere);
    assert!(kept.moments >= 300 && kept.with_promises >= 200, "{kept:?}");
    assert_eq!(kept.broken_promises, 0, "{kept:?}");
    // The same day with `synchronous=NORMAL`, which syncs the log before a checkpoint only: this test would notice.
    let lost = lose_power(&disk, &done, MOMENTS_OF_NORMAL, Syncs::OnlyAtCheckpoints);
    assert!(lost.broken_promises > 10, "{lost:?}");
    println!("{kept:?}; with NORMAL: {lost:?}");
}

/// Posts of every size and likes, on a new database, up to and including a good end.
fn a_day(disk: &Disk) -> Vec<Done> {
    let mut server = Server::start_on(disk, true, &[]).unwrap();
    server.put_world();
    let note = |n: usize, length: usize| json!({"user": 1, "channel": "property", "message": format!("p{n}"), "data": {"x": "x".repeat(length)}});
    let post = |from: usize, count: usize, length: usize| {
        std::thread::scope(|scope| {
            for poster in 0..4 {
                let server = &server;
                scope.spawn(move || {
                    for n in 0..count {
                        let reply = server.call(
                            "POST",
                            "/api/notifications/",
                            &service(),
                            note(from + poster * count + n, length),
                        );
                        assert_eq!(reply.status, 201, "{}", reply.body);
                    }
                });
            }
        });
    };
    for home in 100..120 {
        server.put_property(home);
        server.like(2, home);
        let read = server.call("POST", "/api/notifications/mark_all_as_read/", &user(1), Value::Null);
        assert_eq!(read.status, 200);
    }
    post(1_000, 30, 10);
    post(2_000, 75, 60_000);
    post(3_000, 10, 10);
    server.signal("-TERM");
    assert!(server.wait().success());
    disk.record()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Syncs {
    AsTheyWere,
    OnlyAtCheckpoints,
}

#[derive(Debug, Default)]
struct Kept {
    moments: usize,
    with_promises: usize,
    broken_promises: usize,
}

fn lose_power(disk: &Disk, done: &[Done], moments: [usize; 3], syncs: Syncs) -> Kept {
    let moments = spread(done, moments);
    let mut chance = Chance(0x5eed);
    let (mut kept, mut world, mut promises) = (Kept::default(), World::default(), Promises::default());
    for (at, step) in done.iter().enumerate() {
        if moments.contains(&at) {
            kept.moments += 1;
            kept.with_promises += usize::from(!(promises.0.is_empty() && promises.1.is_empty()));
            let place = in_memory();
            world.leave_behind(&mut chance, &disk.folder.path().canonicalize().unwrap(), place.path());
            kept.broken_promises += usize::from(!promises.are_kept(&place.path().join("habittod.db"), at));
        }
        match step {
            Done::Sync(name) if syncs == Syncs::OnlyAtCheckpoints && is_log(name) && !checkpoints_next(done, at) => {}
            Done::Sent(bytes) => promises.hear(bytes),
            change => world.change(change),
        }
    }
    kept
}

fn is_log(name: &Path) -> bool {
    name.to_string_lossy().ends_with("-wal")
}

/// Whether a sync of the log comes before a checkpoint, not behind a commit: the next change is the database's.
fn checkpoints_next(done: &[Done], at: usize) -> bool {
    let next = done[at + 1..].iter().find_map(|step| match step {
        Done::Write(name, ..) | Done::Truncate(name, _) => Some(name),
        _ => None,
    });
    next.is_some_and(|name| name.to_string_lossy().ends_with(".db"))
}

/// Where the power goes: spread over the three parts of the day.
fn spread(done: &[Done], [making, working, ending]: [usize; 3]) -> BTreeSet<usize> {
    let work = done.iter().position(|step| matches!(step, Done::Sent(_))).unwrap();
    let is_checkpoint = |step: &Done| matches!(step, Done::Write(name, ..) if name.to_string_lossy().ends_with(".db"));
    let checkpoint = work + done[work..].iter().position(is_checkpoint).unwrap();
    let large = done.iter().position(|step| matches!(step, Done::Write(_, _, data) if data.get(4..8) == Some(b"xxxx")));
    let small_end = large.unwrap_or(checkpoint).min(checkpoint);
    let among = |from: usize, to: usize, count: usize| (0..count).map(move |n| from + (to - from) * n / count);
    let making_of = among(0, work, making.min(work));
    let rest = working + making.saturating_sub(work);
    making_of
        .chain(among(work, small_end, rest))
        .chain(among(checkpoint.saturating_sub(5), done.len(), ending))
        .collect()
}

/// What clients were told: posts by their text, likes by the id of their match.
#[derive(Default)]
struct Promises(BTreeSet<String>, BTreeSet<i64>);

impl Promises {
    fn hear(&mut self, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        let told = |name: &str, end: char| -> Vec<String> {
            text.split(name).skip(1).filter_map(|rest| Some(rest.split_once(end)?.0.to_owned())).collect()
        };
        self.0.extend(told("\"message\":\"p", '"').into_iter().filter(|n| n.bytes().all(|b| b.is_ascii_digit())));
        self.1.extend(told("\"match_id\":", ',').into_iter().map(|id| id.parse::<i64>().unwrap()));
    }

    /// Opened as a server opens it. Whatever happened, it is whole.
    fn are_kept(&self, path: &Path, at: usize) -> bool {
        match inspect(path) {
            Ok(Inspection::Whole(_)) => {}
            Ok(Inspection::Absent) if self.0.is_empty() && self.1.is_empty() => {}
            odd => panic!("step {at}: {odd:?}"),
        }
        let file = DatabaseFile::claim(path).unwrap();
        let db = file.connect().unwrap_or_else(|e| panic!("step {at}: {e}"));
        let whole: String = db.pragma_query_value(None, "quick_check", |row| row.get(0)).unwrap();
        assert_eq!(whole, "ok", "step {at}");
        let mut select = db.prepare("SELECT g.message FROM notification n JOIN general g ON g.id = n.general").unwrap();
        let there: BTreeSet<String> = select.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        let mut select = db.prepare("SELECT id FROM matches").unwrap();
        let matches: BTreeSet<i64> = select.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        self.0.iter().all(|n| there.contains(&format!("p{n}"))) && self.1.is_subset(&matches)
    }
}

/// The disk: files by number, and the names that lead to them.
#[derive(Default)]
pub(crate) struct World {
    files: Vec<Content>,
    names: BTreeMap<PathBuf, usize>,
    synced_names: BTreeMap<PathBuf, usize>,
    /// Changes of names that no sync of the folder has made safe, in order.
    renamed: Vec<(PathBuf, Option<usize>)>,
}

#[derive(Default)]
struct Content {
    synced: Vec<u8>,
    /// Changes that no sync has made safe.
    changes: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write(u64, Vec<u8>),
    Truncate(u64),
}

impl World {
    /// A file that was there, and safe, before anything was written down.
    pub(crate) fn put(&mut self, name: &Path, bytes: Vec<u8>) {
        self.files.push(Content { synced: bytes, changes: Vec::new() });
        self.names.insert(name.to_owned(), self.files.len() - 1);
        self.synced_names.clone_from(&self.names);
    }

    pub(crate) fn change(&mut self, step: &Done) {
        match step {
            Done::Create(name) => {
                self.files.push(Content::default());
                self.name(name, Some(self.files.len() - 1));
            }
            Done::Write(name, at, bytes) => self.file(name).changes.push(Change::Write(*at, bytes.clone())),
            Done::Truncate(name, len) => self.file(name).changes.push(Change::Truncate(*len)),
            Done::Rename(from, to) => {
                let file = self.names[from];
                self.name(from, None);
                self.name(to, Some(file));
            }
            Done::Unlink(name) => self.name(name, None),
            Done::Sync(name) if self.names.contains_key(name) => {
                let file = self.file(name);
                for change in std::mem::take(&mut file.changes) {
                    apply(&mut file.synced, &change);
                }
            }
            // The folder.
            Done::Sync(_) => {
                self.renamed.clear();
                self.synced_names.clone_from(&self.names);
            }
            Done::Sent(_) => {}
        }
    }

    fn name(&mut self, name: &Path, file: Option<usize>) {
        point(&mut self.names, name, file);
        self.renamed.push((name.to_owned(), file));
    }

    fn file(&mut self, name: &Path) -> &mut Content {
        &mut self.files[self.names[name]]
    }

    /// The files as the power may have left them.
    pub(crate) fn leave_behind(&self, chance: &mut Chance, from: &Path, to: &Path) {
        let mut names = self.synced_names.clone();
        // A file system keeps the order in which names change.
        for (name, file) in &self.renamed[..chance.below(self.renamed.len() + 1)] {
            point(&mut names, name, *file);
        }
        let how = chance.below(5);
        for (name, file) in names {
            let content = &self.files[file];
            let mut bytes = content.synced.clone();
            let first = chance.below(content.changes.len() + 1);
            for (n, change) in content.changes.iter().enumerate() {
                match how {
                    0 => {}
                    1 => apply(&mut bytes, change),
                    2 if n >= first => {}
                    2 => apply(&mut bytes, change),
                    3 if chance.below(2) == 0 => {}
                    3 => apply(&mut bytes, change),
                    _ => tear(&mut bytes, change, chance),
                }
            }
            std::fs::write(to.join(name.strip_prefix(from).unwrap()), bytes).unwrap();
        }
    }
}

fn point(names: &mut BTreeMap<PathBuf, usize>, name: &Path, file: Option<usize>) {
    match file {
        Some(file) => names.insert(name.to_owned(), file),
        None => names.remove(name),
    };
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write(at, data) => {
            let (at, end) = (*at as usize, *at as usize + data.len());
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[at..end].copy_from_slice(data);
        }
        Change::Truncate(len) => bytes.resize(*len as usize, 0),
    }
}

/// Some sectors of it, of 512 or 4,096 bytes.
fn tear(bytes: &mut Vec<u8>, change: &Change, chance: &mut Chance) {
    let Change::Write(at, data) = change else { return apply(bytes, change) };
    let sector = [512, 4_096][chance.below(2)];
    let mut begin = 0;
    while begin < data.len() {
        let place = *at as usize + begin;
        let end = (begin + sector - place % sector).min(data.len());
        if chance.below(2) == 0 {
            apply(bytes, &Change::Write(place as u64, data[begin..end].to_vec()));
        }
        begin = end;
    }
}

/// SplitMix64: the same day, the same losses.
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let n = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let n = (n ^ (n >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((n ^ (n >> 31)) % limit as u64) as usize
    }
}
