/*
 * Firmware for the tests of the RAM migration strategies
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * All it does is to copy the boot sector of the migration tests to where a
 * BIOS loads boot sectors, and to jump there: the sector needs no services.
 * A real BIOS takes half a minute until then under TCG on a slow host, and
 * leaves a machine behind whose devices now and then write to memory.
 */
#include "qemu/osdep.h"
#include "migration/bootfile.h"
#include "migration/strategy-util.h"

#define FIRMWARE_SIZE 0x10000
#define SECTOR_OFFSET 0x100
#define SECTOR_SIZE   0x200
#define RESET_OFFSET  0xfff0

static const uint8_t start[] = {
    0xfa,                               /* cli */
    0xfc,                               /* cld */
    0xbe, 0x00, 0x01,                   /* mov $SECTOR_OFFSET, %si */
    0xbf, 0x00, 0x7c,                   /* mov $0x7c00, %di */
    0xb9, 0x00, 0x02,                   /* mov $SECTOR_SIZE, %cx */
    0x2e, 0xf3, 0xa4,                   /* rep movsb %cs:(%si), %es:(%di) */
    0xea, 0x00, 0x7c, 0x00, 0x00,       /* ljmp $0, $0x7c00 */
};

static const uint8_t reset[] = {
    0xe9, 0x0d, 0x00,                   /* jmp start, modulo 64 KiB */
};

static char *firmware_path(void)
{
    return g_build_filename(migration_get_env()->tmpfs, "firmware", NULL);
}

char *strategy_firmware_create(void)
{
    MigrationTestEnv *env = migration_get_env();
    g_autofree char *image = g_malloc(FIRMWARE_SIZE);
    g_autofree char *sector = NULL;
    char *path = firmware_path();
    gsize len;

    g_assert(g_file_get_contents(bootfile_create(env->arch, env->tmpfs, false),
                                 &sector, &len, NULL));
    g_assert_cmpint(len, ==, SECTOR_SIZE);
    memset(image, 0xff, FIRMWARE_SIZE);
    memcpy(image, start, sizeof(start));
    memcpy(image + SECTOR_OFFSET, sector, SECTOR_SIZE);
    memcpy(image + RESET_OFFSET, reset, sizeof(reset));
    g_assert(g_file_set_contents(path, image, FIRMWARE_SIZE, NULL));
    return path;
}

void strategy_firmware_delete(void)
{
    g_autofree char *path = firmware_path();

    unlink(path);
}
