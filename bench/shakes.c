/* Handshakes: threads that connect, are let in, leave, and connect again.
 *
 *     shakes [OPTION]… PORT null|plain|curve [CREDENTIALS]
 *
 *     --threads N (16)   --warmup S  --seconds S (0.5, 3)
 *     --source A         connect from this address (127.x.y.z)
 *     --sources N        … and from the N - 1 that follow it, each handshake from another in turn
 *     --pause S          between a handshake and the next of the same thread (0)
 *     --again            a client that was turned away comes back after 10 ms until it is in, as libzmq's would, and
 *                        its time runs on; after 10 s it gives up, and that is its time. Else the first that is not
 *                        let in ends the run.
 *
 * Counted is a handshake when the server's READY has been received (and under CURVE opened): greeting, commands, and
 * whatever the server asks its ZAP handler. CREDENTIALS: lines "name password"; or for CURVE clients of 96 octets,
 * each thread its share of them. A client brings a short-term key pair, made before the clock runs (256 a thread, in
 * turn): that work is the client's, and its core is to outrun the server's.
 *
 * One line of JSON; exit status 1 when somebody was refused, or without --again not let in; 2 when it could not run.
 */

#define _GNU_SOURCE
#include "zmtp.h"
#include <getopt.h>
#include <pthread.h>

enum { SHORT_TERMS = 256, MAX_THREADS = 256, AGAIN_NS = 10000000, GIVE_UP_S = 10 };

static int mechanism, thread_count = 16, come_again;
static struct sockaddr_in server, source;
static uint32_t source_count;
static struct credentials *all;
static size_t all_count;
static double pause_s;
static uint64_t begin, end;

struct client {
    pthread_t thread;
    int number;
    uint64_t done, attempts, outcomes[STRANGE + 1], failed, gave_up;
    struct latencies latencies;
};

static struct client clients[MAX_THREADS];
static pthread_barrier_t ready;
static pthread_mutex_t merging = PTHREAD_MUTEX_INITIALIZER;
static struct latencies together;

static enum outcome connect_once(const struct credentials *who, const struct short_term *mine, uint32_t place) {
    struct cipher cipher;
    struct sockaddr_in from = source;
    from.sin_addr.s_addr = htonl(ntohl(source.sin_addr.s_addr) + place);
    int fd = open_socket(&server, source_count > 0 ? &from : NULL);
    if (fd < 0) {
        if (errno == EADDRNOTAVAIL)
            die("no local port is left");
        return CLOSED;
    }
    enum outcome outcome = shake_hands(fd, who, mine, &cipher);
    close(fd);
    return outcome;
}

static void *work(void *argument) {
    struct client *me = argument;
    struct short_term *mine = calloc(SHORT_TERMS, sizeof *mine);
    if (mine == NULL)
        die("no memory");
    if (mechanism == CURVE)
        for (int i = 0; i < SHORT_TERMS; i++)
            make_short_term(&mine[i], all->server);
    open_latencies(&me->latencies);
    pthread_barrier_wait(&ready);
    pthread_barrier_wait(&ready); /* the clock is set between the two */
    for (uint64_t turn = 0, at; (at = now_ns()) < end; turn++) {
        size_t number = (size_t)me->number + turn * (size_t)thread_count, which = number % all_count;
        uint32_t place = source_count > 0 ? (uint32_t)(number % source_count) : 0;
        enum outcome outcome;
        for (;;) {
            outcome = connect_once(&all[which], &mine[turn % SHORT_TERMS], place);
            me->attempts++;
            if (outcome == DONE || !come_again || outcome == REFUSED || now_ns() - at > GIVE_UP_S * 1000000000ull)
                break;
            me->outcomes[outcome]++;
            sleep_until(now_ns() + AGAIN_NS);
        }
        uint64_t over = now_ns();
        me->outcomes[outcome]++;
        if (outcome != DONE && (!come_again || outcome == REFUSED)) {
            me->failed++;
            break;
        }
        if (outcome != DONE)
            me->gave_up++;
        else if (over >= begin && over < end)
            me->done++;
        /* Whoever had begun in time counts to the end, else the slowest would be left out. */
        if (at >= begin)
            add_latency(&me->latencies, over - at);
        if (pause_s > 0)
            sleep_until(over + (uint64_t)(pause_s * 1e9));
    }
    pthread_mutex_lock(&merging);
    for (size_t step = 0; step <= me->latencies.longest; step++)
        together.counters[step] += me->latencies.counters[step];
    together.count += me->latencies.count;
    if (me->latencies.longest > together.longest)
        together.longest = me->latencies.longest;
    pthread_mutex_unlock(&merging);
    free(me->latencies.counters);
    free(mine);
    return NULL;
}

