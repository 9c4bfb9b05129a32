#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Test qemu-memserver as a process, from outside

Peer is a second implementation of the protocol, written from
docs/interop/pagelink.rst alone: that the two understand each other is what
proves the document.  Everything that issue 3 calls bad input or fault is tried
here, each with a bystander session whose pages must stay as they are.
"""

import contextlib
import fcntl
import json
import os
import resource
import select
import shlex
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
import traceback
import uuid

REPO = os.path.realpath(os.path.join(os.path.dirname(__file__), '../..'))
BUILD = os.environ.get('BUILD_DIR', os.path.join(REPO, 'build'))
CANDIDATES = (os.environ.get('QEMU_MEMSERVER', ''),
              os.path.join(BUILD, 'bin', 'qemu-memserver'),
              os.path.join(BUILD, 'qemu-src/build/migration/memserver',
                           'qemu-memserver'))
TOOL = next((path for path in CANDIDATES if os.access(path, os.X_OK)), None)
PATIENCE = 180      # seconds, after which something hangs


# The protocol, from the document

(HELLO, HELLO_ACK, ERROR, BLOCK, PUT, GET, DATA, DROP, SYNC, ACK, BITMAP_GET,
 BITMAP, STATUS_GET, STATUS, SESSION_END) = range(1, 16)
OWNER, READER, STATUS_ROLE = 1, 2, 3
BACKGROUND, DEMAND = 1, 2
CREATE, TAKE = 1, 2
ZERO, CRC, ABSENT = 1, 2, 4
PAGE = 4096


def crc32c(data):
    """CRC-32C, by its definition"""
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff


class Refused(Exception):
    """The peer answered with an ERROR"""

    def __init__(self, code, index, text, fatal):
        super().__init__(text)
        self.code, self.index, self.text, self.fatal = code, index, text, fatal


class Closed(Exception):
    """The peer closed without a word"""


def message(kind, body=b'', flags=0, count=0, ident=0):
    """Header and body"""
    return struct.pack('>4sHHIIQ', b'QPLK', kind, flags, len(body), count,
                       ident) + body


def entry(page, version, block=0, flags=0, crc=0):
    """Of PUT"""
    return struct.pack('>QQIHH', page, version, crc, block, flags)


class Peer:
    """One connection"""

    def __init__(self, sock):
        self.sock = sock
        self.sock.settimeout(PATIENCE)
        self.ident = 0
        self.ack = {}

    def close(self):
        """Without a word"""
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def receive(self, length):
        """Exactly so many bytes"""
        data = b''
        while len(data) < length:
            part = self.sock.recv(length - len(data))
            if not part:
                raise Closed(f'{len(data)} of {length} bytes')
            data += part
        return data

    def next_message(self):
        """Any; an ERROR is raised"""
        magic, kind, flags, length, count, ident = struct.unpack(
            '>4sHHIIQ', self.receive(24))
        assert magic == b'QPLK', magic
        body = self.receive(length)
        if kind == ERROR:
            code, index, size, zero = struct.unpack('>IIII', body[:16])
            assert size == length - 16 and zero == 0
            raise Refused(code, index, body[16:].decode(), bool(flags & 1))
        return kind, flags, count, ident, body

    def send(self, kind, body=b'', flags=0, count=0):
        """Without waiting for an answer"""
        self.ident += 1
        self.sock.sendall(message(kind, body, flags, count, self.ident))
        return self.ident

    def answer(self, kind, ident):
        """The answer to a request"""
        got = self.next_message()
        assert (got[0], got[3]) == (kind, ident), (got[:4], kind, ident)
        return got

    def hello(self, session, key=None, role=OWNER, cls=BACKGROUND, flags=0,
              epoch=1, versions=(1, 1), features=0, required=0):
        """HELLO and its answer"""
        ident = self.send(HELLO, struct.pack(
            '>HHIIBBHQ16s16s32sQ', *versions, features, required, role, cls,
            flags, epoch, session.bytes, (key or session).bytes, b'python', 0))
        body = self.answer(HELLO_ACK, ident)[4]
        fields = struct.unpack('>HHIIIQQQ', body)
        names = ('version', 'max_blocks', 'features', 'max_batch', 'window',
                 'epoch', 'free_pages', 'reserved')
        self.ack = dict(zip(names, fields))
        return self.ack

    def block(self, number=0, pages=1024, name=b'ram'):
        """Make a block known"""
        self.answer(ACK, self.send(BLOCK, struct.pack(
            '>HHIQ', number, len(name), 0, pages) + name))

    def put(self, pages, version=1, block=0, crc=False):
        """pages: number -> content or None"""
        table, data = b'', b''
        for number, content in pages.items():
            flags = ZERO if content is None else CRC if crc else 0
            table += entry(number, version, block, flags,
                           crc32c(content) if flags & CRC else 0)
            data += content or b''
        self.send(PUT, table + data, count=len(pages))

    def sync(self):
        """Counters"""
        body = self.answer(ACK, self.send(SYNC))[4]
        return dict(zip(('stored', 'zero', 'stale', 'refused', 'dropped'),
                        struct.unpack('>5Q', body)))

    def get(self, numbers, block=0):
        """list of (content or None for zero or ABSENT, version)"""
        ident = self.send(GET, b''.join(
            struct.pack('>QHHI', n, block, 0, 0) for n in numbers),
            count=len(numbers))
        result = []
        while True:
            _, flags, count, _, body = self.answer(DATA, ident)
            at = 24 * count
            for i in range(count):
                page, version, crc, number, eflags = struct.unpack(
                    '>QQIHH', body[24 * i:24 * i + 24])
                assert (page, number) == (numbers[len(result)], block)
                if eflags & (ZERO | ABSENT):
                    result.append((ABSENT if eflags & ABSENT else None,
                                   version))
                    continue
                content = body[at:at + PAGE]
                at += PAGE
                if eflags & CRC:
                    assert crc == crc32c(content)
                result.append((content, version))
            assert at == len(body)
            if flags & 1:
                assert len(result) == len(numbers)
                return result
            assert len(result) < len(numbers)

    def drop(self, page, pages, version, block=0):
        """Forget a range"""
        self.send(DROP, struct.pack('>QQIHH', page, version, pages, block, 0),
                  count=1)

    def bitmap(self, first, pages, block=0):
        """Set of page numbers"""
        head = struct.pack('>QIHH', first, pages, block, 0)
        body = self.answer(BITMAP, self.send(BITMAP_GET, head))[4]
        assert body[:16] == head and len(body) == 16 + (pages + 7) // 8
        return {first + i for i in range(pages)
                if body[16 + i // 8] >> (i % 8) & 1}

    def status(self, everything=False):
        """(sums, records)"""
        _, _, count, _, body = self.answer(
            STATUS, self.send(STATUS_GET, flags=int(everything)))
        names = ('session_size', 'connections', 'uptime', 'max_pages',
                 'used_pages', 'pages', 'zero_pages', 'bytes_in', 'bytes_out',
                 'in_rate', 'out_rate', 'refused', 'sessions', 'threads')
        sums = dict(zip(names, struct.unpack('>II10QII', body[:96])))
        records = []
        for i in range(count):
            at = 96 + i * sums['session_size']
            fields = struct.unpack('>16s32sQII14Q', body[at:at + 176])
            records.append({'uuid': uuid.UUID(bytes=fields[0]),
                            'name': fields[1].rstrip(b'\0').decode(),
                            'epoch': fields[2], 'connections': fields[3],
                            'blocks': fields[4], 'pages': fields[7]})
        return sums, records

    def end(self):
        """End the session; the server closes afterwards"""
        self.answer(ACK, self.send(SESSION_END))
        assert self.sock.recv(1) == b''

    def refused(self, code, do, *args, **kwargs):
        """do() must be refused with this code"""
        try:
            do(*args, **kwargs)
        except Refused as error:
            assert error.code == code, (error.code, error.text)
            assert len(error.text) > 10
            return error
        raise AssertionError(f'not refused, expected {code}')


# The tool

class Server:
    """A qemu-memserver, on a unix socket and a tcp port of its own"""

    def __init__(self, folder, *options, tcp=True, env=None, files=None):
        self.killed = False
        self.path = os.path.join(folder, f'sock{time.monotonic_ns()}')
        self.unix = 'unix:' + self.path
        self.port = None
        command = [TOOL, '--listen', self.unix]
        if tcp:
            with socket.socket() as probe:
                probe.bind(('127.0.0.1', 0))
                self.port = probe.getsockname()[1]
            self.tcp = f'tcp:127.0.0.1:{self.port}'
            command += ['--listen', self.tcp]
        self.log = open(os.path.join(folder, 'log'), 'w+', encoding='utf-8')
        self.process = subprocess.Popen(
            command + list(options), stdin=subprocess.DEVNULL,
            stdout=self.log, stderr=self.log, env=env,
            preexec_fn=files and (lambda: resource.setrlimit(
                resource.RLIMIT_NOFILE, (files, files))))
        try:
            self.wait_for(self.is_there)
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise

    def is_there(self):
        """Does it answer?"""
        assert self.process.poll() is None, self.text()
        with socket.socket(socket.AF_UNIX) as sock:
            return sock.connect_ex(self.path) == 0

    @staticmethod
    def wait_for(condition):
        """Until it is true; a hang fails"""
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, f'{condition} does not come true'
            time.sleep(0.01)

    def text(self):
        """What it printed"""
        self.log.flush()
        with open(self.log.name, encoding='utf-8') as file:
            return file.read()

    def __enter__(self):
        return self

    def stop(self):
        """SIGTERM, and once more if that is refused; its exit status"""
        while self.process.poll() is None:
            refused = self.text().count('not terminating')
            self.process.send_signal(signal.SIGTERM)
            self.wait_for(lambda n=refused: self.process.poll() is not None or
                          self.text().count('not terminating') > n)
        return self.process.wait()

    def __exit__(self, kind, *_):
        try:
            if kind is None and not self.killed:
                status = self.stop()
                assert status == 0, (status, self.text())
        finally:
            if self.process.poll() is None:
                self.process.kill()
            self.process.wait()
            text = self.text()
            self.log.close()
            if kind is not None and text:
                print('# ' + text.replace('\n', '\n# '))
        for report in ('ERROR: ', 'WARNING: ThreadSanitizer',
                       'runtime error:'):
            assert report not in text, text     # a sanitizer's

    def kill(self):
        """As the system might"""
        self.killed = True
        self.process.kill()
        self.process.wait()

    def connect(self, tcp=False):
        """A connection that has not said HELLO"""
        if tcp:
            return Peer(socket.create_connection(('127.0.0.1', self.port)))
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(self.path)
        return Peer(sock)

    def join(self, session, tcp=False, **kwargs):
        """A connection of an existing session"""
        peer = self.connect(tcp)
        peer.hello(session, **kwargs)
        return peer

    def create(self, session=None, tcp=False, **kwargs):
        """A new session with block 0"""
        peer = self.join(session or uuid.uuid4(), tcp, flags=CREATE, **kwargs)
        peer.block()
        return peer

    def status(self):
        """As JSON"""
        return json.loads(run('--status', self.unix, '--json'))


def run(*arguments, code=0):
    """Run the tool as a client, return what it printed"""
    result = subprocess.run([TOOL, *arguments], stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            timeout=PATIENCE, check=False)
    text = result.stdout.decode()
    assert result.returncode == code, (result.returncode, text)
    return text


@contextlib.contextmanager
def bystander(server):
    """A session that must not notice anything"""
    session = uuid.uuid4()
    pages = {i: bytes([i + 1]) * PAGE for i in range(20)}
    with server.create(session) as peer:
        peer.put(pages)
        peer.sync()
        yield session
        assert server.process.poll() is None, server.text()
        got = peer.get(list(pages))
        assert got == [(content, 1) for content in pages.values()]


# Tests

def test_help(_):
    """--help, --version, and options that are wrong"""
    text = run('--help')
    for option in ('--listen', '--max-memory', '--session-quota',
                   '--session-expiry', '--taken-expiry', '--threads',
                   '--object', '--tls-creds',
                   '--session-connections', '--local-status',
                   '--tls-authz', '--daemonize', '--pid-file', '--status',
                   '--selftest'):
        assert option in text, option
    assert '10.0' in run('--version')
    assert 'nothing to listen on' in run(code=1)
    assert 'at least 1M' in run('--max-memory', 'x', code=1)
    assert 'not a number' in run('--threads', '0', code=1)
    assert 'unexpected argument' in run('extra', code=1)
    assert 'no TLS credentials' in run('--listen', 'tcp:127.0.0.1:0',
                                       '--tls-creds', 'none', code=1)


def test_selftest(folder):
    """--selftest over tcp and unix"""
    with Server(folder, '--max-memory', '256M') as server:
        for address in (server.tcp, server.unix):
            text = run('--selftest', address, '--pages', '5000',
                       '--connections', '3', '--latency', '50', '--zero', '20')
            assert 'verified' in text and 'p99' in text, text
            result = json.loads(run(
                '--selftest', address, '--pages', '3000', '--latency', '50',
                '--checksum', '--repeat', '3', '--json'))
            assert result['verified'] and result['get-one-p50-us'] > 0
        assert server.status()['sessions'] == []
        assert server.status()['bytes'] == 0


def test_protocol(folder):
    """The document's implementation understands the tool"""
    with Server(folder) as server:
        for tcp in (False, True):
            session = uuid.uuid4()
            with server.create(session, tcp, features=1) as peer:
                assert peer.ack['version'] == 1 and peer.ack['features'] == 1
                content = {i * 9: os.urandom(PAGE) for i in range(100)}
                content[3] = None
                peer.put(content, version=5, crc=True)
                # zeroes are as good as a zero page
                peer.put({4: bytes(PAGE)}, version=5)
                peer.put({9: os.urandom(PAGE)}, version=4)
                assert peer.sync() == {'stored': 100, 'zero': 2, 'stale': 1,
                                       'refused': 0, 'dropped': 0}
                assert peer.get(list(content)) == [
                    (page, 5) for page in content.values()]
                peer.drop(0, 20, 6)
                assert peer.sync()['dropped'] == 5
                peer.put({9: os.urandom(PAGE)}, version=5)
                assert peer.sync()['stale'] == 2
                assert peer.get([0, 9, 27, 1000]) == [
                    (ABSENT, 6), (ABSENT, 6), (content[27], 5), (ABSENT, 0)]
                held = {page for page in content if page >= 20}
                assert peer.bitmap(0, 1024) == held
                assert peer.bitmap(27, 1) == {27}
                sums, records = peer.status()
                assert [r['uuid'] for r in records] == [session]
                assert sums['pages'] == records[0]['pages'] == len(held)
                # a reader on the demand class
                with server.join(session, tcp, role=READER,
                                 cls=DEMAND) as reader:
                    assert reader.get([27]) == [(content[27], 5)]
                    assert reader.refused(10, reader.block).fatal
                peer.end()
            with server.connect() as peer:
                peer.refused(3, peer.hello, session)


