/*
 * Init of the test guest: keeps memory busy and proves that none was lost
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Memory is one array of pages, each of which carries its number, its version
 * and a checksum over both and its body.  The versions that the pages must
 * have are also kept apart from the pages, in the ledger: a page that went
 * back to an older, consistent state is found as well as one that was torn,
 * zeroed or swapped with another.  A page is verified before every write and
 * all of them on command.
 *
 * The first pages, as many as "ws" says, are the working set, divided among
 * the writers; the others are written once and only read from then on.  With
 * a "pattern", the writers write nothing: an operation is to read and verify
 * one of the others.
 *
 * Threads: the main one reads commands from the serial line; one prints the
 * heartbeats; "threads" writers own one slice of the working set each; one
 * more uses the disk, past the page cache, with buffers all over.  A
 * writer and whoever verifies all pages exclude each other by @writer.lock,
 * held for one operation at a time.
 *
 * Parameters, on the kernel's command line as guest.NAME=VALUE and, those
 * marked with *, at run time by the command "set NAME=VALUE ...":
 *
 *   fill      MiB of pages in all; 0: all memory but a reserve
 *   ws        MiB of it that are kept dirty
 *   threads   number of writers
 *   load   *  1: write; 0: only heartbeats
 *   rate   *  MiB of pages that are dirtied in a second; 0: as fast as it goes
 *   rounds *  how often a writer goes through its slice; 0: for ever
 *   write  *  bytes of a page that change with a write; 0: all of them
 *   random *  1: pages in random order; 0: one after the other
 *   read   *  static pages that are read and verified for each write
 *   pattern * 0: write; read only, 1: one after the other, 2: uniformly at
 *             random, 3: by Zipf's law with exponent 0.99, the often read
 *             pages being all over the memory.  Not at run time if it was 0
 *             at the start
 *   text      1: compressible contents; 0: incompressible
 *   fifo      1: a writer runs until it waits for something, whatever the
 *             clock says; the other threads run when no writer can
 *   disk      MiB of the first virtio disk that are written and read back
 *   beat   *  ms between heartbeats
 *
 * Lines that it prints, each written by one write():
 *
 *   guest: ready pages=N ws=N threads=N ms=T
 *   guest: beat ms=T ops=N stall=US max=US wrong=N
 *   guest: wrong page=N why=REASON want=V have=V
 *   guest: verified pages=N wrong=N total=N
 *   guest: ok COMMAND [ANSWER] | guest: error TEXT
 *
 * Times are CLOCK_MONOTONIC's.  A stall is the time from when an operation or
 * a heartbeat could have begun to when it ended: "stall" is the longest since
 * the last heartbeat, "max" the longest since the command "reset".  The clock
 * of a guest stands still while QEMU has stopped the VM, so downtime is not
 * in it: whoever reads the heartbeats sees that.
 */

#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define PAGE_SIZE       4096
#define PAGES_PER_MIB   256
#define PAGE_MAGIC      0x6d69677061676500ULL
#define BODY_WORDS      (PAGE_SIZE / 8 - 4)
#define RESERVE_MIB     48
#define MAX_WRITERS     64
#define NS_PER_MS       ((uint64_t)1000000)
#define NS_PER_S        ((uint64_t)1000000000)
/* A writer never sleeps longer than this, to be quick to see a new setting */
#define NAP_NS          (20 * NS_PER_MS)

typedef struct Page {
    uint64_t number;            /* xor PAGE_MAGIC, so that zeros are wrong */
    uint64_t version;
    uint64_t checksum;
    uint64_t reserved;
    uint64_t body[BODY_WORDS];
} Page;

_Static_assert(sizeof(Page) == PAGE_SIZE, "a page is a page");

typedef struct Writer {
    pthread_mutex_t lock;       /* the slice and its part of the ledger */
    pthread_t thread;
    size_t first, count;        /* the slice; constant */
    _Atomic uint64_t ops;
    _Atomic uint64_t stall;     /* ns, since the last heartbeat */
} Writer;

