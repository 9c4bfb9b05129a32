/*
 * qemu-memserver: keeps pages of RAM for virtual machines elsewhere
 *
 * Options, signals and nothing else; the server is a library (server.h).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <getopt.h>
#include <glib-unix.h>
#include <sys/resource.h>
#include "authz/base.h"
#include "crypto/init.h"
#include "crypto/tlscredsx509.h"
#include "qapi/error.h"
#include "qapi/qapi-visit-sockets.h"
#include "qemu-version.h"
#include "qemu/config-file.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "qemu/help-texts.h"
#include "qemu/log.h"
#include "qemu/module.h"
#include "qemu/sockets.h"
#include "qemu/systemd.h"
#include "qemu/units.h"
#include "qom/object_interfaces.h"
#include "trace/control.h"
#include "selftest.h"
#include "server.h"
#include "status.h"

enum {
    OPT_MAX_MEMORY = 256,
    OPT_QUOTA,
    OPT_EXPIRY,
    OPT_TAKEN_EXPIRY,
    OPT_THREADS,
    OPT_MAX_CONNECTIONS,
    OPT_MAX_SESSIONS,
    OPT_STALL_TIMEOUT,
    OPT_SESSION_CONNECTIONS,
    OPT_LOCAL_STATUS,
    OPT_OBJECT,
    OPT_TLS_CREDS,
    OPT_TLS_AUTHZ,
    OPT_TLS_HOSTNAME,
    OPT_DAEMONIZE,
    OPT_PID_FILE,
    OPT_STATUS,
    OPT_SELFTEST,
    OPT_JSON,
    OPT_PAGES,
    OPT_CONNECTIONS,
    OPT_BATCH,
    OPT_WINDOW,
    OPT_LATENCY,
    OPT_ZERO,
    OPT_REPEAT,
    OPT_CHECKSUM,
    OPT_NO_VERIFY,
    OPT_KEEP,
};

typedef struct Options {
    GPtrArray *listen;          /* of const char * */
    MsServerOptions server;
    MsSelftestOptions selftest;
    const char *status;         /* address, or NULL */
    const char *selftest_addr;  /* address, or NULL */
    const char *tls_creds;
    const char *tls_hostname;
    const char *pid_file;
    bool daemonize;
    bool json;
} Options;

static void usage(const char *name)
{
    (printf) (
"Usage: %s --listen ADDRESS [OPTIONS]\n"
"       %s --status ADDRESS [--json]\n"
"       %s --selftest ADDRESS [OPTIONS]\n"
"Keeps pages of RAM for virtual machines on other hosts.\n"
"\n"
"  -h, --help                display this help and exit\n"
"  -V, --version             output version information and exit\n"
"  -T, --trace [[enable=]<pattern>][,events=<file>][,file=<file>]\n"
"                            specify tracing options\n"
"\n"
"Serving:\n"
"  -l, --listen=ADDRESS      tcp:HOST:PORT, unix:PATH or vsock:CID:PORT; can\n"
"                            be given more than once; not with systemd's\n"
"                            socket activation\n"
"      --max-memory=SIZE     pages of all sessions together (default: half\n"
"                            of this host's memory)\n"
"      --session-quota=SIZE  pages of any one session (default: no limit)\n"
"      --session-expiry=SEC  end sessions that nobody has taken over and that\n"
"                            have had no connection for so long (default:\n"
"                            never)\n"
"      --taken-expiry=SEC    end those that were taken over, too: whose VM has\n"
"                            been cut off for so long loses its memory\n"
"                            (default: never)\n"
"      --threads=N           I/O threads of each class, demand and background\n"
"                            (default: one for each processor)\n"
"      --max-connections=N   of all sessions (default: 4096)\n"
"      --session-connections=N  of any one session (default: 64)\n"
"      --max-sessions=N      (default: 1024)\n"
"      --stall-timeout=SEC   drop a peer that stops in the middle of a message\n"
"                            or does not read its answers (default: 60)\n"
"      --local-status        tell the status over unix sockets only\n"
"      --daemonize           run in the background, after listening\n"
"      --pid-file=PATH       write the process id there\n"
"\n"
"Security, for all uses:\n"
"      --object=TYPE,id=ID,...  secret, tls-creds-x509, tls-creds-psk, authz-*\n"
"      --tls-creds=ID        credentials\n"
"      --tls-authz=ID        who may connect (serving)\n"
"      --tls-hostname=NAME   expected in the server's certificate (clients)\n"
"\n"
"Asking a memory host:\n"
"      --status=ADDRESS      print sessions, pages and rates\n"
"      --selftest=ADDRESS    put pages, get them back, compare, measure\n"
"      --json                print JSON\n"
"      --pages=N             (default: 65536)\n"
"      --connections=N       (default: 1)\n"
"      --batch=N             pages in a message (default: 128)\n"
"      --window=N            GETs under way on a connection (default: 4)\n"
"      --latency=N           single-page GETs to measure (default: 10000)\n"
"      --zero=PERCENT        share of zero pages (default: 0)\n"
"      --repeat=N            measure so often, report medians (default: 1)\n"
"      --checksum            with a checksum for each page\n"
"      --no-verify           only measure\n"
"      --keep                leave the session behind\n"
"\n"
"SIGTERM and SIGINT are refused while there are sessions, unless repeated.\n"
"\n"
QEMU_HELP_BOTTOM "\n"
    , name, name, name);
}

