/* The load: ZMTP connections that keep ZAP questions under way and count the answers.
 *
 *     loadgen [OPTION]… PORT CREDENTIALS
 *
 *     --connections N   (1)          --in-flight N   together (128)
 *     --warmup S  --seconds S        what is counted, after a warm-up (0.5, 3)
 *     --domain D  --address A        asked about and from; each may be repeated, then any is drawn (default, 127.0.0.1)
 *     --plain                        CREDENTIALS holds lines "name password"; else public keys of 32 octets
 *     --curve FILE                   CURVE on the link, as the client in FILE; else NULL
 *     --rate R                       so many questions a second at random moments (Poisson), whatever the server does;
 *                                    latencies count from the moment a question was due. Else the next is asked when
 *                                    one was answered.
 *
 * It speaks ZMTP itself as a DEALER, on bare sockets, so that it outruns every server it is put against: a question
 * is a template with an id and a key copied in, an answer is looked at where it lies. Each question brings 16 octets
 * of id, as zapd's agent does, and credentials drawn at random. Every answer must come back on its connection under
 * an open id; its status is counted.
 *
 * One line of JSON on standard output; exit status 1 when an answer was wrong, 2 when it could not run.
 * It knows nothing about the server but its port.
 */

#define _GNU_SOURCE
#include "zmtp.h"
#include <getopt.h>
#include <math.h>
#include <sys/prctl.h>

enum {
    ID = 16,
    REPLY_FRAMES = 8,
    MAX_IN_FLIGHT = 65536,
    MAX_CONNECTIONS = 64,
    MAX_NAMES = 32,
    PARTS = 9,
    BUFFER = 1 << 20,
    SCRATCH = 1 << 16
};

/* --- the questions ---------------------------------------------------------------------------------- */

struct part {
    uint8_t body[256];
    size_t length;
};

/* A question about one domain from one address: all parts but id and credentials, and the same as octets. */
struct template {
    struct part parts[PARTS];
    uint8_t octets[512];
    size_t length, credentials_at;
};

struct slot {
    uint64_t serial; /* the second half of the id: no two questions share it. 0: free */
    uint64_t since;
    uint32_t connection;
};

struct connection {
    int fd;
    struct cipher cipher;
    uint8_t *in, *out, *scratch;
    size_t have, pending;
};

static struct template templates[MAX_NAMES * MAX_NAMES];
static size_t template_count;
static struct slot slots[MAX_IN_FLIGHT];
static uint32_t free_slots[MAX_IN_FLIGHT];
static size_t free_count;
static struct connection connections[MAX_CONNECTIONS];
static int connection_count = 1, in_flight = 128, sealed;
static const uint8_t *keys;
static struct credentials *users;
static size_t credential_count;
static struct latencies latencies;
static uint64_t chance = 0x9E3779B97F4A7C15u, serial, answers, by_status[6], strange;
static int counting;

static void make_template(struct template *one, const char *domain, const char *address) {
    const struct { const char *body; size_t length; } parts[PARTS - 1] = {
        {"0123456789abcdef", ID}, {"", 0}, {"1.0", 3}, {"1", 1}, {domain, strlen(domain)},
        {address, strlen(address)}, {"", 0}, {users ? "PLAIN" : "CURVE", 5},
    };
    for (int i = 0; i < PARTS - 1; i++) {
        if (parts[i].length > 100)
            die_of("a name is too long");
        memcpy(one->parts[i].body, parts[i].body, parts[i].length);
        one->parts[i].length = parts[i].length;
        one->length += put_frame(one->octets + one->length, 1, parts[i].body, parts[i].length);
    }
    one->credentials_at = one->length;
}