def test_negotiation(folder):
    """Versions and features that do not fit are refused in words"""
    with Server(folder) as server, bystander(server):
        with server.connect() as peer:
            error = peer.refused(2, peer.hello, uuid.uuid4(), flags=CREATE,
                                 versions=(2, 7))
            assert '2 to 7' in error.text and '1 to 1' in error.text
        with server.connect() as peer:
            error = peer.refused(2, peer.hello, uuid.uuid4(), flags=CREATE,
                                 features=0x103, required=0x100)
            assert '0x00000100' in error.text
        with server.create(features=0xffff) as peer:
            assert peer.ack['features'] == 1
        with server.create(versions=(1, 99)) as peer:
            assert peer.ack['version'] == 1


def expect_fatal(peer, data, code=1):
    """These bytes end the connection, with a reason"""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        peer.sock.sendall(data)
    error = peer.refused(code, peer.next_message)
    assert error.fatal
    assert peer.sock.recv(1) == b''


def test_garbage(folder):
    """Rubbish, lengths that lie, messages out of place"""
    put = entry(0, 1) + bytes(PAGE)
    bad = (b'GET / HTTP/1.1\r\nHost: memory\r\n\r\n',
           b'\0' * 24, b'\xff' * 4096, os.urandom(5000),
           message(99), message(0), message(SYNC, flags=8),
           message(SYNC, b'x'), message(HELLO), message(ACK, bytes(40)),
           message(DATA, entry(0, 1, flags=ZERO), count=1),
           message(STATUS, bytes(96)), message(BITMAP, bytes(17)),
           message(PUT), message(PUT, put[:-1], count=1),
           message(PUT, put, count=2), message(PUT, put * 2, count=1),
           message(PUT, entry(0, 1, flags=ZERO) + bytes(PAGE), count=1),
           message(PUT, entry(0, 1, flags=ABSENT), count=1),
           message(PUT, entry(0, 1, flags=CRC) + bytes(PAGE), count=1),
           message(PUT, entry(1 << 40, 1, flags=ZERO), count=1),
           message(PUT, entry(0, 1, 2000, ZERO), count=1),
           message(GET, struct.pack('>QHHI', 0, 0, 1, 0), count=1),
           message(GET, bytes(16) * 257, count=257),
           message(DROP, struct.pack('>QQIHH', 0, 0, 0, 0, 0), count=1),
           message(DROP, struct.pack('>QQIHH', 0, 0, 1 << 31, 0, 0), count=1),
           message(BITMAP_GET, struct.pack('>QIHH', 0, 0, 0, 0)),
           struct.pack('>4sHHIIQ', b'QPLK', PUT, 0, 0xffffffff, 1, 0),
           struct.pack('>4sHHIIQ', b'QPLK', PUT, 0, 24, 0xffffffff, 0))
    with Server(folder) as server, bystander(server):
        for data in bad:
            with server.connect() as peer:
                # before HELLO: whatever is no HELLO
                expect_fatal(peer, data + bytes(24))
            with server.create() as peer:
                expect_fatal(peer, data + bytes(24))
                # and the session is still there


