/*
 * memserver: what messages do
 *
 * One handler for each message that a client may send.  Guarantee: a message
 * is validated as a whole, against the protocol by the codec and against the
 * session here, before it has any effect.  What cannot be decided in advance
 * (a checksum that does not match its page, an epoch that ends while pages are
 * on their way, a page to be replaced that somebody else drops meanwhile) is
 * decided page by page, and the ERROR names the first entry that was not
 * stored.
 *
 * Threads: the I/O thread that holds the connection.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "qemu/lockable.h"
#include "qemu/units.h"
#include "checksum.h"
#include "server-int.h"
#include "trace.h"

/* Of conn->budget, beside the slots that are looked at */
#define DROP_COST               8       /* to free a frame */
#define RECORD_COST             256     /* to sum up a session */

static MsSessions *conn_sessions(MsConn *conn)
{
    return &conn->thread->server->sessions;
}

/* Find the session and a place; or, for the status, whether it may be told */
static bool hello_admit(MsConn *conn, const PageLinkHello *hello,
                        PageLinkFault *fault)
{
    MsServer *server = conn->thread->server;
    uint32_t max = server->options.max_connections;

    if (hello->features_required & ~PAGELINK_FEATURES_MEMSERVER) {
        return pagelink_fault(fault, PAGELINK_ERR_VERSION, PAGELINK_NO_INDEX,
                              "the client insists on features 0x%08" PRIx32
                              ", this memory host has 0x%08x",
                              hello->features_required,
                              PAGELINK_FEATURES_MEMSERVER);
    }
    if (hello->role == PAGELINK_ROLE_STATUS) {
        return !server->options.local_status || conn->is_unix ||
               pagelink_fault(fault, PAGELINK_ERR_ROLE, PAGELINK_NO_INDEX,
                              "this memory host tells its status only to "
                              "clients of its unix sockets");
    }
    if (qatomic_fetch_inc(&server->members) >= max) {
        qatomic_dec(&server->members);
        return pagelink_fault(fault, PAGELINK_ERR_LIMIT, PAGELINK_NO_INDEX,
                              "there are %u connections already, which is the "
                              "most this memory host takes", max);
    }
    conn->session = ms_sessions_hello(conn_sessions(conn), hello, fault);
    if (!conn->session) {
        qatomic_dec(&server->members);
        return false;
    }
    return true;
}

void ms_request_hello(MsConn *conn, const uint8_t *body)
{
    MsServer *server = conn->thread->server;
    uint64_t id = conn->head.request_id;
    PageLinkHelloAck ack;
    PageLinkHello hello;
    PageLinkFault fault;
    uint8_t buf[sizeof(ack)];

    if (conn->head.type != PAGELINK_HELLO) {
        pagelink_fault(&fault, PAGELINK_ERR_PROTOCOL, PAGELINK_NO_INDEX,
                       "the first message is a %s, it must be HELLO",
                       pagelink_type_name(conn->head.type));
        goto fail;
    }
    if (!pagelink_decode_hello(body, &hello, &fault) ||
        !hello_admit(conn, &hello, &fault)) {
        goto fail;
    }
    conn->role = hello.role;
    conn->class = hello.class;
    conn->epoch = hello.epoch;
    conn->features = hello.features & PAGELINK_FEATURES_MEMSERVER;
    conn->state = MS_CONN_READY;
    conn->move = hello.class != PAGELINK_CLASS_DEMAND ||
                 hello.role == PAGELINK_ROLE_STATUS;

    ack = (PageLinkHelloAck) {
        .version = MIN(hello.version_max, PAGELINK_VERSION_MAX),
        .max_blocks = PAGELINK_MAX_BLOCKS,
        .features = conn->features,
        .max_batch = PAGELINK_MAX_BATCH,
        .window = PAGELINK_MAX_WINDOW,
        .epoch = conn->session ? qatomic_read(&conn->session->epoch) : 0,
        .free_pages = conn->session ?
                      ms_account_room(&conn->session->account) :
                      ms_account_room(&server->sessions.account),
    };
    pagelink_encode_hello_ack(buf, &ack);
    ms_conn_reply(conn, PAGELINK_HELLO_ACK, 0, 0, id, buf, sizeof(buf));
    trace_memserver_conn_hello(conn->peer, hello.name, hello.role,
                               hello.class);
    return;

fail:
    qatomic_inc(&server->refused);
    ms_conn_fail(conn, id, &fault);
}

