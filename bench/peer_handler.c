/* What an application does without zapd: a libzmq server, and a ZAP handler in C in the same process.
 *
 *     peer_handler ENDPOINT null|plain|curve [KEYFILE]
 *
 * The handler lets everybody in at once, from no table and with no record: the least that a handler can do. Under
 * CURVE the server's key pair is in KEYFILE: public and secret, 32 octets each.
 */

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <zmq.h>

static int failed(const char *what) {
    fprintf(stderr, "peer_handler: %s: %s\n", what, zmq_strerror(zmq_errno()));
    return 1;
}

static void *handle(void *handler) {
    for (;;) {
        char id[256];
        int length = 0, more = 1;
        for (int number = 0; more; number++) {
            zmq_msg_t frame;
            zmq_msg_init(&frame);
            if (zmq_msg_recv(&frame, handler, 0) < 0)
                return NULL;
            more = zmq_msg_more(&frame);
            if (number == 1 && zmq_msg_size(&frame) <= sizeof id) {
                length = (int)zmq_msg_size(&frame);
                memcpy(id, zmq_msg_data(&frame), (size_t)length);
            }
            zmq_msg_close(&frame);
        }
        zmq_send(handler, "1.0", 3, ZMQ_SNDMORE);
        zmq_send(handler, id, (size_t)length, ZMQ_SNDMORE);
        zmq_send(handler, "200", 3, ZMQ_SNDMORE);
        zmq_send(handler, "OK", 2, ZMQ_SNDMORE);
        zmq_send(handler, "somebody", 8, ZMQ_SNDMORE);
        zmq_send(handler, "", 0, 0);
    }
}

int main(int argc, char **argv) {
    if (argc < 3)
        return 2;
    void *context = zmq_ctx_new();
    void *handler = zmq_socket(context, ZMQ_REP);
    if (zmq_bind(handler, "inproc://zeromq.zap.01") != 0)
        return failed("bind the handler");
    pthread_t thread;
    pthread_create(&thread, NULL, handle, handler);
    void *server = zmq_socket(context, ZMQ_ROUTER);
    int one = 1, backlog = 1024;
    zmq_setsockopt(server, ZMQ_ZAP_DOMAIN, "default", 7);
    zmq_setsockopt(server, ZMQ_BACKLOG, &backlog, sizeof backlog);
    if (strcmp(argv[2], "plain") == 0)
        zmq_setsockopt(server, ZMQ_PLAIN_SERVER, &one, sizeof one);
    if (strcmp(argv[2], "curve") == 0) {
        unsigned char pair[64];
        FILE *file = argc > 3 ? fopen(argv[3], "rb") : NULL;
        if (file == NULL || fread(pair, 1, sizeof pair, file) != sizeof pair)
            return failed("read the key pair");
        fclose(file);
        zmq_setsockopt(server, ZMQ_CURVE_SERVER, &one, sizeof one);
        if (zmq_setsockopt(server, ZMQ_CURVE_SECRETKEY, pair + 32, 32) != 0)
            return failed("set the key");
    }
    if (zmq_bind(server, argv[1]) != 0)
        return failed("bind");
    for (;;) {
        char nothing[64];
        if (zmq_recv(server, nothing, sizeof nothing, 0) < 0 && zmq_errno() != EINTR)
            return failed("recv");
    }
}
