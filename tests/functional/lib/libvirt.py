# SPDX-License-Identifier: GPL-2.0-or-later
"""
libvirt on several hosts of one machine, and a test guest that is its domain

Each host has a libvirtd that the others reach by TLS, all settings as a user
would have them but for what namespaces do not give (cgroups, users).  The
guest's serial line is a socket at which this process listens, on each host.
"""

from dataclasses import dataclass, replace
import fcntl
import json
import os
from pathlib import Path
import re
import shutil
import socket
import subprocess
import threading
import time
from types import TracebackType
from typing import Any, Callable, Dict, List, Optional, Tuple, Type
import xml.etree.ElementTree as ElementTree

from . import debian, image, paths
from .binary import Binary
from .guest import Guest, Load
from .hosts import PATIENCE, Host, HostError, Hosts
from .machines import KERNEL_ARGS
from .tap import Skip, check, note


DOMAIN = 'guest1'
LIBRARIES = 'usr/lib/x86_64-linux-gnu'
NEEDED = {'libvirtd': '/usr/sbin', 'virsh': '/usr/bin',
          'certtool': '/usr/bin'}
UNPACKED = paths.BUILD / 'libvirt'
SERIAL = '/run/guest1.serial'
BOOT = '/run/boot'
# Has the disk, which all hosts reach; MiB of it that the guest uses
DISK_HOST = 'host1'
DISK = '/run/disk'
DISK_SIZE = 4
DAEMON_LOG = '/var/log/libvirt/libvirtd.log'
# All that libvirtd and QEMU say to each other, for who must explain a hang
LOG_FILTERS = '2:qemu.qemu_monitor 1:qemu.qemu_migration 3:*'
# Sent twice, or what it asks of each feature of the CPU
NOISE = re.compile(r'QEMU_MONITOR_IO|"qom-get"|reply={"return": (true|false)')
# What libvirt's QEMU driver insists on, and runs QEMU as by default
USER = 'libvirt-qemu'
INSTALLED = '/usr/local/bin'
CERTIFICATES = {'CA/cacert.pem': 'ca.pem',
                'libvirt/servercert.pem': '{host}.pem',
                'libvirt/private/serverkey.pem': '{host}.key',
                'libvirt/clientcert.pem': '{host}.pem',
                'libvirt/private/clientkey.pem': '{host}.key',
                'qemu/ca-cert.pem': 'ca.pem',
                'qemu/server-cert.pem': '{host}.pem',
                'qemu/server-key.pem': '{host}.key',
                'qemu/client-cert.pem': '{host}.pem',
                'qemu/client-key.pem': '{host}.key'}


@dataclass(frozen=True)
class Libvirt:
    """A libvirt: installed, or unpacked below @root"""
    name: str
    root: Optional[Path] = None

    def program(self, name: str) -> str:
        """The path of virsh or libvirtd"""
        for where in ('usr/bin', 'usr/sbin'):
            path = (self.root or Path('/')) / where / name
            if path.exists():
                return str(path)
        raise Skip(f'{name} is not there')

    def settle(self, host: Host) -> None:
        """Have @host use it"""
        if not self.root:
            return
        for path in (f'{LIBRARIES}/libvirt', 'usr/lib/libvirt',
                     'usr/share/libvirt', 'usr/bin/virsh'):
            if (self.root / path).exists():
                host.cover(f'/{path}', self.root / path)
        host.environment['LD_LIBRARY_PATH'] = str(self.root / LIBRARIES)


def installed() -> Libvirt:
    """The release's own, which scripts/check installs"""
    for name, where in NEEDED.items():
        if not shutil.which(name, path=where):
            raise Skip(f'{name} is not installed: scripts/check libvirt '
                       'installs what these tests need')
    return Libvirt('installed')


def backported() -> Libvirt:
    """That of the backports, unpacked beside the system at need"""
    if debian.codename() != 'bookworm':
        raise Skip('only Debian 12 has another libvirt in its backports')
    installed()
    UNPACKED.mkdir(parents=True, exist_ok=True)
    root = UNPACKED / 'root'
    with open(UNPACKED / '.lock', 'w', encoding='ascii') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.exists():
            _fetch_backported(root)
    return Libvirt('backported', root)


def _fetch_backported(root: Path) -> None:
    apt = debian.Apt(UNPACKED / 'apt', backports=True)
    scratch = UNPACKED / 'new'
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        apt.update()
        suite = f'{apt.release}-backports'
        for name in ('libvirt-daemon-driver-qemu', 'libvirt-daemon',
                     'libvirt-clients'):
            packages = apt.closure(name, suite)
            debian.unpack(packages, scratch)
    except debian.DebianError as exc:
        raise Skip(f'no libvirt of the backports: {exc}') from exc
    scratch.rename(root)


