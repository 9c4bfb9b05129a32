/*
 * Page link: client (see client.h for what it guarantees)
 *
 * Receiving is a state machine over a non-blocking channel: a header, then its
 * table, then the pages, straight into place.  While a message is being sent,
 * completions are only noted; callbacks run when it is out, so that they can
 * send themselves.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <poll.h>
#include "qapi/clone-visitor.h"
#include "qapi/error.h"
#include "qapi/qapi-visit-sockets.h"
#include "io/channel-tls.h"
#include "qemu/iov.h"
#include "qemu/queue.h"
#include "qemu/sockets.h"
#include "qemu/thread.h"
#include "qemu/units.h"
#include "checksum.h"
#include "client-int.h"
#include "trace.h"

/* Probes without an answer until a peer is taken to be gone */
#define KEEPALIVE_COUNT     4
/*
 * s; sooner than the server: here it saves whoever is next to need something
 * the wait until that times out
 */
#define KEEPALIVE_IDLE      20
#define KEEPALIVE_INTERVAL  5

void pagelink_prepare_socket(QIOChannelSocket *sioc, int idle, int interval)
{
    int on = 1, count = KEEPALIVE_COUNT;

    qio_channel_set_blocking(QIO_CHANNEL(sioc), false, NULL);
    qio_channel_set_delay(QIO_CHANNEL(sioc), false);
    if (sioc->localAddr.ss_family == AF_UNIX) {
        return;
    }
    setsockopt(sioc->fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    setsockopt(sioc->fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
    setsockopt(sioc->fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval,
               sizeof(interval));
    setsockopt(sioc->fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
}

bool pagelink_client_report(const PageLinkFault *fault, const char *peer,
                            Error **errp)
{
    error_setg(errp, "page link to %s: %s", peer, fault->text);
    return false;
}

static void op_finish(PageLinkClient *c, PageLinkOp *op,
                      const PageLinkFault *fault)
{
    QSIMPLEQ_REMOVE_HEAD(&c->ops, next);
    c->nops--;
    if (fault) {
        op->failed = true;
        op->fault = *fault;
    }
    QSIMPLEQ_INSERT_TAIL(&c->finished, op, next);
}

static void run_callbacks(PageLinkClient *c)
{
    PageLinkOp *op;

    if (c->sending || c->calling) {
        return;
    }
    c->calling = true;
    while ((op = QSIMPLEQ_FIRST(&c->finished))) {
        QSIMPLEQ_REMOVE_HEAD(&c->finished, next);
        op->done(op->opaque, op->failed ? &op->fault : NULL);
        g_free(op);
    }
    c->calling = false;
}

void pagelink_client_fail(PageLinkClient *c, const PageLinkFault *fault)
{
    if (c->failure.code) {
        return;
    }
    c->failure = *fault;
    trace_pagelink_client_fail(c->peer, fault->text);
    while (!QSIMPLEQ_EMPTY(&c->ops)) {
        op_finish(c, QSIMPLEQ_FIRST(&c->ops), fault);
    }
}

bool pagelink_client_fail_text(PageLinkClient *c, uint32_t code,
                               const char *text)
{
    PageLinkFault fault;

    pagelink_fault(&fault, code, PAGELINK_NO_INDEX, "%s", text);
    pagelink_client_fail(c, &fault);
    return false;
}

/* Like qio_channel_readv(), but 0 is "nothing there" and -1 has failed */
static ssize_t client_read(PageLinkClient *c, const struct iovec *iov,
                           size_t niov)
{
    Error *err = NULL;
    ssize_t n = qio_channel_readv(c->ioc, iov, niov, &err);

    if (n == QIO_CHANNEL_ERR_BLOCK) {
        return 0;
    }
    if (n <= 0) {
        pagelink_client_fail_text(c, PAGELINK_ERR_PROTOCOL,
                                  err ? error_get_pretty(err) :
                                  "the connection was closed");
        error_free(err);
        return -1;
    }
    return n;
}

static bool check_crc(PageLinkClient *c, const PageLinkEntry *e,
                      const void *data)
{
    PageLinkFault fault;

    if (!(e->flags & PAGELINK_ENTRY_CRC) ||
        pagelink_crc32c(data) == e->crc) {
        return true;
    }
    pagelink_fault(&fault, PAGELINK_ERR_CHECKSUM, PAGELINK_NO_INDEX,
                   "page %" PRIu64 " of block %u came back damaged", e->page,
                   e->block);
    pagelink_client_fail(c, &fault);
    return false;
}

/* Skip entries without a page; complete the GET when all are there */
static bool data_advance(PageLinkClient *c)
{
    PageLinkOp *op = QSIMPLEQ_FIRST(&c->ops);

    while (c->next_entry < c->head.count &&
           c->entries[c->next_entry].flags &
           (PAGELINK_ENTRY_ZERO | PAGELINK_ENTRY_ABSENT)) {
        c->next_entry++;
    }
    c->in_pages = c->next_entry < c->head.count;
    if (!c->in_pages) {
        op->filled += c->head.count;
        if (op->filled == op->n) {
            op_finish(c, op, NULL);
        }
    }
    return true;
}

static PageLinkPage *data_page(PageLinkClient *c, unsigned entry)
{
    PageLinkOp *op = QSIMPLEQ_FIRST(&c->ops);

    return &op->pages[op->filled + entry];
}

static bool data_page_done(PageLinkClient *c)
{
    if (!check_crc(c, &c->entries[c->next_entry],
                   data_page(c, c->next_entry)->data)) {
        return false;
    }
    c->page_fill = 0;
    c->next_entry++;
    return data_advance(c);
}

/* The table of a DATA: it must be what the first request asked for */
static bool handle_data(PageLinkClient *c, const uint8_t *table)
{
    PageLinkOp *op = QSIMPLEQ_FIRST(&c->ops);
    bool last = c->head.flags & PAGELINK_DATA_LAST;
    PageLinkFault fault;
    uint32_t npages, i;

    if (!pagelink_decode_entries(&c->head, table, c->info.features,
                                 c->entries, &npages, &fault)) {
        pagelink_client_fail(c, &fault);
        return false;
    }
    if (!op || op->answer != PAGELINK_DATA || op->id != c->head.request_id ||
        c->head.count > op->n - op->filled ||
        last != (c->head.count == op->n - op->filled)) {
        return pagelink_client_fail_text(c, PAGELINK_ERR_PROTOCOL,
                                         "DATA that nobody asked for");
    }
    for (i = 0; i < c->head.count; i++) {
        PageLinkPage *page = &op->pages[op->filled + i];

        if (c->entries[i].page != page->page ||
            c->entries[i].block != page->block) {
            return pagelink_client_fail_text(c, PAGELINK_ERR_PROTOCOL,
                                    "DATA for a page that was not asked for");
        }
        page->flags = c->entries[i].flags;
        page->version = c->entries[i].version;
    }
    c->next_entry = 0;
    c->page_fill = 0;
    return data_advance(c);
}

static bool handle_error(PageLinkClient *c, const uint8_t *body)
{
    PageLinkOp *op = QSIMPLEQ_FIRST(&c->ops);
    PageLinkFault error, fault;

    if (!pagelink_decode_error(&c->head, body, &error, &fault)) {
        pagelink_client_fail(c, &fault);
        return false;
    }
    if (c->head.flags & PAGELINK_ERROR_FATAL) {
        c->told = true;
        pagelink_client_fail(c, &error);
        return false;
    }
    if (op && op->id == c->head.request_id) {
        op_finish(c, op, &error);
    } else if (!c->put_refused) {
        c->put_refused = true;
        c->put_fault = error;
    }
    return true;
}

/* A whole message that has no pages */
static bool handle_answer(PageLinkClient *c, const uint8_t *body)
{
    PageLinkOp *op = QSIMPLEQ_FIRST(&c->ops);

    if (!op || op->answer != c->head.type ||
        op->id != c->head.request_id) {
        PageLinkFault fault;

        pagelink_fault(&fault, PAGELINK_ERR_PROTOCOL, PAGELINK_NO_INDEX,
                       "%s that nobody asked for",
                       pagelink_type_name(c->head.type));
        pagelink_client_fail(c, &fault);
        return false;
    }
    if (op->ack) {
        pagelink_decode_ack(body, op->ack);
    }
    if (op->body) {
        *op->body = g_memdup2(body, c->head.length);
        *op->head = c->head;
    }
    op_finish(c, op, NULL);
    return true;
}

static bool handle_message(PageLinkClient *c, const uint8_t *body)
{
    switch (c->head.type) {
    case PAGELINK_DATA:
        return handle_data(c, body);
    case PAGELINK_ERROR:
        return handle_error(c, body);
    default:
        return handle_answer(c, body);
    }
}

/* One step with what is in the buffer; false: nothing more to do with it */
static bool client_step(PageLinkClient *c)
{
    size_t have = c->in_end - c->in_pos;
    const uint8_t *p = c->in + c->in_pos;
    PageLinkFault fault;
    uint32_t length;
    bool ok;

    if (c->in_pages) {
        size_t n = MIN(have, PAGELINK_PAGE_SIZE - c->page_fill);

        memcpy((uint8_t *)data_page(c, c->next_entry)->data + c->page_fill,
               p, n);
        c->in_pos += n;
        c->page_fill += n;
        return n && (c->page_fill < PAGELINK_PAGE_SIZE || data_page_done(c));
    }
    if (!c->have_head) {
        if (have < sizeof(PageLinkHeader)) {
            return false;
        }
        if (!pagelink_decode_header(p, &c->head, &fault)) {
            pagelink_client_fail(c, &fault);
            return false;
        }
        c->in_pos += sizeof(PageLinkHeader);
        c->have_head = true;
        return true;
    }
    length = pagelink_table_length(&c->head);
    if (length <= IN_SIZE) {
        if (have < length) {
            return false;
        }
        c->in_pos += length;
        c->have_head = false;
        return handle_message(c, p);
    }
    if (!c->body) {
        c->body = g_malloc(length);
        c->body_fill = 0;
    }
    have = MIN(have, length - c->body_fill);
    memcpy(c->body + c->body_fill, p, have);
    c->in_pos += have;
    c->body_fill += have;
    if (c->body_fill < length) {
        return false;
    }
    c->have_head = false;
    ok = handle_message(c, c->body);
    g_clear_pointer(&c->body, g_free);
    return ok;
}

/* Where the pages of this DATA go, then the buffer for what follows */
static unsigned client_read_iov(PageLinkClient *c, struct iovec *iov)
{
    size_t left = c->in_end - c->in_pos;
    unsigned niov = 0, i;

    if (c->in_pages) {
        for (i = c->next_entry; i < c->head.count; i++) {
            uint8_t *data = data_page(c, i)->data;

            if (c->entries[i].flags &
                (PAGELINK_ENTRY_ZERO | PAGELINK_ENTRY_ABSENT)) {
                continue;
            }
            iov[niov++] = (struct iovec) { data, PAGELINK_PAGE_SIZE };
        }
        iov[0].iov_base = (uint8_t *)iov[0].iov_base + c->page_fill;
        iov[0].iov_len -= c->page_fill;
    }
    memmove(c->in, c->in + c->in_pos, left);
    c->in_pos = 0;
    c->in_end = left;
    iov[niov++] = (struct iovec) { c->in + left, IN_SIZE - left };
    return niov;
}

/* Take in all that has arrived.  Returns false if the connection failed. */
static bool client_receive(PageLinkClient *c)
{
    struct iovec iov[READ_PAGES + 1];

    while (!c->failure.code) {
        bool plain = c->ioc == QIO_CHANNEL(c->sioc), dry;
        unsigned niov;
        ssize_t n;

        while (client_step(c)) {
            /* until the buffer is used up */
        }
        if (c->failure.code) {
            break;
        }
        niov = client_read_iov(c, iov);
        n = client_read(c, iov, niov);
        if (n <= 0) {
            break;
        }
        /* Spares a read that finds nothing; TLS may hold more than poll sees */
        dry = plain && n < iov_size(iov, niov);
        while (n && c->in_pages) {
            size_t part = MIN(n, PAGELINK_PAGE_SIZE - c->page_fill);

            c->page_fill += part;
            n -= part;
            if (c->page_fill == PAGELINK_PAGE_SIZE && !data_page_done(c)) {
                return false;
            }
        }
        c->in_end += n;
        if (dry) {
            while (client_step(c)) {
                /* what has just come */
            }
            break;
        }
    }
    return !c->failure.code;
}

static bool client_wait(PageLinkClient *c, short events, int timeout_ms)
{
    struct pollfd pfd = { .fd = c->sioc->fd, .events = events };
    int ret;

    do {
        ret = poll(&pfd, 1, timeout_ms);
    } while (ret < 0 && errno == EINTR);
    return ret > 0;
}

static bool client_time_out(PageLinkClient *c)
{
    PageLinkFault fault;

    pagelink_fault(&fault, PAGELINK_ERR_TIMEOUT, PAGELINK_NO_INDEX,
                   "no answer for %d ms", c->timeout_ms);
    pagelink_client_fail(c, &fault);
    return false;
}

/* Send all; takes in answers meanwhile, or both sides might wait for ever */
bool pagelink_client_send(PageLinkClient *c, struct iovec *iov, unsigned niov,
                          Error **errp)
{
    assert(!c->sending);
    c->sending = true;
    while (niov && !c->failure.code) {
        Error *err = NULL;
        ssize_t n = qio_channel_writev(c->ioc, iov, niov, &err);

        if (n == QIO_CHANNEL_ERR_BLOCK) {
            if (!client_wait(c, POLLIN | POLLOUT, c->timeout_ms)) {
                client_time_out(c);
            } else {
                client_receive(c);
            }
            continue;
        }
        if (n < 0) {
            /* What the peer said before it closed tells more than EPIPE */
            client_receive(c);
            pagelink_client_fail_text(c, PAGELINK_ERR_PROTOCOL,
                                      error_get_pretty(err));
            error_free(err);
            break;
        }
        iov_discard_front(&iov, &niov, n);
    }
    c->sending = false;
    run_callbacks(c);
    if (c->failure.code) {
        return pagelink_client_report(&c->failure, c->peer, errp);
    }
    return true;
}

/* Note a request as sent.  Before it is: the answer may come meanwhile. */
PageLinkOp *pagelink_op_new(PageLinkClient *c, uint16_t answer, uint64_t id,
                            PageLinkDone *done, void *opaque)
{
    PageLinkOp *op = g_new0(PageLinkOp, 1);

    op->answer = answer;
    op->id = id;
    op->done = done;
    op->opaque = opaque;
    QSIMPLEQ_INSERT_TAIL(&c->ops, op, next);
    c->nops++;
    return op;
}

bool pagelink_client_ready(PageLinkClient *c, Error **errp)
{
    return c->failure.code ?
           pagelink_client_report(&c->failure, c->peer, errp) : true;
}

void pagelink_waiter_done(void *opaque, const PageLinkFault *error)
{
    Waiter *w = opaque;

    w->done = true;
    if (error) {
        w->failed = true;
        w->fault = *error;
    }
}

bool pagelink_client_await(PageLinkClient *c, Waiter *w, Error **errp)
{
    assert(!c->calling);
    while (!w->done) {
        /* Bytes that move reset the clock, requests that pile up do not */
        if (client_receive(c) && QSIMPLEQ_EMPTY(&c->finished) &&
            !client_wait(c, POLLIN, c->timeout_ms)) {
            client_time_out(c);
        }
        run_callbacks(c);
    }
    return w->failed ? pagelink_client_report(&w->fault, c->peer, errp) : true;
}

bool pagelink_client_poll(PageLinkClient *c, int timeout_ms, Error **errp)
{
    if (client_receive(c) && QSIMPLEQ_EMPTY(&c->finished) && timeout_ms &&
        client_wait(c, POLLIN, timeout_ms)) {
        client_receive(c);
    }
    run_callbacks(c);
    return pagelink_client_ready(c, errp);
}

/*
 * A connection being made, by a thread of its own: names are resolved, too.
 * The thread gives up when the kernel does; whoever waits, at the timeout, and
 * then the thread frees what it has.
 */
typedef struct Dial {
    QIOChannelSocket *sioc;     /* the thread's, until done */
    SocketAddress *addr;        /* likewise */
    QemuMutex lock;
    QemuCond cond;
    bool done;                  /* under lock; then err is valid */
    bool abandoned;             /* under lock */
    Error *err;
} Dial;

static void dial_free(Dial *d)
{
    object_unref(d->sioc);
    qapi_free_SocketAddress(d->addr);
    qemu_cond_destroy(&d->cond);
    qemu_mutex_destroy(&d->lock);
    error_free(d->err);
    g_free(d);
}

static void *dial_main(void *opaque)
{
    Dial *d = opaque;
    Error *err = NULL;
    bool abandoned;

    qio_channel_socket_connect_sync(d->sioc, d->addr, &err);
    qemu_mutex_lock(&d->lock);
    d->err = err;
    d->done = true;
    abandoned = d->abandoned;
    qemu_cond_signal(&d->cond);
    qemu_mutex_unlock(&d->lock);
    if (abandoned) {
        dial_free(d);
    }
    return NULL;
}

static bool client_dial(PageLinkClient *c, SocketAddress *addr, Error **errp)
{
    int64_t end = g_get_monotonic_time() / 1000 + c->timeout_ms;
    QemuThread thread;
    bool done;
    Dial *d;

    if (addr->type == SOCKET_ADDRESS_TYPE_FD) {
        /* Never waits; its name is known to this thread's monitor */
        c->sioc = qio_channel_socket_new();
        return qio_channel_socket_connect_sync(c->sioc, addr, errp) == 0;
    }
    d = g_new0(Dial, 1);
    d->sioc = qio_channel_socket_new();
    d->addr = QAPI_CLONE(SocketAddress, addr);
    qemu_mutex_init(&d->lock);
    qemu_cond_init(&d->cond);
    qemu_thread_create(&thread, "pagelink-dial", dial_main, d,
                       QEMU_THREAD_DETACHED);
    qemu_mutex_lock(&d->lock);
    while (!d->done) {
        int64_t left = end - g_get_monotonic_time() / 1000;

        if (left <= 0) {
            break;
        }
        qemu_cond_timedwait(&d->cond, &d->lock, left);
    }
    done = d->done;
    d->abandoned = !done;
    qemu_mutex_unlock(&d->lock);
    if (!done) {
        error_setg(errp, "page link to %s: no connection for %d ms", c->peer,
                   c->timeout_ms);
        return false;
    }
    if (d->err) {
        error_propagate(errp, g_steal_pointer(&d->err));
    } else {
        c->sioc = g_steal_pointer(&d->sioc);
    }
    dial_free(d);
    return c->sioc != NULL;
}

static bool client_hello(PageLinkClient *c, const PageLinkClientOptions *o,
                         Error **errp)
{
    uint8_t buf[sizeof(PageLinkHeader) + sizeof(PageLinkHello)];
    PageLinkHello hello = {
        .version_min = PAGELINK_VERSION_MIN,
        .version_max = PAGELINK_VERSION_MAX,
        .features = o->features,
        .role = o->role,
        .class = o->class,
        .flags = o->flags,
        .epoch = o->epoch,
    };
    g_autofree void *answer = NULL;
    PageLinkHeader head;
    PageLinkFault fault;

    memcpy(hello.uuid, o->uuid, sizeof(hello.uuid));
    memcpy(hello.key, o->key, sizeof(hello.key));
    if (o->name) {
        memcpy(hello.name, o->name, strnlen(o->name, sizeof(hello.name) - 1));
    }
    pagelink_encode_hello(buf + sizeof(PageLinkHeader), &hello);
    if (!pagelink_client_call(c, buf, PAGELINK_HELLO, 0, sizeof(hello),
                              PAGELINK_HELLO_ACK, &answer, &head, errp)) {
        return false;
    }
    if (!pagelink_decode_hello_ack(answer, &c->info, &fault)) {
        pagelink_client_fail(c, &fault);
        return pagelink_client_ready(c, errp);
    }
    return true;
}

/* A TLS handshake in a main context of its own, with a timeout */
typedef struct Shake {
    bool done;
    Error *err;
} Shake;

static void shake_done(QIOTask *task, gpointer opaque)
{
    Shake *shake = opaque;

    qio_task_propagate_error(task, &shake->err);
    shake->done = true;
}

static gboolean shake_timeout(gpointer opaque)
{
    PageLinkClient *c = opaque;

    qio_channel_shutdown(QIO_CHANNEL(c->sioc), QIO_CHANNEL_SHUTDOWN_BOTH,
                         NULL);
    return G_SOURCE_REMOVE;
}

static bool client_tls(PageLinkClient *c, const PageLinkClientOptions *o,
                       Error **errp)
{
    const char *hostname = o->tls_hostname;
    g_autoptr(GMainContext) context = g_main_context_new();
    GSource *timer = g_timeout_source_new(c->timeout_ms);
    QIOChannelTLS *tioc;
    Shake shake = { 0 };

    if (!hostname && o->addr && o->addr->type == SOCKET_ADDRESS_TYPE_INET) {
        hostname = o->addr->u.inet.host;
    }
    tioc = qio_channel_tls_new_client(QIO_CHANNEL(c->sioc), o->tls_creds,
                                      hostname, errp);
    if (!tioc) {
        g_source_unref(timer);
        return false;
    }
    object_unref(OBJECT(c->ioc));
    c->ioc = QIO_CHANNEL(tioc);
    g_source_set_callback(timer, shake_timeout, c, NULL);
    g_source_attach(timer, context);
    qio_channel_tls_handshake(tioc, shake_done, &shake, NULL, context);
    while (!shake.done) {
        g_main_context_iteration(context, true);
    }
    g_source_destroy(timer);
    g_source_unref(timer);
    if (shake.err) {
        error_propagate_prepend(errp, shake.err, "page link to %s: ",
                                c->peer);
        return false;
    }
    return true;
}

/* What is left of the time to connect, if that is limited */
static void client_limit(PageLinkClient *c, const PageLinkClientOptions *o,
                         int64_t start_ms)
{
    int64_t gone = g_get_monotonic_time() / 1000 - start_ms;

    if (o->connect_timeout_ms) {
        c->timeout_ms = MAX(o->connect_timeout_ms - gone, 1);
    }
}

static char *peer_name(const PageLinkClientOptions *o)
{
    return o->addr ? socket_uri(o->addr) : g_strdup("socket");
}

PageLinkClient *pagelink_client_connect(const PageLinkClientOptions *o,
                                        Error **errp)
{
    PageLinkClient *c = g_new0(PageLinkClient, 1);
    int64_t start_ms = g_get_monotonic_time() / 1000;
    int timeout_ms = o->timeout_ms ?: PAGELINK_CLIENT_TIMEOUT_MS;

    QSIMPLEQ_INIT(&c->ops);
    QSIMPLEQ_INIT(&c->finished);
    c->in = g_malloc(IN_SIZE);
    c->timeout_ms = timeout_ms;
    client_limit(c, o, start_ms);
    c->next_id = 1;
    c->peer = peer_name(o);
    trace_pagelink_client_connect(c->peer, o->role, o->class);
    if (o->sioc) {
        c->sioc = o->sioc;
        object_ref(OBJECT(c->sioc));
    } else if (!client_dial(c, o->addr, errp)) {
        goto fail;
    }
    c->ioc = QIO_CHANNEL(c->sioc);
    object_ref(OBJECT(c->ioc));
    pagelink_prepare_socket(c->sioc, KEEPALIVE_IDLE, KEEPALIVE_INTERVAL);
    client_limit(c, o, start_ms);
    if (o->tls_creds && !client_tls(c, o, errp)) {
        goto fail;
    }
    client_limit(c, o, start_ms);
    if (!client_hello(c, o, errp)) {
        if (o->refused && c->told) {
            *o->refused = c->failure.code;
        }
        goto fail;
    }
    c->timeout_ms = timeout_ms;
    return c;

fail:
    pagelink_client_free(c);
    return NULL;
}

void pagelink_client_free(PageLinkClient *c)
{
    if (!c) {
        return;
    }
    pagelink_client_fail_text(c, PAGELINK_ERR_SHUTDOWN, "closed");
    run_callbacks(c);
    if (c->sioc && c->sioc->fd >= 0) {
        qio_channel_close(QIO_CHANNEL(c->sioc), NULL);
    }
    object_unref(c->ioc);
    object_unref(c->sioc);
    g_free(c->body);
    g_free(c->in);
    g_free(c->peer);
    g_free(c);
}

void pagelink_client_shutdown(PageLinkClient *c)
{
    qio_channel_shutdown(QIO_CHANNEL(c->sioc), QIO_CHANNEL_SHUTDOWN_BOTH,
                         NULL);
}

void pagelink_client_set_timeout(PageLinkClient *c, int timeout_ms)
{
    c->timeout_ms = timeout_ms;
}

const PageLinkHelloAck *pagelink_client_info(const PageLinkClient *c)
{
    return &c->info;
}

int pagelink_client_fd(const PageLinkClient *c)
{
    return c->sioc->fd;
}

unsigned pagelink_client_outstanding(const PageLinkClient *c)
{
    return c->nops;
}

uint32_t pagelink_client_refusal(const PageLinkClient *c)
{
    return c->refusal;
}

uint32_t pagelink_client_failure(const PageLinkClient *c)
{
    return c->failure.code;
}
