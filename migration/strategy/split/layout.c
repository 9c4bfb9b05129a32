/*
 * Split memory: what source and destination must agree on
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "layout.h"

SplitSetup *split_setup_new(unsigned n_hosts, unsigned n_blocks)
{
    SplitSetup *s = g_new0(SplitSetup, 1);

    s->replicas = 1;
    s->n_hosts = n_hosts;
    s->hosts = g_new0(SplitHost, n_hosts);
    s->n_blocks = n_blocks;
    s->blocks = g_new0(SplitBlock, n_blocks);
    return s;
}

void split_setup_free(SplitSetup *s)
{
    unsigned i;

    if (!s) {
        return;
    }
    for (i = 0; i < s->n_hosts; i++) {
        g_free(s->hosts[i].uri);
        g_free(s->hosts[i].tls_hostname);
    }
    for (i = 0; i < s->n_blocks; i++) {
        g_free(s->blocks[i].idstr);
    }
    g_free(s->hosts);
    g_free(s->blocks);
    g_free(s);
}

SplitSetup *split_setup_clone(const SplitSetup *s)
{
    SplitSetup *copy = g_memdup2(s, sizeof(*s));
    unsigned i;

    copy->hosts = g_new0(SplitHost, s->n_hosts);
    copy->blocks = g_new0(SplitBlock, s->n_blocks);
    for (i = 0; i < s->n_hosts; i++) {
        copy->hosts[i] = s->hosts[i];
        copy->hosts[i].uri = g_strdup(s->hosts[i].uri);
        copy->hosts[i].tls_hostname = g_strdup(s->hosts[i].tls_hostname);
    }
    for (i = 0; i < s->n_blocks; i++) {
        copy->blocks[i] = s->blocks[i];
        copy->blocks[i].idstr = g_strdup(s->blocks[i].idstr);
    }
    return copy;
}

SplitLayout *split_layout_new(const SplitSetup *s)
{
    SplitLayout *l = g_new0(SplitLayout, 1);
    unsigned i;

    l->n_blocks = s->n_blocks;
    l->blocks = g_new0(SplitBlockLayout, s->n_blocks);
    for (i = 0; i < s->n_blocks; i++) {
        SplitBlockLayout *b = &l->blocks[i];
        uint64_t extents = split_extents(s->blocks[i].pages);

        b->pages = s->blocks[i].pages;
        b->local = bitmap_new(b->pages);
        b->remote = bitmap_new(b->pages);
        b->host = g_malloc(extents);
        memset(b->host, SPLIT_HOST_NONE, extents);
    }
    return l;
}

void split_layout_free(SplitLayout *l)
{
    unsigned i;

    if (!l) {
        return;
    }
    for (i = 0; i < l->n_blocks; i++) {
        g_free(l->blocks[i].local);
        g_free(l->blocks[i].remote);
        g_free(l->blocks[i].host);
    }
    g_free(l->blocks);
    g_free(l);
}

uint64_t split_layout_local(const SplitLayout *l)
{
    uint64_t n = 0;
    unsigned i;

    for (i = 0; i < l->n_blocks; i++) {
        n += bitmap_count_one(l->blocks[i].local, l->blocks[i].pages);
    }
    return n;
}

uint64_t split_layout_remote(const SplitLayout *l)
{
    uint64_t n = 0;
    unsigned i;

    for (i = 0; i < l->n_blocks; i++) {
        n += bitmap_count_one(l->blocks[i].remote, l->blocks[i].pages);
    }
    return n;
}
