/*
 * Tests of redirect: certificates for all
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "libqtest.h"
#include "tests/unit/crypto-tls-x509-helpers.h"
#include "migration/migration-qmp.h"
#include "migration/strategy-redirect-util.h"

/* One folder for all: the relay is a client beside what it was a server with */
static const char *const files[] = {
    "server-key.pem", "client-key.pem", "ca-cert.pem", "server-cert.pem",
    "client-cert.pem",
};

static char *path_of(const char *name)
{
    return g_build_filename(migration_get_env()->tmpfs, "redirect-x509", name,
                            NULL);
}

static void make_certificates(void)
{
    g_autofree char *dir = path_of(NULL);
    g_autofree char *key = path_of("key.pem");
    g_autofree char *server_key = path_of("server-key.pem");
    g_autofree char *client_key = path_of("client-key.pem");
    g_autofree char *ca = path_of("ca-cert.pem");
    g_autofree char *server = path_of("server-cert.pem");
    g_autofree char *client = path_of("client-cert.pem");

    g_assert(!g_mkdir_with_parents(dir, 0700));
    test_tls_init(key);
    g_assert(!link(key, server_key) && !link(key, client_key));
    TLS_ROOT_REQ_SIMPLE(ca_req, ca);
    TLS_CERT_REQ_SIMPLE_CLIENT(client_req, ca_req,
                               QCRYPTO_TLS_TEST_CLIENT_NAME, client);
    TLS_CERT_REQ_SIMPLE_SERVER(server_req, ca_req, server, NULL, "127.0.0.1");
    test_tls_deinit_cert(&client_req);
    test_tls_deinit_cert(&server_req);
    test_tls_deinit_cert(&ca_req);
}

void redirect_x509_set_up(QTestState *who, bool source)
{
    g_autofree char *dir = path_of(NULL);

    if (!g_file_test(dir, G_FILE_TEST_EXISTS)) {
        make_certificates();
    }
    qtest_qmp_assert_success(who, "{ 'execute': 'object-add',"
                             "  'arguments': { 'qom-type': 'tls-creds-x509',"
                             "    'id': 'tls0', 'endpoint': %s, 'dir': %s,"
                             "    'verify-peer': true } }",
                             source ? "client" : "server", dir);
    migrate_set_parameter_str(who, "tls-creds", "tls0");
}

void redirect_x509_clean(void)
{
    g_autofree char *dir = path_of(NULL);

    g_autofree char *key = path_of("key.pem");

    for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
        g_autofree char *path = path_of(files[i]);

        unlink(path);
    }
    test_tls_cleanup(key);
    rmdir(dir);
}
