/* The client's side of ZMTP 3 on a bare socket: greeting, NULL, PLAIN and CURVE (RFC 23, 24, 26).
 *
 * Leaner than any library, so that the server is what is measured. Nothing here dies of what a server does: who
 * calls is told, and decides.
 */

#ifndef BENCH_ZMTP_H
#define BENCH_ZMTP_H

#include "common.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sodium.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    MORE = 1, LONG = 2, COMMAND = 4,
    GREETING = 64,
    KEY = 32,
    HELLO = 200, WELCOME = 168,
    SEALED = 33, /* what MESSAGE adds to a payload: name, nonce, MAC, flags */
    PATIENCE_MS = 10000
};

enum outcome { DONE, CLOSED, SILENT, REFUSED, STRANGE };

/* A key pair made for one connection, and what can be worked out about it before that connection is there. */
struct short_term {
    uint8_t public[KEY], secret[KEY], with_server[crypto_box_BEFORENMBYTES];
    uint8_t hello[2 + HELLO];
};

struct credentials {
    enum { NULL_, PLAIN, CURVE } mechanism;
    const char *user, *password;                 /* PLAIN */
    uint8_t public[KEY], secret[KEY], server[KEY]; /* CURVE: c and S */
};

/* What seals and opens messages once a CURVE handshake is over. */
struct cipher {
    uint8_t key[crypto_box_BEFORENMBYTES];
    uint64_t sent;
};

static const char READY_METADATA[] = "\x0BSocket-Type\0\0\0\x06" "DEALER" "\x08Identity\0\0\0\0";
enum { METADATA = sizeof READY_METADATA - 1 };

static inline int send_all(int fd, const uint8_t *data, size_t length) {
    while (length > 0) {
        ssize_t sent = send(fd, data, length, MSG_NOSIGNAL);
        if (sent < 0) {
            if (errno == EINTR)
                continue;
            return -1;
        }
        data += sent;
        length -= (size_t)sent;
    }
    return 0;
}

/* As SO_RCVTIMEO has it: a socket that is to be patient needs that option. */
static inline enum outcome receive_exactly(int fd, uint8_t *data, size_t length) {
    while (length > 0) {
        ssize_t got = recv(fd, data, length, 0);
        if (got == 0)
            return CLOSED;
        if (got < 0) {
            if (errno == EINTR)
                continue;
            return errno == EAGAIN || errno == EWOULDBLOCK ? SILENT : CLOSED;
        }
        data += got;
        length -= (size_t)got;
    }
    return DONE;
}

static inline int open_socket(const struct sockaddr_in *server, const struct sockaddr_in *source) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    int one = 1;
    struct timeval patience = {PATIENCE_MS / 1000, 0};
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (source != NULL) {
        setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
        if (bind(fd, (const struct sockaddr *)source, sizeof *source) != 0) {
            close(fd);
            return -1;
        }
    }
    if (connect(fd, (const struct sockaddr *)server, sizeof *server) != 0 && errno != EINPROGRESS) {
        close(fd);
        return -1;
    }
    return fd;
}

