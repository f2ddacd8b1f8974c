/* The load: one ZMTP connection that keeps N ZAP questions under way and counts the answers.
 *
 *     loadgen HOST PORT KEYFILE IN_FLIGHT WARMUP SECONDS DOMAIN
 *
 * It speaks ZMTP 3.0 NULL itself (RFC 23) as a DEALER, on a bare socket, so that it outruns every server it
 * is put against: a question is a template with an id and a key copied in, an answer is looked at where it
 * lies. Each question brings 16 octets of id, as zapd's agent does, and a CURVE key drawn at random from
 * KEYFILE (32 octets each). Every answer must come back under an open id; its status is counted.
 *
 * One line of JSON on standard output; exit status 1 when an answer was wrong, 2 when it could not run.
 * It knows nothing about the server but its port.
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    MORE = 1, LONG = 2, COMMAND = 4,
    GREETING = 64,
    ID = 16,
    KEY = 32,
    REPLY_FRAMES = 8,
    MAX_IN_FLIGHT = 65536,
    HISTOGRAM = 2000000, /* microseconds, one counter each */
    BUFFER = 1 << 20,
    PATIENCE_MS = 10000
};

static const char *stage = "start";

static void die(const char *what) {
    fprintf(stderr, "loadgen: %s while: %s (%s)\n", what, stage, errno ? strerror(errno) : "no errno");
    exit(2);
}

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* xorshift64*: which key is asked next need not be unpredictable, only cheap and spread out. */
static uint64_t random_state = 0x9E3779B97F4A7C15u;
static uint64_t next_random(void) {
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return random_state * 0x2545F4914F6CDD1Du;
}

static void send_all(int fd, const uint8_t *data, size_t length) {
    while (length > 0) {
        ssize_t sent = send(fd, data, length, MSG_NOSIGNAL);
        if (sent < 0) {
            if (errno == EINTR)
                continue;
            die("send failed");
        }
        data += sent;
        length -= (size_t)sent;
    }
}

static size_t receive(int fd, uint8_t *data, size_t room) {
    struct pollfd watched = {fd, POLLIN, 0};
    for (;;) {
        int ready = poll(&watched, 1, PATIENCE_MS);
        if (ready == 0) {
            errno = 0;
            die("the server is silent");
        }
        if (ready < 0 && errno == EINTR)
            continue;
        ssize_t got = recv(fd, data, room, 0);
        if (got > 0)
            return (size_t)got;
        if (got == 0) {
            errno = 0;
            die("the server closed the connection");
        }
        if (errno != EINTR && errno != EAGAIN)
            die("recv failed");
    }
}

static void receive_exactly(int fd, uint8_t *data, size_t length) {
    while (length > 0) {
        size_t got = receive(fd, data, length);
        data += got;
        length -= got;
    }
}

/* --- ZMTP ------------------------------------------------------------------------------------------- */

static void shake_hands(int fd) {
    stage = "greeting";
    uint8_t greeting[GREETING] = {0xFF, 0, 0, 0, 0, 0, 0, 0, 0, 0x7F, 3, 0, 'N', 'U', 'L', 'L'};
    uint8_t theirs[GREETING];
    send_all(fd, greeting, sizeof greeting);
    receive_exactly(fd, theirs, sizeof theirs);
    if (theirs[0] != 0xFF || theirs[10] < 3 || memcmp(theirs + 12, "NULL\0", 5) != 0) {
        errno = 0;
        die("the server does not speak ZMTP 3 NULL");
    }
    stage = "READY";
    static const char ready[] = "\x05READY" "\x0BSocket-Type\0\0\0\x06" "DEALER" "\x08Identity\0\0\0\0";
    uint8_t head[2] = {COMMAND, sizeof ready - 1}, body[256];
    send_all(fd, head, 2);
    send_all(fd, (const uint8_t *)ready, sizeof ready - 1);
    receive_exactly(fd, head, 2);
    receive_exactly(fd, body, head[1]);
    if (head[0] != COMMAND || head[1] < 6 || memcmp(body, "\x05READY", 6) != 0) {
        errno = 0;
        die("the server did not answer with READY");
    }
}

static size_t put_frame(uint8_t *out, int more, const void *body, size_t length) {
    out[0] = more ? MORE : 0;
    out[1] = (uint8_t)length;
    memcpy(out + 2, body, length);
    return 2 + length;
}