def test_refusals(folder):
    """What a session refuses, without any effect"""
    with Server(folder) as server, bystander(server) as other:
        session = uuid.uuid4()
        with server.create(session) as peer:
            page = os.urandom(PAGE)
            peer.put({1: page})
            # a good page in a message with a bad one: neither counts
            peer.send(PUT, entry(1, 2) + entry(1024, 2) + page[::-1] + page,
                      count=2)
            error = peer.refused(8, peer.sync)
            assert error.index == 1 and not error.fatal
            assert peer.next_message()[0] == ACK
            peer.send(PUT, entry(1, 2) + entry(1, 2, block=3) + page * 2,
                      count=2)
            assert peer.refused(7, peer.sync).index == 1
            assert peer.next_message()[0] == ACK
            peer.refused(7, peer.get, [1], block=9)
            peer.refused(8, peer.get, [1, 1024])
            peer.refused(8, peer.bitmap, 1000, 100)
            peer.refused(13, peer.block, pages=2048)
            assert peer.get([1]) == [(page, 1)]
            # somebody else's session: no key, no entry, no difference
            with server.connect() as thief:
                wrong = thief.refused(3, thief.hello, other, key=session)
            with server.connect() as thief:
                unknown = thief.refused(3, thief.hello, uuid.uuid4())
            assert wrong.text == unknown.text
            # not even for who makes one of his own of that name
            with server.connect() as thief:
                thief.hello(other, key=session, flags=CREATE)
                thief.block()
                assert thief.get([1]) == [(ABSENT, 0)]
                thief.end()


def test_out_of_place(folder):
    """Messages that are well-formed, but not now or not from a client"""
    hello = struct.pack('>HHIIBBHQ16s16s32sQ', 1, 1, 0, 0, OWNER, DEMAND, 0, 1,
                        bytes(16), bytes(16), b'', 0)
    status = struct.pack('>IIQ', 176, 0, 0) + bytes(80 + 176 * 200)
    with Server(folder) as server, bystander(server):
        for kind, body, count in (
                (HELLO, hello, 0), (ACK, bytes(40), 0),
                (HELLO_ACK, bytes(40), 0),
                (BITMAP, struct.pack('>QIHH', 0, 8, 0, 0) + b'x', 0),
                (BITMAP, struct.pack('>QIHH', 0, 1 << 15, 0, 0) +
                 bytes(4096), 0),
                (STATUS, status, 200),
                (BLOCK, struct.pack('>HHIQ', 1024, 1, 0, 9) + b'x', 0),
                (BLOCK, struct.pack('>HHIQ', 0, 1, 0, 0) + b'x', 0),
                (BLOCK, struct.pack('>HHIQ', 0, 1, 0, (1 << 32) + 1) + b'x',
                 0)):
            with server.create() as peer:
                expect_fatal(peer, message(kind, body, count=count), 1)


