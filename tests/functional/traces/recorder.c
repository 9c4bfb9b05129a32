/*
 * TCG plugin: the pages of guest memory that a guest uses, in order
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 *   -plugin recorder.so,out=FILE,control=FILE,pages=N,skip=N,limit=N,filter=N
 *
 * Writes the guest-physical page number of each load and store of RAM to
 * @out, four bytes each in the host's order, while the first byte of @control
 * is not zero: the first @skip are left out, then come @limit at most.  @pages
 * is the size of the guest's memory.  Instruction fetches are not recorded:
 * plugins do not see their physical addresses.  For guests with one vCPU.
 *
 * An access is dropped if its page is that of one of the last @filter that
 * were not.  So a page in constant use passes again and again, and no LRU stack
 * distance changes by more than @filter: a cache of c pages, at least twice
 * @filter, misses on the whole sequence at most as often as one of c - @filter
 * on what is written.  Had each access, dropped or not, kept its page from
 * being written, the hottest pages would look cold.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <qemu-plugin.h>

#define PAGE_BITS 12

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

static FILE *out;
/* Written by another process: volatile */
static const volatile unsigned char *control;
static uint64_t pages, skip, limit, filter;
static uint64_t passed;         /* accesses that the filter let through */
static uint64_t *last;          /* by page: @passed after it, or 0 */

static void on_access(unsigned int vcpu, qemu_plugin_meminfo_t info,
                      uint64_t vaddr, void *opaque)
{
    struct qemu_plugin_hwaddr *where;
    uint32_t page;

    if (!*control || passed == skip + limit) {
        return;
    }
    where = qemu_plugin_get_hwaddr(info, vaddr);
    if (!where || qemu_plugin_hwaddr_is_io(where)) {
        return;
    }
    page = qemu_plugin_hwaddr_phys_addr(where) >> PAGE_BITS;
    if (page >= pages || (last[page] && passed - last[page] < filter)) {
        return;
    }
    last[page] = ++passed;
    if (passed > skip && (fwrite(&page, sizeof(page), 1, out) != 1 ||
                          (passed == skip + limit && fflush(out)))) {
        perror("recorder");
        exit(1);
    }
}

static void on_translation(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    size_t i, n = qemu_plugin_tb_n_insns(tb);

    for (i = 0; i < n; i++) {
        qemu_plugin_register_vcpu_mem_cb(qemu_plugin_tb_get_insn(tb, i),
                                         on_access, QEMU_PLUGIN_CB_NO_REGS,
                                         QEMU_PLUGIN_MEM_RW, NULL);
    }
}

static void on_end(qemu_plugin_id_t id, void *opaque)
{
    fclose(out);
}

static bool option(const char *text)
{
    const char *value = strchr(text, '=');
    size_t name = value ? value++ - text : 0;
    uint64_t number;
    int fd;

    if (!name) {
        return false;
    }
    if (!strncmp(text, "out", name)) {
        out = fopen(value, "w");
        return out;
    }
    if (!strncmp(text, "control", name)) {
        fd = open(value, O_RDONLY);
        control = mmap(NULL, 1, PROT_READ, MAP_SHARED, fd, 0);
        close(fd);
        return control != MAP_FAILED;
    }
    if (sscanf(value, "%" SCNu64, &number) != 1) {
        return false;
    }
    if (!strncmp(text, "pages", name)) {
        pages = number;
        last = calloc(pages, sizeof(*last));
        return last;
    }
    if (!strncmp(text, "skip", name)) {
        skip = number;
    } else if (!strncmp(text, "limit", name)) {
        limit = number;
    } else if (!strncmp(text, "filter", name)) {
        filter = number;
    } else {
        return false;
    }
    return true;
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id,
                                           const qemu_info_t *info,
                                           int argc, char **argv)
{
    int i;

    for (i = 0; i < argc; i++) {
        if (!option(argv[i])) {
            fprintf(stderr, "recorder: %s: wrong\n", argv[i]);
            return -1;
        }
    }
    if (!out || !control || !last || !limit) {
        fprintf(stderr, "recorder: out, control, pages, limit are needed\n");
        return -1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
    qemu_plugin_register_atexit_cb(id, on_end, NULL);
    return 0;
}