static void version(void)
{
    printf("qemu-memserver " QEMU_FULL_VERSION "\n" QEMU_COPYRIGHT "\n");
}

static bool parse_number(const char *name, const char *text, uint64_t min,
                         uint64_t max, uint64_t *value, Error **errp)
{
    if (qemu_strtou64(text, NULL, 10, value) < 0 || *value < min ||
        *value > max) {
        error_setg(errp, "--%s: '%s' is not a number from %" PRIu64 " to %"
                   PRIu64, name, text, min, max);
        return false;
    }
    return true;
}

static bool parse_pages(const char *name, const char *text, uint64_t *pages,
                        Error **errp)
{
    uint64_t bytes;

    if (qemu_strtosz(text, NULL, &bytes) < 0 || bytes < 1 * MiB) {
        error_setg(errp, "--%s: '%s' is not a size of at least 1M", name,
                   text);
        return false;
    }
    *pages = bytes / PAGELINK_PAGE_SIZE;
    return true;
}

static bool set_u32(const char *name, const char *text, uint32_t min,
                    uint32_t max, uint32_t *value, Error **errp)
{
    uint64_t number;

    if (!parse_number(name, text, min, max, &number, errp)) {
        return false;
    }
    *value = number;
    return true;
}

static bool set_ms(const char *name, const char *text, int64_t *ms,
                   Error **errp)
{
    uint64_t seconds;

    if (!parse_number(name, text, 1, INT_MAX, &seconds, errp)) {
        return false;
    }
    *ms = seconds * 1000;
    return true;
}

static const struct option long_options[] = {
    { "help", no_argument, NULL, 'h' },
    { "version", no_argument, NULL, 'V' },
    { "trace", required_argument, NULL, 'T' },
    { "listen", required_argument, NULL, 'l' },
    { "max-memory", required_argument, NULL, OPT_MAX_MEMORY },
    { "session-quota", required_argument, NULL, OPT_QUOTA },
    { "session-expiry", required_argument, NULL, OPT_EXPIRY },
    { "taken-expiry", required_argument, NULL, OPT_TAKEN_EXPIRY },
    { "threads", required_argument, NULL, OPT_THREADS },
    { "max-connections", required_argument, NULL, OPT_MAX_CONNECTIONS },
    { "max-sessions", required_argument, NULL, OPT_MAX_SESSIONS },
    { "stall-timeout", required_argument, NULL, OPT_STALL_TIMEOUT },
    { "session-connections", required_argument, NULL,
      OPT_SESSION_CONNECTIONS },
    { "local-status", no_argument, NULL, OPT_LOCAL_STATUS },
    { "object", required_argument, NULL, OPT_OBJECT },
    { "tls-creds", required_argument, NULL, OPT_TLS_CREDS },
    { "tls-authz", required_argument, NULL, OPT_TLS_AUTHZ },
    { "tls-hostname", required_argument, NULL, OPT_TLS_HOSTNAME },
    { "daemonize", no_argument, NULL, OPT_DAEMONIZE },
    { "pid-file", required_argument, NULL, OPT_PID_FILE },
    { "status", required_argument, NULL, OPT_STATUS },
    { "selftest", required_argument, NULL, OPT_SELFTEST },
    { "json", no_argument, NULL, OPT_JSON },
    { "pages", required_argument, NULL, OPT_PAGES },
    { "connections", required_argument, NULL, OPT_CONNECTIONS },
    { "batch", required_argument, NULL, OPT_BATCH },
    { "window", required_argument, NULL, OPT_WINDOW },
    { "latency", required_argument, NULL, OPT_LATENCY },
    { "zero", required_argument, NULL, OPT_ZERO },
    { "repeat", required_argument, NULL, OPT_REPEAT },
    { "checksum", no_argument, NULL, OPT_CHECKSUM },
    { "no-verify", no_argument, NULL, OPT_NO_VERIFY },
    { "keep", no_argument, NULL, OPT_KEEP },
    { NULL, 0, NULL, 0 }
};

