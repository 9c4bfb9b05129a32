# SPDX-License-Identifier: GPL-2.0-or-later
"""
Debian packages, unpacked beside the system instead of installed

apt runs with its own source list, state and cache, so that the system's stay
as they are.  What is already installed on the system is not fetched again by
closure(), as the unpacked programs use the system's libraries as well.
"""

import os
from pathlib import Path
import shutil
import subprocess
from typing import Dict, List, Sequence


# As for scripts/build
MIRROR = os.environ.get('BUILD_APT_MIRROR', 'http://deb.debian.org/debian')
SECURITY = 'http://deb.debian.org/debian-security'
KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg'


class DebianError(Exception):
    """A package could not be had; the text is a sentence for the user"""


def os_release() -> Dict[str, str]:
    """What /etc/os-release says"""
    values: Dict[str, str] = {}
    with open('/etc/os-release', encoding='utf-8') as release:
        for line in release:
            key, sep, value = line.strip().partition('=')
            if sep:
                values[key] = value.strip('"\'')
    return values


def codename() -> str:
    """The release of Debian this is, "bookworm" or "trixie" """
    release = os_release()
    name = release.get('VERSION_CODENAME', '')
    if release.get('ID') != 'debian' or not name:
        raise DebianError('this is not Debian but '
                          f'{release.get("PRETTY_NAME", "unknown")}: packages '
                          'can only be fetched on Debian 12 or 13')
    return name


def unpack(packages: Sequence[Path], where: Path) -> None:
    """Unpack @packages below @where, one over the other"""
    for package in packages:
        subprocess.run(['dpkg', '-x', str(package), str(where)], check=True)


class Apt:
    """A private apt in @state, for @suites besides the release's own"""

    def __init__(self, state: Path, backports: bool = False):
        self.state = state.resolve()
        self.release = codename()
        self.suites = [f'{MIRROR} {self.release}',
                       f'{MIRROR} {self.release}-updates',
                       f'{SECURITY} {self.release}-security']
        if backports:
            self.suites.append(f'{MIRROR} {self.release}-backports')

    def _run(self, *command: str, where: Path) -> str:
        environment = dict(os.environ, LC_ALL='C',
                           APT_CONFIG=str(self.state / 'apt.conf'))
        try:
            done = subprocess.run(command, env=environment, cwd=where,
                                  check=True, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, text=True)
        except FileNotFoundError as exc:
            raise DebianError(f'{command[0]} is not installed') from exc
        except subprocess.CalledProcessError as exc:
            last = (exc.stderr.strip() or exc.stdout.strip()).split('\n')[-1]
            raise DebianError(f'{" ".join(command)} failed: {last}') from exc
        return done.stdout

    def update(self) -> None:
        """Fetch the package lists"""
        for name in ('lists/partial', 'cache/archives/partial'):
            (self.state / name).mkdir(parents=True, exist_ok=True)
        shutil.copyfile('/var/lib/dpkg/status', self.state / 'status')
        (self.state / 'sources.list').write_text(
            ''.join(f'deb [signed-by={KEYRING}] {suite} main\n'
                    for suite in self.suites), encoding='utf-8')
        settings = {
            'Dir::Etc::SourceList': self.state / 'sources.list',
            'Dir::Etc::SourceParts': '/dev/null',
            'Dir::Etc::Preferences': '/dev/null',
            'Dir::Etc::PreferencesParts': '/dev/null',
            'Dir::State': self.state,
            'Dir::State::Lists': self.state / 'lists',
            'Dir::State::status': self.state / 'status',
            'Dir::Cache': self.state / 'cache',
            'APT::Sandbox::User': 'root',
            'APT::Update::Error-Mode': 'any',
            'Debug::NoLocking': 'true',
        }
        (self.state / 'apt.conf').write_text(
            ''.join(f'{key} "{value}";\n' for key, value in settings.items()),
            encoding='utf-8')
        self._run('apt-get', '-q', 'update', where=self.state)

    def depends(self, package: str, suite: str = '') -> List[str]:
        """The names that @package, that of @suite, depends on directly"""
        choice = ('--target-release', suite) if suite else ()
        answer = self._run('apt-cache', *choice, 'depends', package,
                           where=self.state)
        return [line.split(':', 1)[1].strip()
                for line in answer.splitlines()
                if line.strip().startswith('Depends:')]

    def download(self, package: str, where: Path) -> Path:
        """Fetch @package alone"""
        where.mkdir(parents=True, exist_ok=True)
        self._run('apt-get', '-q', 'download', package, where=where)
        name = package.split('=')[0].split('/')[0]
        found = sorted(where.glob(f'{name}_*.deb'),
                       key=lambda path: path.stat().st_mtime)
        if not found:
            raise DebianError(f'apt-get download {package} left no package')
        return found[-1]

    def closure(self, package: str, suite: str) -> List[Path]:
        """Fetch @package of @suite and what it needs and is not installed"""
        archives = self.state / 'cache' / 'archives'
        for stale in archives.glob('*.deb'):
            stale.unlink()
        self._run('apt-get', '-q', '-y', '--no-install-recommends',
                  '--download-only', '--target-release', suite,
                  'install', package, where=self.state)
        return sorted(archives.glob('*.deb'))
