/*
 * Page link: checksum of a page, CRC-32C (Castagnoli)
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MEMSERVER_CHECKSUM_H
#define MEMSERVER_CHECKSUM_H

/**
 * pagelink_crc32c: of PAGELINK_PAGE_SIZE bytes, as in iSCSI (RFC 3720)
 */
uint32_t pagelink_crc32c(const void *page);

#endif /* MEMSERVER_CHECKSUM_H */
