#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Make the commits of export-series in build/base.git; print the last one.

    export.py GITDIR PRISTINE INDEX PATCH...

patches/export.rules says which files and hooks make which commit.  Hooks
that no rule names follow, one commit each, in the order of patches/series.
A hook of MAINTAINERS alone is spread over the commits: each F: line comes
with the first file that it covers.

Authors, dates and Signed-off-by lines of new files come from this
repository's log; whoever runs this signs off as git's configuration says.
"""

import collections
import fnmatch
import os
import re
import subprocess
import sys

import overlay

REPO = overlay.REPO
RULES = os.path.join(REPO, 'patches/export.rules')


def run(*args, stdin=None, **env):
    done = subprocess.run(args, input=stdin, stdout=subprocess.PIPE,
                          env={**os.environ, **env}, check=False)
    if done.returncode:
        sys.exit(f'scripts/export-series: {" ".join(args[:6])} failed')
    return done.stdout


def log(*args):
    return run('git', '-c', 'safe.directory=*', '-C', REPO, 'log',
               *args).decode().splitlines()


class Rule:
    def __init__(self, subject):
        self.subject, self.body = subject, []
        self.file_globs, self.hook_globs = [], []


def read_rules():
    rules = []
    for number, line in enumerate(open(RULES, encoding='utf-8'), 1):
        word, _, rest = line.rstrip('\n').partition(' ')
        if word == 'commit':
            rules.append(Rule(rest))
        elif word in ('files', 'hooks') and rules:
            getattr(rules[-1], word[:-1] + '_globs').extend(rest.split())
        elif word == '|' and rules:
            rules[-1].body.append(rest)
        elif line.strip() and not line.startswith('#'):
            sys.exit(f'scripts/export-series: patches/export.rules:{number}: '
                     f'not a commit, files, hooks or | line')
    return rules


def matches(name, globs):
    return any(fnmatch.fnmatchcase(name, glob) for glob in globs)


class Hook:
    """A patch file: its message, its author, and what it touches."""

    def __init__(self, name):
        self.name = name
        self.path = os.path.join(REPO, 'patches', name)
        with open(self.path, encoding='utf-8') as file:
            text = file.read()
        head, _, rest = text.partition('\n\n')
        head = re.sub(r'\n[ \t]', ' ', head)
        fields = dict(re.findall(r'^(\w+): (.*)$', head, re.M))
        self.subject = re.sub(r'^\[PATCH[^]]*\] *', '', fields['Subject'])
        self.author = fields['From']
        body = re.split(r'^(?:---$|diff --git )', rest, maxsplit=1, flags=re.M)
        self.body = body[0].strip()
        self.touches = set(re.findall(r'^diff --git a/(\S+) ', rest, re.M))

    @property
    def is_maintainers(self):
        return self.touches == {'MAINTAINERS'}


class Maintainers:
    """MAINTAINERS as it is after each commit."""

    def __init__(self, before, after):
        self.before, self.after = before, after
        self.files = set()

    def covers(self, line):
        pattern = line.split(None, 1)[1].strip()
        return any(path.startswith(pattern) if pattern.endswith('/')
                   else fnmatch.fnmatchcase(path, pattern)
                   for path in self.files)

    def now(self, complete=False):
        """The text with those added F: lines that cover a file by now."""
        if complete:
            return ''.join(self.after)
        if not self.files:
            return ''.join(self.before)
        known = collections.Counter(self.before)
        text = []
        for line in self.after:
            if known[line]:
                known[line] -= 1
            elif line.startswith('F:') and not self.covers(line):
                continue
            text.append(line)
        return ''.join(text)


class Series:
    def __init__(self, gitdir, pristine, index, hooks):
        self.git = ['git', '-c', 'safe.directory=*', '--git-dir', gitdir]
        self.index = index
        self.hooks = [Hook(name) for name in hooks]
        self.tip = self('rev-parse', pristine + '^{commit}')
        self('read-tree', self.tip)
        self.maintainers = self.read_maintainers()
        self.committer = run('git', '-C', REPO, 'var', 'GIT_COMMITTER_IDENT'
                             ).decode().rsplit(' ', 2)[0]

    def __call__(self, *args, stdin=None, **env):
        return run(*self.git, *args, stdin=stdin,
                   GIT_INDEX_FILE=self.index, **env).decode().strip()

    def read_file(self, path):
        return run(*self.git, 'show', ':' + path,
                   GIT_INDEX_FILE=self.index).decode().splitlines(True)

    def read_maintainers(self):
        before = self.read_file('MAINTAINERS')
        tree = self('write-tree')
        for hook in self.hooks:
            if hook.is_maintainers:
                self('apply', '--cached', hook.path)
        after = self.read_file('MAINTAINERS')
        self('read-tree', tree)
        return Maintainers(before, after)

    def add_file(self, path):
        with open(os.path.join(REPO, path), 'rb') as file:
            self.add_blob(path, file.read(),
                          os.access(os.path.join(REPO, path), os.X_OK))
        self.maintainers.files.add(path)

    def add_blob(self, path, content, executable=False):
        blob = self('hash-object', '-w', '--stdin', stdin=content)
        mode = '100755' if executable else '100644'
        self('update-index', '--add', '--cacheinfo', f'{mode},{blob},{path}')

    def commit(self, subject, body, files, hooks, complete=False):
        for path in files:
            self.add_file(path)
        for hook in hooks:
            self('apply', '--cached', hook.path)
        self.add_blob('MAINTAINERS', self.maintainers.now(complete).encode())
        tree = self('write-tree')
        if tree == self('rev-parse', self.tip + '^{tree}'):
            return
        author, date = self.author(files, hooks)
        name, mail = re.fullmatch(r'(.*?) *<(.*)>', author).groups()
        message = self.message(subject, body, files, hooks)
        cname, cmail = re.fullmatch(r'(.*?) *<(.*)>', self.committer).groups()
        self.tip = self('commit-tree', tree, '-p', self.tip,
                        stdin=message.encode(),
                        GIT_AUTHOR_NAME=name, GIT_AUTHOR_EMAIL=mail,
                        GIT_AUTHOR_DATE=date, GIT_COMMITTER_DATE=date,
                        GIT_COMMITTER_NAME=cname, GIT_COMMITTER_EMAIL=cmail)

    def author(self, files, hooks):
        """Who wrote most of it, and when it was last changed."""
        paths = list(files) + ['patches/' + h.name for h in hooks]
        lines = log('--format=%aD\t%an <%ae>', '--', *paths)
        date = lines[0].split('\t')[0] if lines else self.now()
        if not files and len(hooks) == 1:
            return hooks[0].author, date
        names = collections.Counter(x.split('\t')[1] for x in lines)
        return (names.most_common(1)[0][0] if names else self.committer), date

    @staticmethod
    def now():
        return run('date', '-R').decode().strip()

    def message(self, subject, body, files, hooks):
        signed = []
        if files:
            signed += log('--reverse', '--format=%(trailers:key=Signed-off-by,'
                          'valueonly,separator=%x0A)', '--', *files)
        for hook in hooks:
            signed += re.findall(r'^Signed-off-by: (.*)$', hook.body, re.M)
        signed = [x for x in dict.fromkeys(signed) if x and x != self.committer]
        body = re.sub(r'^Signed-off-by: .*\n?', '', body, flags=re.M).strip()
        trailers = [f'Signed-off-by: {x}' for x in signed + [self.committer]]
        return '\n\n'.join(x for x in (subject, body, '\n'.join(trailers)) if x
                           ) + '\n'

    def make(self):
        files = overlay.paths()
        hooks = [h for h in self.hooks if not h.is_maintainers]
        for rule in read_rules():
            own = [f for f in files if matches(f, rule.file_globs)]
            ours = [h for h in hooks if matches(h.name, rule.hook_globs)]
            if own or ours:
                body = '\n'.join(rule.body)
                self.commit(rule.subject, body, own, ours)
            files = [f for f in files if f not in own]
            hooks = [h for h in hooks if h not in ours]
        if files:
            sys.exit('scripts/export-series: no rule of patches/export.rules '
                     'takes ' + ' '.join(files))
        for hook in hooks:
            self.commit(hook.subject, hook.body, [], [hook])
        for hook in self.hooks:
            if hook.is_maintainers:
                self.commit(hook.subject, hook.body, [], [], complete=True)
        return self.tip


if __name__ == '__main__':
    print(Series(*sys.argv[1:4], sys.argv[4:]).make())