static size_t put_question(struct connection *to, uint32_t number, uint64_t since) {
    uint8_t *out = to->out + to->pending, *start = out, id[ID];
    const struct template *one = &templates[template_count > 1 ? next_random(&chance) % template_count : 0];
    slots[number] = (struct slot){++serial, since, (uint32_t)(to - connections)};
    memcpy(id, &number, 4);
    memcpy(id + 4, "zapd", 4);
    memcpy(id + 8, &serial, 8);
    size_t which = next_random(&chance) % credential_count;
    if (sealed) {
        out += put_sealed(out, &to->cipher, 1, id, ID);
        for (int i = 1; i < PARTS - 1; i++)
            out += put_sealed(out, &to->cipher, 1, one->parts[i].body, one->parts[i].length);
        out += put_sealed(out, &to->cipher, 0, keys + which * KEY, KEY);
        return (size_t)(out - start);
    }
    memcpy(out, one->octets, one->length);
    memcpy(out + 2, id, ID);
    out += one->credentials_at;
    if (users) {
        out += put_frame(out, 1, users[which].user, strlen(users[which].user));
        out += put_frame(out, 0, users[which].password, strlen(users[which].password));
    } else {
        out += put_frame(out, 0, keys + which * KEY, KEY);
    }
    return (size_t)(out - start);
}

static void flush(struct connection *to) {
    if (to->pending > 0 && send_all(to->fd, to->out, to->pending) != 0)
        die("send failed");
    to->pending = 0;
}

static void ask(struct connection *to, uint32_t number, uint64_t since) {
    if (to->pending > BUFFER - 2048)
        flush(to);
    to->pending += put_question(to, number, since);
}

/* --- the answers ------------------------------------------------------------------------------------ */

/* One whole reply, its frames in place. Returns the slot that is free again, or -1. */
static int64_t take_reply(
    const struct connection *from, const uint8_t *const *frames, const size_t *lengths, int count, uint64_t at) {
    uint32_t number;
    uint64_t its_serial;
    if (count != REPLY_FRAMES || lengths[0] != ID || lengths[1] != 0) {
        strange++;
        return -1;
    }
    memcpy(&number, frames[0], 4);
    memcpy(&its_serial, frames[0] + 8, 8);
    if (number >= (uint32_t)in_flight || slots[number].serial != its_serial || its_serial == 0
        || slots[number].connection != (uint32_t)(from - connections)) {
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
        add_latency(&latencies, at - slots[number].since);
    } else if (status != 2) {
        strange++; /* wrong is wrong during the warm-up, too */
    }
    slots[number].serial = 0;
    return (int64_t)number;
}

/* PING (RFC 37): its context comes back in a PONG. Commands stand between frames, too. */
static void take_command(struct connection *from, const uint8_t *body, size_t length) {
    uint8_t pong[32] = {4, 'P', 'O', 'N', 'G'};
    if (length < 7 || length > 23 || memcmp(body, "\x04PING", 5) != 0)
        return;
    memcpy(pong + 5, body + 7, length - 7);
    flush(from);
    if (sealed) {
        die_of("a PING on a CURVE link is not answered here: turn heartbeats off");
    }
    from->out[0] = COMMAND;
    from->out[1] = (uint8_t)(length - 2);
    memcpy(from->out + 2, pong, length - 2);
    from->pending = length;
    flush(from);
}

/* Everything that has arrived; `again(number)` for each slot that became free. */
static void take_replies(struct connection *from, uint64_t at, int closed_loop) {
    const uint8_t *frames[REPLY_FRAMES];
    size_t lengths[REPLY_FRAMES], start = 0, cursor = 0, opened = 0; /* start: where the unfinished message begins */
    int count = 0;
    uint8_t *in = from->in;
    struct cipher cipher = from->cipher;
    while (from->have - cursor >= 2) {
        uint8_t flags = in[cursor];
        size_t head = flags & LONG ? 9 : 2, length = in[cursor + 1];
        if (flags & LONG) {
            if (from->have - cursor < 9)
                break;
            length = 0;
            for (int i = 1; i <= 8; i++)
                length = length << 8 | in[cursor + i];
        }
        if (length > BUFFER / 2)
            die_of("a frame of the server is too long");
        if (from->have - cursor - head < length)
            break;
        const uint8_t *body = in + cursor + head;
        cursor += head + length;
        if (flags & COMMAND) {
            take_command(from, body, length);
            if (count == 0)
                start = cursor;
            continue;
        }
        if (sealed) {
            if (opened + length > SCRATCH)
                die_of("a message of the server is too long");
            size_t inside = open_sealed(from->scratch + opened, &cipher, body, length);
            if (inside == 0)
                die_of("a MESSAGE of the server does not open");
            flags = from->scratch[opened] & 1 ? MORE : 0;
            body = from->scratch + opened + 1;
            opened += inside;
            length = inside - 1;
        }
        if (count < REPLY_FRAMES) {
            frames[count] = body;
            lengths[count] = length;
        }
        count++;
        if (!(flags & MORE)) {
            int64_t number = take_reply(from, frames, lengths, count, at);
            if (number >= 0 && closed_loop)
                ask(from, (uint32_t)number, now_ns());
            else if (number >= 0)
                free_slots[free_count++] = (uint32_t)number;
            count = 0;
            start = cursor;
            opened = 0;
        }
    }
    memmove(in, in + start, from->have - start);
    from->have -= start;
    if (from->have == BUFFER)
        die_of("a message of the server is too long");
    flush(from);
}

