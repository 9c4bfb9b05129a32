/*
 * memserver: what a memory host's status looks like to a person and a program
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MEMSERVER_STATUS_H
#define MEMSERVER_STATUS_H

#include "client.h"

/**
 * ms_status_format:
 * @json: as a JSON object, else as a table
 *
 * Returns: text that ends with a newline, to be freed with g_free()
 */
char *ms_status_format(const PageLinkStatus *status,
                       const PageLinkSessionStatus *sessions, uint32_t n,
                       bool json);

#endif /* MEMSERVER_STATUS_H */
