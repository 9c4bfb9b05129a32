/*
 * Configuration of a migration's strategy
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/cutils.h"
#include "qemu/keyval.h"
#include "qemu/sockets.h"
#include "qapi/clone-visitor.h"
#include "qapi/error.h"
#include "qapi/qapi-visit-sockets.h"
#include "qapi/qapi-visit-strategy.h"
#include "qapi/qobject-input-visitor.h"
#include "qobject/qdict.h"
#include "config.h"
#include "split/layout.h"

StrategyConfig strategy_config_copy(const StrategyConfig *c)
{
    StrategyConfig copy = *c;

    copy.split = c->split ? QAPI_CLONE(RamSplit, c->split) : NULL;
    return copy;
}

void strategy_config_clear(StrategyConfig *c)
{
    qapi_free_RamSplit(c->split);
    c->split = NULL;
}

bool strategy_config_in_force(const StrategyConfig *c)
{
    return c->mode != RAM_STRATEGY_MODE_PRECOPY || c->redirectable || c->split;
}

static bool check_memory_host(const RamMemoryHost *h, Error **errp)
{
    g_autoptr(SocketAddress) addr = NULL;

    if (!strstart(h->uri, "tcp:", NULL) && !strstart(h->uri, "unix:", NULL)) {
        error_setg(errp, "strategy: memory host '%s' is neither tcp:HOST:PORT "
                   "nor unix:PATH", h->uri);
        return false;
    }
    addr = socket_parse(h->uri, errp);
    if (!addr) {
        error_prepend(errp, "strategy: memory host '%s': ", h->uri);
        return false;
    }
    if (h->has_capacity && !h->capacity) {
        error_setg(errp, "strategy: memory host '%s' has capacity 0: leave "
                   "the host out", h->uri);
        return false;
    }
    return true;
}

static bool check_memory_hosts(const RamMemoryHostList *hosts, Error **errp)
{
    const RamMemoryHostList *a, *b;
    unsigned n = 0;

    if (!hosts) {
        error_setg(errp, "strategy: memory-hosts is empty; use split null, or "
                   "split=off in HMP, to turn split memory off");
        return false;
    }
    for (a = hosts; a; a = a->next) {
        if (++n > SPLIT_MAX_HOSTS) {
            error_setg(errp, "strategy: more than %d memory hosts",
                       SPLIT_MAX_HOSTS);
            return false;
        }
        if (!check_memory_host(a->value, errp)) {
            return false;
        }
        for (b = hosts; b != a; b = b->next) {
            if (!strcmp(a->value->uri, b->value->uri)) {
                error_setg(errp, "strategy: memory host '%s' is given twice",
                           a->value->uri);
                return false;
            }
        }
    }
    return true;
}

/* What is wrong with the members of @p alone */
static bool check_split_members(const RamSplit *p, Error **errp)
{
    if (p->has_main_memory && !p->main_memory) {
        error_setg(errp, "strategy: main-memory is 0, but the destination "
                   "needs some memory to run the VM in");
        return false;
    }
    if (p->has_replicas && p->replicas != 1) {
        error_setg(errp, "strategy: replicas is %" PRIu32 ", but only 1 is "
                   "supported", p->replicas);
        return false;
    }
    return !p->has_memory_hosts || check_memory_hosts(p->memory_hosts, errp);
}

static void merge_split(RamSplit **split, const RamSplit *p)
{
    RamSplit *s = *split;

    if (!s) {
        s = *split = g_new0(RamSplit, 1);
        s->has_placement = true;
        s->placement = RAM_PLACEMENT_HOT;
        s->has_replicas = true;
        s->replicas = 1;
    }
    if (p->has_main_memory) {
        s->has_main_memory = true;
        s->main_memory = p->main_memory;
    }
    if (p->has_memory_hosts) {
        qapi_free_RamMemoryHostList(s->memory_hosts);
        s->has_memory_hosts = true;
        s->memory_hosts = QAPI_CLONE(RamMemoryHostList, p->memory_hosts);
    }
    if (p->has_placement) {
        s->placement = p->placement;
    }
    if (p->has_replicas) {
        s->replicas = p->replicas;
    }
}

