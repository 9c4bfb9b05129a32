/*
 * What libFuzzer calls
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

/* LLVMFuzzerTestOneInput: try one input; returns 0 */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* LLVMFuzzerInitialize: before the first one, where there is such a thing */
int LLVMFuzzerInitialize(int *argc, char ***argv);

#endif
