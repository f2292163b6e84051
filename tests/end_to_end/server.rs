//! Owns a running habittod: its folder, its process, its port. Enter at [`Server::start`].

use crate::described;
use crate::device::Device;
use crate::disk::Disk;
use crate::process::Process;
use habittod::auth::Signer;
use habittod::clock::Clock;
use habittod::matching::UserId;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

pub(crate) const SECRET: &str = "end-to-end-secret-0123456789abcdef0123456789abcdef";
/// Nothing here takes as long; what does, hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Server {
    process: Process,
    folder: PathBuf,
    _owned: Option<tempfile::TempDir>,
    env: Vec<(&'static str, String)>,
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    log: JoinHandle<Vec<String>>,
}

pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Value,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::start_with::<&str>(&[])
    }

    pub(crate) fn start_with<V: ToString>(env: &[(&'static str, V)]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), env)
    }

    /// On the database of that folder, if it has one.
    pub(crate) fn start_in<V: ToString>(folder: tempfile::TempDir, env: &[(&'static str, V)]) -> Self {
        let (mut server, log) = Self::start_unread_in(folder, env);
        server.log = keep(log);
        server
    }

    /// With its log, which nobody reads so far.
    pub(crate) fn start_unread(env: &[(&'static str, &str)]) -> (Self, Log) {
        Self::start_unread_in(tempfile::tempdir().unwrap(), env)
    }

    fn start_unread_in<V: ToString>(folder: tempfile::TempDir, env: &[(&'static str, V)]) -> (Self, Log) {
        let env = env.iter().map(|(name, value)| (*name, value.to_string())).collect();
        Self::try_start(folder.path().to_owned(), Some(folder), env).unwrap()
    }

    /// On a disk that is listened in to, or fails; where it does not start, how it ended.
    pub(crate) fn start_on(disk: &Disk, records: bool, env: &[(&'static str, &str)]) -> Result<Self, ExitStatus> {
        let more = env.iter().map(|(name, value)| (*name, (*value).to_owned()));
        let env = disk.env(records).into_iter().chain(more).collect();
        let (mut server, log) = Self::try_start(disk.folder.path().to_owned(), None, env)?;
        server.log = keep(log);
        Ok(server)
    }

    fn try_start(
        folder: PathBuf,
        owned: Option<tempfile::TempDir>,
        env: Vec<(&'static str, String)>,
    ) -> Result<(Self, Log), ExitStatus> {
        let Running { process, address, admin, log } = spawn(&folder, &env)?;
        Ok((Self { folder, _owned: owned, env, process, address, admin, log: std::thread::spawn(Vec::new) }, log))
    }

    /// What it said on standard error. After its end.
    pub(crate) fn complaints(&self) -> String {
        std::fs::read_to_string(self.folder.join("stderr")).unwrap()
    }

    /// `kill -9`, and up again on the same database.
    pub(crate) fn kill_and_restart(&mut self) {
        self.kill();
        self.restart();
    }

    /// Stops it well; what it logged since it started.
    pub(crate) fn stop_and_read_log(&mut self) -> Vec<String> {
        self.signal("-TERM");
        self.read_log()
    }

    /// What it logged since it started; ends when it does.
    pub(crate) fn read_log(&mut self) -> Vec<String> {
        std::mem::replace(&mut self.log, std::thread::spawn(Vec::new)).join().unwrap()
    }

    /// Another command of the program, with this server's configuration.
    pub(crate) fn command(&self, args: &[&str]) -> Said {
        let admin = self.admin.to_string();
        Said::by(program(&self.folder, &self.env).env("HABITTOD_SERVER_ADMIN_LISTEN", admin).args(args))
    }

    /// The digest of all its rows.
    pub(crate) fn digest(&self) -> String {
        let said = self.command(&["check", "--digest"]);
        said.out.lines().find_map(|line| line.strip_prefix("digest: ")).unwrap().to_owned()
    }

    pub(crate) fn ready(&self) -> Reply {
        self.try_call("GET", "/health/ready", None, None).unwrap()
    }

    /// Asks until it is ready, or until it is not and says so in these words.
    pub(crate) fn until(&self, status: u16, words: &str) {
        let said = |reply: &Reply| reply.status == status && reply.body.to_string().contains(words);
        patiently(|| said(&self.ready()), || format!("not {status} {words:?} but {}", self.ready().body));
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Sends a signal, by its name.
    pub(crate) fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.pid().to_string()]).status().unwrap().success());
    }

    /// How it ended.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.process.wait().unwrap()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    pub(crate) fn restart(&mut self) {
        let Running { process, address, admin, log } = spawn(&self.folder, &self.env).unwrap();
        (self.process, self.address, self.admin, self.log) = (process, address, admin, keep(log));
    }

    /// One request on a connection of its own; `None` where no whole answer came.
    pub(crate) fn try_call(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: Option<&Value>,
    ) -> Option<Reply> {
        try_call(self.address, method, path, token, body)
    }

    pub(crate) fn raw(&self, bytes: &[u8]) -> Option<Reply> {
        raw(self.address, bytes)
    }

    pub(crate) fn call(&self, method: &str, path: &str, token: &str, body: Value) -> Reply {
        let body = if body.is_null() { None } else { Some(&body) };
        self.try_call(method, path, Some(token), body).unwrap()
    }

    /// María (1) lets the flat 10, Juan (2) and others look for one.
    pub(crate) fn put_world(&self) {
        for (id, name) in [(1, "maria"), (2, "juan_perez"), (3, "otra")] {
            let user =
                json!({"username": name, "email": format!("{name}@example.com"), "first_name": name, "phone": "+1"});
            assert_eq!(self.call("PUT", &format!("/api/users/{id}/"), &service(), user).status, 201);
        }
        self.put_property(10);
    }

    pub(crate) fn put_property(&self, id: i64) {
        let home = json!({"owner": 1, "type": "departamento", "address": format!("Av. Siempre Viva {id}")});
        assert_eq!(self.call("PUT", &format!("/api/properties/{id}/"), &service(), home).status, 201);
    }

    pub(crate) fn like(&self, tenant: i64, property: i64) {
        let reply = self.call("POST", &format!("/api/properties/{property}/like/"), &user(tenant), Value::Null);
        assert_eq!(reply.status, 200, "{}", reply.body);
    }

    pub(crate) fn connect(&self, channel: &str, user: i64) -> Device {
        Device::connect(self, channel, user, &self::user(user), "").unwrap()
    }
}

#[allow(clippy::print_stdout, reason = "shown with a test that fails")]
impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.process.kill();
            let log = std::mem::replace(&mut self.log, std::thread::spawn(Vec::new)).join().unwrap_or_default();
            println!("the last that it logged:\n{}", log[log.len().saturating_sub(30)..].join("\n"));
        }
    }
}

/// The same of whoever listens there.
pub(crate) fn try_call(
    address: SocketAddr,
    method: &str,
    path: &str,
    token: Option<&str>,
    body: Option<&Value>,
) -> Option<Reply> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n");
    if let Some(token) = token {
        head += &format!("Authorization: Bearer {token}\r\n");
    }
    let body = body.map(ToString::to_string).unwrap_or_default();
    if !body.is_empty() {
        head += &format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
    }
    raw(address, format!("{head}\r\n{body}").as_bytes())
}

fn raw(address: SocketAddr, bytes: &[u8]) -> Option<Reply> {
    let text = exchange(address, bytes)?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    // Of several answers on one connection the first would have to be cut out.
    if described::header(head, "content-length").is_none_or(|length| length == body.len().to_string()) {
        let line = bytes.split(|&byte| byte == b'\r').next().unwrap_or_default();
        described::answer(&String::from_utf8_lossy(line), status, head, body);
    }
    Some(Reply { status, head: head.to_owned(), body: serde_json::from_str(body).unwrap_or(Value::Null) })
}

/// What a command said, and its exit code.
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    fn by(command: &mut Command) -> Self {
        let done = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: done.status.code().unwrap(), out: text(done.stdout), err: text(done.stderr) }
    }
}