static bool parse_client_option(Options *o, int opt, const char *name,
                                Error **errp)
{
    MsSelftestOptions *s = &o->selftest;

    switch (opt) {
    case OPT_STATUS:
        o->status = optarg;
        return true;
    case OPT_SELFTEST:
        o->selftest_addr = optarg;
        return true;
    case OPT_JSON:
        o->json = s->json = true;
        return true;
    case OPT_PAGES:
        return parse_number(name, optarg, 1, PAGELINK_MAX_BLOCK_PAGES,
                            &s->pages, errp);
    case OPT_CONNECTIONS:
        return set_u32(name, optarg, 1, 64, &s->connections, errp);
    case OPT_BATCH:
        return set_u32(name, optarg, 1, PAGELINK_MAX_BATCH, &s->batch, errp);
    case OPT_WINDOW:
        return set_u32(name, optarg, 1, PAGELINK_MAX_WINDOW, &s->window,
                       errp);
    case OPT_LATENCY:
        return set_u32(name, optarg, 0, 10000000, &s->latency_count, errp);
    case OPT_ZERO:
        return set_u32(name, optarg, 0, 100, &s->zero_percent, errp);
    case OPT_REPEAT:
        return set_u32(name, optarg, 1, 1000, &s->repeat, errp);
    case OPT_CHECKSUM:
        s->checksum = true;
        return true;
    case OPT_NO_VERIFY:
        s->verify = false;
        return true;
    case OPT_KEEP:
        s->keep = true;
        return true;
    default:
        g_assert_not_reached();
    }
}

static bool parse_option(Options *o, int opt, const char *name, Error **errp)
{
    MsServerOptions *s = &o->server;

    switch (opt) {
    case 'T':
        trace_opt_parse(optarg);
        return true;
    case 'l':
        g_ptr_array_add(o->listen, optarg);
        return true;
    case OPT_MAX_MEMORY:
        return parse_pages(name, optarg, &s->max_pages, errp);
    case OPT_QUOTA:
        return parse_pages(name, optarg, &s->session_quota, errp);
    case OPT_EXPIRY:
        return set_ms(name, optarg, &s->expiry_ms, errp);
    case OPT_TAKEN_EXPIRY:
        return set_ms(name, optarg, &s->taken_expiry_ms, errp);
    case OPT_THREADS:
        return set_u32(name, optarg, 1, 256, &s->threads, errp);
    case OPT_MAX_CONNECTIONS:
        return set_u32(name, optarg, 1, 1000000, &s->max_connections, errp);
    case OPT_MAX_SESSIONS:
        return set_u32(name, optarg, 1, PAGELINK_MAX_STATUS_SESSIONS,
                       &s->max_sessions, errp);
    case OPT_STALL_TIMEOUT:
        return set_ms(name, optarg, &s->stall_ms, errp);
    case OPT_SESSION_CONNECTIONS:
        return set_u32(name, optarg, 1, 1000000, &s->session_connections,
                       errp);
    case OPT_LOCAL_STATUS:
        s->local_status = true;
        return true;
    case OPT_OBJECT:
        user_creatable_process_cmdline(optarg);
        return true;
    case OPT_TLS_CREDS:
        o->tls_creds = optarg;
        return true;
    case OPT_TLS_AUTHZ:
        s->tls_authz = optarg;
        return true;
    case OPT_TLS_HOSTNAME:
        o->tls_hostname = optarg;
        return true;
    case OPT_DAEMONIZE:
        o->daemonize = true;
        return true;
    case OPT_PID_FILE:
        o->pid_file = optarg;
        return true;
    default:
        return parse_client_option(o, opt, name, errp);
    }
}