bool strategy_config_merge(StrategyConfig *c, const RamStrategy *p,
                           Error **errp)
{
    bool set_split = p->split && p->split->type == QTYPE_QDICT;

    if (p->has_passes && !p->passes) {
        error_setg(errp, "strategy: passes is 0, but mode 'hybrid' makes at "
                   "least 1 pre-copy pass; use mode 'postcopy' for none");
        return false;
    }
    if (set_split && !check_split_members(&p->split->u.split, errp)) {
        return false;
    }
    if (p->has_mode) {
        c->mode = p->mode;
    }
    if (p->has_passes) {
        c->passes = p->passes;
    }
    if (p->has_background) {
        c->background = p->background;
    }
    if (p->has_redirectable) {
        c->redirectable = p->redirectable;
    }
    if (set_split) {
        merge_split(&c->split, &p->split->u.split);
    } else if (p->split) {
        strategy_config_clear(c);
    }
    return true;
}

RamStrategy *strategy_config_to_param(const StrategyConfig *c)
{
    RamStrategy *p = g_new0(RamStrategy, 1);

    p->has_mode = true;
    p->mode = c->mode;
    p->has_passes = true;
    p->passes = c->passes;
    p->has_background = true;
    p->background = c->background;
    p->has_redirectable = true;
    p->redirectable = c->redirectable;
    if (c->split) {
        RamSplit *split = QAPI_CLONE(RamSplit, c->split);

        p->split = g_new0(RamSplitSetting, 1);
        p->split->type = QTYPE_QDICT;
        p->split->u.split = *split;
        g_free(split);
    }
    return p;
}

RamStrategy *strategy_config_parse(const char *keyval, Error **errp)
{
    g_autoptr(QDict) dict = keyval_parse(keyval, "mode", NULL, errp);
    RamStrategy *p = NULL;
    Visitor *v;

    if (!dict) {
        return NULL;
    }
    v = qobject_input_visitor_new_keyval(QOBJECT(dict));
    visit_type_RamStrategy(v, NULL, &p, errp);
    visit_free(v);
    return p;
}

/*
 * What no strategy works with
 *
 * @what: the strategy, for the sentence
 * @instead: how to do without it
 */
static bool check_clashes(const char *what, const char *instead,
                          const StrategyContext *ctx, Error **errp)
{
    if (ctx->multifd) {
        error_setg(errp, "%s does not work with the multifd capability: "
                   "switch multifd off, or %s", what, instead);
        return false;
    }
    if (ctx->rdma) {
        error_setg(errp, "%s does not work over RDMA: use another transport, "
                   "or %s", what, instead);
        return false;
    }
    if (ctx->file) {
        error_setg(errp, "%s needs a destination that answers, which a file "
                   "cannot: migrate to a socket, or %s", what, instead);
        return false;
    }
    if (ctx->colo) {
        error_setg(errp, "%s does not work with the x-colo capability: switch "
                   "x-colo off, or %s", what, instead);
        return false;
    }
    if (ctx->snapshot) {
        error_setg(errp, "%s does not work with the background-snapshot "
                   "capability: switch that off, or %s", what, instead);
        return false;
    }
    if (ctx->cpr) {
        error_setg(errp, "%s does not work with migration modes other than "
                   "'normal' (CPR): %s", what, instead);
        return false;
    }
    return true;
}

