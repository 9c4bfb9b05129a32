/*
 * Redirect: TLS credentials of the page link between two destinations
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "migration/migration.h"
#include "migration/options.h"
#include "qom/object_interfaces.h"
#include "creds.h"

/* No reference of its own */
static QCryptoTLSCreds *named_creds(Error **errp)
{
    const char *id = migrate_tls_creds();
    Object *obj = object_resolve_path_component(object_get_objects_root(), id);
    QCryptoTLSCreds *creds;

    creds = obj ? (QCryptoTLSCreds *)object_dynamic_cast(
                      obj, TYPE_QCRYPTO_TLS_CREDS) : NULL;
    if (!creds) {
        error_setg(errp, "redirect: tls-creds '%s' are no TLS credentials",
                   id);
    }
    return creds;
}

QCryptoTLSCreds *redirect_creds_server(Error **errp)
{
    QCryptoTLSCreds *creds = named_creds(errp);

    if (!creds ||
        !qcrypto_tls_creds_check_endpoint(creds,
                                          QCRYPTO_TLS_CREDS_ENDPOINT_SERVER,
                                          errp)) {
        return NULL;
    }
    object_ref(OBJECT(creds));
    return creds;
}

/* Give @to the value that @from has, if both have such a property */
static bool copy_property(Object *to, Object *from, const char *name,
                          Error **errp)
{
    g_autofree char *value = NULL;

    if (!object_property_find(from, name)) {
        return true;
    }
    value = object_property_get_str(from, name, NULL);
    return !value || !*value || object_property_set_str(to, name, value, errp);
}

QCryptoTLSCreds *redirect_creds_client(Error **errp)
{
    static const char *const same[] = {
        "dir", "priority", "passwordid", "username"
    };
    QCryptoTLSCreds *creds = named_creds(errp);
    Object *client;

    if (!creds) {
        return NULL;
    }
    if (qcrypto_tls_creds_check_endpoint(creds,
                                         QCRYPTO_TLS_CREDS_ENDPOINT_CLIENT,
                                         NULL)) {
        object_ref(OBJECT(creds));
        return creds;
    }
    client = object_new(object_get_typename(OBJECT(creds)));
    for (unsigned i = 0; i < ARRAY_SIZE(same); i++) {
        if (!copy_property(client, OBJECT(creds), same[i], errp)) {
            goto fail;
        }
    }
    if (object_property_set_str(client, "endpoint", "client", errp) &&
        user_creatable_complete(USER_CREATABLE(client), errp)) {
        return QCRYPTO_TLS_CREDS(client);
    }

fail:
    error_prepend(errp, "redirect: no credentials of a client beside those "
                  "of tls-creds: ");
    object_unref(client);
    return NULL;
}