static bool check_page(MsConn *conn, uint16_t id, uint64_t page,
                       uint32_t index, PageLinkFault *fault)
{
    MsBlock *block = ms_store_block(conn->session->store, id);

    if (!block) {
        return pagelink_fault(fault, PAGELINK_ERR_UNKNOWN_BLOCK, index,
                              "block %u is unknown", id);
    }
    if (page >= ms_block_pages(block)) {
        return pagelink_fault(fault, PAGELINK_ERR_OUT_OF_RANGE, index,
                              "page %" PRIu64 " is beyond block %u ('%s'), "
                              "which has %" PRIu64 " pages", page, id,
                              ms_block_name(block), ms_block_pages(block));
    }
    return true;
}

static bool check_range(MsConn *conn, uint16_t id, uint64_t page,
                        uint64_t pages, uint32_t index, PageLinkFault *fault)
{
    return check_page(conn, id, page, index, fault) &&
           check_page(conn, id, page + pages - 1, index, fault);
}

static bool no_memory(MsConn *conn, MsAccount *culprit, uint32_t index,
                      PageLinkFault *fault)
{
    if (culprit == &conn->session->account) {
        return pagelink_fault(fault, PAGELINK_ERR_QUOTA, index,
                              "the session has used up its quota of %" PRIu64
                              " pages", culprit->limit);
    }
    return pagelink_fault(fault, PAGELINK_ERR_NO_MEMORY, index,
                          "the memory host is full");
}

/* A write was too late: that the session has ended is the end, the rest not */
static void refuse_write(MsConn *conn, const PageLinkFault *fault)
{
    if (fault->code == PAGELINK_ERR_SESSION_ENDED) {
        ms_conn_fail(conn, conn->head.request_id, fault);
    } else {
        ms_conn_refuse(conn, conn->head.request_id, fault);
    }
}

/*
 * Charge the pages of a PUT, and make the bookkeeping for them, before any of
 * them is accepted.  At first as if all were new, which needs no look at the
 * store; only when that does not fit, those that replace a page are left out.
 */
static bool put_reserve(MsConn *conn, uint32_t npages, PageLinkFault *fault)
{
    MsSession *s = conn->session;
    MsAccount *culprit;
    MsWalk walk = { 0 };
    uint32_t i, need = 0;

    for (i = 0; i < conn->head.count; i++) {
        const PageLinkEntry *e = &conn->entries[i];

        if (!ms_store_prepare(s->store, &conn->thread->cache,
                              ms_store_block(s->store, e->block), e->page,
                              &culprit)) {
            return no_memory(conn, culprit, i, fault);
        }
    }
    if (!npages || ms_account_charge(&s->account, npages, &culprit)) {
        conn->reserved = npages;
        return true;
    }
    for (i = 0; i < conn->head.count; i++) {
        const PageLinkEntry *e = &conn->entries[i];

        if (!(e->flags & PAGELINK_ENTRY_ZERO)) {
            need += !ms_store_has_frame(s->store, &walk,
                                        ms_store_block(s->store, e->block),
                                        e->page);
        }
    }
    ms_walk_end(s->store, &walk);
    if (need && !ms_account_charge(&s->account, need, &culprit)) {
        return no_memory(conn, culprit, PAGELINK_NO_INDEX, fault);
    }
    conn->reserved = need;
    return true;
}

static bool put_check(MsConn *conn, uint32_t npages, PageLinkFault *fault)
{
    uint32_t i;

    for (i = 0; i < conn->head.count; i++) {
        if (!check_page(conn, conn->entries[i].block, conn->entries[i].page,
                        i, fault)) {
            return false;
        }
    }
    if (!ms_session_write_begin(conn->session, conn->epoch, fault)) {
        return false;
    }
    ms_session_write_end(conn->session);
    return put_reserve(conn, npages, fault);
}