/* --- the questions ---------------------------------------------------------------------------------- */

static uint8_t template[512];
static size_t template_length, key_at;
static const size_t id_at = 2;

static void make_template(const char *domain) {
    uint8_t nothing[KEY] = {0};
    size_t at = 0;
    at += put_frame(template + at, 1, nothing, ID);
    at += put_frame(template + at, 1, "", 0);
    at += put_frame(template + at, 1, "1.0", 3);
    at += put_frame(template + at, 1, "1", 1);
    at += put_frame(template + at, 1, domain, strlen(domain));
    at += put_frame(template + at, 1, "127.0.0.1", 9);
    at += put_frame(template + at, 1, "", 0);
    at += put_frame(template + at, 1, "CURVE", 5);
    key_at = at + 2;
    at += put_frame(template + at, 0, nothing, KEY);
    template_length = at;
}

struct slot {
    uint64_t asked_at; /* also the second half of the id: no two questions of a slot share it */
};

static struct slot slots[MAX_IN_FLIGHT];
static uint32_t *histogram;
static const uint8_t *keys;
static size_t key_count;
static uint64_t answers, by_status[6], strange, too_slow;
static int counting;

static size_t put_question(uint8_t *out, uint32_t number) {
    uint64_t at = now_ns();
    slots[number].asked_at = at;
    memcpy(out, template, template_length);
    memcpy(out + id_at, &number, 4);
    memcpy(out + id_at + 4, "zapd", 4);
    memcpy(out + id_at + 8, &at, 8);
    memcpy(out + key_at, keys + (next_random() % key_count) * KEY, KEY);
    return template_length;
}

/* One whole reply, its frames in place. Returns the slot that is free again, or -1. */
static int64_t take_reply(const uint8_t *const *frames, const size_t *lengths, int count, uint64_t at, int in_flight) {
    uint32_t number;
    uint64_t asked_at;
    if (count != REPLY_FRAMES || lengths[0] != ID || lengths[1] != 0) {
        strange++;
        return -1;
    }
    memcpy(&number, frames[0], 4);
    memcpy(&asked_at, frames[0] + 8, 8);
    if (number >= (uint32_t)in_flight || slots[number].asked_at != asked_at) {
        strange++;
        return -1;
    }
    int status = lengths[4] == 3 && memcmp(frames[4] + 1, "00", 2) == 0 ? frames[4][0] - '0' : 0;
    if (status < 2 || status > 5 || lengths[2] != 3 || memcmp(frames[2], "1.0", 3) != 0 || lengths[3] != 1
        || frames[3][0] != '1')
        status = 0;
    if (counting) {
        answers++;
        by_status[status]++;
        uint64_t us = (at - asked_at) / 1000;
        if (us < HISTOGRAM)
            histogram[us]++;
        else
            too_slow++;
    }
    slots[number].asked_at = 0;
    return (int64_t)number;
}

static double percentile(double part) {
    uint64_t wanted = (uint64_t)((double)answers * part), seen = 0;
    for (size_t us = 0; us < HISTOGRAM; us++) {
        seen += histogram[us];
        if (seen > wanted)
            return (double)us;
    }
    return (double)HISTOGRAM;
}

static double cpu_seconds(void) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return (double)used.ru_utime.tv_sec + (double)used.ru_stime.tv_sec
        + 1e-6 * (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec);
}

static void load_keys(const char *path) {
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        die(path);
    fseek(file, 0, SEEK_END);
    long size = ftell(file);
    rewind(file);
    uint8_t *all = size > 0 ? malloc((size_t)size) : NULL;
    if (all == NULL || size % KEY != 0 || fread(all, 1, (size_t)size, file) != (size_t)size)
        die("the key file is not a row of 32-octet keys");
    fclose(file);
    keys = all;
    key_count = (size_t)size / KEY;
}