static void parse_options(Options *o, int argc, char **argv)
{
    int opt, index = 0;

    while ((opt = getopt_long(argc, argv, "hVT:l:", long_options,
                              &index)) != -1) {
        switch (opt) {
        case 'h':
            usage(argv[0]);
            exit(EXIT_SUCCESS);
        case 'V':
            version();
            exit(EXIT_SUCCESS);
        case '?':
            error_report("Try '%s --help' for more information", argv[0]);
            exit(EXIT_FAILURE);
        default:
            parse_option(o, opt, long_options[index].name, &error_fatal);
        }
    }
    if (optind != argc) {
        error_report("unexpected argument '%s'", argv[optind]);
        exit(EXIT_FAILURE);
    }
}

static QCryptoTLSCreds *find_creds(const char *id,
                                   QCryptoTLSCredsEndpoint endpoint,
                                   Error **errp)
{
    Object *obj = object_resolve_path_component(object_get_objects_root(),
                                                id);
    QCryptoTLSCreds *creds;

    creds = obj ? (QCryptoTLSCreds *)
            object_dynamic_cast(obj, TYPE_QCRYPTO_TLS_CREDS) : NULL;
    if (!creds) {
        error_setg(errp, "there are no TLS credentials with id '%s': give "
                   "--object tls-creds-...,id=%s before --tls-creds", id, id);
        return NULL;
    }
    return qcrypto_tls_creds_check_endpoint(creds, endpoint, errp) ?
           creds : NULL;
}

static int run_status(const Options *o, SocketAddress *addr,
                      QCryptoTLSCreds *creds)
{
    PageLinkClientOptions options = {
        .addr = addr,
        .tls_creds = creds,
        .tls_hostname = o->tls_hostname,
        .role = PAGELINK_ROLE_STATUS,
        .class = PAGELINK_CLASS_DEMAND,
        .name = "status",
    };
    g_autofree PageLinkSessionStatus *sessions = NULL;
    g_autofree char *text = NULL;
    PageLinkStatus status;
    PageLinkClient *c;
    Error *err = NULL;
    uint32_t n;
    bool ok;

    c = pagelink_client_connect(&options, &err);
    ok = c && pagelink_client_status(c, true, &status, &sessions, &n, &err);
    pagelink_client_free(c);
    if (!ok) {
        error_report_err(err);
        return EXIT_FAILURE;
    }
    text = ms_status_format(&status, sessions, n, o->json);
    fputs(text, stdout);
    return EXIT_SUCCESS;
}

static int run_client(Options *o)
{
    const char *where = o->status ? o->status : o->selftest_addr;
    g_autoptr(SocketAddress) addr = socket_parse(where, &error_fatal);
    QCryptoTLSCreds *creds = NULL;
    Error *err = NULL;

    if (o->tls_creds) {
        creds = find_creds(o->tls_creds, QCRYPTO_TLS_CREDS_ENDPOINT_CLIENT,
                           &error_fatal);
    }
    if (o->status) {
        return run_status(o, addr, creds);
    }
    o->selftest.addr = addr;
    o->selftest.tls_creds = creds;
    o->selftest.tls_hostname = o->tls_hostname;
    if (!ms_selftest_run(&o->selftest, &err)) {
        error_report_err(err);
        return EXIT_FAILURE;
    }
    return EXIT_SUCCESS;
}

/*
 * Each connection is a descriptor.  There must be enough for as many as the
 * server takes: one that cannot be accepted stays in the queue of its listening
 * socket, which then looks ready for ever.
 */
static void fit_descriptors(MsServerOptions *o)
{
    /* Beside the sockets: two for each thread, files, listeners */
    rlim_t others = 4 * o->threads + 64;
    rlim_t want = ms_server_sockets(o) + others;
    uint32_t asked = o->max_connections;
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= want) {
        return;
    }
    limit.rlim_cur = MIN(want, limit.rlim_max);
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0) {
        getrlimit(RLIMIT_NOFILE, &limit);
    }
    while (o->max_connections > 1 &&
           ms_server_sockets(o) + others > limit.rlim_cur) {
        o->max_connections -= DIV_ROUND_UP(o->max_connections, 64);
    }
    if (ms_server_sockets(o) + others > limit.rlim_cur) {
        error_report("only %llu descriptors are allowed, too few to serve",
                     (unsigned long long)limit.rlim_cur);
        exit(EXIT_FAILURE);
    }
    if (o->max_connections < asked) {
        warn_report("only %llu descriptors are allowed: taking %" PRIu32
                    " connections of sessions, not %" PRIu32,
                    (unsigned long long)limit.rlim_cur, o->max_connections,
                    asked);
    }
}