static void count_refused(MsConn *conn, uint32_t n)
{
    conn->ack.refused += n;
    qatomic_add(&conn->session->counters.refused, n);
}

/* The rest of a PUT's entries, or all of them, will not be stored */
static void put_discard(MsConn *conn, const PageLinkFault *fault)
{
    MsFrameCache *cache = &conn->thread->cache;

    count_refused(conn, conn->head.count - conn->next_entry);
    if (fault->code == PAGELINK_ERR_SESSION_ENDED) {
        /* All the rest goes with the connection */
        refuse_write(conn, fault);
        return;
    }
    refuse_write(conn, conn->put_failed ? &conn->fault : fault);
    ms_account_release(&conn->session->account, conn->reserved);
    conn->reserved = 0;
    conn->put_failed = false;
    conn->discard_left = (uint64_t)conn->pages_left * PAGELINK_PAGE_SIZE -
                         conn->frame_fill;
    conn->pages_left = 0;
    conn->frame_fill = 0;
    if (conn->frame) {
        ms_frame_unref(cache, conn->frame);
        conn->frame = NULL;
    }
    conn->state = conn->discard_left ? MS_CONN_DISCARD : MS_CONN_READY;
}

static void request_put(MsConn *conn, const uint8_t *body)
{
    PageLinkFault fault;
    uint32_t npages;

    if (!pagelink_decode_entries(&conn->head, body, conn->features,
                                 conn->entries, &npages, &fault)) {
        ms_conn_fail(conn, conn->head.request_id, &fault);
        return;
    }
    trace_memserver_put(conn->peer, conn->entries[0].block,
                        conn->entries[0].page, conn->head.count);
    conn->next_entry = 0;
    conn->pages_left = npages;
    conn->put_failed = false;
    conn->budget -= conn->head.count;
    if (!put_check(conn, npages, &fault)) {
        put_discard(conn, &fault);
        return;
    }
    conn->state = MS_CONN_PAYLOAD;
    /* Leading zero pages; all, if there are no others */
    ms_request_store(conn, NULL, 0);
}

/* What is in a page that has come; the expensive part, done without locks */
typedef enum PutVerdict {
    PUT_DATA,
    PUT_ZEROES,
    PUT_DAMAGED,
} PutVerdict;

/* @frames: of the next entries that have one */
static void put_judge(MsConn *conn, void **frames, unsigned n,
                      PutVerdict *verdicts)
{
    const PageLinkEntry *e = &conn->entries[conn->next_entry];
    unsigned i;

    for (i = 0; i < n; e++) {
        if (e->flags & PAGELINK_ENTRY_ZERO) {
            continue;
        }
        if (e->flags & PAGELINK_ENTRY_CRC) {
            *ms_frame_crc(frames[i]) = e->crc;
        }
        if (e->flags & PAGELINK_ENTRY_CRC &&
            pagelink_crc32c(frames[i]) != e->crc) {
            verdicts[i] = PUT_DAMAGED;
        } else if (buffer_is_zero(frames[i], PAGELINK_PAGE_SIZE)) {
            verdicts[i] = PUT_ZEROES;
        } else {
            verdicts[i] = PUT_DATA;
        }
        i++;
    }
}

/* An entry is not stored; the first one is what the ERROR will be about */
static void put_refuse(MsConn *conn, const PageLinkFault *fault)
{
    count_refused(conn, 1);
    if (!conn->put_failed) {
        conn->put_failed = true;
        conn->fault = *fault;
    }
}

/*
 * Store one entry
 * @frame: its page, or NULL
 *
 * Returns: whether the frame was taken over
 */