/* --- time --------------------------------------------------------------------------------------------- */

/* Wait until something can be read, at most so long; then read it. */
static void receive(uint64_t wait_ns, int closed_loop) {
    static uint64_t heard_at;
    struct pollfd watched[MAX_CONNECTIONS];
    for (int i = 0; i < connection_count; i++)
        watched[i] = (struct pollfd){connections[i].fd, POLLIN, 0};
    struct timespec wait = {(time_t)(wait_ns / 1000000000u), (long)(wait_ns % 1000000000u)};
    int ready = ppoll(watched, (nfds_t)connection_count, &wait, NULL);
    if (heard_at == 0 || ready > 0)
        heard_at = now_ns();
    else if (now_ns() - heard_at > PATIENCE_MS * 1000000ull)
        die_of("the server is silent");
    for (int i = 0; i < connection_count && ready > 0; i++) {
        struct connection *from = &connections[i];
        if (watched[i].revents == 0)
            continue;
        ssize_t got = recv(from->fd, from->in + from->have, BUFFER - from->have, 0);
        if (got == 0)
            die_of("the server closed the connection");
        if (got < 0 && errno != EINTR && errno != EAGAIN)
            die("recv failed");
        if (got > 0) {
            from->have += (size_t)got;
            take_replies(from, now_ns(), closed_loop);
        }
    }
}

static uint64_t gap(double rate) {
    double uniform = ((double)(next_random(&chance) >> 11) + 1) / 9007199254740993.0;
    return (uint64_t)(-log(uniform) * 1e9 / rate);
}