static void add_listeners(const Options *o, QIONetListener *listener)
{
    unsigned n = check_socket_activation(), i;

    if (n && o->listen->len) {
        error_report("--listen cannot be used with socket activation: the "
                     "addresses come from the .socket unit");
        exit(EXIT_FAILURE);
    }
    for (i = 0; i < n; i++) {
        QIOChannelSocket *sioc;

        sioc = qio_channel_socket_new_fd(FIRST_SOCKET_ACTIVATION_FD + i,
                                         &error_fatal);
        qio_net_listener_add(listener, sioc);
        object_unref(OBJECT(sioc));
    }
    for (i = 0; i < o->listen->len; i++) {
        g_autoptr(SocketAddress) addr = NULL;

        addr = socket_parse(g_ptr_array_index(o->listen, i), &error_fatal);
        if (addr->type == SOCKET_ADDRESS_TYPE_UNIX) {
            /* It is removed at the end, perhaps from another directory */
            char *path = g_canonicalize_filename(addr->u.q_unix.path, NULL);

            g_free(addr->u.q_unix.path);
            addr->u.q_unix.path = path;
        }
        if (qio_net_listener_open_sync(listener, addr, 1024,
                                       &error_fatal) < 0) {
            exit(EXIT_FAILURE);
        }
    }
    if (!n && !o->listen->len) {
        error_report("nothing to listen on: give --listen ADDRESS, or start "
                     "this from a systemd .socket unit");
        exit(EXIT_FAILURE);
    }
}

/*
 * Fork; the parent stays until the child says that it serves, or is gone.
 * The child keeps the parent's stderr until then, so what went wrong is read
 * where the command was given.  Before any thread is made.
 * @blocked: signals that the parent takes again while it waits
 *
 * Returns: in the child only, the descriptor for daemon_ready()
 */
static int daemon_start(const sigset_t *blocked)
{
    int fds[2], status;
    ssize_t n;
    pid_t pid;
    char ok;

    if (!g_unix_open_pipe(fds, FD_CLOEXEC, NULL)) {
        error_report("cannot make a pipe: %s", strerror(errno));
        exit(EXIT_FAILURE);
    }
    pid = fork();
    if (pid < 0) {
        error_report("cannot run in the background: %s", strerror(errno));
        exit(EXIT_FAILURE);
    }
    if (!pid) {
        close(fds[0]);
        setsid();
        return fds[1];
    }
    close(fds[1]);
    sigprocmask(SIG_UNBLOCK, blocked, NULL);
    n = RETRY_ON_EINTR(read(fds[0], &ok, 1));
    if (n == 1) {
        _exit(EXIT_SUCCESS);
    }
    /* It has said why, unless something killed it */
    if (RETRY_ON_EINTR(waitpid(pid, &status, 0)) == pid &&
        WIFSIGNALED(status)) {
        error_report("killed by signal %d while starting", WTERMSIG(status));
    }
    _exit(EXIT_FAILURE);
}

/* We serve: leave the terminal, let the parent return */
static void daemon_ready(int fd)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);

    if (null < 0 || chdir("/") < 0) {
        error_report("cannot leave the terminal: %s", strerror(errno));
        exit(EXIT_FAILURE);
    }
    dup2(null, STDIN_FILENO);
    dup2(null, STDOUT_FILENO);
    dup2(null, STDERR_FILENO);
    if (null > STDERR_FILENO) {
        close(null);
    }
    if (RETRY_ON_EINTR(write(fd, "", 1)) < 0) {
        /* The parent was killed: serve all the same */
    }
    close(fd);
}

/*
 * Whether --tls-authz will have a say.  QEMU asks it for the name in a
 * certificate, so where there is none everybody would be let in.
 */
