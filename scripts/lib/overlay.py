#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The overlay: those files of this repository that lie in QEMU's tree.

The rule, and the only place that has it: every file under one of FOLDERS
that git tracks or would take, unless it is under one of OWN.  A file's path
here is its path in QEMU's tree, where it lies as a symbolic link to here.

    overlay.py list              the paths, one a line
    overlay.py lay TREE GITDIR INDEX
                                 bring TREE's links to the state of the
                                 repository, and print what changed
    overlay.py clashes GITDIR TREE-ISH
                                 print the paths that QEMU has itself

    overlay.py differences GITDIR HOOKED TIP
                                 print the files by which HOOKED with the
                                 overlay in it differs from TIP

Tests of this repository that drive the built programs from outside
(functional, bench) and the tests of its scripts are its own: they need its
scripts/ and build/, which QEMU's tree does not have.
"""

import os
import subprocess
import sys

FOLDERS = ('migration', 'include', 'qapi', 'docs', 'tests')
OWN = ('tests/functional/', 'tests/bench/', 'tests/lab/',
       'tests/scripts/')
REPO = os.path.realpath(os.path.join(os.path.dirname(__file__), '../..'))


def git(*args, **env):
    out = subprocess.run(('git', '-c', 'safe.directory=*') + args, check=True,
                         stdout=subprocess.PIPE, env={**os.environ, **env})
    return [os.fsdecode(name) for name in out.stdout.split(b'\0') if name]


def paths():
    found = git('-C', REPO, 'ls-files', '-z', '--cached', '--others',
                '--exclude-standard', '--', *FOLDERS)
    return sorted({p for p in found if not p.startswith(OWN)
                   and os.path.isfile(os.path.join(REPO, p))})


def clashes(gitdir, treeish):
    theirs = set(git('--git-dir', gitdir, 'ls-tree', '-rz', '--name-only',
                     treeish))
    return [p for p in paths() if p in theirs]


def differences(gitdir, hooked, tip):
    def entries(treeish):
        lines = git('--git-dir', gitdir, 'ls-tree', '-rz', treeish)
        return {line.split('\t', 1)[1]: line.split('\t', 1)[0].split()[::2]
                for line in lines}
    built = entries(hooked)
    for path in paths():
        full = os.path.join(REPO, path)
        mode = '100755' if os.access(full, os.X_OK) else '100644'
        blob = git('--git-dir', gitdir, 'hash-object', '--no-filters', full)
        built[path] = [mode, blob[0].strip()]
    theirs = entries(tip)
    return sorted(p for p in built.keys() | theirs.keys()
                  if built.get(p) != theirs.get(p))


def laid(tree, gitdir, index):
    """Links in TREE that are not QEMU's own: what an earlier run laid."""
    others = git('--git-dir', gitdir, '--work-tree', tree, 'ls-files', '-z',
                 '--others', '--exclude=/build/', GIT_INDEX_FILE=index)
    return {p for p in others if os.path.islink(os.path.join(tree, p))}


def remove(tree, path):
    os.unlink(os.path.join(tree, path))
    try:
        os.removedirs(os.path.dirname(os.path.join(tree, path)))
    except OSError:
        pass                    # the folder holds something else


def link(tree, path):
    """True if TREE/path had to be made a link to our file."""
    there = os.path.join(tree, path)
    target = os.path.join(REPO, path)
    if os.path.islink(there) and os.readlink(there) == target:
        return False
    os.makedirs(os.path.dirname(there), exist_ok=True)
    temporary = there + '.overlay-new'
    if os.path.lexists(temporary):
        os.unlink(temporary)
    os.symlink(target, temporary)
    os.replace(temporary, there)
    return True


def lay(tree, gitdir, index):
    wanted = paths()
    for path in sorted(laid(tree, gitdir, index) - set(wanted)):
        remove(tree, path)
        print('gone', path)
    for path in wanted:
        if link(tree, path):
            print('new', path)


def main():
    commands = {'list': lambda: print('\n'.join(paths())),
                'lay': lay,
                'differences': lambda *a: print('\n'.join(differences(*a))),
                'clashes': lambda *a: print('\n'.join(clashes(*a)))}
    try:
        commands[sys.argv[1]](*sys.argv[2:])
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)


if __name__ == '__main__':
    main()
