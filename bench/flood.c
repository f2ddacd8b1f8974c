/* A flood of HELLOs that never go on, from many addresses.
 *
 *     flood [OPTION]… PORT CLIENTS
 *
 *     --rate R (10000)     new connections a second that are asked for
 *     --sources N (4096)   addresses they come from, 127.77.0.0 and on
 *     --seconds S (5)      at most; SIGTERM ends it sooner
 *     --open N (8000)      connections kept open; one more closes the oldest
 *
 * Each connection sends a greeting and a valid HELLO for the server in CLIENTS (as shakes.c reads them), and then
 * nothing: the server has its scalar multiplications to do, and a stranger to remember. 256 HELLOs are made before
 * the clock runs; a server cannot tell that they come again. One line of JSON: how many were asked for, opened, and
 * answered with a WELCOME before they were closed.
 */

#define _GNU_SOURCE
#include "zmtp.h"
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>

enum { HELLOS = 256, MAX_OPEN = 60000 };

static int ring[MAX_OPEN];
static volatile sig_atomic_t told_to_stop;

static void stop(int number) {
    told_to_stop = number;
}

/* Close one; whether a WELCOME had come. (The greeting alone is 64 octets.) */
static int finish(int fd) {
    uint8_t seen[GREETING + 2 + WELCOME];
    ssize_t got = recv(fd, seen, sizeof seen, MSG_DONTWAIT);
    close(fd);
    return got == (ssize_t)sizeof seen;
}

int main(int argc, char **argv) {
    program = "flood";
    double rate = 10000, seconds = 5;
    uint32_t sources = 4096;
    int keep = 8000, option;
    static const struct option options[] = {
        {"rate", 1, NULL, 'r'}, {"sources", 1, NULL, 'n'}, {"seconds", 1, NULL, 's'}, {"open", 1, NULL, 'o'},
        {NULL, 0, NULL, 0},
    };
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 'r': rate = atof(optarg); break;
        case 'n': sources = (uint32_t)atoi(optarg); break;
        case 's': seconds = atof(optarg); break;
        case 'o': keep = atoi(optarg); break;
        default: return 2;
        }
    }
    if (argc - optind != 2 || sources < 1 || rate <= 0 || keep < 1 || keep > MAX_OPEN) {
        fprintf(stderr, "usage: flood [OPTION]... PORT CLIENTS; see its source\n");
        return 2;
    }
    if (sodium_init() < 0)
        die_of("libsodium does not start");
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
        if ((rlim_t)keep + 64 > files.rlim_cur)
            keep = (int)files.rlim_cur - 64;
    }
    struct credentials *clients;
    read_clients(argv[optind + 1], &clients);
    static uint8_t firsts[HELLOS][GREETING + 2 + HELLO];
    for (int i = 0; i < HELLOS; i++) {
        struct short_term mine;
        make_short_term(&mine, clients->server);
        make_greeting(firsts[i], CURVE);
        memcpy(firsts[i] + GREETING, mine.hello, sizeof mine.hello);
    }
    struct sigaction action = {.sa_handler = stop};
    sigaction(SIGTERM, &action, NULL);
    prctl(PR_SET_TIMERSLACK, 1UL);

    stage = "flooding";
    struct sockaddr_in server = loopback(argv[optind]), source = {.sin_family = AF_INET};
    uint64_t start = now_ns(), end = start + (uint64_t)(seconds * 1e9), tried = 0, opened = 0, welcomed = 0, refused = 0;
    uint64_t asked, at;
    int first = 0, open = 0, one = 1;
    while ((at = now_ns()) < end && !told_to_stop) {
        asked = (uint64_t)((double)(at - start) * rate / 1e9);
        if (asked <= tried) {
            sleep_until(start + (uint64_t)((double)(tried + 1) * 1e9 / rate));
            continue;
        }
        tried++;
        if (open == keep) {
            welcomed += (uint64_t)finish(ring[first]);
            first = (first + 1) % MAX_OPEN;
            open--;
        }
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0)
            die("no socket");
        setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
        source.sin_addr.s_addr = htonl(0x7F4D0000u + (uint32_t)(tried % sources));
        const uint8_t *hello = firsts[tried % HELLOS];
        /* Over loopback a connection stands at once, or the server's queue is full. */
        if (bind(fd, (struct sockaddr *)&source, sizeof source) != 0
            || (connect(fd, (struct sockaddr *)&server, sizeof server) != 0 && errno != EINPROGRESS)
            || send(fd, hello, sizeof firsts[0], MSG_NOSIGNAL) != (ssize_t)sizeof firsts[0]) {
            close(fd);
            refused++;
            continue;
        }
        opened++;
        ring[(first + open++) % MAX_OPEN] = fd;
    }
    double took = 1e-9 * (double)(now_ns() - start);
    for (int i = 0; i < open; i++)
        welcomed += (uint64_t)finish(ring[(first + i) % MAX_OPEN]);
    printf("{\"asked\": %llu, \"tried\": %llu, \"opened\": %llu, \"not_opened\": %llu, \"welcomed\": %llu, "
           "\"seconds\": %.3f, \"rate\": %.1f}\n",
           (unsigned long long)(took * rate), (unsigned long long)tried, (unsigned long long)opened,
           (unsigned long long)refused, (unsigned long long)welcomed, took, (double)opened / took);
    return opened == 0;
}
