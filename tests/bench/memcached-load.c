/*
 * What memcached does with values of the size of a page, for comparison
 *
 *   memcached-load PORT CONNECTIONS KEYS BATCH set|get|latency
 *
 * set: pipelined sets, BATCH at once; get: multigets of BATCH keys; latency:
 * single gets.  Random order without repetition.  Prints a rate (values a
 * second), or p50 and p99 in microseconds.
 *
 * Stand-alone on purpose (libc only): it is compiled by tests/bench/memserver.py.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define VALUE   4096
#define MAX     256

static int port, batch;
static char *mode;
static char value[VALUE + 3];

typedef struct Worker {
    pthread_t thread;
    uint64_t first, keys;
    double *us;
} Worker;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static int dial(void)
{
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_port = htons(port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;

    if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0) {
        die("connect");
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    return fd;
}

static void send_all(int fd, struct iovec *iov, int n)
{
    while (n) {
        ssize_t done = writev(fd, iov, n);

        if (done <= 0) {
            die("write");
        }
        while (n && (size_t)done >= iov->iov_len) {
            done -= iov->iov_len;
            iov++;
            n--;
        }
        if (n) {
            iov->iov_base = (char *)iov->iov_base + done;
            iov->iov_len -= done;
        }
    }
}

/* The answers are as long as they must be, or something is wrong */
static void receive(int fd, char *buf, size_t want)
{
    while (want) {
        ssize_t n = recv(fd, buf, want, 0);

        if (n <= 0) {
            die("read");
        }
        buf += n;
        want -= n;
    }
}

static void do_set(int fd, const uint64_t *keys, int n, char *buf)
{
    static const char reply[] = "STORED\r\n";
    char heads[MAX][64];
    struct iovec iov[2 * MAX];
    int i;

    for (i = 0; i < n; i++) {
        iov[2 * i].iov_base = heads[i];
        iov[2 * i].iov_len = sprintf(heads[i], "set k%09lu 0 0 %d\r\n",
                                     (unsigned long)keys[i], VALUE);
        iov[2 * i + 1].iov_base = value;
        iov[2 * i + 1].iov_len = VALUE + 2;
    }
    send_all(fd, iov, 2 * n);
    receive(fd, buf, n * (sizeof(reply) - 1));
    for (i = 0; i < n; i++) {
        if (memcmp(buf + i * (sizeof(reply) - 1), reply, sizeof(reply) - 1)) {
            fprintf(stderr, "memcached refused a set\n");
            exit(1);
        }
    }
}

static void do_get(int fd, const uint64_t *keys, int n, char *buf)
{
    char text[16 + MAX * 12];
    struct iovec iov = { text, 0 };
    size_t len = sprintf(text, "get"), want;
    int i;

    for (i = 0; i < n; i++) {
        len += sprintf(text + len, " k%09lu", (unsigned long)keys[i]);
    }
    len += sprintf(text + len, "\r\n");
    iov.iov_len = len;
    send_all(fd, &iov, 1);
    /* "VALUE k000000000 0 4096\r\n" value "\r\n" each, then "END\r\n" */
    want = (size_t)n * (25 + VALUE + 2) + 5;
    receive(fd, buf, want);
    if (memcmp(buf + want - 5, "END\r\n", 5)) {
        fprintf(stderr, "memcached has not all values\n");
        exit(1);
    }
}

static void *work(void *opaque)
{
    Worker *w = opaque;
    char *buf = malloc((size_t)MAX * (VALUE + 64));
    uint64_t mask = 1, step, at = 0, left = w->keys, done = 0;
    int fd = dial();

    while (mask < w->keys) {
        mask *= 2;
    }
    mask--;
    step = (0x9e3779b97f4a7c15ULL & mask) | 1;
    while (left) {
        uint64_t keys[MAX];
        int n = left < (uint64_t)batch ? (int)left : batch, i;
        double began;

        for (i = 0; i < n; i++) {
            do {
                at = (at + step) & mask;
            } while (at >= w->keys);
            keys[i] = w->first + at;
        }
        began = now();
        if (!strcmp(mode, "set")) {
            do_set(fd, keys, n, buf);
        } else {
            do_get(fd, keys, n, buf);
        }
        if (w->us) {
            w->us[done++] = (now() - began) * 1e6;
        }
        left -= n;
    }
    close(fd);
    free(buf);
    return NULL;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    int connections, i;
    uint64_t keys, share;
    Worker *workers;
    bool latency;
    double began;

    if (argc != 6) {
        fprintf(stderr, "see the head of %s\n", __FILE__);
        return 1;
    }
    port = atoi(argv[1]);
    connections = atoi(argv[2]);
    keys = strtoull(argv[3], NULL, 10);
    batch = atoi(argv[4]);
    mode = argv[5];
    latency = !strcmp(mode, "latency");
    if (latency) {
        batch = connections = 1;
    }
    if (batch < 1 || batch > MAX || connections < 1 || !keys) {
        return 1;
    }
    memset(value, 'v', VALUE);
    memcpy(value + VALUE, "\r\n", 2);
    workers = calloc(connections, sizeof(*workers));
    share = (keys + connections - 1) / connections;
    began = now();
    for (i = 0; i < connections; i++) {
        workers[i].first = i * share;
        workers[i].keys = share < keys - i * share ? share : keys - i * share;
        workers[i].us = latency ? calloc(keys, sizeof(double)) : NULL;
        if (pthread_create(&workers[i].thread, NULL, work, &workers[i])) {
            die("pthread_create");
        }
    }
    for (i = 0; i < connections; i++) {
        pthread_join(workers[i].thread, NULL);
    }
    if (latency) {
        qsort(workers[0].us, keys, sizeof(double), compare);
        printf("%.2f %.2f\n", workers[0].us[keys / 2],
               workers[0].us[keys * 99 / 100]);
    } else {
        printf("%.0f\n", keys / (now() - began));
    }
    return 0;
}