/* Constant once the writers run, but for the atomic ones */
static struct {
    unsigned long fill, ws, threads, text, disk, fifo;
    _Atomic unsigned long load, rate, rounds, write, random, read, pattern;
    _Atomic unsigned long beat;
} conf = {
    .threads = 1, .beat = 20, .load = 1,
};

static Page *pages;
static _Atomic uint32_t *ledger;
static size_t nr_pages, nr_ws;
static Writer writers[MAX_WRITERS];
static _Atomic uint64_t nr_wrong;
static _Atomic uint64_t max_stall;
static _Atomic size_t next_static;
/* Tells that a writer began to rest */
static pthread_mutex_t rest_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t rest_cond = PTHREAD_COND_INITIALIZER;

static uint64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * NS_PER_S + ts.tv_nsec;
}

static void sleep_until(uint64_t ns)
{
    struct timespec ts = {
        .tv_sec = ns / NS_PER_S,
        .tv_nsec = ns % NS_PER_S,
    };

    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL)
           == EINTR) {
        ;
    }
}

static void __attribute__((format(printf, 1, 2))) say(const char *fmt, ...)
{
    char line[256] = "guest: ";
    size_t len = strlen(line);
    va_list ap;
    ssize_t n;

    va_start(ap, fmt);
    n = vsnprintf(line + len, sizeof(line) - len - 1, fmt, ap);
    va_end(ap);
    len += n < (ssize_t)(sizeof(line) - len - 1) ? (size_t)n
                                                : sizeof(line) - len - 2;
    line[len++] = '\n';
    for (size_t done = 0; done < len; done += n) {
        n = write(STDOUT_FILENO, line + done, len - done);
        if (n <= 0) {
            return;
        }
    }
}

static void raise_to(_Atomic uint64_t *max, uint64_t value)
{
    uint64_t old = atomic_load(max);

    while (old < value && !atomic_compare_exchange_weak(max, &old, value)) {
        ;
    }
}

/* Pages */

/* Four sums and their weights: order matters, and four lanes run abreast. */
static uint64_t page_checksum(const Page *page)
{
    uint64_t s0 = page->number, s1 = page->version, s2 = page->reserved, s3 = 0;
    uint64_t t0 = 1, t1 = 2, t2 = 3, t3 = 4;

    for (size_t i = 0; i < BODY_WORDS; i += 4) {
        t0 += s0 += page->body[i];
        t1 += s1 += page->body[i + 1];
        t2 += s2 += page->body[i + 2];
        t3 += s3 += page->body[i + 3];
    }
    return (t0 ^ (t1 << 16 | t1 >> 48)) + (t2 ^ (t3 << 32 | t3 >> 32)) +
           0x9e3779b97f4a7c15ULL * (s0 ^ s1 ^ s2 ^ s3);
}

_Static_assert(BODY_WORDS % 4 == 0, "the checksum has four lanes");

static void page_scribble(Page *page, size_t first, size_t words)
{
    uint64_t x = page->number * 0xd1342543de82ef95ULL + page->version;

    if (conf.text) {
        for (size_t i = 0; i < words; i++) {
            page->body[(first + i) % BODY_WORDS] =
                0x2065676170206120ULL + (x & 0xf);
        }
        return;
    }
    for (size_t i = 0; i < words; i++) {
        x += 0x9e3779b97f4a7c15ULL;
        page->body[(first + i) % BODY_WORDS] = x ^ (x << 29);
    }
}

static void page_write(size_t n)
{
    Page *page = &pages[n];
    uint32_t version = atomic_load(&ledger[n]) + 1;
    size_t words = atomic_load(&conf.write) / 8;

    page->number = n ^ PAGE_MAGIC;
    page->version = version;
    if (version == 1 || words == 0 || words >= BODY_WORDS) {
        page_scribble(page, 0, BODY_WORDS);
    } else {
        page_scribble(page, version * 61 % BODY_WORDS, words);
    }
    page->checksum = page_checksum(page);
    atomic_store(&ledger[n], version);
}