int main(int argc, char **argv) {
    program = "shakes";
    double warmup = 0.5, seconds = 3;
    int option;
    static const struct option options[] = {
        {"threads", 1, NULL, 't'}, {"warmup", 1, NULL, 'w'}, {"seconds", 1, NULL, 's'}, {"source", 1, NULL, 'a'},
        {"sources", 1, NULL, 'n'}, {"pause", 1, NULL, 'p'}, {"again", 0, NULL, 'g'}, {NULL, 0, NULL, 0},
    };
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 't': thread_count = atoi(optarg); break;
        case 'w': warmup = atof(optarg); break;
        case 's': seconds = atof(optarg); break;
        case 'a':
            source.sin_family = AF_INET;
            if (inet_pton(AF_INET, optarg, &source.sin_addr) != 1)
                die_of("--source is an IPv4 address");
            if (source_count == 0)
                source_count = 1;
            break;
        case 'n': source_count = (uint32_t)atoi(optarg); break;
        case 'p': pause_s = atof(optarg); break;
        case 'g': come_again = 1; break;
        default: return 2;
        }
    }
    static const char *names[] = {"null", "plain", "curve"};
    const char *wanted = argc - optind >= 2 ? argv[optind + 1] : "";
    while (mechanism < 3 && strcmp(wanted, names[mechanism]) != 0)
        mechanism++;
    if (mechanism == 3 || argc - optind != (mechanism == NULL_ ? 2 : 3) || thread_count < 1
        || thread_count > MAX_THREADS || (source_count > 0) != (source.sin_family == AF_INET)) {
        fprintf(stderr, "usage: shakes [OPTION]... PORT null|plain|curve [CREDENTIALS]; see its source\n");
        return 2;
    }
    if (sodium_init() < 0)
        die_of("libsodium does not start");
    server = loopback(argv[optind]);
    static struct credentials nobody = {.mechanism = NULL_};
    all = &nobody;
    all_count = 1;
    if (mechanism == PLAIN)
        all_count = read_users(argv[optind + 2], &all);
    if (mechanism == CURVE)
        all_count = read_clients(argv[optind + 2], &all);
    open_latencies(&together);

    stage = "connecting";
    pthread_barrier_init(&ready, NULL, (unsigned)thread_count + 1);
    for (int i = 0; i < thread_count; i++) {
        clients[i].number = i;
        if (pthread_create(&clients[i].thread, NULL, work, &clients[i]) != 0)
            die("no thread");
    }
    pthread_barrier_wait(&ready);
    uint64_t start = now_ns();
    double cpu_before = cpu_seconds();
    begin = start + (uint64_t)(warmup * 1e9);
    end = begin + (uint64_t)(seconds * 1e9);
    pthread_barrier_wait(&ready);
    uint64_t done = 0, attempts = 0, failed = 0, gave_up = 0, outcomes[STRANGE + 1] = {0};
    for (int i = 0; i < thread_count; i++) {
        pthread_join(clients[i].thread, NULL);
        done += clients[i].done;
        attempts += clients[i].attempts;
        failed += clients[i].failed;
        gave_up += clients[i].gave_up;
        for (int k = 0; k <= STRANGE; k++)
            outcomes[k] += clients[i].outcomes[k];
    }
    double cpu = (cpu_seconds() - cpu_before) / (1e-9 * (double)(now_ns() - start));
    printf("{\"handshakes\": %llu, \"seconds\": %.3f, \"rate\": %.1f, \"attempts\": %llu, \"closed\": %llu, "
           "\"silent\": %llu, \"refused\": %llu, \"strange\": %llu, \"gave_up\": %llu, ",
           (unsigned long long)done, seconds, (double)done / seconds, (unsigned long long)attempts,
           (unsigned long long)outcomes[CLOSED], (unsigned long long)outcomes[SILENT],
           (unsigned long long)outcomes[REFUSED], (unsigned long long)outcomes[STRANGE],
           (unsigned long long)gave_up);
    print_latencies(&together);
    printf(", \"cpu\": %.3f}\n", cpu);
    return failed > 0 || (done == 0 && !come_again);
}
