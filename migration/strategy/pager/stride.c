/*
 * Remote pager: what to fetch before it is asked for (see stride.h)
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "stride.h"

static int64_t difference(const PagerStride *s, unsigned back)
{
    return s->history[(s->faults - back) % PAGER_STRIDE_HISTORY];
}

/* Boyer and Moore's vote over the last @n differences; 0: no majority */
static int64_t majority(const PagerStride *s, unsigned n)
{
    int64_t candidate = 0;
    unsigned votes = 0, i;

    for (i = 1; i <= n; i++) {
        if (!votes) {
            candidate = difference(s, i);
            votes = 1;
        } else if (difference(s, i) == candidate) {
            votes++;
        } else {
            votes--;
        }
    }
    for (i = 1, votes = 0; i <= n; i++) {
        votes += difference(s, i) == candidate;
    }
    return votes > n / 2 ? candidate : 0;
}

static int64_t find_stride(const PagerStride *s)
{
    unsigned n;

    for (n = 4; n <= MIN(PAGER_STRIDE_HISTORY, s->faults); n *= 2) {
        int64_t stride = majority(s, n);

        if (stride) {
            return stride;
        }
    }
    return 0;
}

static PagerStream *oldest(PagerStride *s)
{
    PagerStream *best = &s->streams[0];
    unsigned i;

    for (i = 1; i < PAGER_STRIDE_STREAMS; i++) {
        if (s->streams[i].used < best->used) {
            best = &s->streams[i];
        }
    }
    return best;
}

static PagerAdvice advise(PagerStride *s, PagerStream *stream, uint64_t page)
{
    stream->next = page + stream->stride * (int64_t)(stream->window + 1);
    stream->used = s->calls;
    stream->fetched = 0;
    return (PagerAdvice) {
        .n = stream->window, .stride = stream->stride, .stream = stream,
    };
}

/* Pages that are resident may lie between the advice and this fault */
static bool goes_on(const PagerStream *s, uint64_t page)
{
    int64_t beyond = page - s->next;

    return s->stride && beyond % s->stride == 0 &&
           beyond / s->stride >= 0 && beyond / s->stride <= PAGER_STRIDE_MAX;
}

PagerAdvice pager_stride_fault(PagerStride *s, uint64_t page)
{
    PagerStream *stream;
    int64_t stride;
    unsigned i;

    s->calls++;
    for (i = 0; i < PAGER_STRIDE_STREAMS; i++) {
        stream = &s->streams[i];
        if (goes_on(stream, page)) {
            unsigned hits = stream->fetched;
            unsigned skipped = (int64_t)(page - stream->next) / stream->stride;
            PagerAdvice a;

            stream->window = MIN(stream->window * 2, PAGER_STRIDE_MAX);
            s->last = page;
            a = advise(s, stream, page);
            a.hits = hits;
            a.skipped = skipped;
            return a;
        }
    }
    if (s->faults) {
        s->history[s->faults % PAGER_STRIDE_HISTORY] = page - s->last;
    }
    s->faults++;
    s->last = page;
    /* The first has no difference */
    stride = s->faults > 4 ? find_stride(s) : 0;
    if (!stride || difference(s, 1) != stride) {
        return (PagerAdvice) { 0 };
    }
    stream = oldest(s);
    stream->stride = stride;
    stream->window = PAGER_STRIDE_FIRST;
    return advise(s, stream, page);
}