static bool put_entry(MsConn *conn, MsWalk *walk, const PageLinkEntry *e,
                      void *frame, PutVerdict verdict)
{
    MsFrameCache *cache = &conn->thread->cache;
    uint32_t index = e - conn->entries;
    MsSession *s = conn->session;
    PageLinkFault fault;

    if (verdict == PUT_DAMAGED) {
        pagelink_fault(&fault, PAGELINK_ERR_CHECKSUM, index,
                       "page %" PRIu64 " of block %u does not match its "
                       "checksum", e->page, e->block);
        put_refuse(conn, &fault);
        return false;
    }
    if (verdict == PUT_ZEROES) {
        frame = NULL;
    }
    switch (ms_store_put(s->store, walk, cache,
                         ms_store_block(s->store, e->block), e->page,
                         e->version, frame,
                         frame && e->flags & PAGELINK_ENTRY_CRC,
                         &conn->reserved)) {
    case MS_PUT_STORED:
        if (frame) {
            conn->ack.stored++;
        } else {
            conn->ack.zero++;
        }
        return frame;
    case MS_PUT_STALE:
        conn->ack.stale++;
        return false;
    case MS_PUT_NO_MEMORY:
        no_memory(conn, walk->culprit, index, &fault);
        put_refuse(conn, &fault);
        return false;
    default:
        g_assert_not_reached();
    }
}

static void put_finish(MsConn *conn)
{
    ms_account_release(&conn->session->account, conn->reserved);
    conn->reserved = 0;
    if (conn->put_failed) {
        conn->put_failed = false;
        ms_conn_refuse(conn, conn->head.request_id, &conn->fault);
    }
    conn->state = MS_CONN_READY;
    ms_conn_progress(conn);
}

void ms_request_store(MsConn *conn, void **frames, unsigned n)
{
    MsFrameCache *cache = &conn->thread->cache;
    PageLinkAck before = conn->ack;
    MsSession *s = conn->session;
    PutVerdict verdicts[MS_IN_FRAMES];
    MsWalk walk = { 0 };
    PageLinkFault fault;
    unsigned i = 0, unused = 0;

    put_judge(conn, frames, n, verdicts);
    if (!ms_session_write_begin(s, conn->epoch, &fault)) {
        conn->pages_left -= n;
        while (i < n) {
            ms_frame_unref(cache, frames[i++]);
        }
        fault.index = conn->next_entry;
        put_discard(conn, &fault);
        return;
    }
    while (conn->next_entry < conn->head.count) {
        const PageLinkEntry *e = &conn->entries[conn->next_entry];

        if (e->flags & PAGELINK_ENTRY_ZERO) {
            put_entry(conn, &walk, e, NULL, PUT_ZEROES);
        } else if (i == n) {
            break;
        } else {
            conn->pages_left--;
            if (!put_entry(conn, &walk, e, frames[i], verdicts[i])) {
                frames[unused++] = frames[i];
            }
            i++;
        }
        conn->next_entry++;
    }
    ms_walk_end(s->store, &walk);
    ms_session_write_end(s);
    assert(i == n);
    /* Not before: this may take longer than a lock should be held */
    while (unused) {
        ms_frame_unref(cache, frames[--unused]);
    }
    qatomic_add(&s->counters.puts, conn->ack.stored - before.stored +
                                   conn->ack.zero - before.zero);
    qatomic_add(&s->counters.stale, conn->ack.stale - before.stale);
    if (conn->next_entry == conn->head.count) {
        put_finish(conn);
    }
}

static void request_get(MsConn *conn, const uint8_t *body)
{
    PageLinkFault fault;
    uint32_t i;

    if (!pagelink_decode_requests(&conn->head, body, conn->reqs, &fault)) {
        ms_conn_fail(conn, conn->head.request_id, &fault);
        return;
    }
    for (i = 0; i < conn->head.count; i++) {
        if (!check_page(conn, conn->reqs[i].block, conn->reqs[i].page, i,
                        &fault)) {
            ms_conn_refuse(conn, conn->head.request_id, &fault);
            return;
        }
    }
    trace_memserver_get(conn->peer, conn->reqs[0].block, conn->reqs[0].page,
                        conn->head.count);
    conn->nreqs = conn->head.count;
    conn->next_req = 0;
    conn->get_id = conn->head.request_id;
    conn->budget -= conn->nreqs;
    qatomic_add(&conn->session->counters.gets, conn->nreqs);
}