static bool check_authz(const Options *o, Error **errp)
{
    Object *creds = OBJECT(o->server.tls_creds);
    Object *authz = object_resolve_path_component(object_get_objects_root(),
                                                  o->server.tls_authz);

    if (!authz || !object_dynamic_cast(authz, TYPE_QAUTHZ)) {
        error_setg(errp, "there is no authorization object with id '%s': give "
                   "--object authz-...,id=%s before --tls-authz",
                   o->server.tls_authz, o->server.tls_authz);
        return false;
    }
    if (!object_dynamic_cast(creds, TYPE_QCRYPTO_TLS_CREDS_X509) ||
        !object_property_get_bool(creds, "verify-peer", &error_abort)) {
        error_setg(errp, "--tls-authz looks at the client's certificate: it "
                   "needs credentials of type tls-creds-x509 with "
                   "verify-peer=on");
        return false;
    }
    return true;
}

typedef struct Running {
    MsServer *server;
    GMainLoop *loop;
    int64_t refused_ms;         /* when a signal was refused, 0: never */
} Running;

static gboolean handle_signal(gpointer opaque)
{
    Running *r = opaque;
    uint32_t sessions = ms_server_sessions(r->server);
    int64_t now = g_get_monotonic_time() / 1000;

    if (!ms_server_may_stop(sessions, now, &r->refused_ms)) {
        error_report("not terminating: %" PRIu32 " session%s would lose "
                     "memory that a virtual machine may depend on; repeat the "
                     "signal to terminate all the same", sessions,
                     sessions == 1 ? "" : "s");
        return G_SOURCE_CONTINUE;
    }
    g_main_loop_quit(r->loop);
    return G_SOURCE_CONTINUE;
}

static int run_server(Options *o)
{
    QIONetListener *listener;
    g_autofree char *pid_file = NULL;
    Running r = { 0 };
    int ready = -1;
    sigset_t signals;

    if (o->tls_creds) {
        o->server.tls_creds = find_creds(o->tls_creds,
                                         QCRYPTO_TLS_CREDS_ENDPOINT_SERVER,
                                         &error_fatal);
        if (o->server.tls_authz) {
            check_authz(o, &error_fatal);
        }
    } else if (o->server.tls_authz) {
        error_report("--tls-authz needs --tls-creds");
        exit(EXIT_FAILURE);
    }
    if (!o->server.max_pages) {
        o->server.max_pages = qemu_get_host_physmem() / 2 /
                              PAGELINK_PAGE_SIZE;
    }
    fit_descriptors(&o->server);

    /* Whoever sees us listen may also send a signal: keep it until later */
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    listener = qio_net_listener_new();
    add_listeners(o, listener);
    if (o->daemonize) {
        ready = daemon_start(&signals);
    }
    if (o->pid_file) {
        /* The name is needed again from another directory */
        pid_file = g_canonicalize_filename(o->pid_file, NULL);
        qemu_write_pidfile(pid_file, &error_fatal);
    }
    r.loop = g_main_loop_new(NULL, false);
    g_unix_signal_add(SIGTERM, handle_signal, &r);
    g_unix_signal_add(SIGINT, handle_signal, &r);
    sigprocmask(SIG_UNBLOCK, &signals, NULL);
    r.server = ms_server_new(&o->server, &error_fatal);
    ms_server_add_listener(r.server, listener);
    if (o->daemonize) {
        daemon_ready(ready);
    }

    g_main_loop_run(r.loop);

    ms_server_free(r.server);
    object_unref(OBJECT(listener));
    g_main_loop_unref(r.loop);
    if (pid_file) {
        unlink(pid_file);
    }
    return EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
    Options o = { .listen = g_ptr_array_new() };
    int ret;

    error_init(argv[0]);
    module_call_init(MODULE_INIT_TRACE);
    qemu_add_opts(&qemu_trace_opts);
    module_call_init(MODULE_INIT_QOM);
    qcrypto_init(&error_fatal);
    qemu_init_exec_dir(argv[0]);
    signal(SIGPIPE, SIG_IGN);

    ms_server_defaults(&o.server);
    ms_selftest_defaults(&o.selftest);
    parse_options(&o, argc, argv);
    if (!trace_init_backends()) {
        return EXIT_FAILURE;
    }
    trace_init_file();
    qemu_set_log(LOG_TRACE, &error_fatal);

    ret = o.status || o.selftest_addr ? run_client(&o) : run_server(&o);
    g_ptr_array_free(o.listen, true);
    user_creatable_cleanup();
    return ret;
}
