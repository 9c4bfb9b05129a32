/*
 * Memory hosts for the tests of split memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include <sys/prctl.h>
#include <sys/un.h>
#include "libqtest.h"
#include "migration/strategy-memhost.h"
#include "migration/strategy-util.h"
#include "qobject/qjson.h"
#include "qobject/qlist.h"

#define HANG_SECONDS 300

/* Beside the tests: they run in the folder of the build */
const char *memhost_program(void)
{
    return g_getenv("QTEST_MEMSERVER_BINARY") ?:
           "./migration/memserver/qemu-memserver";
}

bool memhost_available(void)
{
    if (access(memhost_program(), X_OK) != 0) {
        g_test_skip("there is no qemu-memserver");
        return false;
    }
    return true;
}

static bool can_connect(const char *path)
{
    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    bool ok;

    g_assert_cmpint(fd, >=, 0);
    g_strlcpy(addr.sun_path, path, sizeof(addr.sun_path));
    ok = connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0;
    close(fd);
    return ok;
}

/* In the child: not to outlive the test, however that ends */
static void die_with_parent(gpointer opaque)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
}

void memhost_start(MemHost *h, unsigned megabytes, const char *const *options)
{
    static unsigned count;
    int64_t start = g_get_monotonic_time();
    g_autoptr(GPtrArray) argv = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(GError) err = NULL;

    if (!h->path) {
        h->path = g_strdup_printf("%s/mem%u", migration_get_env()->tmpfs,
                                  count++);
        h->uri = g_strdup_printf("unix:%s", h->path);
    }
    unlink(h->path);
    g_ptr_array_add(argv, g_strdup(memhost_program()));
    g_ptr_array_add(argv, g_strdup_printf("--listen=%s", h->uri));
    g_ptr_array_add(argv, g_strdup_printf("--max-memory=%uM", megabytes));
    while (options && *options) {
        g_ptr_array_add(argv, g_strdup(*options++));
    }
    g_ptr_array_add(argv, NULL);
    g_spawn_async(NULL, (char **)argv->pdata, NULL,
                  G_SPAWN_DO_NOT_REAP_CHILD, die_with_parent, NULL, &h->pid,
                  &err);
    g_assert_no_error(err);
    while (!can_connect(h->path)) {
        g_assert_cmpint(waitpid(h->pid, NULL, WNOHANG), ==, 0);
        g_assert_cmpint(g_get_monotonic_time() - start, <,
                        HANG_SECONDS * G_USEC_PER_SEC);
        g_usleep(1000);
    }
}

void memhost_signal(MemHost *h, int sig)
{
    g_assert_cmpint(kill(h->pid, sig), ==, 0);
}

void memhost_kill(MemHost *h)
{
    if (h->pid) {
        memhost_signal(h, SIGKILL);
        g_assert_cmpint(waitpid(h->pid, NULL, 0), ==, h->pid);
        g_spawn_close_pid(h->pid);
        h->pid = 0;
    }
    unlink(h->path);
}

static QDict *memhost_status(MemHost *h)
{
    char *argv[] = {
        (char *)memhost_program(), (char *)"--status", h->uri,
        (char *)"--json", NULL,
    };
    g_autofree char *out = NULL;
    g_autoptr(GError) err = NULL;
    QDict *status;
    int rc;

    g_spawn_sync(NULL, argv, NULL, G_SPAWN_DEFAULT, NULL, NULL, &out, NULL,
                 &rc, &err);
    g_assert_no_error(err);
    g_assert_cmpint(rc, ==, 0);
    status = qobject_to(QDict, qobject_from_json(out, NULL));
    g_assert(status);
    return status;
}

unsigned memhost_sessions(MemHost *h)
{
    g_autoptr(QDict) status = memhost_status(h);

    return qlist_size(qdict_get_qlist(status, "sessions"));
}

void memhost_wait_sessions(MemHost *h, unsigned n)
{
    int64_t start = g_get_monotonic_time();

    while (memhost_sessions(h) != n) {
        g_assert_cmpint(g_get_monotonic_time() - start, <,
                        HANG_SECONDS * G_USEC_PER_SEC);
        g_usleep(10000);
    }
}

static uint64_t memhost_pages(MemHost *h)
{
    g_autoptr(QDict) status = memhost_status(h);

    return qdict_get_int(status, "pages");
}

void memhost_wait_pages(MemHost *h, uint64_t n)
{
    int64_t start = g_get_monotonic_time();
    uint64_t pages;

    while ((pages = memhost_pages(h)) < n) {
        if (g_get_monotonic_time() - start > HANG_SECONDS * G_USEC_PER_SEC) {
            /* Says how many there are */
            g_assert_cmpuint(pages, >=, n);
        }
        g_usleep(10000);
    }
}