def test_end_in_the_middle(folder):
    """SESSION_END while others are in the middle of something"""
    with Server(folder) as server, bystander(server):
        session = uuid.uuid4()
        put = message(PUT, entry(7, 2) * 100 + bytes([1]) * PAGE * 100,
                      count=100)
        with server.create(session) as peer:
            half = [server.join(session) for _ in range(5)]
            for i, other in enumerate(half):
                # nothing, a bit of the table, of a page, of many
                other.sock.sendall(put[:i * 70000 // 4 if i else 10])
                other.sock.settimeout(PATIENCE)
            peer.end()
            for other in half:
                error = other.refused(11, other.next_message)
                assert error.fatal
                other.close()
        assert len(server.status()['sessions']) == 1
        # busy writing: the first that it hears is that this is the end
        for _ in range(20):
            session = uuid.uuid4()
            with server.create(session) as peer, \
                    server.join(session) as busy:
                puts = message(PUT, entry(1, 1, flags=ZERO), count=1) * 1000
                thread = threading.Thread(target=send_until_closed,
                                          args=(busy, puts))
                thread.start()
                peer.sync()
                peer.end()
                assert busy.refused(11, busy.next_message).fatal
                thread.join()


def send_until_closed(peer, data):
    """As much as it takes"""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        while True:
            peer.sock.sendall(data)


def unread(peer):
    """Bytes that have come and were not read"""
    return struct.unpack('i', fcntl.ioctl(peer.sock, termios.FIONREAD,
                                          bytes(4)))[0]


def test_end_with_lazy_readers(folder):
    """SESSION_END is acknowledged when all memory is free, also theirs"""
    with Server(folder, '--session-connections', '64') as server:
        session = uuid.uuid4()
        with server.create(session) as peer:
            for start in range(0, 1024, 256):
                peer.put({i: bytes([7]) * PAGE
                          for i in range(start, start + 256)})
            peer.sync()
            lazy = [server.join(session) for _ in range(8)]
            for i, reader in enumerate(lazy):
                reader.sock.settimeout(0.2)
                with contextlib.suppress(socket.timeout):
                    while True:
                        reader.sock.sendall(message(GET, b''.join(
                            struct.pack('>QHHI', i * 100 + j, 0, 0, 0)
                            for j in range(100)), count=100))

            def held_up():
                before = [unread(reader) for reader in lazy]
                server.status()
                return all(before) and before == [unread(reader)
                                                  for reader in lazy]
            server.wait_for(held_up)
            # held by those who do not read: dropped, but not yet free
            peer.drop(0, 1024, 9)
            peer.sync()
            [record] = server.status()['sessions']
            assert record['pages'] == 0
            assert record['bytes'] >= 300 * PAGE
            peer.end()
            assert server.status()['bytes'] == 0
            for reader in lazy:
                reader.close()


def test_checksum(folder):
    """A page that was damaged on the way is not stored"""
    with Server(folder) as server, server.create(features=1) as peer:
        page = os.urandom(PAGE)
        peer.put({1: page, 2: page}, crc=True)
        peer.send(PUT, entry(1, 2, flags=CRC, crc=1) + page, count=1)
        assert peer.refused(9, peer.sync).index == 0
        assert peer.next_message()[0] == ACK
        assert peer.get([1]) == [(page, 1)]


def test_half_messages(folder):
    """Stop anywhere, also in the middle of a page: no effect, no hang"""
    with Server(folder) as server, bystander(server):
        session = uuid.uuid4()
        with server.create(session) as peer:
            page = os.urandom(PAGE)
            peer.put({7: page})
            peer.sync()
            whole = message(PUT, entry(7, 2) + os.urandom(PAGE), count=1)
            stopped = []
            for cut in (1, 23, 24, 47, 48, 49, 2000, len(whole) - 1):
                half = server.join(session)
                half.sock.sendall(whole[:cut])
                stopped.append(half)
            assert peer.get([7]) == [(page, 1)]
            for half in stopped:
                half.close()
            server.wait_for(lambda: server.status()['connections'] <= 3)
            assert peer.get([7]) == [(page, 1)]


def test_epochs(folder):
    """Ownership moves on, and the former owner is shut out"""
    with Server(folder) as server:
        session = uuid.uuid4()
        with server.create(session, epoch=3) as old:
            page = os.urandom(PAGE)
            old.put({1: page})
            old.sync()
            # half a page is on its way when it happens
            half = server.join(session, epoch=3)
            data = message(PUT, entry(1, 9) + bytes([1]) * PAGE, count=1)
            half.sock.sendall(data[:3000])
            with server.connect() as peer:
                peer.refused(4, peer.hello, session, epoch=4)
            with server.join(session, epoch=4, flags=TAKE) as new:
                assert new.ack['epoch'] == 4
                half.sock.sendall(data[3000:])
                assert not half.refused(4, half.sync).fatal
                half.close()
                old.put({1: bytes([2]) * PAGE}, version=9)
                old.refused(4, old.sync)
                assert old.next_message()[0] == ACK
                old.refused(4, old.block)
                old.drop(1, 1, 9)
                old.refused(4, old.sync)
                assert old.next_message()[0] == ACK
                old.refused(4, old.end)
                assert old.get([1]) == new.get([1]) == [(page, 1)]
                with server.connect() as peer:
                    peer.refused(4, peer.hello, session, epoch=3, flags=TAKE)
                new.end()
            assert old.refused(11, old.next_message).fatal


def test_never_reads(folder):
    """Sends and never reads: held up by its own socket, nobody else is"""
    with Server(folder, '--threads', '1') as server, \
            bystander(server) as session:
        lazy = []
        request = message(GET, struct.pack('>QHHI', 1, 0, 0, 0) * 200,
                          count=200)
        for _ in range(20):
            peer = server.join(session)
            peer.sock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    peer.sock.send(request)
            lazy.append(peer)
        with server.create() as busy:
            for i in range(100):
                busy.put({i: os.urandom(PAGE)})
                busy.sync()
        run('--selftest', server.unix, '--pages', '2000', '--latency', '50')
        for peer in lazy:
            peer.close()


@contextlib.contextmanager
def descriptors(wanted):
    """Enough of them, or None"""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < wanted:
        yield f'only {hard} descriptors are allowed'
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    try:
        yield None
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_many(folder):
    """1000 connections at once, all of which work"""
    with descriptors(2500) as lack:
        return lack or many(folder)


def many(folder):
    """With as many descriptors as it takes"""
    with Server(folder, '--session-connections', '1001') as server, \
            bystander(server) as session:
        peers = [server.join(session, tcp=i % 2 == 0) for i in range(1000)]
        for i, peer in enumerate(peers):
            peer.ident = peer.send(GET, struct.pack('>QHHI', i % 20, 0, 0, 0),
                                   count=1)
        for i, peer in enumerate(peers):
            body = peer.answer(DATA, peer.ident)[4]
            assert body[24:] == bytes([i % 20 + 1]) * PAGE
        assert server.status()['connections'] >= 1000
        run('--selftest', server.unix, '--pages', '2000', '--latency', '50')
        for peer in peers:
            peer.close()
        server.wait_for(lambda: server.status()['connections'] <= 2)


def is_closed(peer):
    """Has the server hung up?  What it said before is thrown away"""
    while select.select([peer.sock], [], [], 0)[0]:
        try:
            if not peer.sock.recv(4096):
                return True
        except ConnectionResetError:
            return True
    return False


def test_idle_strangers(folder):
    """1000 connections that never say HELLO keep nobody out"""
    with descriptors(2500) as lack:
        return lack or idle_strangers(folder)


def idle_strangers(folder):
    """First with room for all, then without"""
    for options, all_stay in (('--threads', '1'), True), \
            (('--threads', '1', '--max-connections', '64'), False):
        with Server(folder, *options) as server, \
                bystander(server) as session:
            idle = [server.connect(tcp=i % 2 == 0) for i in range(1000)]
            # accepted in order, those of one address at least
            with server.join(session) as peer, server.create() as other:
                peer.put({99: bytes([9]) * PAGE})
                assert peer.get([99]) == [(bytes([9]) * PAGE, 1)]
                assert other.get([0]) == [(ABSENT, 0)]
            if all_stay:
                server.wait_for(lambda s=server:
                                s.status()['connections'] > 1000)
            else:
                server.wait_for(lambda s=server:
                                s.status()['refused'] >= 1000 - 16)
                assert server.status()['connections'] < 100
                server.wait_for(lambda i=idle:
                                sum(not is_closed(p) for p in i) <= 16)
                assert is_closed(idle[0])
                assert not all(is_closed(peer) for peer in idle)
            for peer in idle:
                peer.close()


def test_connection_limit(folder):
    """One connection too many is told so; a place that is free is given"""
    with Server(folder, '--max-connections', '2') as server:
        first, second = server.create(), server.create()
        with server.connect() as third:
            error = third.refused(12, third.hello, uuid.uuid4(), flags=CREATE)
            assert error.fatal and 'connections already' in error.text
        # Asking how it is does not need a place
        assert server.status()['refused'] == 1
        first.close()

        def place():
            with server.connect() as peer:
                try:
                    peer.hello(uuid.uuid4(), flags=CREATE)
                except Refused:
                    return False
                return True
        server.wait_for(place)
        second.close()


def test_session_connections(folder):
    """No session takes all connections; who takes it over finds room"""
    with Server(folder, '--session-connections', '3', '--max-connections',
                '20') as server, bystander(server):
        session = uuid.uuid4()
        peers = [server.create(session)]
        peers += [server.join(session, role=READER) for _ in range(2)]
        for role in (OWNER, READER):
            with server.connect() as peer:
                error = peer.refused(12, peer.hello, session, role=role)
                assert error.fatal and '3 connections' in error.text
        # Those of the former owner stay open
        peers += [server.join(session, epoch=2, flags=TAKE)
                  for _ in range(3)]
        with server.connect() as peer:
            peer.refused(12, peer.hello, session, epoch=2)
        for peer in peers:
            peer.close()


def test_session_limit(folder):
    """One session too many is refused in words"""
    with Server(folder, '--max-sessions', '2') as server, bystander(server):
        session = uuid.uuid4()
        with server.create(session) as peer:
            with server.connect() as third:
                error = third.refused(12, third.hello, uuid.uuid4(),
                                      flags=CREATE)
                assert error.fatal and '2 sessions' in error.text
            server.join(session).close()
            peer.end()
        server.create().close()


def test_few_descriptors(folder):
    """Fewer descriptors than connections: refused, never just kept waiting"""
    with Server(folder, '--threads', '1', files=190) as server, \
            bystander(server) as session:
        assert 'only 190 descriptors' in server.text()
        idle = [server.connect() for _ in range(300)]

        def joined():
            try:
                with server.join(session) as peer:
                    peer.sync()
            except (Closed, ConnectionResetError, BrokenPipeError):
                return False    # those before it are still being sorted
            return True
        server.wait_for(joined)
        assert is_closed(idle[0])
        for peer in idle:
            peer.close()


def test_drop_flood(folder):
    """Much work for one connection: its neighbours get their turns"""
    with Server(folder, '--threads', '1') as server, \
            bystander(server) as session, \
            server.join(session, role=READER, cls=DEMAND) as reader, \
            server.join(uuid.uuid4(), flags=CREATE, cls=DEMAND) as flooder:
        flooder.block(pages=16384)
        drops = message(DROP, struct.pack('>QQIHH', 0, 1, 16384, 0, 0),
                        count=1) * 1000

        def flood():
            for _ in range(10):
                flooder.sock.sendall(drops)
            flooder.sync()
        thread = threading.Thread(target=flood)
        thread.start()
        answers = 0
        while thread.is_alive():
            assert reader.get([1]) == [(bytes([2]) * PAGE, 1)]
            answers += 1
        thread.join()
        # A turn for each buffer full of DROPs would make it about twenty
        assert answers > 100, answers


def test_full(folder):
    """The limit holds, is told, and leaves what is there"""
    with Server(folder, '--max-memory', '4M') as server, bystander(server):
        with server.create() as peer:
            page = os.urandom(PAGE)
            peer.put({i: page for i in range(256)})
            peer.put({i: page for i in range(256, 512)})
            stored = peer.sync()['stored']
            assert stored == 512
            for start in range(512, 1024, 64):
                peer.put({i: page for i in range(start, start + 64)})
            error = peer.refused(5, peer.sync)
            assert 'full' in error.text and not error.fatal
            codes = set()
            while True:
                try:
                    if peer.next_message()[0] == ACK:
                        break
                except Refused as more:
                    codes.add(more.code)
            assert codes <= {5}
            status = server.status()
            assert status['bytes'] <= 4 << 20
            # what is there can be replaced; what is dropped makes room
            peer.put({5: page[::-1]}, version=2)
            assert peer.sync()['refused'] > 0
            assert peer.get([5]) == [(page[::-1], 2)]
            peer.drop(0, 64, 9)
            peer.put({1000: page})
            peer.sync()
            assert peer.get([1000]) == [(page, 1)]


def test_put_whole(folder):
    """A PUT for which there is no room takes no effect, not even in part"""
    with Server(folder, '--max-memory', '1M') as server, \
            server.join(uuid.uuid4(), flags=CREATE) as peer:
        peer.block(pages=1 << 17)
        # Room for the pages, but not for what must be known of each
        pages = {i * 256: bytes([1]) * PAGE for i in range(150)}
        peer.put(pages)
        error = peer.refused(5, peer.sync)
        assert not error.fatal
        body = peer.next_message()[4]
        assert struct.unpack('>5Q', body) == (0, 0, 0, 150, 0)
        assert peer.get(list(pages)) == [(ABSENT, 0)] * 150


def test_race_for_memory(folder):
    """Many write at the limit: it holds, and nothing stored gets lost"""
    with Server(folder, '--max-memory', '6M') as server:
        session = uuid.uuid4()
        peers = [server.create(session) for _ in range(4)]
        stored = [0] * len(peers)

        def write(number):
            peer = peers[number]
            for start in range(number * 8, 1024, 32):
                peer.put({i: bytes([1 + i % 255]) * PAGE
                          for i in range(start, start + 8)})
            peer.send(SYNC)
            while True:
                try:
                    kind, *_, body = peer.next_message()
                    assert kind == ACK
                    break
                except Refused as error:
                    assert error.code == 5 and not error.fatal
            stored[number] = struct.unpack('>5Q', body)[0]
        server.status()     # warm
        big = server.create(uuid.uuid4())
        big.put({i: bytes([5]) * PAGE for i in range(256)})
        big.put({i: bytes([5]) * PAGE for i in range(256, 512)})
        big.put({i: bytes([5]) * PAGE for i in range(512, 768)})
        big.sync()
        threads = [threading.Thread(target=write, args=(i,))
                   for i in range(len(peers))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        status = server.status()
        assert status['bytes'] <= 6 << 20
        # Whole PUTs are refused, so less than one for each may be left over
        assert status['bytes'] > (6 << 20) - len(peers) * 8 * PAGE
        held = peers[0].bitmap(0, 1024)
        assert len(held) == sum(stored) > 0
        for i in held:
            assert peers[1].get([i]) == [(bytes([1 + i % 255]) * PAGE, 1)]
        for peer in [big, *peers]:
            peer.close()


def test_quota(folder):
    """A session at its quota does not take the others' room"""
    with Server(folder, '--max-memory', '8M', '--session-quota',
                '2M') as server, bystander(server):
        with server.create() as peer:
            page = os.urandom(PAGE)
            for start in range(0, 1024, 128):
                peer.put({i: page for i in range(start, start + 128)})
            assert 'quota' in peer.refused(6, peer.sync).text
            status = server.status()
            used = [s['bytes'] for s in status['sessions']]
            assert max(used) <= 2 << 20
            with server.create() as other:
                other.put({i: page for i in range(250)})
                assert other.sync()['stored'] == 250


def test_kill_client(folder):
    """kill -9 of a peer in the middle: its session stays, others too"""
    with Server(folder) as server, bystander(server):
        client = subprocess.Popen(
            [TOOL, '--selftest', server.unix, '--pages', '200000', '--repeat',
             '1000', '--connections', '2'], stdout=subprocess.DEVNULL)
        server.wait_for(lambda: server.status()['pages'] > 1000)
        client.kill()
        client.wait()
        server.wait_for(lambda: server.status()['connections'] <= 2)
        names = {s['name']: s for s in server.status()['sessions']}
        assert names['selftest']['connections'] == 0
        assert names['selftest']['pages'] > 1000


def test_kill_server(folder):
    """kill -9 of the memory host: the client says so"""
    with Server(folder) as server:
        client = subprocess.Popen(
            [TOOL, '--selftest', server.unix, '--pages', '200000', '--repeat',
             '1000'], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        server.wait_for(lambda: server.status()['pages'] > 100)
        server.kill()
        text = client.communicate(timeout=PATIENCE)[1].decode()
        assert client.returncode == 1 and 'page link to' in text, text
    text = run('--status', server.unix, code=1)
    assert 'Failed to connect' in text, text


def test_sigterm(folder):
    """SIGTERM: at once without sessions; with one, only if repeated"""
    for number in (signal.SIGTERM, signal.SIGINT):
        with Server(folder) as server:
            server.process.send_signal(number)
            assert server.process.wait(PATIENCE) == 0
        with Server(folder) as server, server.create() as peer:
            peer.put({1: os.urandom(PAGE)})
            server.process.send_signal(number)
            server.wait_for(lambda s=server: 'not terminating' in s.text())
            assert '1 session would lose' in server.text()
            assert peer.get([1])[0][1] == 1
            server.process.send_signal(number)
            assert peer.refused(15, peer.next_message).fatal
            assert server.process.wait(PATIENCE) == 0


def service(key):
    """What the systemd unit says"""
    with open(os.path.join(REPO, 'contrib/systemd/qemu-memserver.service'),
              encoding='ascii') as file:
        return [line.split('=', 1)[1].strip() for line in file
                if line.startswith(key + '=')]


def test_service_stop(folder):
    """systemctl stop means it: two signals, which must not become one"""
    [command] = service('ExecStop')
    with Server(folder) as server, server.create() as peer:
        pid = str(server.process.pid)
        began = time.monotonic()
        subprocess.run(
            [word.replace('${MAINPID}', pid).replace('$MAINPID', pid)
             for word in shlex.split(command)], check=True, timeout=PATIENCE)
        # Signals that are pending at the same time are one: it must give the
        # process time (a lower bound, which no load can break)
        assert time.monotonic() - began > 0.5
        server.wait_for(lambda: 'not terminating' in server.text())
        # And then systemd sends KillSignal, SIGTERM by default
        assert service('KillSignal') == []
        server.process.send_signal(signal.SIGTERM)
        assert peer.refused(15, peer.next_message).fatal
        assert server.process.wait(PATIENCE) == 0


def test_status(folder):
    """The table and the JSON"""
    with Server(folder, '--max-memory', '64M') as server:
        session = uuid.uuid4()
        with server.create(session) as peer:
            peer.put({i: os.urandom(PAGE) for i in range(50)})
            peer.put({i: None for i in range(50, 60)})
            peer.sync()
            status = server.status()
            assert status['max-bytes'] == 64 << 20
            assert status['connections'] == 2
            [record] = status['sessions']
            assert record['uuid'] == str(session)
            assert record['name'] == 'python'
            assert (record['pages'], record['zero-pages']) == (50, 10)
            assert record['bytes'] >= 50 * PAGE
            assert {'in-rate', 'out-rate', 'idle-ms', 'epoch', 'bytes-in',
                    'quota-bytes', 'refused'} <= set(record)
            table = run('--status', server.tcp)
            assert str(session) in table and '64 MiB' in table, table
            server.wait_for(
                lambda: peer.sync() and server.status()['in-rate'] > 0)
        with server.connect() as peer:
            peer.hello(uuid.UUID(int=0), role=STATUS_ROLE, epoch=0)
            sums, records = peer.status(True)
            assert sums['sessions'] == 1 and len(records) == 1
            assert peer.refused(10, peer.get, [1]).fatal
    with Server(folder, '--local-status') as server:
        assert 'unix sockets' in run('--status', server.tcp, code=1)
        server.status()
        # Of its own session, everybody may know
        with server.create(tcp=True) as peer:
            assert len(peer.status()[1]) == 1
            assert not peer.refused(10, peer.status, True).fatal


def status_peer(server):
    """A connection in the status role"""
    return server.join(uuid.UUID(int=0), role=STATUS_ROLE, epoch=0)


def test_status_places(folder):
    """Those who ask for the status have so many places, and share them"""
    with Server(folder) as server, bystander(server):
        peers = [status_peer(server) for _ in range(100)]
        # Each new one gets in, at the cost of who has been silent longest
        server.wait_for(lambda: server.status()['connections'] < 50)
        assert is_closed(peers[0])
        assert peers[-1].status(True)[0]['sessions'] == 1
        # They may be without a place, never in the way
        server.create().close()
        for peer in peers:
            peer.close()


def test_status_idle(folder):
    """Who asks for the status and then nothing for long is dropped"""
    with Server(folder, '--stall-timeout', '1') as server, \
            server.create() as idle, status_peer(server) as peer:
        def asks():
            # In vain, if this process had to wait for that long itself
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                peer.send(STATUS_GET, flags=1)
            while True:
                peer.next_message()
        error = peer.refused(16, asks)
        assert error.fatal and 'status' in error.text
        idle.sync()


def test_expiry(folder):
    """Without --session-expiry sessions stay; with it they go, and say so"""
    with Server(folder, '--session-expiry', '1') as server:
        with server.create() as stays:
            with server.create() as goes:
                goes.put({1: os.urandom(PAGE)})
                goes.sync()
            server.wait_for(lambda: len(server.status()['sessions']) == 1)
            assert 'expires' in server.text()
            stays.sync()


def test_stall(folder):
    """--stall-timeout: who stops in the middle is dropped, with a word"""
    with Server(folder, '--stall-timeout', '1') as server:
        with server.create() as idle, server.create() as peer:
            peer.sock.sendall(message(PUT, entry(1, 1) + bytes(PAGE),
                                      count=1)[:1000])
            assert peer.refused(16, peer.next_message).fatal
            idle.sync()     # being idle is no stall


def trickle(peer, data, step, pause=0.05):
    """Send it bit by bit until the server has something to say"""
    while data and not select.select([peer.sock], [], [], pause)[0]:
        # It may have had enough since
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            peer.sock.sendall(data[:step])
        data = data[step:]
    assert data, 'the server took all of it'


def test_trickle(folder):
    """Now and then a byte is as good as none"""
    with Server(folder, '--stall-timeout', '1') as server:
        put = message(PUT, entry(1, 1) + bytes([1]) * PAGE, count=1, ident=77)
        # The header at once, so that it is known whose request it is
        with server.create() as peer:
            peer.sock.sendall(put[:24])
            trickle(peer, put[24:], 4)
            *_, ident = struct.unpack('>4sHHIIQ', peer.receive(24))
            assert ident == 77
        with server.create() as peer:
            peer.sync()
            peer.sock.sendall(put[:24])
            trickle(peer, put[24:48], 1, 0.5)   # not even the table is there
            *_, ident = struct.unpack('>4sHHIIQ', peer.receive(24))
            assert ident == 77
        with server.create() as peer:
            peer.sync()
            trickle(peer, put[:24], 1, 0.5)
            # whose request it is cannot be known, so not that of the last
            *_, ident = struct.unpack('>4sHHIIQ', peer.receive(24))
            assert ident == 0
        with server.create() as reader:
            reader.put({i: bytes([1]) * PAGE for i in range(200)})
            reader.sync()
            reader.sock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    reader.sock.send(message(GET, b''.join(
                        struct.pack('>QHHI', i, 0, 0, 0)
                        for i in range(200)), count=200))

            def dropped():
                # reads, but far too slowly
                with contextlib.suppress(BlockingIOError,
                                         ConnectionResetError):
                    reader.sock.recv(500)
                return server.status()['connections'] == 1
            server.wait_for(dropped)


def test_daemonize(folder):
    """--daemonize returns when it serves; --pid-file names the process"""
    path, pid_file = os.path.join(folder, 'd'), os.path.join(folder, 'pid')
    run('--listen', f'unix:{path}', '--daemonize', '--pid-file', pid_file)
    with open(pid_file, encoding='ascii') as file:
        pid = int(file.read())
    try:
        assert json.loads(run('--status', f'unix:{path}', '--json'))
        run('--selftest', f'unix:{path}', '--pages', '500', '--latency', '10')
        os.kill(pid, signal.SIGTERM)
        Server.wait_for(lambda: not os.path.exists(pid_file))
    except BaseException:
        # It is nobody's child: do not leave it behind
        os.kill(pid, signal.SIGKILL)
        raise


def test_daemonize_relative(folder):
    """A socket with a relative path goes away with the process"""
    path, pid_file = os.path.join(folder, 'd'), os.path.join(folder, 'pid')
    subprocess.run([TOOL, '--listen', 'unix:d', '--daemonize', '--pid-file',
                    'pid'], cwd=folder, check=True, timeout=PATIENCE)
    with open(pid_file, encoding='ascii') as file:
        pid = int(file.read())
    assert os.path.exists(path)
    os.kill(pid, signal.SIGTERM)
    Server.wait_for(lambda: not os.path.exists(pid_file))
    Server.wait_for(lambda: not os.path.exists(path))


def test_daemonize_fails(folder):
    """--daemonize says what keeps it from serving, and fails"""
    path, pid_file = os.path.join(folder, 'd'), os.path.join(folder, 'pid')
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))
        taken.listen()
        port = taken.getsockname()[1]
        text = run('--listen', f'tcp:127.0.0.1:{port}', '--daemonize',
                   '--pid-file', pid_file, code=1)
    assert 'Address already in use' in text, text
    assert not os.path.exists(pid_file)
    # What only the child finds
    text = run('--listen', f'unix:{path}', '--daemonize', '--pid-file',
               os.path.join(folder, 'nowhere', 'pid'), code=1)
    assert 'nowhere' in text and 'No such file' in text, text
    with socket.socket(socket.AF_UNIX) as sock:
        assert sock.connect_ex(path) != 0


def test_socket_activation(folder):
    """Listening sockets from systemd, two of them"""
    paths = [os.path.join(folder, name) for name in ('a', 'b')]
    sockets = [socket.socket(socket.AF_UNIX) for _ in paths]
    for sock, path in zip(sockets, paths):
        sock.bind(path)
        sock.listen()
    script = ('exec 3<&%d 4<&%d; LISTEN_PID=$$ LISTEN_FDS=2 exec "$0" "$@"'
              % tuple(s.fileno() for s in sockets))
    fds = [s.fileno() for s in sockets]
    # the shell's 3 and 4 must not be what is still to be copied
    high = [os.dup2(fd, 100 + i) for i, fd in enumerate(fds)]
    script = script.replace(f'3<&{fds[0]}', f'3<&{high[0]}') \
                   .replace(f'4<&{fds[1]}', f'4<&{high[1]}')
    process = subprocess.Popen(['/bin/bash', '-c', script, TOOL],
                               pass_fds=high)
    try:
        for path in paths:
            run('--selftest', f'unix:{path}', '--pages', '500', '--latency',
                '10')
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
        for sock in sockets:
            sock.close()
        for fd in high:
            os.close(fd)


def openssl(*arguments, cwd):
    """Run it"""
    subprocess.run(['openssl', *arguments], cwd=cwd, check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def make_ca(folder, name):
    """A certificate authority with a server's and a client's certificate"""
    path = os.path.join(folder, name)
    os.mkdir(path)
    openssl('req', '-x509', '-newkey', 'ec', '-pkeyopt',
            'ec_paramgen_curve:P-256', '-nodes', '-keyout', 'ca-key.pem',
            '-out', 'ca-cert.pem', '-days', '2', '-subj', f'/CN={name}',
            '-addext', 'keyUsage=critical,keyCertSign', cwd=path)
    for role in ('server', 'client'):
        openssl('req', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256',
                '-nodes', '-keyout', f'{role}-key.pem', '-out', 'req.pem',
                '-subj', f'/CN={role}.{name}', cwd=path)
        with open(os.path.join(path, 'ext'), 'w', encoding='ascii') as file:
            file.write('basicConstraints=critical,CA:FALSE\n'
                       'keyUsage=critical,digitalSignature\n'
                       f'extendedKeyUsage={role}Auth\n'
                       'subjectAltName=IP:127.0.0.1\n')
        openssl('x509', '-req', '-in', 'req.pem', '-CA', 'ca-cert.pem',
                '-CAkey', 'ca-key.pem', '-CAcreateserial', '-days', '2',
                '-out', f'{role}-cert.pem', '-extfile', 'ext', cwd=path)
    return path


def creds(path, endpoint, kind='x509'):
    """The tool's options"""
    return ('--object', f'tls-creds-{kind},id=t,dir={path},'
            f'endpoint={endpoint}' + (',username=me' if kind == 'psk' and
                                      endpoint == 'client' else ''),
            '--tls-creds', 't')


def test_tls_x509(folder):
    """Certificates: right, wrong, none, not on the list, not even TLS"""
    good, evil = make_ca(folder, 'good'), make_ca(folder, 'evil')
    small = ('--pages', '600', '--latency', '20')
    with Server(folder, *creds(good, 'server')) as server:
        session = uuid.uuid4()
        context = ssl.create_default_context(
            cafile=os.path.join(good, 'ca-cert.pem'))
        context.load_cert_chain(os.path.join(good, 'client-cert.pem'),
                                os.path.join(good, 'client-key.pem'))
        sock = context.wrap_socket(
            socket.create_connection(('127.0.0.1', server.port)),
            server_hostname='127.0.0.1')
        with Peer(sock) as peer:
            peer.hello(session, flags=CREATE)
            peer.block()
            page = os.urandom(PAGE)
            peer.put({i: page for i in range(256)})
            assert peer.sync()['stored'] == 256
            run('--selftest', server.tcp, *creds(good, 'client'), *small,
                '--connections', '3')
            text = run('--selftest', server.tcp, *creds(evil, 'client'),
                       *small, code=1)
            assert 'ertificate' in text, text
            # the other way: the client does not know the server's name
            text = run('--status', server.tcp, *creds(good, 'client'),
                       '--tls-hostname', 'other.example', code=1)
            assert 'other.example' in text, text
            text = run('--selftest', server.tcp, *small, code=1)
            with Peer(socket.create_connection(
                    ('127.0.0.1', server.port))) as rude:
                rude.sock.sendall(message(SYNC) * 10)
                with contextlib.suppress(ConnectionResetError):
                    while rude.sock.recv(4096):
                        pass
            assert peer.get([5]) == [(page, 1)]
    for allowed in ('CN=client.good', 'CN=somebody.else'):
        with Server(folder, *creds(good, 'server'), '--object',
                    f'authz-simple,id=z,identity={allowed}', '--tls-authz',
                    'z') as server:
            run('--selftest', server.tcp, *creds(good, 'client'), *small,
                code=0 if 'client' in allowed else 1)


def test_tls_psk(folder):
    """Pre-shared keys: right and wrong"""
    for name, key in (('psk', '00' * 16), ('wrong', '11' * 16)):
        os.mkdir(os.path.join(folder, name))
        with open(os.path.join(folder, name, 'keys.psk'), 'w',
                  encoding='ascii') as file:
            file.write(f'me:{key}\n')
    small = ('--pages', '600', '--latency', '20')
    with Server(folder, *creds(os.path.join(folder, 'psk'), 'server',
                               'psk')) as server:
        for address in (server.tcp, server.unix):
            run('--selftest', address, *small,
                *creds(os.path.join(folder, 'psk'), 'client', 'psk'))
        run('--selftest', server.tcp, *small, code=1,
            *creds(os.path.join(folder, 'wrong'), 'client', 'psk'))
        run('--selftest', server.tcp, *small,
            *creds(os.path.join(folder, 'psk'), 'client', 'psk'))


def test_tls_authz_in_vain(folder):
    """--tls-authz that could not keep anybody out is refused"""
    os.mkdir(os.path.join(folder, 'psk'))
    with open(os.path.join(folder, 'psk', 'keys.psk'), 'w',
              encoding='ascii') as file:
        file.write('me:' + '00' * 16 + '\n')
    listen = ('--listen', 'unix:' + os.path.join(folder, 'socket'))
    psk = creds(os.path.join(folder, 'psk'), 'server', 'psk')
    text = run(*listen, *psk, '--tls-authz', 'nobody', code=1)
    assert "no authorization object with id 'nobody'" in text, text
    text = run(*listen, *psk, '--object',
               'authz-simple,id=one,identity=nobody', '--tls-authz', 'one',
               code=1)
    assert 'tls-creds-x509' in text, text


def test_memory_returned(folder):
    """What is dropped or ended goes back to the system"""
    def resident():
        with open(f'/proc/{server.process.pid}/status',
                  encoding='ascii') as file:
            return next(int(line.split()[1]) >> 10 for line in file
                        if line.startswith('VmRSS'))
    with Server(folder) as server:
        before = resident()
        session = run('--selftest', server.unix, '--pages', '65536',
                      '--latency', '0', '--no-verify', '--keep')
        assert session
        assert 256 <= resident() - before, 'pages are in memory'
        run('--selftest', server.unix, '--pages', '65536', '--latency', '0',
            '--no-verify')
        full = resident()
        assert full < before + 256 + 60, 'the ended one has gone'


TESTS = [value for name, value in list(globals().items())
         if name.startswith('test_')]


def is_meant(test, word):
    """Whether @word is a part of its name, or what is printed of it"""
    name = test.__name__[5:]
    return name == word.split(':')[0] if ':' in word else word in name


def main():
    """TAP"""
    if TOOL is None:
        print('1..0 # SKIP qemu-memserver is not built')
        return 0
    # Arguments: parts of names of tests to run, or, behind a '-', not to run
    words = [word for word in sys.argv[1:] if word[0] != '-']
    without = [word[1:] for word in sys.argv[1:] if word[0] == '-']
    chosen = [t for t in TESTS
              if (not words or any(is_meant(t, word) for word in words)) and
              not any(is_meant(t, word) for word in without)]
    print(f'1..{len(chosen)}')
    failed = False
    for number, test in enumerate(chosen, 1):
        folder = tempfile.mkdtemp(prefix='memserver-')
        name = f'{number} {test.__name__[5:]}: {test.__doc__.splitlines()[0]}'
        try:
            skip = test(folder)
            print(f'ok {name}' + (f' # SKIP {skip}' if skip else ''))
        except Exception:   # pylint: disable=broad-except
            failed = True
            print(f'not ok {name}')
            print('# ' + traceback.format_exc().replace('\n', '\n# '))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        sys.stdout.flush()
    return int(failed)


if __name__ == '__main__':
    sys.exit(main())