static bool page_verify(size_t n)
{
    const Page *page = &pages[n];
    uint32_t want = atomic_load(&ledger[n]);
    const char *why;

    if (page->number != (n ^ PAGE_MAGIC)) {
        why = page->number || page->version ? "number" : "zero";
    } else if (page->version != want) {
        why = "version";
    } else if (page->checksum != page_checksum(page)) {
        why = "checksum";
    } else {
        return true;
    }
    /* The first few tell what happened; a flood would only hide them. */
    if (atomic_fetch_add(&nr_wrong, 1) < 16) {
        say("wrong page=%zu why=%s want=%" PRIu32 " have=%" PRIu64,
            n, why, want, page->version);
    }
    return false;
}

static uint64_t random_next(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* Readers */

enum { PATTERN_WRITE, PATTERN_SEQUENTIAL, PATTERN_UNIFORM, PATTERN_ZIPF };

#define ZIPF_EXPONENT   0.99
/* A prime above any number of pages: each rank has a page, all over memory */
#define ZIPF_SPREAD     2654435761ULL

/* zipf[i]: how much of 2^64 falls to the ranks up to i; constant once made */
static uint64_t *zipf;
static size_t nr_zipf;

/* Before there is a writer */
static bool zipf_make(size_t count)
{
    double sum = 0, so_far = 0;

    zipf = calloc(count, sizeof(*zipf));
    if (!zipf) {
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        sum += pow(i + 1, -ZIPF_EXPONENT);
    }
    for (size_t i = 0; i + 1 < count; i++) {
        so_far += pow(i + 1, -ZIPF_EXPONENT);
        zipf[i] = so_far / sum * 0x1p64;
    }
    zipf[count - 1] = UINT64_MAX;
    nr_zipf = count;
    return true;
}

static size_t zipf_next(uint64_t *seed)
{
    uint64_t want = random_next(seed);
    size_t low = 0, high = nr_zipf - 1;

    while (low < high) {
        size_t middle = (low + high) / 2;

        if (zipf[middle] < want) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low * ZIPF_SPREAD % nr_zipf;
}

static void reader_operation(Writer *w, unsigned long pattern, uint64_t *seed)
{
    size_t count = nr_pages - nr_ws, n;

    switch (pattern) {
    case PATTERN_ZIPF:
        n = zipf_next(seed);
        break;
    case PATTERN_UNIFORM:
        n = random_next(seed) % count;
        break;
    default:
        n = atomic_fetch_add(&next_static, 1) % count;
    }
    page_verify(nr_ws + n);
    atomic_fetch_add(&w->ops, 1);
}

/* Writers */

static void writer_operation(Writer *w, size_t n)
{
    unsigned long reads = atomic_load(&conf.read);

    pthread_mutex_lock(&w->lock);
    if (!page_verify(n)) {
        /* Said and counted: start the page afresh, do not count it again. */
        page_scribble(&pages[n], 0, BODY_WORDS);
    }
    page_write(n);
    for (; reads && nr_pages > nr_ws; reads--) {
        page_verify(nr_ws + atomic_fetch_add(&next_static, 1) %
                    (nr_pages - nr_ws));
    }
    pthread_mutex_unlock(&w->lock);
    atomic_fetch_add(&w->ops, 1);
}

static bool writer_rests(Writer *w, unsigned long pattern)
{
    unsigned long rounds = atomic_load(&conf.rounds);

    if (pattern) {
        return !atomic_load(&conf.load) || !nr_zipf;
    }
    return !atomic_load(&conf.load) || !w->count ||
           (rounds && atomic_load(&w->ops) >= rounds * w->count);
}

static void writer_tell_rest(void)
{
    pthread_mutex_lock(&rest_lock);
    pthread_cond_broadcast(&rest_cond);
    pthread_mutex_unlock(&rest_lock);
}

static void *writer_run(void *opaque)
{
    Writer *w = opaque;
    bool worked = false;
    uint64_t seed = 0x2545f4914f6cdd1dULL + w->first;
    uint64_t due = now_ns(), now = due;
    size_t next = 0;

    for (;;) {
        unsigned long rate = atomic_load(&conf.rate);
        unsigned long pattern = atomic_load(&conf.pattern);

        if (writer_rests(w, pattern)) {
            if (worked) {
                writer_tell_rest();
                worked = false;
            }
            sleep_until(now + NAP_NS);
            due = now = now_ns();
            continue;
        }
        if (rate) {
            /* The rate is that of all writers together. */
            due += NS_PER_S * conf.threads / (rate * PAGES_PER_MIB);
            if (due > now + NAP_NS) {
                due = now + NAP_NS;
            }
            /* Naps of less than a millisecond cost more than they space. */
            if (due > now + NS_PER_MS) {
                sleep_until(due);
                now = due;
            }
            /* What a stall kept it from doing is not made up for. */
            if (due + NAP_NS < now) {
                due = now;
            }
        }
        worked = true;
        if (pattern) {
            reader_operation(w, pattern, &seed);
        } else if (atomic_load(&conf.random)) {
            writer_operation(w, w->first + random_next(&seed) % w->count);
        } else {
            writer_operation(w, w->first + next++ % w->count);
        }
        uint64_t end = now_ns();
        raise_to(&w->stall, end - now);
        now = end;
        if (!rate) {
            due = now;
        }
    }
    return NULL;
}

static void writers_lock(void)
{
    for (unsigned long i = 0; i < conf.threads; i++) {
        pthread_mutex_lock(&writers[i].lock);
    }
}

static void writers_unlock(void)
{
    for (unsigned long i = 0; i < conf.threads; i++) {
        pthread_mutex_unlock(&writers[i].lock);
    }
}

/* Linux keeps 5 % of the time for others unless it is told not to */
static void writers_never_yield(pthread_attr_t *attr)
{
    struct sched_param param = { .sched_priority = 1 };
    int fd = open("/proc/sys/kernel/sched_rt_runtime_us",
                  O_WRONLY | O_CLOEXEC);

    if (fd < 0 || write(fd, "-1", 2) != 2 ||
        pthread_attr_setinheritsched(attr, PTHREAD_EXPLICIT_SCHED) ||
        pthread_attr_setschedpolicy(attr, SCHED_FIFO) ||
        pthread_attr_setschedparam(attr, &param)) {
        say("error no SCHED_FIFO");
    }
    if (fd >= 0) {
        close(fd);
    }
}

static void writers_start(void)
{
    pthread_attr_t attr;

    pthread_attr_init(&attr);
    if (conf.fifo) {
        writers_never_yield(&attr);
    }
    /* Only who is to read at some time pays for the table. */
    if (conf.pattern && nr_pages > nr_ws && !zipf_make(nr_pages - nr_ws)) {
        say("error no memory to read by Zipf's law");
    }
    for (unsigned long i = 0; i < conf.threads; i++) {
        Writer *w = &writers[i];

        w->first = nr_ws * i / conf.threads;
        w->count = nr_ws * (i + 1) / conf.threads - w->first;
        pthread_mutex_init(&w->lock, NULL);
        if ((w->count || nr_zipf) &&
            pthread_create(&w->thread, &attr, writer_run, w)) {
            say("error no thread for a writer");
        }
    }
    pthread_attr_destroy(&attr);
}

/* Disk */

#define DISK_BLOCK_PAGES    16
#define DISK_BLOCK_SIZE     (DISK_BLOCK_PAGES * PAGE_SIZE)
#define DISK_BUFFERS        256

static _Atomic uint64_t disk_ops;

static void disk_fill(Page *buffer, size_t block, uint32_t version)
{
    for (size_t i = 0; i < DISK_BLOCK_PAGES; i++) {
        Page *page = &buffer[i];

        page->number = (block * DISK_BLOCK_PAGES + i) ^ PAGE_MAGIC;
        page->version = version;
        page_scribble(page, 0, BODY_WORDS);
        page->checksum = page_checksum(page);
    }
}

static bool disk_check(const Page *buffer, size_t block, uint32_t version)
{
    for (size_t i = 0; i < DISK_BLOCK_PAGES; i++) {
        const Page *page = &buffer[i];

        if (page->number != ((block * DISK_BLOCK_PAGES + i) ^ PAGE_MAGIC) ||
            page->version != version ||
            page->checksum != page_checksum(page)) {
            return false;
        }
    }
    return true;
}

/* Read a block and compare it, then write its next version */
static bool disk_operation(int fd, Page *buffers, size_t block,
                           uint32_t *version, uint64_t *seed)
{
    Page *in = buffers + random_next(seed) % DISK_BUFFERS * DISK_BLOCK_PAGES;
    Page *out = buffers + random_next(seed) % DISK_BUFFERS * DISK_BLOCK_PAGES;
    off_t at = (off_t)block * DISK_BLOCK_SIZE;

    if (*version &&
        (pread(fd, in, DISK_BLOCK_SIZE, at) != DISK_BLOCK_SIZE ||
         !disk_check(in, block, *version))) {
        return false;
    }
    disk_fill(out, block, ++*version);
    return pwrite(fd, out, DISK_BLOCK_SIZE, at) == DISK_BLOCK_SIZE;
}

static void *disk_run(void *opaque)
{
    size_t blocks = (conf.disk << 20) / DISK_BLOCK_SIZE;
    uint32_t *versions = calloc(blocks, sizeof(*versions));
    Page *buffers = mmap(NULL, DISK_BUFFERS * DISK_BLOCK_SIZE,
                         PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                         -1, 0);
    int fd = open("/dev/vda", O_RDWR | O_DIRECT | O_CLOEXEC);
    uint64_t seed = 0x9e3779b97f4a7c15ULL;

    if (fd < 0 || !versions || buffers == MAP_FAILED) {
        say("error no disk: %s", strerror(errno));
        return opaque;
    }
    for (;;) {
        size_t block = random_next(&seed) % blocks;

        if (!atomic_load(&conf.load)) {
            sleep_until(now_ns() + NAP_NS);
        } else if (disk_operation(fd, buffers, block, &versions[block],
                                  &seed)) {
            atomic_fetch_add(&disk_ops, 1);
            /* The writers want the vCPU as well */
            sleep_until(now_ns() + 2 * NS_PER_MS);
        } else {
            atomic_fetch_add(&nr_wrong, 1);
            say("wrong page=%zu why=disk want=%" PRIu32 " have=0", block,
                versions[block]);
            return opaque;
        }
    }
}

/* Heartbeat */

static void *heartbeat_run(void *opaque)
{
    uint64_t due = now_ns();

    (void)opaque;
    for (;;) {
        uint64_t period = atomic_load(&conf.beat) * NS_PER_MS;
        uint64_t ops = 0, stall;

        due += period;
        sleep_until(due);
        uint64_t now = now_ns();
        stall = now - due;
        if (stall > period) {
            due = now;
        }
        for (unsigned long i = 0; i < conf.threads; i++) {
            uint64_t longest = atomic_exchange(&writers[i].stall, 0);

            ops += atomic_load(&writers[i].ops);
            if (longest > stall) {
                stall = longest;
            }
        }
        raise_to(&max_stall, stall);
        say("beat ms=%" PRIu64 " ops=%" PRIu64 " stall=%" PRIu64
            " max=%" PRIu64 " wrong=%" PRIu64, now / NS_PER_MS, ops,
            stall / 1000, atomic_load(&max_stall) / 1000,
            atomic_load(&nr_wrong));
    }
    return opaque;
}

/* Commands */

static void verify_all(void)
{
    size_t wrong = 0;

    writers_lock();
    for (size_t n = 0; n < nr_pages; n++) {
        wrong += !page_verify(n);
    }
    writers_unlock();
    say("verified pages=%zu wrong=%zu total=%" PRIu64, nr_pages, wrong,
        atomic_load(&nr_wrong));
}

/*
 * What a migration that fails could do to a page.  The page is left so that
 * nothing but verification can tell.
 */
static bool corrupt(const char *how, size_t n)
{
    bool done = true;

    if (n >= nr_pages) {
        return false;
    }
    writers_lock();
    if (!strcmp(how, "bit")) {
        pages[n].body[n % BODY_WORDS] ^= 1ULL << (n % 64);
    } else if (!strcmp(how, "zero")) {
        memset(&pages[n], 0, PAGE_SIZE);
    } else if (!strcmp(how, "swap")) {
        memcpy(&pages[n], &pages[(n + 1) % nr_pages], PAGE_SIZE);
    } else if (!strcmp(how, "stale")) {
        /* The page as it would be, had its next version got lost. */
        atomic_fetch_add(&ledger[n], 1);
    } else {
        done = false;
    }
    writers_unlock();
    return done;
}

static bool set_parameter(const char *name, unsigned long value, bool running)
{
    struct {
        const char *name;
        unsigned long *start;
        _Atomic unsigned long *any_time;
    } known[] = {
        { "fill", &conf.fill, NULL }, { "ws", &conf.ws, NULL },
        { "threads", &conf.threads, NULL }, { "text", &conf.text, NULL },
        { "beat", NULL, &conf.beat }, { "load", NULL, &conf.load },
        { "disk", &conf.disk, NULL }, { "fifo", &conf.fifo, NULL },
        { "rate", NULL, &conf.rate }, { "rounds", NULL, &conf.rounds },
        { "write", NULL, &conf.write }, { "random", NULL, &conf.random },
        { "read", NULL, &conf.read }, { "pattern", NULL, &conf.pattern },
    };

    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (strcmp(known[i].name, name)) {
            continue;
        }
        if (known[i].any_time) {
            atomic_store(known[i].any_time, value);
            return true;
        }
        if (!running) {
            *known[i].start = value;
            return true;
        }
    }
    return false;
}

static bool set_parameters(char *words, const char *prefix, bool running)
{
    bool good = true;
    char *save, *word;

    for (word = strtok_r(words, " \n", &save); word;
         word = strtok_r(NULL, " \n", &save)) {
        char name[32];
        unsigned long value;

        if (strncmp(word, prefix, strlen(prefix))) {
            continue;
        }
        if (sscanf(word + strlen(prefix), "%31[a-z]=%lu", name, &value) != 2 ||
            !set_parameter(name, value, running)) {
            good = false;
        }
    }
    return good;
}

/* Append the names of virtio disks, each after a space, to @text */
static void list_disks(char *text, size_t room)
{
    DIR *dir = opendir("/sys/block");
    struct dirent *entry;

    while (dir && (entry = readdir(dir))) {
        size_t len = strlen(entry->d_name) + 1;

        if (!strncmp(entry->d_name, "vd", 2) && len < room) {
            snprintf(text, room, " %s", entry->d_name);
            text += len;
            room -= len;
        }
    }
    if (dir) {
        closedir(dir);
    }
}

/* Until all writers have done their rounds, without a look in between */
static void wait_rest(void)
{
    pthread_mutex_lock(&rest_lock);
    for (unsigned long i = 0; i < conf.threads; i++) {
        while (!writer_rests(&writers[i], atomic_load(&conf.pattern))) {
            pthread_cond_wait(&rest_cond, &rest_lock);
        }
    }
    pthread_mutex_unlock(&rest_lock);
}

static void obey(char *command)
{
    char how[16], copy[128];
    size_t n;

    snprintf(copy, sizeof(copy), "%s", command);
    if (!strcmp(command, "verify")) {
        verify_all();
        return;
    } else if (!strcmp(command, "reset")) {
        atomic_store(&max_stall, 0);
    } else if (!strcmp(command, "rest")) {
        wait_rest();
    } else if (!strcmp(command, "disk")) {
        snprintf(copy, sizeof(copy), "disk ops=%" PRIu64,
                 atomic_load(&disk_ops));
    } else if (!strcmp(command, "disks")) {
        list_disks(copy + strlen(copy), sizeof(copy) - strlen(copy));
    } else if (!strcmp(command, "poweroff")) {
        reboot(RB_POWER_OFF);
    } else if (!strncmp(command, "set ", 4)) {
        if (!set_parameters(command + 4, "", true)) {
            say("error no such parameter: %s", copy);
            return;
        }
    } else if (sscanf(command, "corrupt %15s %zu", how, &n) == 2) {
        if (!corrupt(how, n)) {
            say("error cannot do: %s", copy);
            return;
        }
    } else {
        say("error unknown command: %s", copy);
        return;
    }
    say("ok %s", copy);
}

/* Start */

static void load_modules(void)
{
    FILE *list = fopen("/modules/order", "r");
    char name[64], path[96];

    while (list && fscanf(list, "%63s", name) == 1) {
        int fd;

        snprintf(path, sizeof(path), "/modules/%s", name);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || syscall(SYS_finit_module, fd, "", 0)) {
            say("error module %s: %s", name, strerror(errno));
        }
        if (fd >= 0) {
            close(fd);
        }
    }
    if (list) {
        fclose(list);
    }
}