static inline struct sockaddr_in loopback(const char *port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

/* --- the handshake ------------------------------------------------------------------------------------ */

static inline void make_greeting(uint8_t greeting[GREETING], int mechanism) {
    static const char *names[] = {"NULL", "PLAIN", "CURVE"};
    memset(greeting, 0, GREETING);
    greeting[0] = 0xFF;
    greeting[9] = 0x7F;
    greeting[10] = 3;
    memcpy(greeting + 12, names[mechanism], strlen(names[mechanism]));
}

/* The next command's body; its length, or -1 with `why`. */
static inline int receive_command(int fd, uint8_t *body, size_t room, enum outcome *why) {
    uint8_t head[9];
    if ((*why = receive_exactly(fd, head, 2)) != DONE)
        return -1;
    size_t length = head[1];
    if (head[0] & LONG) {
        if ((*why = receive_exactly(fd, head + 2, 7)) != DONE)
            return -1;
        length = 0;
        for (int i = 1; i <= 8; i++)
            length = length << 8 | head[i];
    }
    *why = STRANGE;
    if (!(head[0] & COMMAND) || length > room)
        return -1;
    if ((*why = receive_exactly(fd, body, length)) != DONE)
        return -1;
    if (length >= 6 && memcmp(body, "\x05" "ERROR", 6) == 0) {
        *why = REFUSED;
        return -1;
    }
    return (int)length;
}

static inline void short_nonce(uint8_t nonce[24], const char *prefix, uint64_t number) {
    memcpy(nonce, prefix, 16);
    for (int i = 0; i < 8; i++)
        nonce[16 + i] = (uint8_t)(number >> (56 - 8 * i));
}

static inline void make_short_term(struct short_term *mine, const uint8_t server[KEY]) {
    uint8_t nonce[24], zeros[64] = {0};
    crypto_box_keypair(mine->public, mine->secret);
    if (crypto_box_beforenm(mine->with_server, server, mine->secret) != 0)
        die_of("the server's key is no key");
    memset(mine->hello, 0, sizeof mine->hello);
    mine->hello[0] = COMMAND;
    mine->hello[1] = HELLO;
    uint8_t *body = mine->hello + 2;
    memcpy(body, "\x05HELLO\x01\x00", 8);
    memcpy(body + 80, mine->public, KEY);
    short_nonce(nonce, "CurveZMQHELLO---", 1);
    memcpy(body + 112, nonce + 16, 8);
    crypto_box_easy_afternm(body + 120, zeros, sizeof zeros, nonce, mine->with_server);
}

static inline enum outcome shake_curve(
    int fd, const struct credentials *who, const struct short_term *mine, struct cipher *cipher) {
    uint8_t body[1024], nonce[24], opened[128];
    enum outcome why;
    if (send_all(fd, mine->hello, sizeof mine->hello) != 0)
        return CLOSED;
    int length = receive_command(fd, body, sizeof body, &why);
    if (length < 0)
        return why;
    if (length != WELCOME || memcmp(body, "\x07WELCOME", 8) != 0)
        return STRANGE;
    memcpy(nonce, "WELCOME-", 8);
    memcpy(nonce + 8, body + 8, 16);
    if (crypto_box_open_easy_afternm(opened, body + 24, 144, nonce, mine->with_server) != 0)
        return STRANGE;

    uint8_t initiate[9 + 512] = {COMMAND | LONG}, *at = initiate + 9;
    memcpy(at, "\x08INITIATE", 9);
    memcpy(at + 9, opened + KEY, 96); /* the cookie */
    uint8_t content[KEY + 96 + METADATA], vouched[2 * KEY], vouch_nonce[24];
    memcpy(content, who->public, KEY);
    memcpy(vouch_nonce, "VOUCH---", 8);
    randombytes_buf(vouch_nonce + 8, 16);
    memcpy(content + KEY, vouch_nonce + 8, 16);
    memcpy(vouched, mine->public, KEY);
    memcpy(vouched + KEY, who->server, KEY);
    if (crypto_box_easy(content + KEY + 16, vouched, sizeof vouched, vouch_nonce, opened, who->secret) != 0)
        return STRANGE;
    memcpy(content + KEY + 96, READY_METADATA, METADATA);
    if (crypto_box_beforenm(cipher->key, opened, mine->secret) != 0)
        return STRANGE;
    short_nonce(nonce, "CurveZMQINITIATE", 2);
    memcpy(at + 105, nonce + 16, 8);
    crypto_box_easy_afternm(at + 113, content, sizeof content, nonce, cipher->key);
    size_t size = 113 + sizeof content + 16;
    initiate[7] = (uint8_t)(size >> 8);
    initiate[8] = (uint8_t)size;
    if (send_all(fd, initiate, 9 + size) != 0)
        return CLOSED;
    length = receive_command(fd, body, sizeof body, &why);
    if (length < 0)
        return why;
    uint8_t metadata[1024];
    if (length < 30 || memcmp(body, "\x05READY", 6) != 0)
        return STRANGE;
    memcpy(nonce, "CurveZMQREADY---", 16);
    memcpy(nonce + 16, body + 6, 8);
    if (crypto_box_open_easy_afternm(metadata, body + 14, (size_t)length - 14, nonce, cipher->key) != 0)
        return STRANGE;
    cipher->sent = 2;
    return DONE;
}

static inline enum outcome shake_plain(int fd, const struct credentials *who) {
    uint8_t hello[2 + 6 + 2 * 256] = {COMMAND}, body[1024];
    enum outcome why;
    size_t user = strlen(who->user), password = strlen(who->password), at = 2;
    memcpy(hello + at, "\x05HELLO", 6);
    at += 6;
    hello[at++] = (uint8_t)user;
    memcpy(hello + at, who->user, user);
    at += user;
    hello[at++] = (uint8_t)password;
    memcpy(hello + at, who->password, password);
    at += password;
    hello[1] = (uint8_t)(at - 2);
    if (send_all(fd, hello, at) != 0)
        return CLOSED;
    int length = receive_command(fd, body, sizeof body, &why);
    if (length < 0)
        return why;
    if (length != 8 || memcmp(body, "\x07WELCOME", 8) != 0)
        return STRANGE;
    uint8_t initiate[2 + 9 + METADATA] = {COMMAND, 9 + METADATA};
    memcpy(initiate + 2, "\x08INITIATE", 9);
    memcpy(initiate + 11, READY_METADATA, METADATA);
    if (send_all(fd, initiate, sizeof initiate) != 0)
        return CLOSED;
    length = receive_command(fd, body, sizeof body, &why);
    return length < 0 ? why : length >= 6 && memcmp(body, "\x05READY", 6) == 0 ? DONE : STRANGE;
}

static inline enum outcome shake_null(int fd) {
    uint8_t ready[2 + 6 + METADATA] = {COMMAND, 6 + METADATA}, body[1024];
    enum outcome why;
    memcpy(ready + 2, "\x05READY", 6);
    memcpy(ready + 8, READY_METADATA, METADATA);
    if (send_all(fd, ready, sizeof ready) != 0)
        return CLOSED;
    int length = receive_command(fd, body, sizeof body, &why);
    return length < 0 ? why : length >= 6 && memcmp(body, "\x05READY", 6) == 0 ? DONE : STRANGE;
}

/* All of it. `mine` and `cipher` are for CURVE. */
static inline enum outcome shake_hands(
    int fd, const struct credentials *who, const struct short_term *mine, struct cipher *cipher) {
    uint8_t greeting[GREETING], theirs[GREETING];
    make_greeting(greeting, who->mechanism);
    if (send_all(fd, greeting, sizeof greeting) != 0)
        return CLOSED;
    enum outcome why = receive_exactly(fd, theirs, sizeof theirs);
    if (why != DONE)
        return why;
    if (theirs[0] != 0xFF || theirs[10] < 3 || memcmp(theirs + 12, greeting + 12, 20) != 0)
        return STRANGE;
    switch (who->mechanism) {
    case CURVE:
        return shake_curve(fd, who, mine, cipher);
    case PLAIN:
        return shake_plain(fd, who);
    default:
        return shake_null(fd);
    }
}

/* --- frames ------------------------------------------------------------------------------------------- */

static inline size_t put_frame(uint8_t *out, int more, const void *body, size_t length) {
    out[0] = more ? MORE : 0;
    out[1] = (uint8_t)length;
    memcpy(out + 2, body, length);
    return 2 + length;
}

/* One frame as a MESSAGE (RFC 26); at most 200 octets. */
static inline size_t put_sealed(uint8_t *out, struct cipher *cipher, int more, const uint8_t *body, size_t length) {
    uint8_t nonce[24], content[256];
    out[0] = 0;
    out[1] = (uint8_t)(length + SEALED);
    memcpy(out + 2, "\x07MESSAGE", 8);
    short_nonce(nonce, "CurveZMQMESSAGEC", ++cipher->sent);
    memcpy(out + 10, nonce + 16, 8);
    content[0] = more ? 1 : 0;
    memcpy(content + 1, body, length);
    crypto_box_easy_afternm(out + 18, content, length + 1, nonce, cipher->key);
    return 2 + SEALED + length;
}

/* What a MESSAGE holds: its flags and then the frame, `length` octets with the flags. 0 when it does not open. */
static inline size_t open_sealed(uint8_t *out, const struct cipher *cipher, const uint8_t *body, size_t length) {
    uint8_t nonce[24];
    if (length < SEALED || memcmp(body, "\x07MESSAGE", 8) != 0)
        return 0;
    memcpy(nonce, "CurveZMQMESSAGES", 16);
    memcpy(nonce + 16, body + 8, 8);
    if (crypto_box_open_easy_afternm(out, body + 16, length - 16, nonce, cipher->key) != 0)
        return 0;
    return length - 32;
}

/* A CURVE client's file: c public, c secret, S; 32 octets each. Several clients stand one behind the other. */
static inline size_t read_clients(const char *path, struct credentials **all) {
    size_t length;
    uint8_t *data = read_file(path, &length);
    size_t count = length / (3 * KEY);
    if (count == 0 || length % (3 * KEY) != 0)
        die_of("the file of CURVE clients is empty or broken");
    *all = calloc(count, sizeof **all);
    if (*all == NULL)
        die("no memory");
    for (size_t i = 0; i < count; i++) {
        (*all)[i].mechanism = CURVE;
        memcpy((*all)[i].public, data + 3 * KEY * i, KEY);
        memcpy((*all)[i].secret, data + 3 * KEY * i + KEY, KEY);
        memcpy((*all)[i].server, data + 3 * KEY * i + 2 * KEY, KEY);
    }
    free(data);
    return count;
}

/* PLAIN's file: a line "name password" for each. */
static inline size_t read_users(const char *path, struct credentials **all) {
    size_t length, count = 0;
    char *text = (char *)read_file(path, &length);
    *all = calloc(length / 4 + 1, sizeof **all);
    if (*all == NULL)
        die("no memory");
    for (char *save = NULL, *line = strtok_r(text, "\n", &save); line != NULL; line = strtok_r(NULL, "\n", &save)) {
        char *space = strchr(line, ' ');
        if (space == NULL || space - line > 100 || strlen(space) > 100)
            die_of("the file of PLAIN users is broken");
        *space = 0;
        (*all)[count].mechanism = PLAIN;
        (*all)[count].user = line;
        (*all)[count].password = space + 1;
        count++;
    }
    if (count == 0)
        die_of("there are no PLAIN users");
    return count;
}

#endif
