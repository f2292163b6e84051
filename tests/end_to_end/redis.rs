//! Owns a Redis of the test's own: its process, its socket file, its folder. Enter at [`Redis::start`].

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

pub(crate) struct Redis {
    folder: tempfile::TempDir,
    process: Child,
}

impl Redis {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let process = spawn(&folder, &[]);
        Self { folder, process }
    }

    /// One that listens on a TCP port, too; which.
    pub(crate) fn start_on_tcp() -> (Self, String) {
        let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
        let process = spawn(&folder, &["--port", &port]);
        (Self { folder, process }, port)
    }

    /// What a node is started with.
    pub(crate) fn env(&self) -> [(&'static str, String); 2] {
        [
            ("CHANNEL_LAYER", "redis".to_owned()),
            ("HABITTOD_CHANNEL_LAYER_REDIS_URL", format!("unix://{}", self.socket())),
        ]
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

    /// One command, its words apart; the reply's first line, or (of an array) all lines.
    pub(crate) fn call(&self, words: &[&str]) -> String {
        let mut stream = UnixStream::connect(self.socket()).unwrap();
        let mut text = format!("*{}\r\n", words.len());
        for word in words {
            text += &format!("${}\r\n{word}\r\n", word.len());
        }
        // A second command marks where the first one's reply ends.
        stream.write_all(format!("{text}*2\r\n$4\r\nECHO\r\n$10\r\nthat-is-it\r\n").as_bytes()).unwrap();
        let lines = BufReader::new(stream).lines().map(Result::unwrap);
        let mut got: Vec<String> = lines.take_while(|line| line != "that-is-it").collect();
        got.pop();
        got.join("\n")
    }
}

fn free_port() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string()
}

/// A Redis behind TLS and a password, with an authority of its own; where it is, and that authority's certificate.
pub(crate) fn start_with_tls() -> (Redis, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let run = |command: &str| {
        let done = Command::new("sh").args(["-ec", command]).current_dir(folder.path()).stderr(Stdio::null()).status();
        assert!(done.unwrap().success(), "{command}");
    };
    run("openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -days 2 -subj /CN=ca");
    run("openssl req -newkey rsa:2048 -nodes -keyout r.key -out r.csr -subj /CN=localhost");
    run("printf 'subjectAltName=DNS:localhost\nextendedKeyUsage=serverAuth' > names");
    run("openssl x509 -req -in r.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out r.crt -days 2 -extfile names");
    let port = free_port();
    let files = ["--tls-cert-file", "r.crt", "--tls-key-file", "r.key", "--tls-ca-cert-file", "ca.crt"];
    let more = ["--tls-port", &port, "--tls-auth-clients", "no", "--requirepass", "hunter2"];
    let process = spawn(&folder, &[&more[..], &files].concat());
    let authority = folder.path().join("ca.crt").display().to_string();
    (Redis { folder, process }, format!("rediss://:hunter2@localhost:{port}/3"), authority)
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Up once it says so. Everything it confirms is on its disk.
fn spawn(folder: &tempfile::TempDir, more: &[&str]) -> Child {
    let mut process = Command::new("redis-server")
        .args(["--port", "0", "--unixsocket", "r.sock", "--appendonly", "yes", "--save", ""])
        .args(more)
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("eady to accept connections")));
    std::thread::spawn(move || lines.for_each(drop));
    process
}
