/*
 * Remote pager's unit tests: an engine on plain memory, with real servers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_UNIT_PAGER_FIXTURE_H
#define TESTS_UNIT_PAGER_FIXTURE_H

#include "qemu/thread.h"
#include "migration/memserver/server.h"
#include "migration/strategy/pager/engine.h"

#define PAGE        PAGELINK_PAGE_SIZE
#define WORDS       (PAGE / sizeof(uint64_t))
#define MAX_HOSTS   3
#define MAX_REGIONS 2
#define MAX_THREADS 4

typedef struct Setup {
    unsigned hosts, regions, threads;
    uint64_t pages;             /* of each region */
    uint64_t limit;
    uint64_t local;             /* one page in so many is local at first */
    uint64_t server_pages;      /* that each can store */
    unsigned rounds;            /* accesses by each thread */
    uint64_t lost;              /* page that no server has; 0: none */
    int timeout_ms;             /* or 0 */
    uint64_t capacity;          /* of each as told to the engine; 0: that */
    bool dense;                 /* no page is made zero */
} Setup;

typedef struct Fixture {
    Setup setup;
    MsServer *server[MAX_HOSTS];
    PagerEngine *e;
    uint64_t *memory[MAX_REGIONS];
    uint64_t *generation[MAX_REGIONS];  /* of each page: its thread's */
    QemuMutex lock;
    QemuCond cond;
    unsigned changes;
    bool refuse[MAX_HOSTS];             /* to connect */
    int socket[MAX_HOSTS][PAGER_LINK__MAX];     /* of the last connections */
    bool read_lost;                     /* under the lock */
    bool stall;                         /* connecting does not end */
    int silent;                         /* nobody reads */
    int demand_fd[MAX_HOSTS];           /* the engine's */
    PagerEngine *watch;                 /* atomic: each change, for... */
    bool was_down;                      /* ...a host that was not UP */
} Fixture;

/* One server, one region, a quarter of it resident */
extern const Setup fixture_small;

/*
 * An engine, its servers and its memory, as the source of a migration would
 * have left them: pages of generation 1 (see fixture_write()), and zero pages
 * of generation 0.  Never NULL; it is the caller's.
 */
Fixture *fixture_start(const Setup *s);

/*
 * End the sessions and free @f, which no thread uses any more.  If the test
 * has freed the engine, f->e is NULL, and no session is left.
 */
void fixture_stop(Fixture *f);

/* -- Servers and engine -- */

/* As pagelink_client_connect(); @socket becomes a copy of the client's fd */
PageLinkClient *fixture_dial(MsServer *server, uint16_t flags,
                             uint64_t epoch, uint8_t class, int *socket,
                             Error **errp);

/* For pager_info_clear() */
PagerInfo fixture_query(Fixture *f);

/* Wait until what pager_engine_query() says of the state of @host is @state */
void fixture_await_state(Fixture *f, unsigned host, PagerHostState state);

/* Wait until the gather that was begun is over */
void fixture_await_gathered(Fixture *f);

/* Tell of the counters of what the engine did in the test's log */
void fixture_report(Fixture *f);

/* -- Pages: of the memory that is paged, by region -- */

uint64_t *fixture_page(Fixture *f, unsigned region, uint64_t page);

/* Its next generation; only one thread writes to a page */
void fixture_write(Fixture *f, unsigned region, uint64_t page);

/* End the test if a page has not what was last written to it */
void fixture_verify(Fixture *f, unsigned region, uint64_t page);
void fixture_verify_all(Fixture *f);

/* Pages that are there, in all regions: what the kernel says */
uint64_t fixture_mapped(Fixture *f);

/* -- System calls, of all threads -- */

/* From now on one in so many finds no memory for a page; 0: none does */
void fixture_refuse_memory(unsigned one_in);

/* From now on threads that take pages away wait, when they took so many... */
void fixture_gate(uint64_t allowed);

/* ...until this is called */
void fixture_ungate(void);

/* -- Those who use the memory -- */

typedef struct Worker {
    Fixture *f;
    QemuThread thread;
    unsigned index;
    uint64_t seed;
    uint64_t worst;             /* most pages seen resident */
    uint64_t most;              /* and stored at one server */
    bool full;                  /* so the engine said at some time */
} Worker;

uint64_t fixture_random(uint64_t *seed);

/* Set what a worker has seen of the engine: worst, most, full */
void worker_look(Worker *w);

/*
 * Threads that read, write and remove pages at random, and verify what they
 * read: as many as the setup says, @w has room for
 */
void workers_start(Fixture *f, Worker *w);

/* Wait until they have ended.  Returns the most pages seen resident. */
uint64_t workers_end(Fixture *f, Worker *w);

typedef struct Reader {
    Fixture *f;
    QemuThread thread;
    uint64_t page;
    bool verify;
    uint32_t tid;
    bool done;                  /* under the lock, as tid */
} Reader;

/*
 * A thread that reads (and verifies) a page of the first region, for the
 * caller to join
 */
void reader_start(Reader *r, Fixture *f, uint64_t page, bool verify);

/* -- Programs -- */

typedef struct FixtureTest {
    const char *name;
    void (*run)(void);
    bool evicts;                /* so that it matters how pages are taken */
} FixtureTest;

/* As g_test_init(); false: nothing can be tested here, and it was told why */
bool fixture_init(int *argc, char ***argv);

/*
 * Add @n tests as @path/NAME; those that evict also as @path/remap/NAME,
 * where UFFDIO_MOVE is not used.  The array is used until the tests have run.
 */
void fixture_add_tests(const char *path, const FixtureTest *tests, size_t n);

#endif /* TESTS_UNIT_PAGER_FIXTURE_H */
