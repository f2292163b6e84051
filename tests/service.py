"""Plays systemd: passes sockets, listens to what the server says of itself, reads its units. Needs Python alone, and
systemd-analyze for the units. First argument: the binary."""

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

BINARY = os.path.abspath(sys.argv.pop(1))
UNITS = Path(__file__).parent.parent / "systemd"
PATIENCE = 30  # nothing takes as long; what does, hangs
SECRET = "service-test-secret-0123456789abcdef0123"


def get(address, path, token=None):
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), PATIENCE) as sock:
        auth = f"Authorization: Bearer {token}\r\n" if token else ""
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: h\r\n{auth}Connection: close\r\n\r\n".encode())
        return int(sock.makefile("rb").read().split(b" ")[1])


class Service:
    """The server, as systemd starts it."""

    def __init__(self, folder, sockets=(), names=None, notify=None, listen_pid=None, **settings):
        env = {f"HABITTOD_{name.upper()}": value for name, value in settings.items()}
        env.setdefault("HABITTOD_AUTH_SECRET", SECRET)
        env.setdefault("HABITTOD_SERVER_LISTEN", "127.0.0.1:0")
        env.setdefault("HABITTOD_SERVER_ADMIN_LISTEN", "")
        env = {name: value for name, value in env.items() if value is not None}
        if notify:
            env |= {"NOTIFY_SOCKET": notify, "WATCHDOG_USEC": "300000"}
        if sockets:
            env["LISTEN_FDS"] = str(len(sockets))
        if names:
            env["LISTEN_FDNAMES"] = names

        def hand_over():
            # Away from the numbers that they are to get, then there.
            away = [os.dup2(sock.fileno(), 100 + index) for index, sock in enumerate(sockets)]
            for index, descriptor in enumerate(away):
                os.dup2(descriptor, 3 + index)

        command = f"export LISTEN_PID={listen_pid or '$$'}; exec {BINARY} serve"
        self.process = subprocess.Popen(
            ["sh", "-c", command], env=env | {"PATH": os.environ["PATH"]}, cwd=folder, preexec_fn=hand_over, text=True,
            pass_fds=range(3, 3 + len(sockets)), stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def listening(self):
        """The addresses in its first log line: the public ones, then the admin's."""
        line = json.loads(self.process.stdout.readline())
        return line["listen"] + line["admin"]

    def log(self, event):
        return next(line for line in map(json.loads, self.process.stdout) if line["event"] == event)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        _, self.said = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode


class Case(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def start(self, *args, **kwargs):
        service = Service(self.folder, *args, **kwargs)
        self.addCleanup(lambda: (service.process.kill(), service.process.communicate()))
        return service

    def listener(self):
        sock = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(sock.close)
        return sock, "127.0.0.1:%d" % sock.getsockname()[1]


class Passed(Case):
    def test_sockets_are_told_apart_by_name_and_win(self):
        (admin, admin_address), (http, http_address) = self.listener(), self.listener()
        _, taken_address = self.listener()
        service = self.start([admin, http], "admin:http", server_listen=taken_address)
        self.assertEqual(service.listening(), [http_address, admin_address])
        self.assertEqual((get(http_address, "/api/users/me/"), get(admin_address, "/api/users/me/")), (401, 404))
        self.assertEqual((get(http_address, "/health/ready"), get(admin_address, "/health/ready")), (200, 200))
        self.assertEqual((get(http_address, "/metrics"), get(admin_address, "/metrics")), (404, 200))
        self.assertEqual(service.stop(), 0)
        self.assertIn(f"server.listen is not obeyed: systemd passed {http_address}; ", service.said)

    def test_without_names_the_configured_address_tells(self):
        (admin, admin_address), (http, http_address) = self.listener(), self.listener()
        service = self.start([http, admin], server_admin_listen=admin_address)
        service.listening()
        self.assertEqual((get(http_address, "/api/users/me/"), get(admin_address, "/api/users/me/")), (401, 404))
        self.assertEqual(service.stop(), 0)
        self.assertNotIn("server.admin_listen", service.said)

    def test_what_cannot_be_served_is_named(self):
        quiet = socket.socket()
        quiet.bind(("127.0.0.1", 0))
        file_name = socket.socket(socket.AF_UNIX)
        file_name.bind(os.path.join(self.folder, "s"))
        file_name.listen()
        for odd in (quiet, file_name, socket.socket(socket.AF_INET, socket.SOCK_DGRAM), open(os.devnull)):
            with self.subTest(odd=odd), odd:
                service = self.start([odd], "http")
                _, said = service.process.communicate(timeout=PATIENCE)
                self.assertEqual(service.process.returncode, 2, said)
                self.assertRegex(said, r'^habittod: socket "http" of systemd: .*; pass listening TCP sockets.*\n$')

    def test_sockets_for_another_process_are_not_touched(self):
        http, address = self.listener()
        service = self.start([http], "http", listen_pid=1)
        self.assertNotIn(address, service.listening())

    def test_who_comes_between_two_servers_waits(self):
        http, address = self.listener()
        service = self.start([http], "http")
        service.listening()
        self.assertEqual(service.stop(), 0)
        host, port = address.split(":")
        with socket.create_connection((host, int(port)), PATIENCE) as early:
            early.sendall(b"GET /health/ready HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
            self.start([http], "http")
            self.assertTrue(early.recv(100).startswith(b"HTTP/1.1 200 "))


class Reloaded(Case):
    """What SIGHUP changes, for those who come and those who are there."""

    def token(self, secret):
        env = {"HABITTOD_AUTH_SECRET": secret}
        return subprocess.check_output([BINARY, "token", "1"], env=env, cwd="/", text=True).strip()

    def open(self, address, token):
        host, port = address.split(":")
        sock = socket.create_connection((host, int(port)), PATIENCE)
        self.addCleanup(sock.close)
        sock.sendall(f"GET /ws/tenant-notifications/1/?token={token} HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n"
                     "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                     "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode())
        self.until(sock, b"connection_established")
        return sock

    def until(self, sock, wanted):
        got = b""
        while wanted not in got:
            part = sock.recv(4096)
            self.assertTrue(part, f"{wanted} does not come after {got}")
            got += part

    def say(self, sock, text):
        """A masked text frame; the mask is 0."""
        sock.sendall(bytes([0x81, 0x80 | len(text)]) + bytes(4) + text.encode())

    def reload(self, service):
        service.process.send_signal(signal.SIGHUP)
        return service.log("reloaded")

    def test_a_rotated_secret_and_a_smaller_limit(self):
        secret, config = Path(self.folder, "secret"), Path(self.folder, "config.toml")
        secret.write_text(SECRET + "\n")
        config.write_text(f"[auth]\nsecret_file = '{secret}'\n")
        service = self.start(auth_secret=None)
        address = service.listening()[0]
        old, new = self.token(SECRET), self.token(SECRET[::-1])
        sock = self.open(address, old)
        self.assertEqual((get(address, "/api/users/me/", old), get(address, "/api/users/me/", new)), (404, 401))

        secret.write_text(SECRET[::-1])
        self.reload(service)
        self.assertEqual((get(address, "/api/users/me/", old), get(address, "/api/users/me/", new)), (401, 404))
        self.say(sock, '{"type":"ping"}')
        self.until(sock, b'"pong"')

        config.write_text(f"[auth]\nsecret_file = '{secret}'\n[limits]\nws_message = 20\n"
                          "[server]\nlisten = '127.0.0.1:1'\n[storage]\npath = 'other.db'\n")
        self.assertEqual(self.reload(service)["needs_restart"], ["storage.path"])
        self.say(sock, '{"type":"mark_read","all":true}')
        self.until(sock, b"\x03\xf1")  # 1009
        self.assertEqual(service.stop(), 0)

    def test_a_shorter_ping_interval_holds_for_open_sockets(self):
        config = Path(self.folder, "config.toml")
        config.write_text("[limits]\nping_interval = '1h'\n")
        service = self.start()
        sock = self.open(service.listening()[0], self.token(SECRET))
        config.write_text("[limits]\nping_interval = '1ms'\n")
        self.reload(service)
        self.until(sock, b"\x89\x10")


class Said(Case):
    """What the server tells systemd."""

    def setUp(self):
        super().setUp()
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(self.socket.close)
        self.socket.settimeout(PATIENCE)

    def hears(self, wanted):
        """All that is said until that is."""
        said = []
        while not said or not said[-1].startswith(wanted):
            said.append(self.socket.recv(4096).decode())
        return said

    def notified(self, name, **settings):
        # An abstract name begins with NUL for the kernel and with @ for everybody else.
        self.socket.bind(name.replace("@", "\0"))
        return self.start(notify=name, **settings)

    def test_ready_reloading_stopping(self):
        service = self.notified(os.path.join(self.folder, "notify"))
        self.assertEqual(self.hears("READY=1"), ["READY=1"])
        address = service.listening()[0]
        self.assertEqual(get(address, "/health/ready"), 200)
        self.assertEqual(self.hears("WATCHDOG=1")[-1], "WATCHDOG=1\nSTATUS=0 sockets, serving")
        service.process.send_signal(signal.SIGHUP)
        self.assertRegex(self.hears("RELOADING=1")[-1], r"^RELOADING=1\nMONOTONIC_USEC=\d+$")
        self.hears("READY=1")
        self.assertEqual(service.log("reloaded")["needs_restart"], [])
        Path(self.folder, "config.toml").write_text("[server]\nlisten = '127.0.0.1:1'\n[limits]\nbdoy = 1\n")
        service.process.send_signal(signal.SIGHUP)
        self.hears("READY=1")
        self.assertEqual(service.log("not_reloaded")["mistakes"], ["config.toml:4: limits.bdoy: unknown; is limits.body meant?"])
        service.process.send_signal(signal.SIGTERM)
        self.hears("STOPPING=1")
        service.process.communicate(timeout=PATIENCE)
        self.assertEqual(service.process.returncode, 0)

    def test_no_sign_of_life_while_the_committer_is_stuck(self):
        service = self.notified("@habittod-test-%d" % os.getpid())
        address = service.listening()[0]
        self.hears("WATCHDOG=1")
        # Another program holds the database: the committer waits for it, some seconds.
        other = sqlite3.connect(os.path.join(self.folder, "habittod.db"), isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        token = subprocess.check_output(
            [BINARY, "token", "1"], env={"HABITTOD_AUTH_SECRET": SECRET}, cwd=self.folder, text=True).strip()
        host, port = address.split(":")
        with socket.create_connection((host, int(port)), PATIENCE) as poster:
            poster.sendall(b"POST /api/notifications/mark_all_as_read/ HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer "
                           + token.encode() + b"\r\nConnection: close\r\n\r\n")
            # Whatever went through before the write did.
            self.socket.settimeout(1)
            with self.assertRaises(TimeoutError):
                for _ in range(10):
                    self.socket.recv(4096)
            self.assertEqual(get(address, "/health/live"), 200)
            other.execute("COMMIT")
            self.socket.settimeout(PATIENCE)
            self.hears("WATCHDOG=1")
            self.assertTrue(poster.recv(100).startswith(b"HTTP/1.1 200 "))


@unittest.skipUnless(shutil.which("systemd-analyze"), "no systemd-analyze")
class Units(unittest.TestCase):
    def test_units_are_right_and_tight(self):
        with tempfile.TemporaryDirectory() as folder:
            for unit in UNITS.iterdir():
                text = unit.read_text().replace("/usr/local/bin/habittod", BINARY)
                Path(folder, unit.name).write_text(text)
            drop_in = Path(folder, "habittod.service.d")

            def analyze(*words):
                env = os.environ | {"SYSTEMD_UNIT_PATH": folder + ":"}
                done = subprocess.run(["systemd-analyze", *words], cwd=folder, env=env, text=True, capture_output=True)
                self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)

            units = ["habittod.service", "habittod.socket", "habittod-admin.socket"]
            analyze("verify", *("./" + unit for unit in units))
            analyze("security", "--offline=true", "--threshold=2", "./habittod.service")
            drop_in.mkdir()
            Path(folder, "redis-tcp.conf").rename(drop_in / "redis-tcp.conf")
            analyze("verify", *("./" + unit for unit in units))


if __name__ == "__main__":
    unittest.main()
