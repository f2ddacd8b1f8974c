/* A blind answerer on libzmq in C: 200 to everything, asking nobody. What libzmq itself can carry.
 *
 *     peer_router ENDPOINT [KEYFILE]
 *
 * With KEYFILE (the server's key pair: public and secret, 32 octets each) the link is CURVE, and any client is let in.
 */

#include <stdio.h>
#include <string.h>
#include <zmq.h>

static int failed(const char *what) {
    fprintf(stderr, "peer_router: %s: %s\n", what, zmq_strerror(zmq_errno()));
    return 1;
}

int main(int argc, char **argv) {
    if (argc < 2)
        return 2;
    void *context = zmq_ctx_new();
    void *router = zmq_socket(context, ZMQ_ROUTER);
    int no_limit = 0;
    zmq_setsockopt(router, ZMQ_SNDHWM, &no_limit, sizeof no_limit);
    zmq_setsockopt(router, ZMQ_RCVHWM, &no_limit, sizeof no_limit);
    if (argc > 2) {
        unsigned char pair[64];
        int one = 1;
        FILE *file = fopen(argv[2], "rb");
        if (file == NULL || fread(pair, 1, sizeof pair, file) != sizeof pair)
            return failed("read the key pair");
        fclose(file);
        zmq_setsockopt(router, ZMQ_CURVE_SERVER, &one, sizeof one);
        if (zmq_setsockopt(router, ZMQ_CURVE_SECRETKEY, pair + 32, 32) != 0)
            return failed("set the key");
    }
    if (zmq_bind(router, argv[1]) != 0)
        return failed("bind");
    for (;;) {
        /* The envelope, delimiter included, goes back as it came; of the rest only the request's id does. */
        int behind = 0, more = 1;
        while (more) {
            zmq_msg_t frame;
            zmq_msg_init(&frame);
            if (zmq_msg_recv(&frame, router, 0) < 0)
                return failed("recv");
            more = zmq_msg_more(&frame);
            size_t length = zmq_msg_size(&frame);
            if (behind == 0) {
                if (length == 0)
                    behind = 1;
                zmq_msg_send(&frame, router, ZMQ_SNDMORE);
                continue;
            }
            if (behind == 1)
                zmq_send(router, "1.0", 3, ZMQ_SNDMORE);
            if (behind == 2)
                zmq_msg_send(&frame, router, ZMQ_SNDMORE);
            else
                zmq_msg_close(&frame);
            behind++;
        }
        zmq_send(router, "200", 3, ZMQ_SNDMORE);
        zmq_send(router, "OK", 2, ZMQ_SNDMORE);
        zmq_send(router, "somebody", 8, ZMQ_SNDMORE);
        zmq_send(router, "", 0, 0);
    }
}
