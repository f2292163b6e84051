//! Owns a Redis of the test's own: its process, its socket file, its folder. Enter at [`Redis::start`].

use crate::process::Process;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};

pub(crate) struct Redis {
    process: Process,
    folder: tempfile::TempDir,
    /// Of clients, where it is not the socket file alone.
    url: Option<String>,
}

impl Redis {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let process = spawn(&folder, &[]);
        Self { folder, process, url: None }
    }

    /// One that listens on a TCP port, too; which.
    pub(crate) fn start_on_tcp() -> (Self, String) {
        let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
        let process = spawn(&folder, &["--port", &port]);
        (Self { folder, process, url: None }, port)
    }

    /// What a node is started with.
    pub(crate) fn env(&self) -> Vec<(&'static str, String)> {
        let mut env = vec![("CHANNEL_LAYER", "redis".to_owned()), ("HABITTOD_CHANNEL_LAYER_REDIS_URL", self.url())];
        if self.url.is_some() {
            env.push(("SSL_CERT_FILE", self.authority()));
        }
        env
    }

    pub(crate) fn url(&self) -> String {
        self.url.clone().unwrap_or_else(|| format!("unix://{}", self.socket()))
    }

    /// The certificate of whom its clients have to trust.
    pub(crate) fn authority(&self) -> String {
        self.folder.path().join("ca.crt").display().to_string()
    }

    pub(crate) fn socket(&self) -> String {
        self.folder.path().join("r.sock").display().to_string()
    }

    pub(crate) fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.process.id().to_string()]).status().unwrap().success());
    }

    /// Ends, as its service would, after it has written what it holds.
    pub(crate) fn stop(&mut self) {
        self.signal("-TERM");
        self.process.wait().unwrap();
    }

    /// What lies on its disk. Only while it is stopped.
    pub(crate) fn disk(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let files = std::fs::read_dir(self.folder.path().join("appendonlydir")).unwrap();
        files.map(|file| file.unwrap().path()).map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
    }

    /// As a failover to a replica that lagged behind: back to what was on its disk then.
    pub(crate) fn set_back(&mut self, disk: &[(PathBuf, Vec<u8>)]) {
        self.stop();
        std::fs::remove_dir_all(self.folder.path().join("appendonlydir")).unwrap();
        std::fs::create_dir(self.folder.path().join("appendonlydir")).unwrap();
        disk.iter().for_each(|(path, bytes)| std::fs::write(path, bytes).unwrap());
        self.restart();
    }

    pub(crate) fn restart(&mut self) {
        self.process = spawn(&self.folder, &[]);
    }

    /// One command, its words apart; the lines of its reply.
    pub(crate) fn call(&self, words: &[&str]) -> String {
        let mut stream = UnixStream::connect(self.socket()).unwrap();
        let greeting: &[&[&str]] = if self.url.is_some() { &[&["AUTH", PASSWORD], &["SELECT", "3"]] } else { &[] };
        let mut text = String::new();
        for words in greeting.iter().chain([&words]) {
            text += &format!("*{}\r\n", words.len());
            for word in *words {
                text += &format!("${}\r\n{word}\r\n", word.len());
            }
        }
        // A second command marks where the first one's reply ends.
        stream.write_all(format!("{text}*2\r\n$4\r\nECHO\r\n$10\r\nthat-is-it\r\n").as_bytes()).unwrap();
        let lines = BufReader::new(stream).lines().map(Result::unwrap).skip(greeting.len());
        let mut got: Vec<String> = lines.take_while(|line| line != "that-is-it").collect();
        got.pop();
        got.join("\n")
    }
}

fn free_port() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string()
}

pub(crate) const PASSWORD: &str = "hunter2";

/// A Redis behind TLS and a password, with an authority of its own.
pub(crate) fn start_with_tls() -> Redis {
    let folder = tempfile::tempdir().unwrap();
    let run = |command: &str| {
        let done = Command::new("sh").args(["-ec", command]).current_dir(folder.path()).stderr(Stdio::null()).status();
        assert!(done.unwrap().success(), "{command}");
    };
    run(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout ca.key -out ca.crt -days 2 -subj /CN=ca",
    );
    run(
        "openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout r.key -out r.csr -subj /CN=localhost",
    );
    run("printf 'subjectAltName=DNS:localhost\nextendedKeyUsage=serverAuth' > names");
    run("openssl x509 -req -in r.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out r.crt -days 2 -extfile names");
    let port = free_port();
    let files = ["--tls-cert-file", "r.crt", "--tls-key-file", "r.key", "--tls-ca-cert-file", "ca.crt"];
    let more = ["--tls-port", &port, "--tls-auth-clients", "no", "--requirepass", PASSWORD];
    let process = spawn(&folder, &[&more[..], &files].concat());
    Redis { folder, process, url: Some(format!("rediss://:{PASSWORD}@localhost:{port}/3")) }
}

/// Up once it says so. Everything it confirms is on its disk.
fn spawn(folder: &tempfile::TempDir, more: &[&str]) -> Process {
    let process = Command::new("redis-server")
        .args(["--port", "0", "--unixsocket", "r.sock", "--appendonly", "yes", "--save", ""])
        .args(more)
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .spawn();
    let mut process = Process(process.unwrap());
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("eady to accept connections")));
    std::thread::spawn(move || lines.for_each(drop));
    process
}