static void fill_entry(MsConn *conn, const PageLinkRequest *r,
                       const MsPage *page, PageLinkEntry *e)
{
    *e = (PageLinkEntry) {
        .page = r->page,
        .block = r->block,
        .version = page->version,
    };
    if (page->what == MS_GET_ABSENT) {
        e->flags = PAGELINK_ENTRY_ABSENT;
    } else if (page->what == MS_GET_ZERO) {
        e->flags = PAGELINK_ENTRY_ZERO;
    } else if (conn->features & PAGELINK_FEATURE_CHECKSUM) {
        e->flags = PAGELINK_ENTRY_CRC;
        e->crc = page->has_crc ? *ms_frame_crc(page->frame) :
                 pagelink_crc32c(page->frame);
    }
}

void ms_request_get(MsConn *conn)
{
    MsStore *store = conn->session->store;
    uint32_t left = conn->nreqs - conn->next_req;
    uint32_t n, i, npages = 0;
    MsWalk walk = { 0 };
    bool last;
    uint8_t *head;

    /* As many as fit: pages, entries, pieces */
    n = MIN(left, MS_OUT_FRAMES - conn->npins);
    n = MIN(n, (MS_OUT_SIZE - conn->out_used - sizeof(PageLinkHeader)) /
               sizeof(PageLinkEntry));
    n = MIN(n, MS_OUT_IOVS - 1 - conn->niov);
    last = n == left;
    head = ms_conn_out_bytes(conn, sizeof(PageLinkHeader) +
                             n * sizeof(PageLinkEntry));
    for (i = 0; i < n; i++) {
        const PageLinkRequest *r = &conn->reqs[conn->next_req + i];
        PageLinkEntry e;
        MsPage page;

        ms_store_get(store, &walk, ms_store_block(store, r->block), r->page,
                     &page);
        fill_entry(conn, r, &page, &e);
        pagelink_encode_entry(head + sizeof(PageLinkHeader) +
                              i * sizeof(PageLinkEntry), &e);
        if (page.what == MS_GET_PAGE) {
            ms_conn_out_page(conn, page.frame);
            npages++;
        }
    }
    ms_walk_end(store, &walk);
    pagelink_encode_header(head, PAGELINK_DATA,
                           last ? PAGELINK_DATA_LAST : 0,
                           n * sizeof(PageLinkEntry) +
                           npages * PAGELINK_PAGE_SIZE, n, conn->get_id);
    conn->next_req += n;
}

static void request_block(MsConn *conn, const uint8_t *body)
{
    char name[PAGELINK_MAX_BLOCK_NAME + 1];
    MsSession *s = conn->session;
    uint8_t ack[sizeof(PageLinkAck)];
    PageLinkBlock block;
    PageLinkFault fault;
    MsAccount *culprit;
    MsPut result;

    if (!pagelink_decode_block(&conn->head, body, &block, name, &fault)) {
        ms_conn_fail(conn, conn->head.request_id, &fault);
        return;
    }
    if (!ms_session_write_begin(s, conn->epoch, &fault)) {
        refuse_write(conn, &fault);
        return;
    }
    WITH_QEMU_LOCK_GUARD(&s->block_lock) {
        result = ms_store_add_block(s->store, block.block, block.pages, name,
                                    &culprit);
    }
    ms_session_write_end(s);
    switch (result) {
    case MS_PUT_STORED:
        pagelink_encode_ack(ack, &conn->ack);
        ms_conn_reply(conn, PAGELINK_ACK, 0, 0, conn->head.request_id, ack,
                      sizeof(ack));
        return;
    case MS_PUT_STALE:
        pagelink_fault(&fault, PAGELINK_ERR_BLOCK_MISMATCH, PAGELINK_NO_INDEX,
                       "block %u exists with another name or size",
                       block.block);
        break;
    case MS_PUT_NO_MEMORY:
        no_memory(conn, culprit, PAGELINK_NO_INDEX, &fault);
        break;
    }
    ms_conn_refuse(conn, conn->head.request_id, &fault);
}

