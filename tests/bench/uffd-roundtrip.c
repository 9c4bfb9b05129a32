/*
 * What a fault costs at least when its page comes over TCP: one userfaultfd,
 * one loopback connection, one page at a time
 *
 *   uffd-roundtrip FAULTS
 *
 * A process answers each request of 8 bytes with a page.  A thread reads one
 * fault, requests its page, receives it and installs it by UFFDIO_COPY.  The
 * main thread touches each page once, in random order.  Prints four times in
 * microseconds: p50 and p99 from the fault's being read to the page's being
 * there, and p50 and p99 of the whole touch.
 *
 * Stand-alone on purpose (libc only): tests/bench/split.py compiles it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE    4096

/* Set before there are threads, constant from then on */
static int uffd, sock;
static unsigned char *memory;
static size_t nr_pages;
/* Of the serving thread until it is joined */
static double *served;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static double now_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

static bool transfer(int fd, void *data, size_t len, bool out)
{
    for (size_t done = 0; done < len; ) {
        ssize_t n = out ? send(fd, (char *)data + done, len - done, 0)
                        : recv(fd, (char *)data + done, len - done, 0);

        if (n <= 0) {
            return false;
        }
        done += n;
    }
    return true;
}

static void no_delay(int fd)
{
    int one = 1;

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

/* The page is made up from its number: no more memory is touched than that */
static void answer(int listener)
{
    static unsigned char page[PAGE];
    uint64_t number;
    int fd = accept(listener, NULL, NULL);

    if (fd < 0) {
        die("accept");
    }
    no_delay(fd);
    while (transfer(fd, &number, sizeof(number), false)) {
        memcpy(page, &number, sizeof(number));
        if (!transfer(fd, page, sizeof(page), true)) {
            break;
        }
    }
    exit(0);
}

/* Start the server in a process of its own, and connect to it */
static pid_t start_server(void)
{
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    socklen_t len = sizeof(a);
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    pid_t pid;

    if (listener < 0 || bind(listener, (struct sockaddr *)&a, sizeof(a)) ||
        listen(listener, 1) ||
        getsockname(listener, (struct sockaddr *)&a, &len)) {
        die("listen");
    }
    pid = fork();
    if (pid < 0) {
        die("fork");
    } else if (!pid) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        answer(listener);
    }
    close(listener);
    sock = socket(AF_INET, SOCK_STREAM, 0);
    if (sock < 0 || connect(sock, (struct sockaddr *)&a, sizeof(a))) {
        die("connect");
    }
    no_delay(sock);
    return pid;
}

static void watch_memory(void)
{
    struct uffdio_api api = { .api = UFFD_API };
    struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };
    size_t size = nr_pages * PAGE;

    uffd = syscall(SYS_userfaultfd, O_CLOEXEC);
    if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api)) {
        die("userfaultfd");
    }
    memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED || madvise(memory, size, MADV_NOHUGEPAGE)) {
        die("mmap");
    }
    reg.range.start = (uintptr_t)memory;
    reg.range.len = size;
    if (ioctl(uffd, UFFDIO_REGISTER, &reg)) {
        die("UFFDIO_REGISTER");
    }
}

static void *serve(void *opaque)
{
    static unsigned char page[PAGE] __attribute__((aligned(PAGE)));

    for (size_t i = 0; i < nr_pages; i++) {
        struct uffd_msg msg;
        struct uffdio_copy copy = { .src = (uintptr_t)page, .len = PAGE };
        uint64_t number;
        double began;

        if (read(uffd, &msg, sizeof(msg)) != sizeof(msg) ||
            msg.event != UFFD_EVENT_PAGEFAULT) {
            die("read of the userfaultfd");
        }
        began = now_us();
        copy.dst = msg.arg.pagefault.address & ~(uint64_t)(PAGE - 1);
        number = (copy.dst - (uintptr_t)memory) / PAGE;
        if (!transfer(sock, &number, sizeof(number), true) ||
            !transfer(sock, page, sizeof(page), false)) {
            die("round trip");
        }
        if (ioctl(uffd, UFFDIO_COPY, &copy)) {
            die("UFFDIO_COPY");
        }
        served[i] = now_us() - began;
    }
    return opaque;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double percentile(double *values, double percent)
{
    qsort(values, nr_pages, sizeof(*values), compare);
    return values[(size_t)((nr_pages - 1) * percent / 100)];
}

/* Touch each page once, in random order; how long each took, into @touched */
static void touch_all(double *touched)
{
    uint32_t *order = calloc(nr_pages, sizeof(*order));
    uint64_t seed = 0x9e3779b97f4a7c15ULL, number;

    if (!order) {
        die("calloc");
    }
    for (size_t i = 0; i < nr_pages; i++) {
        size_t other;

        seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
        other = (seed >> 33) % (i + 1);
        order[i] = order[other];
        order[other] = i;
    }
    for (size_t i = 0; i < nr_pages; i++) {
        double began = now_us();

        number = __atomic_load_n(
            (uint64_t *)(memory + (size_t)order[i] * PAGE), __ATOMIC_RELAXED);
        touched[i] = now_us() - began;
        if (number != order[i]) {
            fprintf(stderr, "page %u has the content of another\n", order[i]);
            exit(1);
        }
    }
    free(order);
}

int main(int argc, char **argv)
{
    pthread_t thread;
    double *touched;
    pid_t server;

    if (argc != 2 || sscanf(argv[1], "%zu", &nr_pages) != 1 ||
        !nr_pages || nr_pages > UINT32_MAX) {
        fprintf(stderr, "usage: uffd-roundtrip FAULTS\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    served = calloc(nr_pages, sizeof(*served));
    touched = calloc(nr_pages, sizeof(*touched));
    if (!served || !touched) {
        die("calloc");
    }
    server = start_server();
    watch_memory();
    if (pthread_create(&thread, NULL, serve, NULL)) {
        die("pthread_create");
    }
    touch_all(touched);
    pthread_join(thread, NULL);
    close(sock);
    waitpid(server, NULL, 0);
    printf("%.2f %.2f %.2f %.2f\n", percentile(served, 50),
           percentile(served, 99), percentile(touched, 50),
           percentile(touched, 99));
    return 0;
}