static void open_serial(void)
{
    struct termios tio;
    int fd = open("/dev/ttyS0", O_RDWR | O_NOCTTY);

    if (fd < 0) {
        return;
    }
    if (!tcgetattr(fd, &tio)) {
        cfmakeraw(&tio);
        tcsetattr(fd, TCSANOW, &tio);
    }
    dup2(fd, STDIN_FILENO);
    dup2(fd, STDOUT_FILENO);
    dup2(fd, STDERR_FILENO);
}

static void read_configuration(void)
{
    char line[4096] = "";
    FILE *cmdline = fopen("/proc/cmdline", "r");

    if (cmdline) {
        if (fgets(line, sizeof(line), cmdline) &&
            !set_parameters(line, "guest.", false)) {
            say("error unknown guest parameter on the command line");
        }
        fclose(cmdline);
    }
    if (conf.threads < 1 || conf.threads > MAX_WRITERS) {
        conf.threads = 1;
    }
    if (conf.beat < 1) {
        conf.beat = 1;
    }
}

static bool fill_memory(void)
{
    struct sysinfo info;
    unsigned long room;

    if (sysinfo(&info)) {
        return false;
    }
    room = info.freeram * info.mem_unit >> 20;
    room = room > RESERVE_MIB ? room - RESERVE_MIB : 0;
    if (!conf.fill || conf.fill > room) {
        conf.fill = room;
    }
    if (conf.ws > conf.fill) {
        conf.ws = conf.fill;
    }
    nr_pages = conf.fill * PAGES_PER_MIB;
    nr_ws = conf.ws * PAGES_PER_MIB;
    pages = mmap(NULL, (nr_pages + 1) * PAGE_SIZE, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ledger = calloc(nr_pages + 1, sizeof(*ledger));
    if (pages == MAP_FAILED || !ledger) {
        return false;
    }
    for (size_t n = 0; n < nr_pages; n++) {
        page_write(n);
    }
    return true;
}

int main(void)
{
    pthread_t heartbeat, disk;
    char command[128];

    mkdir("/proc", 0755);
    mkdir("/sys", 0755);
    mkdir("/dev", 0755);
    mount("proc", "/proc", "proc", 0, NULL);
    mount("sysfs", "/sys", "sysfs", 0, NULL);
    mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
    open_serial();
    load_modules();
    read_configuration();
    if (!fill_memory()) {
        say("error no memory");
    }
    say("ready pages=%zu ws=%zu threads=%lu ms=%" PRIu64, nr_pages, nr_ws,
        conf.threads, now_ns() / NS_PER_MS);
    writers_start();
    if (pthread_create(&heartbeat, NULL, heartbeat_run, NULL)) {
        say("error no thread for the heartbeat");
    }
    if (conf.disk && pthread_create(&disk, NULL, disk_run, NULL)) {
        say("error no thread for the disk");
    }

    for (size_t len = 0;;) {
        char c;

        if (read(STDIN_FILENO, &c, 1) != 1) {
            sleep_until(now_ns() + NAP_NS);
        } else if (c == '\n' || c == '\r') {
            command[len] = '\0';
            if (len) {
                obey(command);
            }
            len = 0;
        } else if (len < sizeof(command) - 1) {
            command[len++] = c;
        }
    }
}
