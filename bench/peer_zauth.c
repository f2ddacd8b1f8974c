/* czmq's zauth, reached over tcp: what a fleet without zapd can put in one place.
 *
 *     peer_zauth ENDPOINT
 *
 * The actor binds inproc://zeromq.zap.01 and admits any CURVE key (its cheapest rule); RFC 27's proxy carries
 * questions from a ROUTER on tcp to it. (With a folder of certificates it would only be slower.)
 */

#include <czmq.h>

int main(int argc, char **argv) {
    if (argc != 2)
        return 2;
    zsys_set_sndhwm(0);
    zsys_set_rcvhwm(0);
    zactor_t *auth = zactor_new(zauth, NULL);
    if (auth == NULL)
        return 1;
    zstr_sendx(auth, "CURVE", CURVE_ALLOW_ANY, NULL);
    zsock_wait(auth);
    zsock_t *front = zsock_new_router(argv[1]);
    zsock_t *back = zsock_new_dealer(">inproc://zeromq.zap.01");
    if (front == NULL || back == NULL) {
        fprintf(stderr, "peer_zauth: cannot bind %s\n", argv[1]);
        return 1;
    }
    zmq_proxy(zsock_resolve(front), zsock_resolve(back), NULL);
    zsock_destroy(&front);
    zsock_destroy(&back);
    zactor_destroy(&auth);
    return 0;
}