/* What split memory does not work with, although other strategies may */
static bool check_split_clashes(const StrategyContext *ctx, Error **errp)
{
    const struct {
        bool on;
        const char *name, *why;
    } clashes[] = {
        { ctx->postcopy_ram, "postcopy-ram", "memory is not moved twice" },
        { ctx->xbzrle, "xbzrle", "memory hosts store whole pages" },
        { ctx->mapped_ram, "mapped-ram", "its pages have fixed places" },
        { ctx->ignore_shared, "x-ignore-shared", "all RAM has to move" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(clashes); i++) {
        if (clashes[i].on) {
            error_setg(errp, "split memory does not work with the %s "
                       "capability, as %s: switch %s off, or split",
                       clashes[i].name, clashes[i].why, clashes[i].name);
            return false;
        }
    }
    if (ctx->exec) {
        error_setg(errp, "split memory needs a destination that answers, "
                   "which a program cannot: migrate to a socket, or switch "
                   "split off");
        return false;
    }
    return true;
}

static bool check_split(const StrategyConfig *c, const StrategyContext *ctx,
                        Error **errp)
{
    if (!c->split->has_main_memory) {
        error_setg(errp, "strategy: split memory needs main-memory, how many "
                   "bytes the destination may use");
        return false;
    }
    if (!c->split->has_memory_hosts) {
        error_setg(errp, "strategy: split memory needs memory-hosts, where to "
                   "store the rest");
        return false;
    }
    if (strategy_mode_uses_postcopy(c->mode)) {
        error_setg(errp, "split memory does not work with strategy mode '%s': "
                   "use mode 'precopy', or switch split off",
                   RamStrategyMode_str(c->mode));
        return false;
    }
    if (c->redirectable) {
        error_setg(errp, "split memory cannot be redirected: switch "
                   "redirectable off, or split");
        return false;
    }
    return check_clashes("split memory", "switch split off", ctx, errp) &&
           check_split_clashes(ctx, errp);
}

bool strategy_config_check(const StrategyConfig *c, const StrategyContext *ctx,
                           Error **errp)
{
    g_autofree char *what = g_strdup_printf("strategy mode '%s'",
                                            RamStrategyMode_str(c->mode));

    if (c->split && !check_split(c, ctx, errp)) {
        return false;
    }
    if (c->redirectable &&
        !check_clashes("a redirectable migration", "switch redirectable off",
                       ctx, errp)) {
        return false;
    }
    if (!strategy_mode_uses_postcopy(c->mode)) {
        return true;
    }
    if (!check_clashes(what, "use strategy mode 'precopy'", ctx, errp)) {
        return false;
    }
    if (!ctx->postcopy_ram) {
        error_setg(errp, "%s uses post-copy, but the postcopy-ram capability "
                   "is off: switch it on at the source and the destination, "
                   "or use mode 'precopy'", what);
        return false;
    }
    return true;
}

static const struct {
    uint8_t wire;
    RamStrategyMode mode;
} wire_modes[] = {
    { STRATEGY_WIRE_MODE_PRECOPY, RAM_STRATEGY_MODE_PRECOPY },
    { STRATEGY_WIRE_MODE_POSTCOPY, RAM_STRATEGY_MODE_POSTCOPY },
    { STRATEGY_WIRE_MODE_HYBRID, RAM_STRATEGY_MODE_HYBRID },
    { STRATEGY_WIRE_MODE_AUTO, RAM_STRATEGY_MODE_AUTO },
};
QEMU_BUILD_BUG_ON(ARRAY_SIZE(wire_modes) != RAM_STRATEGY_MODE__MAX);

void strategy_config_encode(const StrategyConfig *c, uint8_t *buf)
{
    memset(buf, 0, STRATEGY_WIRE_CONFIG_LEN);
    for (size_t i = 0; i < ARRAY_SIZE(wire_modes); i++) {
        if (wire_modes[i].mode == c->mode) {
            buf[0] = wire_modes[i].wire;
        }
    }
    buf[1] = (c->background ? STRATEGY_WIRE_BACKGROUND : 0) |
             (c->redirectable ? STRATEGY_WIRE_REDIRECTABLE : 0);
    stl_be_p(buf + 4, c->passes);
}

bool strategy_config_decode(StrategyConfig *c, const uint8_t *buf, size_t len,
                            Error **errp)
{
    size_t i;

    if (len != STRATEGY_WIRE_CONFIG_LEN) {
        error_setg(errp, "ram-strategy: configuration of %zu bytes, "
                   "expected %d", len, STRATEGY_WIRE_CONFIG_LEN);
        return false;
    }
    for (i = 0; i < ARRAY_SIZE(wire_modes); i++) {
        if (wire_modes[i].wire == buf[0]) {
            break;
        }
    }
    if (i == ARRAY_SIZE(wire_modes)) {
        error_setg(errp, "ram-strategy: the source uses mode %d, which this "
                   "QEMU does not know", buf[0]);
        return false;
    }
    if (buf[1] & ~(STRATEGY_WIRE_BACKGROUND | STRATEGY_WIRE_REDIRECTABLE) ||
        lduw_be_p(buf + 2)) {
        error_setg(errp, "ram-strategy: the source uses flags 0x%02x/0x%04x, "
                   "which this QEMU does not know", buf[1],
                   lduw_be_p(buf + 2));
        return false;
    }
    if (!ldl_be_p(buf + 4)) {
        error_setg(errp, "ram-strategy: configuration with 0 passes");
        return false;
    }
    c->mode = wire_modes[i].mode;
    c->background = buf[1] & STRATEGY_WIRE_BACKGROUND;
    c->redirectable = buf[1] & STRATEGY_WIRE_REDIRECTABLE;
    c->passes = ldl_be_p(buf + 4);
    return true;
}
