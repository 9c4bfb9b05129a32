/*
 * memserver: is this memory host all right, and how fast is it from here
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MEMSERVER_SELFTEST_H
#define MEMSERVER_SELFTEST_H

#include "client.h"

typedef struct MsSelftestOptions {
    SocketAddress *addr;
    QCryptoTLSCreds *tls_creds;
    const char *tls_hostname;
    uint64_t pages;
    uint32_t connections;
    uint32_t batch;
    uint32_t window;            /* GETs under way on each connection */
    uint32_t latency_count;     /* single-page GETs measured */
    uint32_t zero_percent;
    uint32_t repeat;            /* times that each measurement is made */
    bool checksum;
    bool verify;                /* compare every page, try what must fail */
    bool keep;                  /* leave the session behind */
    bool json;
} MsSelftestOptions;

void ms_selftest_defaults(MsSelftestOptions *options);

/**
 * ms_selftest_run: prints what it finds on stdout
 *
 * Returns: false if the memory host is not all right
 */
bool ms_selftest_run(const MsSelftestOptions *options, Error **errp);

#endif /* MEMSERVER_SELFTEST_H */
