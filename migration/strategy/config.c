/*
 * Configuration of a migration's strategy
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/keyval.h"
#include "qapi/error.h"
#include "qapi/qapi-visit-strategy.h"
#include "qapi/qobject-input-visitor.h"
#include "qobject/qdict.h"
#include "config.h"

bool strategy_config_merge(StrategyConfig *c, const RamStrategy *p,
                           Error **errp)
{
    if (p->has_passes && !p->passes) {
        error_setg(errp, "strategy: passes is 0, but mode 'hybrid' makes at "
                   "least 1 pre-copy pass; use mode 'postcopy' for none");
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

bool strategy_config_check(const StrategyConfig *c, const StrategyContext *ctx,
                           Error **errp)
{
    const char *mode = RamStrategyMode_str(c->mode);

    if (!strategy_mode_uses_postcopy(c->mode)) {
        return true;
    }
    if (ctx->multifd) {
        error_setg(errp, "strategy mode '%s' uses post-copy, which does not "
                   "work with the multifd capability: switch multifd off, or "
                   "use mode 'precopy'", mode);
        return false;
    }
    if (ctx->rdma) {
        error_setg(errp, "strategy mode '%s' does not work over RDMA: use "
                   "another transport, or mode 'precopy'", mode);
        return false;
    }
    if (ctx->file) {
        error_setg(errp, "strategy mode '%s' uses post-copy, which a file "
                   "cannot answer: migrate to a socket, or use mode "
                   "'precopy'", mode);
        return false;
    }
    if (ctx->colo) {
        error_setg(errp, "strategy mode '%s' does not work with the x-colo "
                   "capability: switch x-colo off, or use mode 'precopy'",
                   mode);
        return false;
    }
    if (ctx->snapshot) {
        error_setg(errp, "strategy mode '%s' does not work with the "
                   "background-snapshot capability: switch that off, or use "
                   "mode 'precopy'", mode);
        return false;
    }
    if (ctx->cpr) {
        error_setg(errp, "strategy mode '%s' does not work with migration "
                   "modes other than 'normal' (CPR): use strategy mode "
                   "'precopy'", mode);
        return false;
    }
    if (!ctx->postcopy_ram) {
        error_setg(errp, "strategy mode '%s' uses post-copy, but the "
                   "postcopy-ram capability is off: switch it on at the "
                   "source and the destination, or use mode 'precopy'", mode);
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
    buf[1] = c->background ? STRATEGY_WIRE_BACKGROUND : 0;
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
    if (buf[1] & ~STRATEGY_WIRE_BACKGROUND || lduw_be_p(buf + 2)) {
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
    c->passes = ldl_be_p(buf + 4);
    return true;
}
