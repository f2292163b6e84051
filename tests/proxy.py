"""The server behind proxies: the nginx of the README, and two that do to pings what they should not. Needs nginx and
openssl. First argument: the binary."""

import os
import re
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import unittest
from pathlib import Path

BINARY = os.path.abspath(sys.argv.pop(1))
README = Path(__file__).parent.parent / "README.md"
PATIENCE = 30  # nothing takes as long; what does, hangs
SECRET = "proxy-test-secret-0123456789abcdef012345"


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return sock.getsockname()[1]


def habittod(*words, **env):
    env |= {"HABITTOD_AUTH_SECRET": SECRET}
    return subprocess.run([BINARY, *words], env=env, cwd="/", text=True, capture_output=True, timeout=PATIENCE)


class Behind(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.port = free_port()
        env = {
            "HABITTOD_AUTH_SECRET": SECRET, "HABITTOD_SERVER_LISTEN": f"127.0.0.1:{self.port}",
            "HABITTOD_SERVER_ADMIN_LISTEN": "", "HABITTOD_LIMITS_CONNECTIONS_PER_IP": "2",
            "HABITTOD_SERVER_TRUSTED_PROXIES": "127.0.0.1/32"}
        server = self.start([BINARY, "serve"], env)
        server.stdout.readline()
        self.token = habittod("token", "1").stdout.strip()

    def start(self, command, env=None):
        process = subprocess.Popen(command, env=env, cwd=self.folder, stdout=subprocess.PIPE)
        self.addCleanup(lambda: (process.terminate(), process.communicate()))
        return process

    def nginx(self):
        """With the README's recipe, and only its addresses and files changed."""
        port, recipe = free_port(), re.search(r"```nginx\n(.*?)```", README.read_text(), re.S)[1]
        for old, new in {
            "listen 443 ssl": f"listen 127.0.0.1:{port} ssl", "127.0.0.1:8000": f"127.0.0.1:{self.port}",
            "/etc/ssl/notify.example.pem": "cert.pem", "/etc/ssl/notify.example.key": "key.pem",
            "/var/log/nginx/": f"{self.folder}/",
        }.items():
            self.assertIn(old, recipe)
            recipe = recipe.replace(old, new)
        own = "".join(f"{what}_temp_path {self.folder}/{what};\n" for what in (
            "client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        (self.folder / "nginx.conf").write_text(
            f"daemon off; master_process off; pid nginx.pid; error_log stderr crit; events {{}}\nhttp {{\n{own}{recipe}\n}}\n")
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
             "-keyout", "key.pem", "-out", "cert.pem", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
             "-addext", "basicConstraints=critical,CA:FALSE"],
            cwd=self.folder, check=True, capture_output=True)
        process = self.start(["nginx", "-p", self.folder, "-c", "nginx.conf", "-e", "stderr"])
        while process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port), PATIENCE).close()
                return port
            except ConnectionRefusedError:
                pass
        self.fail("nginx does not start")

    def test_nginx_as_the_readme_has_it(self):
        port = self.nginx()
        cert = str(self.folder / "cert.pem")
        said = habittod("probe", f"wss://localhost:{port}", "--token", self.token, SSL_CERT_FILE=cert)
        self.assertEqual((said.returncode, said.stderr), (0, ""), said.stdout)
        self.assertTrue(said.stdout.startswith("OK: "), said.stdout)
        strange = habittod("probe", f"wss://localhost:{port}", "--token", self.token)
        self.assertEqual((strange.returncode, strange.stdout), (1, ""), strange.stderr)
        self.assertIn("not trusted here: ", strange.stderr)
        wrong = habittod("probe", f"wss://localhost:{port}", "--token", self.token[:-2], SSL_CERT_FILE=cert)
        self.assertEqual(wrong.returncode, 1)
        self.assertIn("status 401", wrong.stderr)

        context = ssl.create_default_context(cafile=cert)
        kept = []

        def open_from(source):
            sock = socket.create_connection(("127.0.0.1", port), PATIENCE, source_address=(source, 0))
            sock = context.wrap_socket(sock, server_hostname="localhost")
            kept.append(sock)
            sock.sendall(
                f"GET /ws/tenant-notifications/1/?token={self.token} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
                "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
                .encode())
            return int(sock.recv(4096).split(b" ")[1])

        # Each client has his own count, whatever the proxy's is.
        self.assertEqual([open_from("127.0.0.2") for _ in range(3)], [101, 101, 429])
        self.assertEqual(open_from("127.0.0.3"), 101)
        for sock in kept:
            sock.close()
        # nginx writes a line once a request has ended.
        log = self.folder / "habittod.log"
        while log.read_text().count("/ws/tenant-notifications/1/") < 6:
            pass
        self.assertNotIn(self.token[-20:], log.read_text())
        self.assertNotIn("token=", log.read_text())

    def test_without_a_proxy_the_peer_counts(self):
        def ask(sock):
            sock.sendall(f"GET /api/users/me/ HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {self.token}\r\n\r\n".encode())
            return int(sock.recv(4096).split(b" ")[1])
        for source in ("127.0.0.1", "127.0.0.9"):
            socks = [socket.create_connection(("127.0.0.1", self.port), PATIENCE, source_address=(source, 0)) for _ in range(3)]
            self.assertEqual([ask(sock) for sock in socks], [404, 404, 429], source)
            for sock in socks:
                sock.close()

    def proxy(self, answers):
        """One that knows WebSocket: it answers pings itself, or lets them vanish."""
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)

        def serve():
            client, _ = listener.accept()
            upstream = socket.create_connection(("127.0.0.1", self.port))
            threading.Thread(target=pump, args=(client, upstream), daemon=True).start()
            read = upstream.makefile("rb")
            while True:  # the head
                line = read.readline()
                client.sendall(line)
                if line == b"\r\n":
                    break
            while head := read.read(2):
                length = head[1]
                more = read.read({126: 2, 127: 8}.get(length, 0))
                payload = read.read(int.from_bytes(more, "big") if more else length)
                if head[0] != 0x89:
                    client.sendall(head + more + payload)
                elif answers:
                    upstream.sendall(bytes([0x8A, 0x80 | length]) + bytes(4) + payload)
            client.close()

        def pump(source, target):
            while part := source.recv(4096):
                target.sendall(part)
            target.shutdown(socket.SHUT_WR)

        threading.Thread(target=serve, daemon=True).start()
        return listener.getsockname()[1]

    def test_what_answers_or_swallows_pings_is_found_out(self):
        for port, code, what in (
            (self.port, 0, "OK: "), (self.proxy(answers=True), 1, "answers pings in the client's place"),
            (self.proxy(answers=False), 1, "swallows pings"), (free_port(), 1, "cannot connect"),
        ):
            with self.subTest(what):
                said = habittod("probe", f"ws://127.0.0.1:{port}/", "--token", self.token)
                self.assertEqual(said.returncode, code, said.stderr)
                self.assertIn(what, said.stdout + said.stderr)
        said = habittod("probe", "ws://127.0.0.1", "--token", habittod("token", "--service").stdout.strip())
        self.assertEqual(said.returncode, 2)


if __name__ == "__main__":
    unittest.main()
