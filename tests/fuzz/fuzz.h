/*
 * What libFuzzer calls, and what harnesses with a socketpair share
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

/* LLVMFuzzerTestOneInput: try one input; returns 0 */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* LLVMFuzzerInitialize: before the first one, where there is such a thing */
int LLVMFuzzerInitialize(int *argc, char ***argv);

/*
 * fuzz_drain: take in what the other end of @fd says
 *
 * @wait: until it has closed; otherwise what has come so far
 *
 * Returns true when it has closed.
 */
bool fuzz_drain(int fd, bool wait);

/*
 * fuzz_send_all: send @size bytes, @step at a time at most
 *
 * Takes in what the other end says meanwhile, so that neither waits for the
 * other.  Returns false when the other end has closed.
 */
bool fuzz_send_all(int fd, const uint8_t *data, size_t size, size_t step);

/*
 * fuzz_send_input: send @size bytes, then nothing more, and wait until the
 * other end has closed, too
 *
 * @fd: closed afterwards
 * @bytewise: byte by byte
 */
void fuzz_send_input(int fd, const uint8_t *data, size_t size, bool bytewise);

#endif