/// Runs a command of habittod in a folder, with the secret of all tests.
pub(crate) fn command(folder: &Path, args: &[&str]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_habittod"));
    command
        .args(args)
        .current_dir(folder)
        .env("HABITTOD_AUTH_SECRET", SECRET)
        .env("HABITTOD_SERVER_LISTEN", "127.0.0.1:0")
        .env("HABITTOD_SERVER_ADMIN_LISTEN", "127.0.0.1:0");
    Said::by(&mut command)
}

pub(crate) type Log = BufReader<ChildStdout>;

/// A process that listens.
struct Running {
    process: Process,
    address: SocketAddr,
    admin: SocketAddr,
    log: Log,
}

/// Sends bytes on a connection of its own; everything that comes back.
pub(crate) fn exchange(address: SocketAddr, bytes: &[u8]) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(bytes).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    String::from_utf8(answer).ok()
}

/// Head and body of a page.
pub(crate) fn get(address: SocketAddr, path: &str) -> (String, String) {
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: h\r\nOrigin: https://elsewhere.example\r\nConnection: close\r\n\r\n");
    let answer = exchange(address, request.as_bytes()).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

/// Starts it on a port that the kernel chooses; its first log line tells which, or there is none, and it has ended.
fn spawn(folder: &Path, env: &[(&'static str, String)]) -> Result<Running, ExitStatus> {
    let process = program(folder, env)
        .arg("serve")
        .stdout(Stdio::piped())
        .stderr(std::fs::File::create(folder.join("stderr")).unwrap())
        .spawn();
    let mut process = Process(process.unwrap());
    let mut log = BufReader::new(process.stdout.take().unwrap());
    let mut line = String::new();
    if log.read_line(&mut line).unwrap() == 0 {
        return Err(process.wait().unwrap());
    }
    let complaints = || std::fs::read_to_string(folder.join("stderr"));
    let first: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}{:?}", complaints()));
    let address = |listener: &str| first[listener][0].as_str().unwrap().parse().unwrap();
    let (address, admin) = (address("listen"), address("admin"));
    Ok(Running { process, address, admin, log })
}

/// Reads it to its end, whoever wants it: a full pipe would lose lines.
fn keep(log: Log) -> JoinHandle<Vec<String>> {
    std::thread::spawn(move || log.lines().map_while(Result::ok).collect())
}

/// Asks again and again until it is so; what there is instead, if it never is.
pub(crate) fn patiently(mut is_so: impl FnMut() -> bool, instead: impl Fn() -> String) {
    let clock = Clock::start();
    while !is_so() {
        assert!(clock.now().monotonic_us < PATIENCE.as_micros() as u64, "{}", instead());
    }
}

/// The program in that folder, with what tests configure.
pub(crate) fn program(folder: &Path, env: &[(&'static str, String)]) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_habittod"));
    program
        .current_dir(folder)
        .env("HABITTOD_SERVER_LISTEN", "127.0.0.1:0")
        .env("HABITTOD_SERVER_ADMIN_LISTEN", "127.0.0.1:0")
        .env("HABITTOD_LIMITS_REQUESTS_PER_SECOND", "0")
        .envs(env.iter().map(|(name, value)| (name, value)));
    if !env.iter().any(|(name, _)| *name == "HABITTOD_AUTH_PUBLIC_KEY_FILE") {
        program.env("HABITTOD_AUTH_SECRET", SECRET);
    }
    program
}

fn signer() -> (Signer, i64) {
    (Signer::from_secret(SECRET.as_bytes()).unwrap(), Clock::start().now().wall_ms)
}

pub(crate) fn user(id: i64) -> String {
    user_for(id, Duration::from_secs(3_600))
}

pub(crate) fn user_for(id: i64, ttl: Duration) -> String {
    let (signer, now_ms) = signer();
    signer.access(UserId(id), now_ms, ttl)
}

pub(crate) fn service() -> String {
    service_at(0)
}

/// Made so many seconds from now.
pub(crate) fn service_at(seconds: i64) -> String {
    let (signer, now_ms) = signer();
    signer.service(now_ms + seconds * 1_000, Duration::from_secs(3_600))
}
