# SPDX-License-Identifier: GPL-2.0-or-later
"""
A relay between the two ends of a migration, which keeps what passes through

One connection, both directions, each by a thread of its own.
"""

from pathlib import Path
import socket
import threading
from typing import Optional, Tuple


class Relay:
    """
    Takes one connection at @listen, carries it on to @target

    @forge: of what goes to @target, something that is long enough not to be
    there by chance, and what to send instead, of the same length
    """

    def __init__(self, listen: Path, target: Path, record: Path,
                 forge: Optional[Tuple[bytes, bytes]] = None):
        self._target = str(target)
        self._forge = forge
        self._record = record
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._server.bind(str(listen))
        self._server.listen(1)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        source, _ = self._server.accept()
        destination = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        destination.connect(self._target)
        back = threading.Thread(target=self._carry,
                                args=(destination, source, Path('/dev/null')),
                                daemon=True)
        back.start()
        self._carry(source, destination, self._record, self._forge)
        back.join()
        source.close()
        destination.close()

    @staticmethod
    def _carry(one: socket.socket, other: socket.socket, record: Path,
               forge: Optional[Tuple[bytes, bytes]] = None) -> None:
        with open(record, 'wb') as kept:
            try:
                while True:
                    data = one.recv(1 << 16)
                    if not data:
                        break
                    if forge:
                        # It may be torn apart: wait for the rest
                        while any(data.endswith(forge[0][:n])
                                  for n in range(3, len(forge[0]))):
                            data += one.recv(1 << 16)
                        data = data.replace(*forge)
                    kept.write(data)
                    other.sendall(data)
                other.shutdown(socket.SHUT_WR)
            except OSError:
                # One end closed for both directions.
                pass

    def join(self, timeout: float) -> None:
        """Wait until both directions have ended"""
        self._thread.join(timeout)
        self._server.close()
        if self._thread.is_alive():
            raise TimeoutError('the migration did not let go of its channel')