int main(int argc, char **argv) {
    if (argc != 8) {
        fprintf(stderr, "usage: loadgen HOST PORT KEYFILE IN_FLIGHT WARMUP SECONDS DOMAIN\n");
        return 2;
    }
    int in_flight = atoi(argv[4]);
    double warmup = atof(argv[5]), seconds = atof(argv[6]);
    if (in_flight < 1 || in_flight > MAX_IN_FLIGHT || seconds <= 0 || strlen(argv[7]) > 255) {
        fprintf(stderr, "loadgen: an argument is out of range\n");
        return 2;
    }
    load_keys(argv[3]);
    make_template(argv[7]);
    histogram = calloc(HISTOGRAM, sizeof *histogram);
    uint8_t *in = malloc(BUFFER), *out = malloc((size_t)MAX_IN_FLIGHT * template_length);
    if (histogram == NULL || in == NULL || out == NULL)
        die("no memory");

    stage = "connecting";
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[2]))};
    if (fd < 0 || inet_pton(AF_INET, argv[1], &address.sin_addr) != 1)
        die("not an IPv4 address");
    if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0)
        die("cannot connect");
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    shake_hands(fd);

    stage = "asking";
    size_t pending = 0;
    for (int number = 0; number < in_flight; number++)
        pending += put_question(out + pending, (uint32_t)number);
    send_all(fd, out, pending);

    uint64_t begin = now_ns() + (uint64_t)(warmup * 1e9), end = begin + (uint64_t)(seconds * 1e9);
    uint64_t counted_from = 0;
    double cpu_before = 0;
    const uint8_t *frames[REPLY_FRAMES];
    size_t lengths[REPLY_FRAMES], have = 0;
    for (;;) {
        have += receive(fd, in + have, BUFFER - have);
        uint64_t at = now_ns();
        if (!counting && at >= begin) {
            counting = 1;
            counted_from = at;
            cpu_before = cpu_seconds();
        }
        if (at >= end) {
            end = at;
            break;
        }
        size_t start = 0, cursor = 0; /* start: where the unfinished message begins */
        int count = 0;
        pending = 0;
        while (have - cursor >= 2) {
            uint8_t flags = in[cursor];
            size_t head = flags & LONG ? 9 : 2, length = in[cursor + 1];
            if (flags & LONG) {
                if (have - cursor < 9)
                    break;
                length = 0;
                for (int i = 1; i <= 8; i++)
                    length = length << 8 | in[cursor + i];
            }
            if (length > BUFFER / 2) {
                errno = 0;
                die("a frame of the server is too long");
            }
            if (have - cursor - head < length)
                break;
            const uint8_t *body = in + cursor + head;
            cursor += head + length;
            if (flags & COMMAND) {
                /* PING (RFC 37): its context comes back in a PONG. Commands stand between frames, too. */
                if (length >= 7 && length <= 23 && memcmp(body, "\x04PING", 5) == 0) {
                    uint8_t pong[32] = {COMMAND, (uint8_t)(length - 2), 4, 'P', 'O', 'N', 'G'};
                    memcpy(pong + 7, body + 7, length - 7);
                    send_all(fd, pong, 2 + (length - 2));
                }
                if (count == 0)
                    start = cursor;
                continue;
            }
            if (count < REPLY_FRAMES) {
                frames[count] = body;
                lengths[count] = length;
            }
            count++;
            if (!(flags & MORE)) {
                int64_t number = take_reply(frames, lengths, count, at, in_flight);
                if (number >= 0)
                    pending += put_question(out + pending, (uint32_t)number);
                count = 0;
                start = cursor;
            }
        }
        memmove(in, in + start, have - start);
        have -= start;
        if (have == BUFFER) {
            errno = 0;
            die("a message of the server is too long");
        }
        if (pending > 0)
            send_all(fd, out, pending);
    }

    double took = counting ? 1e-9 * (double)(end - counted_from) : 0;
    if (answers == 0 || took <= 0) {
        fprintf(stderr, "loadgen: no answers\n");
        return 2;
    }
    uint64_t wrong = answers - by_status[2];
    printf("{\"answers\": %llu, \"seconds\": %.6f, \"rate\": %.1f, \"granted\": %llu, \"deferred\": %llu, "
           "\"refused\": %llu, \"failed\": %llu, \"unreadable\": %llu, \"strange\": %llu, "
           "\"p50_us\": %.0f, \"p90_us\": %.0f, \"p99_us\": %.0f, \"p999_us\": %.0f, \"cpu\": %.3f}\n",
           (unsigned long long)answers, took, (double)answers / took, (unsigned long long)by_status[2],
           (unsigned long long)by_status[3], (unsigned long long)by_status[4], (unsigned long long)by_status[5],
           (unsigned long long)by_status[0], (unsigned long long)strange, percentile(0.5), percentile(0.9),
           percentile(0.99), percentile(0.999), (cpu_seconds() - cpu_before) / took);
    return wrong > 0 || strange > 0;
}