static void request_drop(MsConn *conn, const uint8_t *body)
{
    PageLinkRange ranges[PAGELINK_MAX_BATCH];
    uint64_t before = conn->ack.dropped;
    MsSession *s = conn->session;
    PageLinkFault fault;
    uint32_t i;

    if (!pagelink_decode_ranges(&conn->head, body, ranges, &fault)) {
        ms_conn_fail(conn, conn->head.request_id, &fault);
        return;
    }
    for (i = 0; i < conn->head.count; i++) {
        if (!check_range(conn, ranges[i].block, ranges[i].page,
                         ranges[i].pages, i, &fault)) {
            ms_conn_refuse(conn, conn->head.request_id, &fault);
            return;
        }
    }
    if (!ms_session_write_begin(s, conn->epoch, &fault)) {
        refuse_write(conn, &fault);
        return;
    }
    /* At most PAGELINK_MAX_DROP_PAGES, so one message is not too much */
    for (i = 0; i < conn->head.count; i++) {
        conn->budget -= ranges[i].pages;
        conn->ack.dropped +=
            ms_store_drop(s->store, &conn->thread->cache,
                          ms_store_block(s->store, ranges[i].block),
                          ranges[i].page, ranges[i].pages, ranges[i].version);
    }
    ms_session_write_end(s);
    conn->budget -= DROP_COST * (conn->ack.dropped - before);
}

static void request_sync(MsConn *conn)
{
    uint8_t ack[sizeof(PageLinkAck)];

    pagelink_encode_ack(ack, &conn->ack);
    ms_conn_reply(conn, PAGELINK_ACK, 0, 0, conn->head.request_id, ack,
                  sizeof(ack));
}

static void request_bitmap(MsConn *conn, const uint8_t *body)
{
    MsStore *store = conn->session->store;
    PageLinkBitmap b;
    PageLinkFault fault;
    uint32_t length;
    uint8_t *reply;

    if (!pagelink_decode_bitmap(&conn->head, body, &b, &fault)) {
        ms_conn_fail(conn, conn->head.request_id, &fault);
        return;
    }
    if (!check_range(conn, b.block, b.first, b.pages, PAGELINK_NO_INDEX,
                     &fault)) {
        ms_conn_refuse(conn, conn->head.request_id, &fault);
        return;
    }
    conn->budget -= b.pages;
    length = sizeof(b) + DIV_ROUND_UP(b.pages, 8);
    reply = g_malloc0(length);
    pagelink_encode_bitmap(reply, &b);
    ms_store_bitmap(store, ms_store_block(store, b.block), b.first, b.pages,
                    reply + sizeof(b));
    ms_conn_reply_big(conn, PAGELINK_BITMAP, 0, conn->head.request_id, reply,
                      length);
}

static void request_status(MsConn *conn)
{
    bool all = conn->head.flags & PAGELINK_STATUS_ALL;
    MsServer *server = conn->thread->server;
    PageLinkStatus sum = {
        .connections = qatomic_read(&server->connections),
        .uptime_ms = conn->thread->now_ms - server->started_ms,
        .refused = qatomic_read(&server->refused),
        .threads = server->nthreads / 2,
    };
    g_autofree PageLinkSessionStatus *records = NULL;
    PageLinkFault fault;
    uint32_t max = all ? PAGELINK_MAX_STATUS_SESSIONS : 1;
    uint32_t n, i;
    uint8_t *reply;

    if (all && conn->role != PAGELINK_ROLE_STATUS) {
        pagelink_fault(&fault, PAGELINK_ERR_ROLE, PAGELINK_NO_INDEX,
                       "the status of all sessions needs the status role");
        ms_conn_refuse(conn, conn->head.request_id, &fault);
        return;
    }
    records = g_new(PageLinkSessionStatus, max);
    n = ms_sessions_status(conn_sessions(conn), all ? NULL : conn->session,
                           &sum, records, all || conn->session ? max : 0);
    conn->budget -= (int64_t)RECORD_COST * sum.sessions;
    reply = g_malloc(sizeof(sum) + n * sizeof(*records));
    pagelink_encode_status(reply, &sum);
    for (i = 0; i < n; i++) {
        pagelink_encode_session_status(reply + sizeof(sum) +
                                       i * sizeof(*records), &records[i]);
    }
    ms_conn_reply_big(conn, PAGELINK_STATUS, n, conn->head.request_id, reply,
                      sizeof(sum) + n * sizeof(*records));
}

