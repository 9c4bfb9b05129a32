/*
 * Redirect: TLS credentials of the page link between two destinations
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_STRATEGY_REDIRECT_CREDS_H
#define MIGRATION_STRATEGY_REDIRECT_CREDS_H

#include "crypto/tlscreds.h"

/*
 * redirect_creds_server: those of the migration parameter tls-creds
 *
 * Main thread.  The caller owns a reference; NULL on error.
 */
QCryptoTLSCreds *redirect_creds_server(Error **errp);

/*
 * redirect_creds_client: for the relay
 *
 * An old destination was given the credentials of a server.  Here it is a
 * client, and takes the client's from the same directory.
 *
 * Main thread.  The caller owns a reference; NULL on error.
 */
QCryptoTLSCreds *redirect_creds_client(Error **errp);

#endif