def _certificates(where: Path, names: List[str]) -> None:
    """A CA and a certificate for each of @names"""
    def certtool(*arguments: str) -> None:
        subprocess.run(['certtool', *arguments], check=True, cwd=where,
                       stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def key(name: str) -> None:
        certtool('--generate-privkey', '--key-type=rsa', '--bits=2048',
                 '--outfile', f'{name}.key')

    key('ca')
    (where / 'ca.tmpl').write_text('cn = test\nca\ncert_signing_key\n'
                                   'expiration_days = 2\n', 'ascii')
    certtool('--generate-self-signed', '--load-privkey', 'ca.key',
             '--template', 'ca.tmpl', '--outfile', 'ca.pem')
    for name in names:
        key(name)
        (where / f'{name}.tmpl').write_text(
            f'cn = {name}\ndns_name = {name}\ntls_www_server\n'
            'tls_www_client\nsigning_key\nencryption_key\n'
            'expiration_days = 2\n', 'ascii')
        certtool('--generate-certificate', '--load-privkey', f'{name}.key',
                 '--load-ca-certificate', 'ca.pem', '--load-ca-privkey',
                 'ca.key', '--template', f'{name}.tmpl', '--outfile',
                 f'{name}.pem')


def domain_xml(emulator: str, load: Load, memory: int) -> str:
    """The definition of the test guest, as a user would write it"""
    return f'''<domain type='qemu'>
  <name>{DOMAIN}</name>
  <memory unit='MiB'>{memory}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>{BOOT}/vmlinuz</kernel>
    <initrd>{BOOT}/initrd</initrd>
    <cmdline>{KERNEL_ARGS} {load.cmdline()}</cmdline>
  </os>
  <features><acpi/></features>
  <cpu mode='custom' match='exact'><model>qemu64</model></cpu>
  <on_crash>preserve</on_crash>
  <devices>
    <emulator>{emulator}</emulator>
    <disk type='network' device='disk'>
      <driver name='qemu' type='raw'/>
      <source protocol='nbd' name='disk'>
        <host name='{DISK_HOST}' port='10809'/>
      </source>
      <target dev='vda' bus='virtio'/>
    </disk>
    <interface type='user'><model type='virtio'/></interface>
    <controller type='usb' model='none'/>
    <serial type='unix'><source mode='connect' path='{SERIAL}'/></serial>
    <memballoon model='virtio'/>
  </devices>
</domain>
'''


class _Console:
    """One end of a serial line, as Guest wants it"""

    def __init__(self, line: socket.socket):
        self._line = line

    def take_serial(self) -> socket.socket:
        """The caller's from now on"""
        return self._line


class Consoles:
    """Listens on each host for the QEMU in which the guest is, or will be"""

    def __init__(self, hosts: List[Host], guest: Guest):
        self._guest = guest
        self._came: Dict[str, _Console] = {}
        self._changed = threading.Condition()
        self._listeners: List[socket.socket] = []
        self._threads: List[threading.Thread] = []
        for host in hosts:
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(str(host.seen(SERIAL)))
            host.seen(SERIAL).chmod(0o666)
            listener.listen()
            self._listeners.append(listener)
            thread = threading.Thread(target=self._accept, daemon=True,
                                      args=(host.name, listener))
            thread.start()
            self._threads.append(thread)

    def _accept(self, name: str, listener: socket.socket) -> None:
        while True:
            try:
                line, _ = listener.accept()
            except OSError:
                return                  # close()
            console = _Console(line)
            self._guest.attach(console)     # type: ignore[arg-type]
            with self._changed:
                self._came[name] = console
                self._changed.notify_all()

    def guest_is_on(self, host: Host) -> None:
        """The guest's commands go there from now on"""
        with self._changed:
            if not self._changed.wait_for(lambda: host.name in self._came,
                                          PATIENCE):
                raise TimeoutError(f'no QEMU on {host.name}')
            self._guest.runs_in(
                self._came[host.name])      # type: ignore[arg-type]

    def close(self) -> None:
        """Stop listening"""
        for listener in self._listeners:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for thread in self._threads:
            thread.join()


def _last(host: Host, path: str, count: int) -> str:
    """The last lines of a log there, none of them endless"""
    log = host.seen(path)
    if not log.exists():
        return 'nothing'
    lines = [line[:600] for line
             in log.read_text('utf-8', 'replace').splitlines()
             if not line.startswith(' ') and not NOISE.search(line)]
    return '\n'.join(lines[-count:])


# Where the threads of libvirtd and QEMU are, as the kernel sees it
THREADS = r"""for task in /proc/[0-9]*/task/*; do
    exe=$(readlink "$task/../../exe") || continue
    case $exe in
    */libvirtd|*/qemu-*)
        echo "${exe##*/}: $(cat "$task/comm"): $(cat "$task/wchan")" ;;
    esac
done 2>/dev/null | sort | uniq -c"""


class Site:
    """
    Hosts with libvirt, and the test guest running on the first of them

    A context manager: whatever happens, nothing is left behind.

    @user: QEMU is run by.  If it is not root, a host has an empty
    /usr/local/bin, and its QEMU is what @install puts there.
    """

    def __init__(self, libvirt: Libvirt, binary: Binary, load: Load,
                 memory: int, count: int = 2, user: str = 'root',
                 install: Callable[[Host], None] = lambda host: None):
        self.libvirt = libvirt
        self.binary = binary
        self.load = replace(load, disk=DISK_SIZE)
        self.memory = memory
        self.emulator = str(binary.path)
        if user != 'root':
            self.emulator = f'{INSTALLED}/{binary.path.name}'
        self._user = user
        self._install = install
        self._count = count
        self._room: Optional[Hosts] = None
        self._consoles: Optional[Consoles] = None
        self.hosts: List[Host] = []
        self.guest = Guest(load.beat)

    def __enter__(self) -> 'Site':
        try:
            self._room = Hosts(self._count)
            self.hosts = self._room.hosts
            self._prepare()
            self._start()
        except BaseException as exc:
            self.__exit__(type(exc), exc, exc.__traceback__)
            raise
        return self

    def __exit__(self, kind: Optional[Type[BaseException]],
                 value: Optional[BaseException],
                 trace: Optional[TracebackType]) -> None:
        explain = kind is not None and not issubclass(kind, Skip)
        if explain and self.hosts:
            self._explain()
        if self._consoles:
            self._consoles.close()
        if self._room:
            self._room.close(explain)
        self.guest.close()

    def _explain(self) -> None:
        for host in self.hosts:
            said = _last(host, f'/var/log/libvirt/qemu/{DOMAIN}.log', 12)
            note(f'{host.name}, QEMU said:\n{said}')
            said = _last(host, DAEMON_LOG, 60)
            note(f'{host.name}, libvirtd said:\n{said}')
            said = host.run('bash', '-c', THREADS, check=False)
            note(f'{host.name}, where threads wait:\n{said}')
        note('the guest said:\n' + '\n'.join(self.guest.lines[-8:]))

    # Hosts

    def _prepare(self) -> None:
        where = paths.scratch() / f'pki-{os.getpid()}'
        shutil.rmtree(where, ignore_errors=True)
        where.mkdir()
        try:
            _certificates(where, [host.name for host in self.hosts])
            for host in self.hosts:
                self._furnish(host, where)
        finally:
            shutil.rmtree(where)
        daemons = [host.daemon('libvirtd', self.libvirt.program('libvirtd'),
                               '--listen', '-p', '/run/libvirtd.pid')
                   for host in self.hosts]
        for host, daemon in zip(self.hosts, daemons):
            self._wait_libvirtd(host, daemon)

    def _furnish(self, host: Host, certificates: Path) -> None:
        """Everything but its daemon"""
        self.libvirt.settle(host)
        for name, entry in (('passwd', f'{USER}:x:64055:64055::/nonexistent:'
                                       '/usr/sbin/nologin\n'),
                            ('group', f'{USER}:x:64055:\n')):
            content = Path(f'/etc/{name}').read_text('utf-8')
            if f'{USER}:' not in content:
                host.write(f'/etc/{name}', content + entry)
        for path, name in CERTIFICATES.items():
            name = name.format(host=host.name)
            host.write(f'/etc/pki/{path}',
                       (certificates / name).read_text('ascii'))
        host.write('/etc/libvirt/libvirtd.conf', 'auth_unix_rw = "none"\n'
                   f'log_filters = "{LOG_FILTERS}"\n'
                   f'log_outputs = "1:file:{DAEMON_LOG}"\n')
        host.write(DAEMON_LOG, '')
        host.write('/etc/libvirt/qemu.conf',
                   f'user = "{self._user}"\ngroup = "{self._user}"\n'
                   'security_driver = "none"\nnamespaces = []\n'
                   'cgroup_controllers = []\nstdio_handler = "file"\n'
                   'default_tls_x509_cert_dir = "/etc/pki/qemu"\n')
        # virsh asks "qemu" of this machine in any case; say so once.
        host.write('/etc/libvirt/libvirt.conf',
                   'uri_default = "qemu:///system"\n')
        host.write('/run/libvirt/README', '')
        # libvirt gives these to QEMU's user
        made = image.ensure()
        host.seen(BOOT).mkdir()
        shutil.copyfile(made.kernel, host.seen(f'{BOOT}/vmlinuz'))
        shutil.copyfile(made.initrd, host.seen(f'{BOOT}/initrd'))
        if self._user != 'root':
            host.cover(INSTALLED)
        self._install(host)

    @staticmethod
    def _wait_libvirtd(host: Host, daemon: 'subprocess.Popen[bytes]') -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            said = host.run('virsh', 'list', check=False)
            if 'State' in said:
                return
            if daemon.poll() is not None or time.monotonic() > deadline:
                raise HostError(f'libvirtd does not start: {said.strip()}')
            time.sleep(0.1)

    def _start(self) -> None:
        first = self.hosts[0]
        self._serve_disk(first)
        self._consoles = Consoles(self.hosts, self.guest)
        first.write('/run/guest1.xml',
                    domain_xml(self.emulator, self.load, self.memory))
        for host in self.hosts:
            host.daemon('events', 'stdbuf', '-oL', 'virsh', 'event', '--all',
                        '--loop')
        first.run('virsh', 'define', '/run/guest1.xml')
        first.run('virsh', 'start', DOMAIN)
        self.is_on(first)
        self.guest.wait_ready()

    def _serve_disk(self, host: Host) -> None:
        assert host.name == DISK_HOST
        program = self.binary.path.parent / 'qemu-nbd'
        if not program.exists():
            raise Skip(f'no qemu-nbd beside {self.binary.path}')
        host.write(DISK, '')
        os.truncate(host.seen(DISK), DISK_SIZE << 20)
        host.run(str(program), '--fork', '--persistent', '--shared=0',
                 '--format=raw', '--export-name=disk', DISK)

    def version(self) -> str:
        """libvirt's, as "9.0.0" """
        return self.hosts[0].run('virsh', '--version').strip()

    # The guest

    def is_on(self, host: Host) -> None:
        """The guest's commands go to @host from now on"""
        assert self._consoles
        self._consoles.guest_is_on(host)

    def qmp(self, host: Host, command: str, **arguments: Any) -> Any:
        """Ask the domain's QEMU on @host, past libvirt"""
        words = json.dumps({'execute': command, 'arguments': arguments})
        answer = json.loads(host.run('virsh', 'qemu-monitor-command', DOMAIN,
                                     words))
        check('error' not in answer, f'{words}: {answer}')
        return answer['return']

    def state(self, host: Host) -> str:
        """Of the domain, "none" where it is not known"""
        said = host.run('virsh', 'domstate', DOMAIN, '--reason', check=False)
        return 'none' if 'failed to get domain' in said else said.strip()

    def xml(self, host: Host, *options: str) -> ElementTree.Element:
        """The domain's definition on @host"""
        return ElementTree.fromstring(
            host.run('virsh', 'dumpxml', DOMAIN, *options))

    def job(self, host: Host, *options: str) -> Dict[str, str]:
        """What domjobinfo says"""
        said = host.run('virsh', 'domjobinfo', DOMAIN, *options)
        pairs = (line.split(':', 1) for line in said.splitlines()
                 if ':' in line)
        return {name.strip(): value.strip() for name, value in pairs}

    @staticmethod
    def finish(process: 'subprocess.Popen[str]') -> Tuple[str, int]:
        """What it printed, and its exit status"""
        try:
            said = process.communicate(timeout=PATIENCE)[0].strip()
        except subprocess.TimeoutExpired as exc:
            raise TimeoutError('it did not end within '
                               f'{PATIENCE:.0f} s: {process.args}') from exc
        return said, process.returncode

    def user(self, host: Host) -> str:
        """Of the domain's QEMU"""
        pid = host.seen(f'/run/libvirt/qemu/{DOMAIN}.pid').read_text('ascii')
        return host.run('stat', '-c', '%U', f'/proc/{pid.strip()}').strip()

    @staticmethod
    def wait(what: str, test: Callable[[], bool],
             while_runs: Optional['subprocess.Popen[str]'] = None) -> None:
        """Until @test holds, for as long as @while_runs does"""
        deadline = time.monotonic() + PATIENCE
        while not test():
            if while_runs and while_runs.poll() is not None:
                said = while_runs.communicate()[0].strip()
                raise HostError(f'it ended without {what}: {said}')
            if time.monotonic() > deadline:
                raise TimeoutError(f'no {what} within {PATIENCE:.0f} s')
            time.sleep(0.05)