/*
 * The session goes away, this connection stays and hears ACK when all memory
 * is free again: whoever ends one session to make room for the next can rely
 * on it.
 */
static void request_end(MsConn *conn)
{
    MsTicket *ticket = g_new(MsTicket, 1);
    MsSession *s = conn->session;
    PageLinkFault fault;

    *ticket = (MsTicket) {
        .thread = conn->thread,
        .conn_id = conn->id,
        .request_id = conn->head.request_id,
    };
    if (!ms_session_end(conn_sessions(conn), s, conn->epoch, ticket,
                        &fault)) {
        g_free(ticket);
        refuse_write(conn, &fault);
        return;
    }
    conn->state = MS_CONN_WAIT_END;
    ms_server_tell_ended(conn->thread->server, s);
    ms_conn_drop_session(conn);
}

/* Is the peer in a position to send this? */
static bool check_role(MsConn *conn, PageLinkFault *fault)
{
    static const uint32_t allowed[] = {
        [PAGELINK_ROLE_OWNER] =
            1u << PAGELINK_BLOCK | 1u << PAGELINK_PUT | 1u << PAGELINK_GET |
            1u << PAGELINK_DROP | 1u << PAGELINK_SYNC |
            1u << PAGELINK_BITMAP_GET | 1u << PAGELINK_STATUS_GET |
            1u << PAGELINK_SESSION_END,
        [PAGELINK_ROLE_READER] =
            1u << PAGELINK_GET | 1u << PAGELINK_SYNC |
            1u << PAGELINK_BITMAP_GET | 1u << PAGELINK_STATUS_GET,
        [PAGELINK_ROLE_STATUS] = 1u << PAGELINK_STATUS_GET,
    };
    uint32_t type = 1u << conn->head.type;

    if (!(allowed[PAGELINK_ROLE_OWNER] & type)) {
        return pagelink_fault(fault, PAGELINK_ERR_PROTOCOL, PAGELINK_NO_INDEX,
                              "a client must not send %s here",
                              pagelink_type_name(conn->head.type));
    }
    if (!(allowed[conn->role] & type)) {
        return pagelink_fault(fault, PAGELINK_ERR_ROLE, PAGELINK_NO_INDEX,
                              "%s is not allowed in this role",
                              pagelink_type_name(conn->head.type));
    }
    return true;
}

void ms_request_message(MsConn *conn, const uint8_t *body)
{
    PageLinkFault fault;

    if (!check_role(conn, &fault)) {
        ms_conn_fail(conn, conn->head.request_id, &fault);
        return;
    }
    if (conn->session) {
        qatomic_set(&conn->session->used_ms, conn->thread->now_ms);
    }
    if (conn->stranger) {
        /* Not silent: others are to go before it */
        QTAILQ_REMOVE(&conn->thread->strangers, conn, silent);
        QTAILQ_INSERT_TAIL(&conn->thread->strangers, conn, silent);
    }
    switch (conn->head.type) {
    case PAGELINK_BLOCK:
        request_block(conn, body);
        break;
    case PAGELINK_PUT:
        request_put(conn, body);
        break;
    case PAGELINK_GET:
        request_get(conn, body);
        break;
    case PAGELINK_DROP:
        request_drop(conn, body);
        break;
    case PAGELINK_SYNC:
        request_sync(conn);
        break;
    case PAGELINK_BITMAP_GET:
        request_bitmap(conn, body);
        break;
    case PAGELINK_STATUS_GET:
        request_status(conn);
        break;
    case PAGELINK_SESSION_END:
        request_end(conn);
        break;
    default:
        g_assert_not_reached();
    }
}