int main(int argc, char **argv) {
    program = "loadgen";
    const char *domains[MAX_NAMES] = {"default"}, *addresses[MAX_NAMES] = {"127.0.0.1"}, *curve = NULL;
    size_t domain_count = 0, address_count = 0;
    double warmup = 0.5, seconds = 3, rate = 0;
    int plain = 0, option;
    static const struct option options[] = {
        {"connections", 1, NULL, 'c'}, {"in-flight", 1, NULL, 'f'}, {"warmup", 1, NULL, 'w'},
        {"seconds", 1, NULL, 's'}, {"domain", 1, NULL, 'd'}, {"address", 1, NULL, 'a'}, {"plain", 0, NULL, 'p'},
        {"curve", 1, NULL, 'k'}, {"rate", 1, NULL, 'r'}, {NULL, 0, NULL, 0},
    };
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 'c': connection_count = atoi(optarg); break;
        case 'f': in_flight = atoi(optarg); break;
        case 'w': warmup = atof(optarg); break;
        case 's': seconds = atof(optarg); break;
        case 'd': if (domain_count < MAX_NAMES) domains[domain_count++] = optarg; break;
        case 'a': if (address_count < MAX_NAMES) addresses[address_count++] = optarg; break;
        case 'p': plain = 1; break;
        case 'k': curve = optarg; break;
        case 'r': rate = atof(optarg); break;
        default: return 2;
        }
    }
    if (argc - optind != 2 || connection_count < 1 || connection_count > MAX_CONNECTIONS
        || in_flight < connection_count || in_flight > MAX_IN_FLIGHT || (plain && curve)) {
        fprintf(stderr, "usage: loadgen [OPTION]... PORT CREDENTIALS; see its source\n");
        return 2;
    }
    if (sodium_init() < 0)
        die_of("libsodium does not start");
    stage = "reading the credentials";
    if (plain) {
        credential_count = read_users(argv[optind + 1], &users);
    } else {
        size_t length;
        keys = read_file(argv[optind + 1], &length);
        credential_count = length / KEY;
    }
    if (credential_count == 0)
        die_of("there are none");
    for (size_t d = 0; d < (domain_count ? domain_count : 1); d++)
        for (size_t a = 0; a < (address_count ? address_count : 1); a++)
            make_template(&templates[template_count++], domains[d], addresses[a]);
    open_latencies(&latencies);

    stage = "connecting";
    struct credentials nobody = {.mechanism = NULL_}, *who = &nobody;
    if (curve != NULL) {
        read_clients(curve, &who);
        sealed = 1;
    }
    struct sockaddr_in server = loopback(argv[optind]);
    for (int i = 0; i < connection_count; i++) {
        struct connection *one = &connections[i];
        struct short_term mine;
        if (sealed)
            make_short_term(&mine, who->server);
        if ((one->fd = open_socket(&server, NULL)) < 0)
            die("cannot connect");
        enum outcome outcome = shake_hands(one->fd, who, &mine, &one->cipher);
        if (outcome != DONE) {
            fprintf(stderr, "loadgen: the server does not let us in (%d)\n", outcome);
            return 2;
        }
        one->in = malloc(BUFFER);
        one->out = malloc(BUFFER);
        one->scratch = malloc(SCRATCH);
        if (one->in == NULL || one->out == NULL || one->scratch == NULL)
            die("no memory");
    }
    prctl(PR_SET_TIMERSLACK, 1UL); /* ns: else the kernel lets a paced question wait for 50 us more */

    stage = "asking";
    uint64_t start = now_ns(), begin = start + (uint64_t)(warmup * 1e9), end = begin + (uint64_t)(seconds * 1e9);
    uint64_t counted_from = 0, due = start, at;
    double cpu_before = 0;
    if (rate > 0) {
        for (int number = in_flight - 1; number >= 0; number--)
            free_slots[free_count++] = (uint32_t)number;
    } else {
        for (int number = 0; number < in_flight; number++)
            ask(&connections[number % connection_count], (uint32_t)number, now_ns());
        for (int i = 0; i < connection_count; i++)
            flush(&connections[i]);
    }
    while ((at = now_ns()) < end) {
        if (!counting && at >= begin) {
            counting = 1;
            counted_from = at;
            cpu_before = cpu_seconds();
        }
        uint64_t wait = PATIENCE_MS * 1000000ull;
        if (rate > 0) {
            while (due <= at && free_count > 0) {
                ask(&connections[serial % (uint64_t)connection_count], free_slots[--free_count], due);
                due += gap(rate);
            }
            for (int i = 0; i < connection_count; i++)
                flush(&connections[i]);
            at = now_ns();
            if (free_count > 0)
                wait = due > at ? due - at : 0;
        }
        receive(wait < end - at ? wait : at < end ? end - at : 0, rate == 0);
    }

    double took = counting ? 1e-9 * (double)(at - counted_from) : 0;
    if (answers == 0 || took <= 0) {
        fprintf(stderr, "loadgen: no answers\n");
        return 2;
    }
    uint64_t wrong = answers - by_status[2];
    printf("{\"answers\": %llu, \"seconds\": %.6f, \"rate\": %.1f, \"granted\": %llu, \"deferred\": %llu, "
           "\"refused\": %llu, \"failed\": %llu, \"unreadable\": %llu, \"strange\": %llu, ",
           (unsigned long long)answers, took, (double)answers / took, (unsigned long long)by_status[2],
           (unsigned long long)by_status[3], (unsigned long long)by_status[4], (unsigned long long)by_status[5],
           (unsigned long long)by_status[0], (unsigned long long)strange);
    print_latencies(&latencies);
    printf(", \"cpu\": %.3f}\n", (cpu_seconds() - cpu_before) / took);
    return wrong > 0 || strange > 0;
}
