//! Owns what is put between a server and its disk: the library of `preload.c`, what it writes down, and the page that
//! makes calls fail. Enter at [`Disk::new`].

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// A folder for a server, and its wire-tapped disk.
pub(crate) struct Disk {
    pub(crate) folder: tempfile::TempDir,
    apart: tempfile::TempDir,
    page: File,
}

/// What was done, in order: a file's change, or bytes that went to a client.
#[derive(Debug)]
pub(crate) enum Done {
    Create(PathBuf),
    Write(PathBuf, u64, Vec<u8>),
    Truncate(PathBuf, u64),
    Sync(PathBuf),
    Rename(PathBuf, PathBuf),
    Unlink(PathBuf),
    Sent(Vec<u8>),
}

/// As in `preload.c`.
#[derive(Clone, Copy)]
enum Mode {
    Nothing = 0,
    FailOne = 1,
    FailFrom = 2,
    HoldSyncs = 3,
    KillAt = 4,
    FailSyncs = 5,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Errno {
    Io = 5,
    NoSpace = 28,
    ReadOnly = 30,
}

const AT: u64 = 8;
const CALLS: u64 = 16;
const HELD: u64 = 24;
const REFUSED: u64 = 32;
const AHEAD: u64 = 40;

impl Disk {
    pub(crate) fn new() -> Self {
        Self::of(tempfile::tempdir().unwrap())
    }

    /// For a few rows and many starts.
    pub(crate) fn fast() -> Self {
        Self::of(in_memory())
    }

    fn of(folder: tempfile::TempDir) -> Self {
        let apart = tempfile::tempdir().unwrap();
        fs::write(apart.path().join("record"), "").unwrap();
        let page =
            OpenOptions::new().read(true).write(true).create_new(true).open(apart.path().join("control")).unwrap();
        page.set_len(4_096).unwrap();
        Self { folder, apart, page }
    }

    /// The environment of a server on this disk. `records`: everything is written down, which takes room.
    pub(crate) fn env(&self, records: bool) -> Vec<(&'static str, String)> {
        let shown = |path: &Path| path.to_str().unwrap().to_owned();
        let mut env = vec![
            ("LD_PRELOAD", shown(library())),
            ("DISK_FOLDER", shown(&self.folder.path().canonicalize().unwrap())),
            ("DISK_CONTROL", shown(&self.apart.path().join("control"))),
        ];
        if records {
            env.push(("DISK_RECORD", shown(&self.apart.path().join("record"))));
        }
        env
    }

    /// The `at`th call from now on fails.
    pub(crate) fn fail_one(&self, at: u64, errno: Errno) {
        self.set(Mode::FailOne, self.calls() + at, errno as u32);
    }

    /// The server is killed in place of the `at`th call from now on.
    pub(crate) fn kill_at(&self, at: u64) {
        self.set(Mode::KillAt, self.calls() + at, 0);
    }

    pub(crate) fn fail(&self, errno: Errno) {
        self.set(Mode::FailFrom, 0, errno as u32);
    }

    /// Writes work, syncs do not.
    pub(crate) fn fail_syncs(&self, errno: Errno) {
        self.set(Mode::FailSyncs, 0, errno as u32);
    }

    /// A sync takes until [`Self::heal`].
    pub(crate) fn hold_syncs(&self) {
        self.set(Mode::HoldSyncs, 0, 0);
    }

    pub(crate) fn heal(&self) {
        self.set(Mode::Nothing, 0, 0);
    }

    /// From now on the clock on the wall shows so many seconds more than it should.
    pub(crate) fn set_clock_ahead(&self, seconds: i64) {
        self.page.write_all_at(&seconds.to_ne_bytes(), AHEAD).unwrap();
    }

    fn set(&self, mode: Mode, at: u64, errno: u32) {
        self.page.write_all_at(&at.to_ne_bytes(), AT).unwrap();
        self.page.write_all_at(&errno.to_ne_bytes(), 4).unwrap();
        self.page.write_all_at(&(mode as u32).to_ne_bytes(), 0).unwrap();
    }

    fn number(&self, at: u64) -> u64 {
        let mut bytes = [0; 8];
        self.page.read_exact_at(&mut bytes, at).unwrap();
        u64::from_ne_bytes(bytes)
    }

    /// Writes, truncations and syncs so far.
    pub(crate) fn calls(&self) -> u64 {
        self.number(CALLS)
    }

    /// Syncs that were held so far.
    pub(crate) fn held(&self) -> u64 {
        self.number(HELD)
    }

    /// Accepts that failed for lack of descriptors.
    pub(crate) fn refused_accepts(&self) -> u64 {
        self.number(REFUSED)
    }

    /// Everything that was written down.
    pub(crate) fn record(&self) -> Vec<Done> {
        let bytes = fs::read(self.apart.path().join("record")).unwrap();
        let (mut rest, mut all) = (bytes.as_slice(), Vec::new());
        while let Some((head, behind)) = rest.split_at_checked(24) {
            let short = |at: usize| u32::from_ne_bytes(head[at..at + 4].try_into().unwrap());
            let long = |at: usize| u64::from_ne_bytes(head[at..at + 8].try_into().unwrap());
            let Some((name, behind)) = behind.split_at_checked(short(4) as usize) else { break };
            let Some((data, behind)) = behind.split_at_checked(long(8) as usize) else { break };
            let path = |bytes: &[u8]| PathBuf::from(str::from_utf8(bytes).unwrap());
            let (name, offset) = (path(name), long(16));
            all.push(match short(0) {
                1 => Done::Create(name),
                2 => Done::Write(name, offset, data.to_vec()),
                3 => Done::Truncate(name, offset),
                4 => Done::Sync(name),
                5 => Done::Rename(name, path(data)),
                6 => Done::Unlink(name),
                7 => Done::Sent(data.to_vec()),
                odd => panic!("record of kind {odd}"),
            });
            rest = behind;
        }
        all
    }
}

/// A folder in shared memory, where there is such a thing: syncs take no time there.
pub(crate) fn in_memory() -> tempfile::TempDir {
    let shared = Path::new("/dev/shm");
    if shared.is_dir() { tempfile::tempdir_in(shared) } else { tempfile::tempdir() }.unwrap()
}

/// Made once with the C compiler that the bundled SQLite needs anyway.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/end_to_end/preload.c");
        let made = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("preload-{}.so", std::process::id()));
        let whole = Path::new(env!("CARGO_TARGET_TMPDIR")).join("preload.so");
        let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
        let flags = ["-std=gnu11", "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o"];
        let done = Command::new(compiler).args(flags).arg(&made).arg(source).args(["-ldl", "-lpthread"]).status();
        assert!(done.unwrap().success());
        fs::rename(made, &whole).unwrap();
        whole
    })
}
