"""Real servers for the tests, each private: own folder, own port, ended by its process id."""

import os
import shutil
import socket
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pymysql

from kit.ports import free_port
from kit.waiting import until

_MYSQL_USER, _MYSQL_PASSWORD = "edgeplane", "tests-only"


class MariaDB:
    """A MariaDB server, with further options; ``kill`` and ``start`` may be called any time.

    Whoever reaches its ``host`` may log in with the tests' own user.
    """

    def __init__(self, folder: Path, host: str = "127.0.0.1", options: Sequence[str] = ()) -> None:
        self.folder = folder
        self.host = host
        self._options = options
        self.port = free_port()
        self._socket = folder / "s.sock"
        self._data = folder / "data"
        self._process: subprocess.Popen[bytes] | None = None
        # A server that starts removes all temporary tables it finds: not those of another.
        self._environ = {**os.environ, "TMPDIR": str(folder / "tmp")}
        self._run_as = ["--user=mysql"] if os.geteuid() == 0 else []
        self._prepare()

    def dsn(self, database: str) -> str:
        """Return a database's DSN, in the Go form."""
        place = f"tcp({self.host}:{self.port})"
        options = "charset=utf8mb4&parseTime=True&loc=Local"
        return f"{_MYSQL_USER}:{_MYSQL_PASSWORD}@{place}/{database}?{options}"

    def create_database(self, name: str) -> str:
        """Make an empty database; return its DSN."""
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute(f"DROP DATABASE IF EXISTS `{name}`")
            cursor.execute(f"CREATE DATABASE `{name}`")
        return self.dsn(name)

    def connect(self, database: str | None = None) -> "pymysql.Connection[pymysql.cursors.Cursor]":
        """Open a connection of the tests' own."""
        return pymysql.connect(
            host=self.host,
            port=self.port,
            user=_MYSQL_USER,
            password=_MYSQL_PASSWORD,
            database=database,
            autocommit=True,
        )

    def start(self) -> None:
        """Start it and wait until it answers."""
        log = (self.folder / "log").open("ab")
        self._process = subprocess.Popen(
            [
                _program("mariadbd"),
                "--no-defaults",
                *self._run_as,
                f"--datadir={self._data}",
                f"--socket={self._socket}",
                f"--port={self.port}",
                f"--bind-address={self.host}",
                "--skip-name-resolve",
                f"--init-file={self.folder / 'init.sql'}",
                "--skip-log-bin",
                "--innodb-buffer-pool-size=256M",
                "--innodb-flush-log-at-trx-commit=1",
                *self._options,
            ],
            env=self._environ,
            stdout=log,
            stderr=log,
        )
        log.close()
        until(self._answers, 60, f"MariaDB did not start: see {self.folder}/log")

    def kill(self) -> None:
        """End it with SIGKILL, as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "log").read_text()[-2000:]
        with suppress(OSError), socket.create_connection((self.host, self.port), 1) as talk:
            return bool(talk.recv(1))  # its greeting: it takes connections
        return False

    def _prepare(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "init.sql").write_text(
            f"CREATE USER IF NOT EXISTS {_MYSQL_USER}@'%' "
            f"IDENTIFIED BY '{_MYSQL_PASSWORD}';\n"
            f"GRANT ALL ON *.* TO {_MYSQL_USER}@'%';\n"
        )
        drafts = Path(self._environ["TMPDIR"])
        drafts.mkdir(exist_ok=True)
        if self._run_as:
            self.folder.chmod(0o755)
            shutil.chown(self.folder, "mysql")
            shutil.chown(drafts, "mysql")
        done = subprocess.run(
            [
                _program("mariadb-install-db"),
                "--no-defaults",
                *self._run_as,
                f"--datadir={self._data}",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
                f"--tmpdir={self.folder}",  # its drafts have the names of anybody's, by process id
            ],
            check=False,
            env=self._environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, f"mariadb-install-db: {done.stdout[-2000:]}"


class Redis:
    """A Redis server without persistence."""

    def __init__(self, folder: Path, host: str = "127.0.0.1") -> None:
        self.host = host
        self.port = free_port()
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def address(self) -> str:
        """Return what ``REDIS_ADDR`` takes."""
        return f"{self.host}:{self.port}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._process = subprocess.Popen(
            [
                _program("redis-server"),
                *("--port", str(self.port)),
                *("--bind", self.host),
                *("--protected-mode", "no"),  # it is asked from other hosts, without a password
                *("--save", ""),
                *("--appendonly", "no"),
                *("--dir", str(self._folder)),
            ],
            stdout=subprocess.DEVNULL,
        )
        until(self._answers, 20, "Redis did not start")

    def kill(self) -> None:
        """End it with SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection((self.host, self.port), 1) as talk:
            talk.sendall(b"PING\r\n")
            return talk.recv(16).startswith(b"+PONG")
        return False


def _program(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin")
    assert found, f"{name} is missing: run scripts/servers (or apt-get install it)"
    return found
